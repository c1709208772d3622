"""How weight noise is shown, and what is claimed of it."""

from __future__ import annotations

from collections.abc import Callable

import measured
import numpy as np
import pytest
import xarray as xr

from lossatlas import plot
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Claim


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
