"""Claims on connectivity: each takes the Dataset's own interval, and what is not known is undecided."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from measured import connectivity as measured

from lossatlas.connectivity.show import claims
from lossatlas.connectivity.show.instability_claims import stability
from lossatlas.results.catalogue import Catalogue

BOUNDS = [
    ((0.0, 0.019), "supported"),
    ((0.021, 0.03), "contradicted"),
    ((0.01, 0.03), "undecided"),
    ((math.nan, math.nan), "undecided"),
    ((math.nan, 0.01), "undecided"),
]


def bounded(low: float, high: float, path: str = "line") -> xr.Dataset:
    """A path with this interval of its barrier."""
    return measured.barrier(path).assign(barrier=(low + high) / 2, barrier_low=low, barrier_high=high)


def with_error_barrier(bounds: tuple[float, float], path: str = "line") -> xr.Dataset:
    """A path with this interval of Frankle's barrier of the error; the profile itself says something else."""
    dataset = measured.barrier(path)
    for end, bound in zip(("low", "high"), bounds, strict=True):
        dataset[f"height_error_{end}"].loc[{"definition": "frankle"}] = bound
    return dataset


def without_accuracy(bounds: tuple[float, float]) -> xr.Dataset:
    dataset = measured.barrier()
    dataset = dataset.drop_vars([name for name in dataset if "error" in str(name) or "accuracy" in str(name)])
    return dataset.assign(relative_height=0.015, relative_height_low=bounds[0], relative_height_high=bounds[1])


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.1, 0.3), "supported"),
        ((0.0, 0.3), "undecided"),
        ((0.0, 0.0), "contradicted"),
        ((math.nan, math.nan), "undecided"),
    ],
)
def test_a_barrier_is_judged_by_its_interval_and_never_by_its_standard_error(bounds, expected: str):
    dataset = bounded(*bounds).assign(barrier=0.2, barrier_stderr=1e-9)
    claim = claims.barrier_height(dataset)
    assert claim.verdict == expected
    np.testing.assert_equal(claim.interval, bounds)
    assert claim.datasets == (dataset.attrs["id"],)


@pytest.mark.parametrize(("bounds", "expected"), BOUNDS)
def test_connectivity_is_judged_by_the_interval_of_frankles_error_barrier(bounds, expected: str):
    line = claims.linear_connectivity(with_error_barrier(bounds))
    curve = claims.curve_connectivity(with_error_barrier(bounds, "Bezier curve"))
    for claim in (line, curve):
        np.testing.assert_equal(claim.interval, bounds)
        assert claim.verdict == expected
    assert "linearly mode connected in the sense" in line.hypothesis
    assert "connected by a curve, the Bezier curve, with an error barrier below 2 %" in curve.hypothesis


def test_connectivity_is_measured_from_the_mean_error_of_the_ends_whatever_the_definition_asked_for():
    dataset = measured.barrier()
    error = dataset["error"].to_numpy()
    for definition in ("entezari", "draxler"):
        claim = claims.linear_connectivity(dataset.assign_attrs(definition=definition))
        assert claim.value == pytest.approx(error.max() - (error[0] + error[-1]) / 2, abs=1e-12)
    assert claim.verdict == "contradicted"


@pytest.mark.parametrize(("bounds", "expected"), BOUNDS)
def test_without_an_accuracy_connectivity_is_judged_by_the_relative_barrier_of_the_loss(bounds, expected: str):
    claim = claims.linear_connectivity(without_accuracy(bounds))
    assert claim.verdict == expected
    assert "a loss barrier relative to the mean of the ends below 2 %" in claim.hypothesis


def test_why_there_is_no_interval_stands_in_the_detail():
    none = bounded(math.nan, math.nan).assign_attrs(bootstrap="none: not asked for")
    assert "Bootstrap: none: not asked for." in claims.barrier_height(none).detail
    assert "Bootstrap:" not in claims.barrier_height(measured.barrier()).detail


def test_a_line_after_alignment_is_called_so_in_its_claims():
    height, connectivity = (
        claim.hypothesis for claim in Catalogue([measured.barrier("line after alignment")]).claims()
    )
    assert height.startswith("The line after alignment between the two networks crosses a barrier of the loss on ")
    assert "linearly mode connected after alignment in the sense of Frankle et al. (2020)" in connectivity


def test_a_pair_with_labels_is_named_in_each_claim():
    labelled = [dataset.assign_attrs(network="A and B") for dataset in measured.barriers("test")]
    found = Catalogue(labelled).claims()
    assert len(found) == 8
    assert all("etworks A and B" in claim.hypothesis for claim in found)


@pytest.mark.parametrize(
    ("line", "other", "expected"),
    [
        ((1.0, 1.2), (0.1, 0.3), "supported"),
        ((0.1, 0.3), (1.0, 1.2), "contradicted"),
        ((0.2, 0.4), (0.1, 0.3), "undecided"),
        ((1.0, 1.2), (math.nan, math.nan), "undecided"),
    ],
)
def test_a_path_is_lower_where_the_two_intervals_do_not_overlap(line, other, expected: str):
    datasets = bounded(*line).assign_attrs(id="line"), bounded(*other, "Bezier curve").assign_attrs(id="curve")
    claim = claims.lower_path(*datasets)
    assert claim.verdict == expected
    np.testing.assert_allclose(claim.interval, (line[0] - other[1], line[1] - other[0]))
    assert claim.hypothesis.startswith("The Bezier curve crosses a lower barrier of the loss than the straight line")
    assert claim.datasets == ("curve", "line")


def lower(*datasets: xr.Dataset) -> int:
    return len([claim for claim in Catalogue(datasets).claims() if "crosses a lower barrier" in claim.hypothesis])


def test_paths_are_compared_with_the_line_between_the_same_networks_on_the_same_data_by_the_same_definition():
    line, aligned, curve = measured.barriers("test")
    assert lower(line, aligned, curve) == 2
    assert lower(*measured.barriers()) == 4
    assert lower(line, measured.barrier("Bezier curve", "train")) == 0
    assert lower(line, curve.assign_attrs(definition="draxler")) == 0
    assert lower(line, curve.assign(loss=curve["loss"] + 0.01)) == 0  # other ends: other networks
    assert lower(aligned, curve) == 0
    assert lower(line, measured.barrier("line", "train")) == 0


def test_claims_do_not_depend_on_the_order_of_the_datasets():
    every = measured.barriers()
    assert Catalogue(every).claims() == Catalogue(every[::-1]).claims()


def runs(low: float, high: float) -> xr.Dataset:
    """Two pairs of runs that share 6 steps, of which one has this interval of its error barrier."""
    dataset = measured.instability().isel(k=[1]).copy(deep=True)
    for name, values in {"": [0.0, high], "_low": [0.0, low], "_high": [0.001, high]}.items():
        dataset[f"barrier_error{name}"][0] = values
    return dataset


@pytest.mark.parametrize(("bounds", "expected"), BOUNDS)
def test_runs_are_stable_where_the_largest_error_barrier_of_the_pairs_is_below_two_per_cent(bounds, expected: str):
    (claim,) = stability(runs(*bounds))
    assert claim.verdict == expected
    assert "share their first 6 steps" in claim.hypothesis


def test_each_k_is_a_claim_and_without_an_accuracy_there_is_none():
    dataset = measured.instability()
    found = Catalogue([dataset]).claims()
    assert len(found) == 3
    assert found[-1].verdict == "supported"  # runs that share all their steps
    assert Catalogue([dataset.drop_vars([name for name in dataset if "error" in str(name)])]).claims() == []
