"""What connectivity answers: sentences with the Datasets' own numbers, whose words agree with the verdict."""

from __future__ import annotations

import re

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from measured import connectivity as measured

from lossatlas.connectivity.show.answers import decisive, on_decisive_data, percentage
from lossatlas.connectivity.show.captions import height
from lossatlas.results.blocks import Answer
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Verdict
from lossatlas.results.discovery import kind_of

KINDS = ("connectivity_plane", "alignment", "connection")


def answers(*datasets: xr.Dataset) -> list[Answer]:
    """Of the kind of the first."""
    catalogue, kind = Catalogue(datasets), kind_of(datasets[0])
    return list(kind.answers(catalogue.of(kind), catalogue))


def with_error(low: float, high: float, path: str = "line", split: str = "train") -> xr.Dataset:
    """A path whose barrier of the error above the mean of the ends has this interval."""
    dataset = measured.barrier(path, split)
    for name, value in (("height_error", (low + high) / 2), ("height_error_low", low), ("height_error_high", high)):
        dataset[name].loc[{"definition": "frankle"}] = value
    return dataset


def others() -> list[xr.Dataset]:
    return [*(measured.results()[name] for name in KINDS), measured.repair(), measured.instability()]


@pytest.mark.parametrize(
    "made",
    [
        lambda: answers(*measured.barriers()),
        lambda: answers(*(each.assign_attrs(network="A and B") for each in measured.barriers())),
        lambda: answers(measured.barrier()),
        lambda: answers(measured.barrier("Bezier curve", "test")),
        lambda: [answer for dataset in others() for answer in answers(dataset)],
    ],
)
def test_an_answer_is_short_for_the_abstract_and_worded_anew_for_the_chapter(made):
    found = made()
    assert found
    for answer in found:
        assert len(answer.short.split()) <= 25
        assert len(answer.finding.split()) <= 8
        assert len(answer.quantity.split()) <= 6
        assert answer.short not in answer.sentence
        assert answer.sentence.endswith(".")
        assert answer.limit.endswith(".")
        assert not re.search(r"nan|–|  ", answer.sentence + answer.short)


def test_the_heights_are_those_of_the_training_data_with_their_intervals_the_line_first():
    (answer,) = answers(*measured.barriers())
    places = [answer.sentence.index(height(measured.barrier(path, "train"), "barrier")) for path in measured.PATHS]
    assert places == sorted(places)
    assert answer.sentence.startswith("On the training data, the straight line between the two networks crosses")
    assert answer.claim is not None
    assert percentage(answer.claim) in answer.sentence


@pytest.mark.parametrize(
    ("bounds", "verdict", "words", "short"),
    [
        ((0.001, 0.013), "supported", "they are linearly connected", "are linearly connected"),
        ((0.031, 0.043), "contradicted", "they are not linearly connected", "are not linearly connected"),
        ((0.001, 0.043), "undecided", "Whether they are linearly connected is undecided", "is undecided"),
    ],
)
def test_the_words_agree_with_the_verdict(bounds, verdict: str, words: str, short: str):
    (answer,) = answers(with_error(*bounds))
    assert answer.claim is not None
    assert answer.claim.verdict == verdict
    assert words in answer.sentence
    assert short in answer.short


@pytest.mark.parametrize("bounds", [(0.001, 0.013), (0.031, 0.043), (0.001, 0.043)], ids=str)
@pytest.mark.parametrize("path", measured.PATHS)
def test_whatever_the_verdict_the_abstract_has_room_for_it(path: str, bounds):
    line = with_error(0.1, 0.2).assign(barrier=1e-9)  # the lowest, so that it is told where the other does not connect
    pair = [line.assign_attrs(network="A and B"), with_error(*bounds, path).assign_attrs(network="A and B")]
    for given in (pair[1:], pair if path != "line" else pair[:1], [pair[0].assign(barrier=9.0), *pair[1:]]):
        (answer, *_) = answers(*given)
        assert len(answer.short.split()) <= 25


def test_a_loss_barrier_that_may_be_zero_is_not_called_crossed():
    (answer,) = answers(measured.barrier(split="train").assign(barrier=0.01, barrier_low=0.0, barrier_high=0.03))
    assert "crosses no loss barrier that can be told from zero: 0.010 [0.000, 0.030]." in answer.sentence


def test_a_loss_that_is_not_finite_and_an_interval_that_is_not_known_are_told_as_such():
    unknown = {"barrier_low": np.nan, "barrier_high": np.nan}
    (answer,) = answers(measured.barrier(split="train").assign(barrier=np.inf, **unknown))
    assert "the straight line between the two networks meets a loss that is not finite." in answer.sentence
    dataset = with_error(np.nan, np.nan).assign(unknown)
    dataset["height_error"].loc[{"definition": "frankle"}] = 0.015
    (answer,) = answers(dataset)
    assert "whose interval is not known." in answer.sentence
    assert (
        "is undecided: the highest error is 1.5 % above the mean of the ends, with no interval to compare with 2 %."
        in answer.sentence
    )
    assert answer.claim is not None
    assert answer.claim.verdict is Verdict.UNDECIDED


def test_an_interval_that_is_open_above_still_contradicts():
    (answer,) = answers(with_error(0.05, np.inf))
    assert answer.claim is not None
    assert answer.claim.verdict is Verdict.CONTRADICTED
    assert "they are not linearly connected" in answer.sentence


def test_the_simplest_path_that_is_shown_to_connect_decides_and_else_the_lowest():
    line, aligned, curve = (with_error(0.1, 0.2, path) for path in measured.PATHS)
    lowest = min((line, aligned, curve), key=lambda dataset: float(dataset["barrier"]))
    assert decisive([line, aligned, curve])[0] is lowest
    good = with_error(0.0, 0.01, "line after alignment")
    best, claim = decisive([line, good, with_error(0.0, 0.001, "Bezier curve")])
    assert best is good
    assert claim.verdict is Verdict.SUPPORTED
    (answer,) = answers(line, good, curve)
    assert answer.finding == "linearly connected after alignment"


def test_without_training_data_the_data_that_there_are_decide():
    assert {each.attrs["split"] for each in on_decisive_data(measured.barriers())} == {"train"}
    assert {each.attrs["split"] for each in on_decisive_data(measured.barriers("test"))} == {"test"}
    unnamed = measured.barrier()
    del unnamed.attrs["split"]
    (answer,) = answers(unnamed)
    assert answer.sentence.startswith("On the digits test, ")


def test_several_pairs_are_counted_and_decided_by_the_one_that_is_farthest():
    good, bad = with_error(0.0, 0.01), with_error(0.05, 0.06)
    pairs = [good.assign_attrs(network="A and B"), bad.assign_attrs(network="A and C")]
    first, *each = answers(*pairs)
    assert first.sentence.startswith("Of 2 pairs of networks 1 are shown to be connected")
    assert first.claim is not None
    assert first.claim.verdict is Verdict.CONTRADICTED
    assert [("A and B" in answer.short, "A and C" in answer.short) for answer in each] == [(True, False), (False, True)]


@pytest.mark.parametrize("dataset", others()[:-1], ids=lambda dataset: dataset.attrs["kind"])
def test_what_only_hints_at_a_barrier_answers_where_none_was_measured(dataset: xr.Dataset):
    assert len(answers(dataset)) == 1
    assert answers(dataset, measured.barrier()) == []


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ([(0.1, 0.2), (0.0, 0.01), (0.0, 0.0)], "Runs that part after 6 shared steps end linearly connected"),
        ([(0.0, 0.01), (0.0, 0.01), (0.0, 0.0)], "Runs that part at the start end linearly connected"),
        ([(0.1, 0.2), (0.1, 0.2), (0.1, 0.2)], "Runs that part after 18 shared steps do not end linearly connected"),
        (
            [(0.0, 0.01), (0.0, 0.2), (0.0, 0.2)],
            "Whether runs that part after 18 shared steps end linearly",
        ),
    ],
)
def test_the_outcome_is_decided_from_where_on_every_k_is_stable(bounds, words: str):
    dataset = measured.instability().copy(deep=True)
    for row, (low, high) in enumerate(bounds):
        dataset["barrier_error"][row] = (low + high) / 2
        dataset["barrier_error_low"][row], dataset["barrier_error_high"][row] = low, high
    (answer,) = answers(dataset.isel(k=[2, 0, 1]))
    assert answer.sentence.startswith(words)
    assert len(answer.short.split()) <= 25


def test_the_panel_shows_the_loss_of_every_path_on_the_training_data():
    catalogue, kind = Catalogue(measured.barriers()), kind_of(measured.barrier())
    (panel,) = kind.panels(catalogue.of(kind), catalogue)
    with mpl.rc_context({"font.size": 7}):
        axes = Figure(figsize=(2.1, 1.9)).add_subplot()
        panel.draw(axes)
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines if not line.get_label().startswith("_")}
    assert tuple(drawn) == measured.PATHS
    for path, loss in drawn.items():
        np.testing.assert_allclose(loss, measured.barrier(path, "train")["loss"])
