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
from lossatlas.robustness.show import ROBUSTNESS


def one(name: str) -> xr.Dataset:
    return measured.results()[name].copy(deep=True)


def with_changes(name: str, loss: list[float], accuracy: list[float], stderr: float = 1e-3) -> xr.Dataset:
    """A measurement with other losses and accuracies at its sigmas 0, 0.1 and 0.5."""
    found = one(name)
    for variable, values in (("loss", loss), ("accuracy", accuracy)):
        found[variable][:] = values
        found[f"{variable}_stderr"][:] = stderr
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
    for name in ("loss", "loss_draws"):
        dataset[name][{"sigma": -1}] = np.inf
    return dataset.assign(loss_stderr=dataset["loss_stderr"] * np.nan)


EDGES: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "an infinite loss": infinite,
    "no draws": lambda dataset: dataset.drop_vars(["loss_draws", "accuracy_draws"]),
    "no accuracy": lambda dataset: dataset.drop_vars(["accuracy", "accuracy_stderr", "accuracy_draws"]),
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
    assert "the sharper one, network B, loses more: its loss rises further by 3.0000 [2.9961, 3.0039]" in found.sentence
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
    assert "the loss of network A rises by 0.3000 [0.2972, 0.3028] at sigma = 0.5" in found.sentence
    assert "undecided" not in found.short
    assert answers(EDGES["no accuracy"](infinite(dataset))) == []


def test_a_loss_that_falls_under_noise_is_said_to_fall():
    dataset = EDGES["no accuracy"](with_changes("robustness A", FLAT, HIGH))
    mirrored = {name: 2 * float(dataset["loss"][0]) - dataset[name] for name in ("loss", "loss_draws")}
    (found,) = answers(dataset.assign(mirrored))
    assert "the loss of network A falls by 0.3000 [0.2972, 0.3028] at sigma = 0.5" in found.sentence
    assert "falls by 0.3000 [0.2972, 0.3028]" in found.short


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
