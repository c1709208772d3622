"""The claim that the trained point is the minimum of a slice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from measured import surfaces as measured
from scipy import stats

import lossatlas as la
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Claim
from lossatlas.surfaces.show.claims import slice_minimum


def claim(dataset: xr.Dataset) -> Claim:
    (found,) = slice_minimum(dataset)
    return found


def sure(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset as if of millions of examples: the error of each difference of losses is tiny."""
    return dataset.copy(deep=True).assign(loss_rise_stderr=dataset["loss_rise_stderr"] * 0 + 1e-6)


@pytest.mark.parametrize("make", [measured.line, measured.plane, measured.volume])
def test_the_minimum_of_a_slice_is_decided_where_its_errors_are_small(make):
    dataset = make()
    lower = sure(dataset)
    lower["loss"][dict.fromkeys(lower["loss"].dims, 1)] = 0.01
    unsure = dataset.assign(loss_rise_stderr=dataset["loss_rise_stderr"] * 0 + 100.0)
    assert claim(sure(dataset)).verdict == "supported"
    assert claim(lower).verdict == "contradicted"
    assert claim(unsure).verdict == "undecided"


def test_the_interval_is_of_the_paired_difference_and_simultaneous_over_all_other_points():
    """Computed anew from the losses of the single examples at the two points."""
    dataset, objective = measured.line("B"), measured.objective("B")
    others = dataset["loss"].where(dataset["alpha"] != 0)
    k = int(np.nanargmin(others))
    direction = la.random_directions(objective, 1, seed=0)[0]
    points = torch.stack([objective.point, objective.point + float(dataset["alpha"][k]) * direction])
    center, lowest = (objective.samples(point)["loss"].values.double() for point in points)
    difference = lowest - center
    half = stats.norm.isf(0.025 / 20) * float(difference.std()) / math.sqrt(len(difference))
    found = claim(dataset)
    assert found.value == pytest.approx(float(difference.mean()), rel=1e-4)
    assert found.interval[1] - found.value == pytest.approx(half, rel=1e-2)


def test_a_flat_slice_seen_through_noise_is_decided_in_at_most_one_case_of_twenty():
    rng, base, decided = np.random.default_rng(0), measured.line(), 0
    center = int(np.flatnonzero(base["alpha"] == 0)[0])
    for _ in range(300):
        losses = 1 + 0.01 * rng.standard_normal(base.sizes["alpha"])
        losses[center] = 1.0
        flat = measured.with_losses(base, losses, loss_rise_stderr=0.01)
        decided += claim(flat).verdict != "undecided"
    assert decided <= 15


def test_cells_that_are_not_finite_are_counted_and_the_others_decide():
    dataset = sure(measured.without_cells(measured.plane()))
    found = claim(dataset)
    assert found.verdict == "supported"
    assert f"{dataset.attrs['n_nonfinite']} left out" in found.detail


def test_interpolated_cells_take_no_part_even_where_they_are_lowest():
    dataset = measured.interpolated_plane().copy(deep=True)
    k = np.argwhere(dataset["evaluated"].to_numpy() == 0)[0]
    before = claim(dataset)
    dataset["loss"][tuple(k)] = 1e-9
    assert claim(dataset) == before
    assert "of the evaluated cells" in before.detail


def test_an_error_that_is_not_known_leaves_the_claim_undecided():
    unknown = measured.line().assign(loss_rise_stderr=measured.line()["loss_rise_stderr"] * np.nan)
    assert claim(unknown).verdict == "undecided"


@pytest.mark.parametrize(
    "dataset",
    [
        pytest.param(lambda: measured.line().isel(alpha=slice(0, 5)), id="the center is not on the grid"),
        pytest.param(lambda: measured.line().assign_attrs(center_is_model=0), id="another center"),
        pytest.param(lambda: measured.polar(), id="polar"),
        pytest.param(lambda: measured.plane(planes=3), id="several planes"),
        pytest.param(lambda: measured.with_losses(measured.plane(), np.nan), id="no finite cell"),
    ],
)
def test_no_claim_is_made_without_one_cell_of_the_trained_point(dataset):
    assert list(slice_minimum(dataset())) == []


def test_every_claim_names_the_slice_that_it_was_computed_from():
    catalogue = Catalogue([measured.line("A"), measured.line("B"), measured.polar()])
    ids = {dataset.attrs["network"]: dataset.attrs["id"] for dataset in catalogue if dataset.attrs["region"] == "line"}
    assert {found.datasets for found in catalogue.claims()} == {(ids["A"],), (ids["B"],)}
