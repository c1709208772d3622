"""How weight noise is shown, and what is claimed of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import measured
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from lossatlas import plot
from lossatlas.results.blocks import Answer
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Claim
from lossatlas.robustness.show import BASIN, BIT_FLIPS, QUANTISATION, ROBUSTNESS


def one(name: str) -> xr.Dataset:
    return measured.results()[name].copy(deep=True)


def with_changes(name: str, loss: list[float], accuracy: list[float], stderr: float = 1e-3) -> xr.Dataset:
    """A measurement with other losses and accuracies at its sigmas 0, 0.1 and 0.5."""
    found = one(name)
    for variable, values in (("loss", loss), ("accuracy", accuracy)):
        found[variable][:] = values
        found[f"{variable}_stderr"][:] = stderr
        found[f"{variable}_clean"] = values[0]
        found[f"{variable}_change"][:] = np.subtract(values, values[0])
        found[f"{variable}_change_stderr"][1:] = stderr
        found[f"{variable}_change_degrees"][:] = np.inf
    return found


def claim(part: str, *datasets: xr.Dataset) -> Claim:
    (found,) = [each for each in Catalogue(datasets).claims() if part in each.hypothesis]
    return found


def spectrum(network: str, largest: float) -> xr.Dataset:
    found = one(f"spectrum {network}")
    found["eigenvalue"].loc[{"end": "top", "rank": 1}] = largest
    return found


FLAT, STEEP = [0.2, 0.3, 0.5], [0.2, 1.3, 3.5]
HIGH = [0.9, 0.9, 0.9]


def test_of_two_networks_the_sharper_one_is_that_with_the_larger_eigenvalue():
    a, b = with_changes("robustness A", FLAT, HIGH), with_changes("robustness B", STEEP, HIGH)
    sharper_b = claim("the sharper one", a, b, spectrum("A", 1.0), spectrum("B", 2.0))
    sharper_a = claim("the sharper one", a, b, spectrum("A", 2.0), spectrum("B", 1.0))
    assert (sharper_b.verdict, sharper_a.verdict) == ("supported", "contradicted")
    assert "network B" in sharper_b.hypothesis
    assert sharper_b.value == pytest.approx(3.0) == -sharper_a.value  # at sigma = 0.5: rises of 3.3 and 0.3
    assert set(sharper_b.datasets) == {d.attrs["id"] for d in (a, b, one("spectrum A"), one("spectrum B"))}


def test_spectra_of_some_of_the_parameters_decide_nothing_between_networks():
    restricted = [spectrum(network, 1.0).assign_attrs(parameters=network) for network in "AB"]
    found = Catalogue([one("robustness A"), one("robustness B"), *restricted]).claims()
    assert not [each for each in found if "the sharper one" in each.hypothesis]


@pytest.mark.parametrize(
    ("accuracy", "verdict", "sigma"),
    [([0.9, 0.895, 0.8], "supported", 0.5), ([0.9, 0.8, 0.7], "supported", 0.1), (HIGH, "contradicted", 0.5)],
)
def test_the_smallest_sigma_that_costs_a_point_is_named_or_else_the_largest(
    accuracy: list[float], verdict: str, sigma: float
):
    found = claim("lowers the accuracy", with_changes("robustness A", FLAT, accuracy))
    assert found.verdict == verdict
    assert f"sigma = {sigma:g} " in found.hypothesis


def infinite(dataset: xr.Dataset) -> xr.Dataset:
    for name in ("loss", "loss_draws", "loss_change"):
        dataset[name][{"sigma": -1}] = np.inf
    return dataset.assign({name: dataset[name] * np.nan for name in ("loss_stderr", "loss_change_stderr")})


EDGES: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "an infinite loss": infinite,
    "no draws": lambda dataset: dataset.drop_vars(["loss_draws", "accuracy_draws"]),
    "no accuracy": lambda dataset: dataset.drop_vars([name for name in dataset if "accuracy" in str(name)]),
}


@pytest.mark.parametrize("edge", EDGES)
def test_every_panel_has_its_labels_and_no_noise_has_a_place_on_the_axis(edge: str):
    figure = plot.figure(EDGES[edge](one("robustness A")))
    figure.canvas.draw()
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.1", "0.5"]
        assert axes.get_xlim()[0] < 0


def answers(*datasets: xr.Dataset) -> list[Answer]:
    catalogue = Catalogue(datasets)
    return list(ROBUSTNESS.answers(catalogue.of(ROBUSTNESS), catalogue))


def test_what_noise_costs_two_networks_is_told_with_the_intervals_of_their_claims():
    a, b = with_changes("robustness A", FLAT, [0.9, 0.8, 0.7]), with_changes("robustness B", STEEP, [0.9, 0.7, 0.5])
    (found,) = answers(a, b, spectrum("A", 1.0), spectrum("B", 2.0))
    assert found.sentence.startswith("Weight noise of sigma = 0.1 lowers the accuracy of network A by 10.0")
    assert "that of network B by 20.0" in found.sentence
    assert "the sharper one, network B, loses more: its loss rises further by 3.0000 [2.9972, 3.0028]" in found.sentence
    assert found.claim == claim("of network A by more than one", a, b)
    assert found.finding == "noise of 0.1 costs over a point"
    told = r"Weight noise of sigma = 0.1 costs 10\.\S+ \[\S+ \S+ points of accuracy for A and 20\.\S+ \[\S+ \S+ for B\."
    assert re.fullmatch(told, found.short)


@pytest.mark.parametrize(
    ("accuracy", "stderr", "words"),
    [(HIGH, 0.1, "is undecided"), (HIGH, 1e-4, "by less than one percentage point")],
)
def test_a_cost_that_is_not_shown_is_not_asserted(accuracy: list[float], stderr: float, words: str):
    (found,) = answers(with_changes("robustness A", FLAT, accuracy, stderr))
    assert words in found.sentence
    assert ("undecided" in found.short) == ("undecided" in found.sentence)
    assert found.claim is not None
    assert (found.claim.verdict == "undecided") == ("undecided" in words)
    assert "sharper" not in found.sentence


def test_every_answer_is_brief_and_absolute_noise_comes_first():
    found = answers(*(measured.results()[name] for name in ("relative robustness", "robustness A", "robustness B")))
    assert [each.sentence.count("filter's norm") for each in found] == [0, 1]
    assert all(len(each.short.split()) <= 25 and len(each.finding.split()) <= 8 for each in found)
    assert "network B" not in found[1].sentence


def test_without_accuracy_the_rise_of_the_loss_is_told():
    dataset = with_changes("robustness A", FLAT, HIGH)
    (found,) = answers(EDGES["no accuracy"](dataset))
    assert found.claim is None
    assert "the loss of network A rises by 0.3000 [0.2980, 0.3020] at sigma = 0.5" in found.sentence
    assert "undecided" not in found.short
    assert answers(EDGES["no accuracy"](infinite(dataset))) == []


def test_a_loss_that_falls_under_noise_is_said_to_fall():
    dataset = EDGES["no accuracy"](with_changes("robustness A", FLAT, HIGH))
    (found,) = answers(dataset.assign(loss_change=-dataset["loss_change"]))
    assert "the loss of network A falls by 0.3000 [0.2980, 0.3020] at sigma = 0.5" in found.sentence
    assert "falls by 0.3000 [0.2980, 0.3020]" in found.short


def test_many_networks_are_told_as_a_range():
    many = [one("robustness A").assign_attrs(network=f"a long name, {k}") for k in range(6)]
    (found,) = answers(*many)
    assert "6 networks" in found.sentence
    assert len(found.short.split()) <= 25


def test_the_numbers_are_those_without_noise_and_under_the_largest():
    dataset = with_changes("robustness A", FLAT, [0.9, 0.8, 0.7])
    found = {number.name.partition(" (")[0]: number.text for number in ROBUSTNESS.numbers(dataset)}
    assert found["accuracy without noise"] == "0.9000 ± 0.0010"
    assert found["accuracy at sigma = 0.5"] == "0.7000 ± 0.0010"
    assert found["loss at sigma = 0.5"] == "0.5000 ± 0.0010"


@pytest.mark.parametrize("edge", ["no draws", "no accuracy"])
def test_the_panel_shows_accuracy_or_else_the_loss(edge: str):
    catalogue = Catalogue([EDGES[edge](one("robustness A"))])
    (panel,) = ROBUSTNESS.panels(list(catalogue), catalogue)
    axes = Figure().add_subplot()
    panel.draw(axes)
    assert axes.get_ylabel() == ("loss" if edge == "no accuracy" else "accuracy")


def quantised(falls: list[float], stderr: float = 1e-3) -> xr.Dataset:
    """Network A in 8, 4, 3 and 2 bits, with these falls of its accuracy."""
    found = one("quantisation")
    found["accuracy_change"][:] = np.negative(falls)
    found["accuracy_change_stderr"][:] = stderr
    found["accuracy_change_degrees"][:] = np.inf
    return found


@pytest.mark.parametrize(
    ("falls", "bits", "verdict", "told"),
    [
        (
            [0, 0.001, 0.004, 0.3],
            3,
            "supported",
            "Quantisation to 3 bits lowers the accuracy of network A by less than",
        ),
        ([0.2, 0.3, 0.4, 0.5], 8, "contradicted", "Quantisation to 8 bits lowers the accuracy of network A by 20.0"),
        ([0.01, 0.3, 0.4, 0.5], 8, "undecided", "Whether quantisation to 8 bits lowers the accuracy"),
    ],
)
def test_the_fewest_bits_that_cost_less_than_a_point_are_named_or_else_the_most(
    falls: list[float], bits: int, verdict: str, told: str
):
    dataset = quantised(falls)
    found = claim("less than one percentage point", dataset)
    assert found.verdict == verdict
    assert f"to {bits} bits " in found.hypothesis
    assert "paired over the examples" in found.detail
    catalogue = Catalogue([dataset])
    (answer,) = QUANTISATION.answers(catalogue.of(QUANTISATION), catalogue)
    assert answer.sentence.startswith(told)
    assert answer.claim == found


def test_no_changed_prediction_is_no_proof_that_none_will_change():
    """Of 200 examples none changed: with 97.5 % confidence at most 3.7 / 200 do, more than a point."""
    dataset = quantised([0, 0, 0, 0], stderr=0.0)
    assert claim("less than one", dataset).verdict == "undecided"
    assert claim("less than one", dataset.assign_attrs(n_examples=2000)).verdict == "supported"


def test_the_most_sensitive_layer_is_the_one_that_raises_the_loss_most():
    dataset = one("noise by layers")
    dataset["layer_loss_change"][:] = [[0, 0.1], [0, 0.4]]
    dataset["layer_loss_change_stderr"][:] = [[0, 0.01], [0, 0.02]]
    dataset["layer_loss_change_degrees"][:] = np.inf
    found = claim("alone loses most", dataset)
    assert found.verdict == "supported"
    assert "layer fc2 alone" in found.hypothesis
    assert found.interval == pytest.approx((0.3 - 1.96 * 0.02236, 0.3 + 1.96 * 0.02236), abs=1e-4)
    dataset["layer_loss_change"][:] = -0.1
    assert not [each for each in Catalogue([dataset]).claims() if "alone loses most" in each.hypothesis]


def test_the_heat_map_holds_each_layer_and_each_size_but_none_without_a_perturbation():
    dataset = one("noise by layers")
    (group,) = list(ROBUSTNESS.figures([dataset], Catalogue([dataset])))
    axes, bar = group.pictures[1].figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fc1", "fc2"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.3"]
    np.testing.assert_allclose(axes.images[0].get_array()[:, 0], -100 * dataset["layer_accuracy_change"][:, 1])
    assert bar.get_ylabel().split() == ["fall", "of", "the", "accuracy", "(points)"]


@pytest.mark.parametrize(("name", "words"), [("flips", "float32"), ("pruning", "set to 0"), ("input noise", "inputs")])
def test_a_caption_says_what_was_perturbed(name: str, words: str):
    catalogue = Catalogue([one(name)])
    kind = catalogue.present()[0]
    (group,) = kind.figures(list(catalogue), catalogue)
    assert words in f"{group.pictures[0].caption} {group.pictures[0].how}"
    assert "Gaussian weight noise" not in group.pictures[0].caption


def test_draws_without_a_finite_loss_are_in_the_table_and_in_the_claim():
    dataset = one("flips")
    dataset["finite"][:] = [1.0, 0.5]
    catalogue = Catalogue([dataset])
    (group,) = BIT_FLIPS.figures(list(catalogue), catalogue)
    assert [row[-1] for row in group.tables[0].rows] == ["0.0 %", "50.0 %"]
    dataset["accuracy_change"][:] = [0.0, -0.001]
    dataset["accuracy_change_stderr"][:] = 1e-4
    assert "In 50.0 % of the draws the loss was not finite" in claim("less than one", dataset).detail


def based(sizes: tuple[float, float], low: tuple[float, float], high: tuple[float, float]) -> xr.Dataset:
    found = one("basin")
    for name, values in (("size", sizes), ("low", low), ("high", high)):
        found[name][:] = list(values)
    return found


@pytest.mark.parametrize(
    ("worst", "verdict", "interval"),
    [
        ((0.003, 0.006), "supported", (0.003 / 0.12, 0.006 / 0.08)),
        ((0.02, 0.03), "contradicted", (0.02 / 0.12, 0.03 / 0.08)),
        ((0.01, 0.02), "undecided", (0.01 / 0.12, 0.02 / 0.08)),
        ((0.01, np.inf), "undecided", (0.01 / 0.12, np.inf)),
    ],
)
def test_the_worst_direction_is_far_below_random_noise_where_the_far_ends_say_so(
    worst: tuple[float, float], verdict: str, interval: tuple[float, float]
):
    dataset = based((0.1, worst[0]), (0.08, worst[0]), (0.12, worst[1]))
    found = claim("far below", dataset)
    assert found.verdict == verdict
    assert found.interval == pytest.approx(interval)


def test_a_basin_is_told_with_its_intervals_also_where_an_end_was_not_found():
    catalogue = Catalogue([based((0.1, np.nan), (0.08, 100.0), (0.12, np.inf))])
    (found,) = BASIN.answers(list(catalogue), catalogue)
    assert "falls by 5 percentage points at sigma = 0.100 [0.080, 0.120] at random" in found.sentence
    assert "and above 100 in the worst direction" in found.short
    assert "above 100 in the worst direction found" in found.sentence
    assert found.claim is not None
    assert found.claim.verdict == "undecided"
    assert len(found.short.split()) <= 25


def test_few_draws_widen_the_interval_as_student_says():
    """With 4 degrees of freedom 2.776 standard errors instead of 1.960; two networks with 4 each have 8: 2.306."""
    few = [with_changes(f"robustness {each}", STEEP, [0.9, 0.8, 0.7], 0.01) for each in "AB"]
    for dataset in few:
        for name in ("loss", "accuracy"):
            dataset[f"{name}_change_degrees"][:] = 4
    assert claim("accuracy of network A by more", few[0]).interval == pytest.approx((10 - 2.776, 10 + 2.776), abs=1e-3)
    both = claim("the sharper one", *few, spectrum("A", 2.0), spectrum("B", 1.0)).interval
    assert both == pytest.approx((-2.306 * 0.01414, 2.306 * 0.01414), abs=1e-4)
