"""Claims on curvature: verdicts of real measurements whose numbers are set to each case."""

from __future__ import annotations

import math

import measured
import numpy as np
import pytest
import xarray as xr

import lossatlas as la
from lossatlas.curvature.show.claims import (
    few_negative_eigenvalues,
    gauss_newton_dominates,
    no_negative_curvature,
    sharpness_difference,
)
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Claim


@pytest.fixture(scope="module")
def spectra() -> tuple[xr.Dataset, xr.Dataset]:
    a, b = (measured.trained(label).train for label in "AB")
    settings = {"density_tol": 0.1, "trend": False, "progress": False}
    return la.spectrum(a, 2, **settings), la.spectrum(b, 2, **settings)


@pytest.fixture(scope="module")
def density() -> xr.Dataset:
    return la.spectral_density(la.hessian(measured.trained("A").train), steps=6, probes=2, progress=False)


@pytest.fixture(scope="module")
def split() -> xr.Dataset:
    return la.gauss_newton_split(measured.trained("A").train, 1, probes=2, progress=False)


def outermost(dataset: xr.Dataset, end: str, value: float, stderr: float = 0.1, residual: float = 1e-3) -> xr.Dataset:
    """The spectrum with another outermost eigenvalue at one end."""
    changed = dataset.copy(deep=True)
    for name, number in {"eigenvalue": value, "eigenvalue_stderr": stderr, "residual": residual}.items():
        changed[name].loc[{"end": end, "rank": 1}] = number
    return changed


def negative(datasets: list[xr.Dataset]) -> list[Claim]:
    """The claims on the share of negative eigenvalues."""
    return [claim for claim in Catalogue(datasets).claims() if claim.hypothesis.startswith("At most")]


def test_a_negative_eigenvalue_beyond_its_residual_contradicts_and_one_within_it_does_not(spectra):
    a = spectra[0]
    assert no_negative_curvature(outermost(a, "bottom", -1.0)).verdict == "contradicted"
    assert no_negative_curvature(outermost(a, "bottom", 1.0)).verdict == "supported"
    assert no_negative_curvature(outermost(a, "bottom", -1.0, residual=2.0)).verdict == "undecided"
    assert no_negative_curvature(outermost(a, "bottom", -1.0, residual=math.nan)).verdict == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 0.009, "supported"),
        (0.011, 0.2, "contradicted"),
        (0.005, 0.02, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_how_many_eigenvalues_are_negative_is_judged_by_the_interval_of_their_share(spectra, low, high, expected):
    dataset = spectra[0].assign(negative_mass_low=low, negative_mass_high=high)
    claim = few_negative_eigenvalues(dataset)
    assert claim.verdict == expected
    assert claim.interval == pytest.approx((low, high), nan_ok=True)
    assert f"{dataset.attrs['steps']} Lanczos steps, 1 probes" in claim.detail


def test_a_density_says_nothing_that_the_spectrum_of_the_same_hessian_says(spectra, density):
    a, b = spectra
    assert [claim.datasets for claim in negative([density])] == [(density.attrs["id"],)]
    assert [claim.datasets for claim in negative([a, density])] == [(a.attrs["id"],)]
    assert len(negative([b, density])) == 2
    assert len(negative([a, density.assign_attrs(data="other digits")])) == 2
    assert len(negative([a.drop_vars("negative_mass"), density])) == 1


def test_the_density_of_another_matrix_makes_no_claim_on_the_hessian():
    operator = la.gauss_newton(measured.trained("A").train)
    assert negative([la.spectral_density(operator, steps=6, probes=2, progress=False)]) == []


def norms(split: xr.Dataset, rest: float, whole: float, rest_stderr: float = 0, whole_stderr: float = 0) -> xr.Dataset:
    return split.assign(
        frobenius_residual=rest,
        frobenius_residual_stderr=rest_stderr,
        frobenius_hessian=whole,
        frobenius_hessian_stderr=whole_stderr,
    )


def test_the_gauss_newton_part_dominates_by_the_norm_of_the_rest(split):
    assert gauss_newton_dominates(norms(split, 1.0, 10.0, 0.1, 0.1)).verdict == "supported"
    assert gauss_newton_dominates(norms(split, 8.0, 10.0, 0.1, 0.1)).verdict == "contradicted"
    assert gauss_newton_dominates(norms(split, 4.9, 10.0, 0.5, 0.5)).verdict == "undecided"
    assert gauss_newton_dominates(norms(split, 5.0, 10.0)).verdict == "contradicted"  # not less than half


@pytest.mark.parametrize("whole", [(1.0, 10.0, 0.1, math.nan), (1.0, 10.0, 0.1, 9.0), (0.0, 0.0), (1, 10, math.nan)])
def test_a_ratio_whose_errors_are_unknown_or_whose_denominator_may_be_0_decides_nothing(split, whole):
    assert gauss_newton_dominates(norms(split, *whole)).verdict == "undecided"


@pytest.mark.parametrize("correlation", [-1.0, 0.0, 1.0])
def test_the_interval_of_the_ratio_covers_for_any_correlation_of_the_two_errors(split, correlation):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        first, second = rng.normal(size=2)
        second = correlation * first + math.sqrt(1 - correlation**2) * second
        claim = gauss_newton_dominates(norms(split, 5 + 0.4 * first, 10 + 0.6 * second, 0.4, 0.6))
        covered += claim.interval[0] <= 0.5 <= claim.interval[1]
    assert covered >= 0.95 * 300


def test_a_difference_of_sharpness_is_judged_by_the_data_error_and_the_residuals(spectra):
    a, b = (outermost(each, "top", value) for each, value in zip(spectra, (15.8, 13.1), strict=True))
    claim = sharpness_difference(a, b)
    assert claim.verdict == "supported"
    assert claim.value == pytest.approx(15.8 - 13.1)
    assert claim.datasets == (a.attrs["id"], b.attrs["id"])
    assert sharpness_difference(outermost(a, "top", 15.8, stderr=4.0), b).verdict == "undecided"
    assert sharpness_difference(outermost(a, "top", 15.8, residual=3.0), b).verdict == "undecided"
    assert sharpness_difference(a, a).verdict == "undecided"


def test_without_a_data_error_a_difference_of_sharpness_is_undecided_and_says_why(spectra):
    a, b = outermost(spectra[0], "top", 15.8, stderr=math.nan), outermost(spectra[1], "top", 13.1)
    claim = sharpness_difference(a, b)
    assert claim.verdict == "undecided"
    assert "two batches" in claim.detail


def test_networks_are_compared_on_the_same_data_and_the_same_parameters_only(spectra):
    def compared(*datasets: xr.Dataset) -> int:
        return len([claim for claim in Catalogue(datasets).claims() if "differ in sharpness" in claim.hypothesis])

    a, b = spectra
    assert compared(a, b) == 1
    assert compared(a, b.assign_attrs(data="other digits")) == 0
    assert compared(a, b.assign_attrs(parameters="*.bias")) == 0
    assert compared(a, a.assign_attrs(name="again")) == 0
