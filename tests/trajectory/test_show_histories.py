"""What is shown of training histories, and what they say of networks whose sharpness is known."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import lossatlas as la
from lossatlas import zoo
from lossatlas.curvature.show import SPECTRUM
from lossatlas.results import chapters
from lossatlas.results.blocks import Answer
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Verdict
from lossatlas.results.uncertainty import with_interval
from lossatlas.results.values import value
from lossatlas.trajectory.show import HISTORY
from lossatlas.trajectory.show.histories import history
from lossatlas.trajectory.show.ranks import claims, sharper_generalises_worse

Pair = tuple[xr.Dataset, xr.Dataset]


def digits(split: str, n: int) -> Any:
    inputs, targets = getattr(zoo.load("digits"), split)
    return inputs[:n], targets[:n]


def trained(seed: int = 0, **options: Any) -> tuple[Any, zoo.History]:
    network = zoo.mlp(64, classes=10, seed=seed)
    options = {"epochs": 2, "batch_size": 50, "seed": seed, "progress": False} | options
    return network, zoo.fit(network, digits("train", 200), **options)


@pytest.fixture(scope="module")
def histories() -> Pair:
    found = [trained(seed, test=digits("test", 100))[1].to_dataset(label) for seed, label in enumerate("AB")]
    return found[0], found[1]


@pytest.fixture(scope="module")
def spectra() -> Pair:
    objectives = [
        la.Objective(trained(seed)[0], F.cross_entropy, digits("test", 100), network=label)
        for seed, label in enumerate("AB")
    ]
    found = [la.spectrum(o, k=1, trend=False, density=False, progress=False) for o in objectives]
    return found[0], found[1]


def panels(figure: Any) -> dict[str, str]:
    """The label of each panel's y axis -> of its x axis."""
    return {axes.get_ylabel(): axes.get_xlabel() for axes in figure.axes}


# Pictures and tables


def test_histories_of_epochs_share_a_figure_and_those_of_steps_alone_have_one_of_steps(histories: Pair):
    record = la.Recorder(zoo.mlp(64, classes=10, seed=0))
    for step in range(3):
        record(step, loss=1.0 / (step + 1))
    catalogue = Catalogue([record.trajectory.history, *histories])
    of_epochs, of_steps = HISTORY.figures(catalogue.of(HISTORY), catalogue)
    assert (len(of_epochs.datasets), len(of_epochs.tables)) == (2, 2)
    assert (len(of_steps.datasets), len(of_steps.tables)) == (1, 0)
    assert panels(of_epochs.pictures[0].figure) == dict.fromkeys(
        ("loss", "accuracy", "gradient norm (mini-batch)"), "epoch"
    )
    assert panels(of_steps.pictures[0].figure) == {"loss": "step"}
    assert "epoch" not in of_steps.pictures[0].caption
    (line,) = (line for line in of_steps.pictures[0].figure.axes[0].lines if len(line.get_xdata()))
    assert line.get_xdata().tolist() == [0, 1, 2]


def test_each_panel_shows_a_quantity_that_was_recorded(histories: Pair):
    bare = histories[0].drop_vars(["gradient_norm", "train_accuracy", "test_accuracy"])
    assert panels(history(bare)) == {"loss": "epoch"}
    silent = la.Recorder(zoo.mlp(64, classes=10, seed=0))
    silent(0)
    assert panels(history(silent.trajectory.history)) == {"loss": "step"}


def test_what_a_recorder_was_told_under_the_names_of_epochs_stays_over_its_steps():
    record = la.Recorder(zoo.mlp(64, classes=10, seed=0))
    record(0, test_loss=0.5)
    record(1, test_loss=0.4)
    assert panels(history(record.trajectory.history)) == {"loss": "step"}
    assert not list(HISTORY.numbers(record.trajectory.history))


def test_a_training_without_test_data_shows_none():
    dataset = trained()[1].to_dataset()
    labels = history(dataset).axes[0].get_legend_handles_labels()[1]
    assert [label.rsplit(", ")[-1] for label in labels] == ["train"]
    names = [number.name for number in HISTORY.numbers(dataset)]
    assert names[:2] == ["training accuracy", "training loss"]
    assert not [name for name in names if "test" in name]


def test_the_table_and_the_numbers_are_those_of_the_dataset(histories: Pair):
    catalogue = Catalogue(histories[:1])
    ((table,),) = (group.tables for group in HISTORY.figures(catalogue.of(HISTORY), catalogue))
    assert table.header == ("epoch", "train loss", "train accuracy", "test loss", "test accuracy")
    assert [row[0] for row in table.rows] == ["1", "2"]
    assert table.rows[-1][3].startswith(f"{float(histories[0]['test_loss'][-1]):.2f}"[:3])
    found = {number.name: number.text for number in HISTORY.numbers(histories[0])}
    assert found["test loss"] == table.rows[-1][3]
    assert found["test accuracy"].startswith(f"{100 * float(histories[0]['test_accuracy'][-1]):.1f} ± ")
    assert found["test accuracy"].endswith(" %")
    difference = float(histories[0]["test_loss"][-1] - histories[0]["train_loss"][-1])
    assert float(found["test loss minus training loss"].split(" ±")[0]) == pytest.approx(difference, abs=0.01)
    assert "gradient norm of a mini-batch, first and last tenth" in found
    assert {number.of for number in HISTORY.numbers(histories[0])} == {"Network A"}


def test_a_number_that_is_missing_has_no_row(histories: Pair):
    gap = histories[0].copy(deep=True)
    gap["test_loss"][-1] = np.nan
    names = [number.name for number in HISTORY.numbers(gap)]
    assert "test accuracy" in names
    assert not {"test loss", "test loss minus training loss"} & {*names}


def test_the_set_up_lists_how_the_networks_were_trained(histories: Pair):
    expected = {"optimiser": "sgd", "batch size": "50", "epochs": "2", "seeds of the training": "0; 1"}
    assert HISTORY.setup(histories) == expected
    record = la.Recorder(zoo.mlp(64, classes=10, seed=0))
    record(0, loss=1.0)
    assert HISTORY.setup([record.trajectory.history]) == {}


def test_the_history_of_a_training_that_can_be_resumed_is_saved_and_read(tmp_path):
    dataset = trained(folder=tmp_path / "run")[1].to_dataset()
    la.save(dataset, tmp_path / "history.nc")
    assert la.load(tmp_path / "history.nc").identical(dataset)


# The order of networks by sharpness and by test results


def found(histories: Any, spectra: Any) -> list[Any]:
    catalogue = Catalogue([*histories, *spectra])
    return [c for c in claims(catalogue.of(HISTORY), catalogue) if "generalises worse" in c.hypothesis]


def test_sharpness_is_compared_with_the_test_loss_and_the_test_error_of_the_same_networks(
    histories: Pair, spectra: Pair
):
    loss, error = found(histories, spectra)
    assert ("test loss" in loss.hypothesis, "test error" in error.hypothesis) == (True, True)
    assert loss.datasets == error.datasets == tuple(d.attrs["id"] for d in Catalogue([*histories, *spectra]))
    sharp = [float(spectrum["eigenvalue"].sel(end="top")[0]) for spectrum in spectra]
    last = [float(history["test_loss"][-1]) for history in histories]
    assert loss.value == pytest.approx(math.copysign(1, (sharp[0] - sharp[1]) * (last[0] - last[1])))


def test_networks_without_a_label_or_a_test_result_or_a_spectrum_on_the_same_data_are_left_out(
    histories: Pair, spectra: Pair
):
    a, b = histories
    unlabelled = b.copy()
    del unlabelled.attrs["network"]
    assert not found([a, unlabelled], spectra)
    assert not found([a, b.assign({name: b[name] * np.nan for name in ("test_loss", "test_accuracy")})], spectra)
    assert not found([a, b.drop_vars(["test_loss", "test_accuracy"])], spectra)
    assert not found(histories, [spectra[0], spectra[1].assign_attrs(data="others")])
    assert len(Catalogue(spectra).of(SPECTRUM)) == 2


@pytest.mark.parametrize("test_loss", [[0.27, 0.28], [0.28, 0.27], [0.27, 0.27]])
def test_two_networks_never_decide_whether_sharper_generalises_worse(test_loss: list[float]):
    claim = sharper_generalises_worse([13.0, 15.6], test_loss)
    assert claim.verdict is Verdict.UNDECIDED
    assert "five networks" in claim.detail
    assert "p = 1," in claim.statistic


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_the_rank_claim_agrees_with_the_permutation_test_on_every_order(n: int):
    sharpness = np.arange(n, dtype=float)
    taus = np.array([stats.kendalltau(sharpness, order).statistic for order in permutations(range(n))])
    for order in list(permutations(range(n)))[:: max(1, len(taus) // 40)]:
        tau = stats.kendalltau(sharpness, order).statistic
        p = (np.abs(taus) >= abs(tau) - 1e-9).mean()
        expected = "undecided" if p > 0.05 else ("supported" if tau > 0 else "contradicted")
        claim = sharper_generalises_worse(sharpness.tolist(), [float(value) for value in order])
        assert claim.verdict == expected
        assert claim.value == pytest.approx(tau, abs=1e-12)
        assert claim.interval[0] - 1e-9 <= tau <= claim.interval[1] + 1e-9


def test_five_networks_in_perfect_order_decide_with_p_2_in_120():
    claim = sharper_generalises_worse([1, 2, 3, 4, 5], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert claim.verdict is Verdict.SUPPORTED
    assert "p = 0.0167" in claim.statistic
    assert sharper_generalises_worse([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]).verdict is Verdict.CONTRADICTED


def test_tied_test_errors_keep_an_exact_test():
    claim = sharper_generalises_worse([1, 2, 3, 4, 5], [0.1, 0.2, 0.2, 0.4, 0.5])
    taus = [stats.kendalltau([1, 2, 3, 4, 5], order).statistic for order in permutations([0.1, 0.2, 0.2, 0.4, 0.5])]
    p = (np.abs(taus) >= abs(claim.value) - 1e-9).mean()
    assert claim.verdict == ("supported" if p <= 0.05 else "undecided")


# What the histories answer


def answers(*datasets: xr.Dataset) -> list[Answer]:
    catalogue = Catalogue(datasets)
    return list(HISTORY.answers(catalogue.of(HISTORY), catalogue))


def test_the_opening_says_who_was_trained_on_what_and_how_well(histories: Pair, spectra: Pair):
    opening = answers(*histories, *spectra)[0]
    assert opening.opening
    accuracy = [f"{100 * float(history['test_accuracy'][-1]):.1f} ± " for history in histories]
    assert opening.short.startswith("Networks A and B (MLP, 910 parameters), trained on 200 training examples")
    assert all(text in opening.short for text in accuracy)
    assert "initialisations" not in opening.short  # nothing of the initial weights was recorded
    (alone, *_) = answers(histories[0])
    assert alone.short.startswith("Network A (MLP, 910 parameters), trained on 200 training examples, reaches a test")
    assert "B" not in alone.sentence


@pytest.mark.parametrize(
    ("weights", "seeds", "words"),
    [
        (("1f", "2e"), (1, 2), "from independent initialisations"),
        (("1f", "2e"), (1, 1), "from different initialisations"),
        (("1f", "1f"), (1, 2), ""),
    ],
)
def test_initialisations_are_called_independent_where_the_weights_and_the_seeds_say_so(
    histories: Pair, weights: tuple[str, str], seeds: tuple[int, int], words: str
):
    told = [
        history.assign_attrs({"initial weights": w, "seed": s})
        for history, w, s in zip(histories, weights, seeds, strict=True)
    ]
    short = answers(*told)[0].short
    assert words in short
    assert ("initialisations" in short) == bool(words)


def test_a_record_without_epochs_is_told_by_its_steps():
    record = la.Recorder(zoo.mlp(64, classes=10, seed=0))
    for step in range(20):
        record(step, loss=2.0 - 0.1 * step)
    (answer,) = answers(record.trajectory.history)
    assert "went from 1.95 to 0.15" in answer.sentence
    assert answer.short.endswith("was recorded over 20 steps.")
    silent = la.Recorder(zoo.mlp(64, classes=10, seed=0))
    silent(0)
    assert len(answers(silent.trajectory.history)) == 1


def test_two_networks_are_said_to_decide_nothing_about_generalisation(histories: Pair, spectra: Pair):
    _, answer = answers(*histories, *spectra)
    assert answer.chapter == chapters.GENERALISATION
    assert "two networks cannot decide" in answer.sentence
    assert answer.claim is not None
    assert answer.claim.verdict is Verdict.UNDECIDED
    for spectrum in spectra:
        assert value(spectrum.sel(end="top"), "eigenvalue", rank=0) in answer.sentence


@pytest.mark.parametrize(("sign", "words"), [(1, "generalise worse here"), (-1, "generalise better here")])
def test_five_networks_in_order_decide_it(histories: Pair, spectra: Pair, sign: int, words: str):
    some = []
    for k, label in enumerate("ABCDE"):
        history, spectrum = (each[0].copy(deep=True).assign_attrs(network=label) for each in (histories, spectra))
        history["test_loss"][-1] = 0.5 + 0.01 * sign * k
        spectrum["eigenvalue"].loc[{"end": "top", "rank": 1}] = 1.0 + k
        some += [history, spectrum]
    opening, answer = answers(*some)
    assert words in answer.sentence
    assert words in answer.short
    assert "(p = 0.017)" in answer.sentence
    for each in (opening, answer):
        assert len(each.short.split()) <= 25


def test_one_network_has_its_gap_with_its_interval_and_nothing_on_its_geometry(histories: Pair):
    a = histories[0]
    _, answer = answers(a)
    (claim,) = claims([a], Catalogue([a]))
    assert answer.claim == claim
    assert claim.value == pytest.approx(float(a["test_loss"][-1] - a["train_loss"][-1]))
    stderr = math.hypot(float(a["test_loss_stderr"][-1]), float(a["train_loss_stderr"][-1]))
    assert claim.interval == pytest.approx((claim.value - 1.96 * stderr, claim.value + 1.96 * stderr), rel=1e-3)
    assert with_interval(claim.value, claim.interval) in answer.sentence
    assert "one network cannot" in answer.sentence
    assert ("not told apart" in answer.sentence) == (claim.verdict is Verdict.UNDECIDED)
    bare = a.drop_vars(["test_loss", "test_accuracy", "test_loss_stderr", "test_accuracy_stderr"])
    assert len(answers(bare)) == 1
    assert not list(claims([bare], Catalogue([bare])))


def test_sharpness_is_drawn_against_each_test_result_at_its_numbers(histories: Pair, spectra: Pair):
    catalogue = Catalogue([*histories, *spectra])
    *_, group = HISTORY.figures(catalogue.of(HISTORY), catalogue)
    assert (group.chapter, len(group.pictures), len(group.tables)) == (chapters.GENERALISATION, 1, 1)
    loss_at_eigenvalue, loss_at_trace, error_at_eigenvalue, _ = group.pictures[0].figure.axes
    for axes, x, y in (
        (loss_at_eigenvalue, lambda s: s["eigenvalue"].sel(end="top")[0], lambda h: h["test_loss"][-1]),
        (loss_at_trace, lambda s: s["trace"], lambda h: h["test_loss"][-1]),
        (
            error_at_eigenvalue,
            lambda s: s["eigenvalue"][0, 0],
            lambda h: 100 - 100 * h["test_accuracy"][-1],
        ),
    ):
        points = axes.containers[0][0].get_xydata()
        np.testing.assert_allclose(points[:, 0], [float(x(spectrum)) for spectrum in spectra])
        np.testing.assert_allclose(points[:, 1], [float(y(history)) for history in histories])
    assert [row[0] for row in group.tables[0].rows] == ["A", "B"]


def test_the_losses_are_a_panel_where_no_trajectory_is(histories: Pair):
    catalogue = Catalogue(histories)
    (panel,) = HISTORY.panels(catalogue.of(HISTORY), catalogue)
    axes = Figure().subplots()
    panel.draw(axes)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), histories[0]["train_loss"])
    assert len(axes.lines) == 4


def test_networks_whose_sharpness_is_not_known_have_their_gaps_side_by_side(histories: Pair):
    opening, answer = answers(*histories)
    gaps = list(claims(histories, Catalogue(histories)))
    assert all(with_interval(claim.value, claim.interval) in answer.sentence for claim in gaps)
    for each in (opening, answer):
        assert len(each.short.split()) <= 25


def test_many_networks_are_told_by_their_range(histories: Pair):
    many = []
    for k, label in enumerate("PQRST"):
        many.append(histories[0].copy(deep=True).assign_attrs(network=label))
        many[-1]["test_loss"][-1] = 0.5 + 0.1 * ((k * 2) % 5)
    opening, answer = answers(*many)
    assert opening.short.startswith("Five networks")
    assert "(network P) to 0.90" in opening.sentence
    assert "(network R)" in opening.sentence
    assert "(network Q)" not in f"{opening.sentence} {answer.sentence}".replace("training loss is", "")
