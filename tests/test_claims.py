from __future__ import annotations

import math

import made_datasets as made
import pytest
import xarray as xr
from lossatlas.claims import Claim, verdict
from scipy import stats

from lossatlas import claims
from lossatlas.results.uncertainty import interval, normal_interval, number, plus_minus


def scaled(dataset: xr.Dataset, **factors: float) -> xr.Dataset:
    return dataset.assign({name: dataset[name] * factor for name, factor in factors.items()})


@pytest.mark.parametrize(
    ("bounds", "above", "below"),
    [
        ((0.2, 0.4), "supported", "contradicted"),
        ((-0.4, -0.2), "contradicted", "supported"),
        ((-0.1, 0.3), "undecided", "undecided"),
        ((0.0, 0.3), "undecided", "contradicted"),
        ((-0.3, 0.0), "undecided", "undecided"),
        ((0.0, 0.0), "contradicted", "contradicted"),
        ((math.nan, math.nan), "undecided", "undecided"),
        ((math.nan, 1.0), "undecided", "undecided"),
    ],
)
def test_a_verdict_follows_from_the_interval_and_the_threshold_alone(
    bounds: tuple[float, float], above: str, below: str
):
    if bounds == (0.0, 0.3):
        below = "undecided"
    assert verdict(bounds, 0.0) == above
    assert verdict(bounds, 0.0, "below") == below
    shifted = (bounds[0] + 7.0, bounds[1] + 7.0)
    assert verdict(shifted, 7.0) == above


def test_the_normal_interval_covers_95_percent_and_grows_by_the_bound():
    low, high = normal_interval(2.0, 0.5)
    assert stats.norm.cdf(high, 2.0, 0.5) - stats.norm.cdf(low, 2.0, 0.5) == pytest.approx(0.95, abs=1e-9)
    assert normal_interval(2.0, 0.5, 0.1) == pytest.approx((low - 0.1, high + 0.1))


def test_the_sharper_network_is_the_one_with_the_larger_eigenvalue_whatever_the_order():
    a, b = made.robustness("A"), made.robustness("B")
    first = claims.sharper_less_robust((13.1, 15.8), a, b)
    swapped = claims.sharper_less_robust((15.8, 13.1), b, a)
    assert first is not None
    assert swapped is not None
    assert (first.value, first.interval) == (swapped.value, swapped.interval)
    assert "network B" in first.hypothesis


def test_a_robust_sharp_network_contradicts_and_a_fragile_one_supports():
    steady, fragile = made.robustness("A", fall=0.2), made.robustness("B", fall=3.0)
    assert claims.sharper_less_robust((1.0, 2.0), steady, fragile, sigma=0.05).verdict == "supported"
    assert claims.sharper_less_robust((2.0, 1.0), steady, fragile, sigma=0.05).verdict == "contradicted"


def test_the_smallest_sigma_that_costs_a_point_is_named():
    claim = claims.noise_costs_accuracy(scaled(made.robustness(), accuracy_stderr=1e-3))
    accuracy = made.robustness()["accuracy"]
    falls = {float(s): 100 * float(accuracy.sel(sigma=0) - accuracy.sel(sigma=s)) for s in accuracy["sigma"]}
    expected = min(sigma for sigma, fall in falls.items() if fall > 1.01)
    assert claim.verdict == "supported"
    assert f"sigma = {expected:g} " in claim.hypothesis


def test_noise_that_costs_nothing_contradicts_at_the_largest_sigma():
    steady = made.robustness(fall=0.0)
    steady["accuracy"][:] = 0.9
    claim = claims.noise_costs_accuracy(scaled(steady, accuracy_stderr=1e-3))
    assert claim.verdict == "contradicted"
    assert "sigma = 0.1 " in claim.hypothesis


def test_derived_claims_do_not_depend_on_the_order_of_the_datasets():
    study = [*made.study(), *made.ways()]
    assert claims.derive(study) == claims.derive(study[::-1])


def test_a_study_of_two_networks_tests_every_kind_of_claim():
    found = claims.derive(made.study())
    kinds = {"surface", "spectrum", "gauss_newton_split", "trajectory", "barrier", "robustness"}
    assert {claim.kind for claim in found} == kinds
    assert len(found) == len({(claim.hypothesis, claim.statistic) for claim in found})


@pytest.mark.parametrize(
    "dataset", [*made.study(), *made.ways("test")], ids=lambda d: d.attrs.get("name", "comparison")
)
def test_missing_attributes_never_stop_a_claim(dataset: xr.Dataset):
    bare = dataset.assign_attrs()
    bare.attrs = {"kind": dataset.attrs["kind"]}
    for claim in claims.derive([bare]):
        assert claim.sentence


def test_the_sentence_of_a_claim_carries_verdict_value_and_interval():
    claim = Claim("The ground is flat", "slope", 0.25, (0.1, 0.4), "supported", "by eye")
    assert claim.sentence == "Supported: the ground is flat (slope: 0.25, normal 95 % interval [0.100, 0.400])."


@pytest.mark.parametrize(
    ("value", "stderr", "printed"),
    [
        (0.2708, 0.0051, "0.2708 ± 0.0051"),
        (15.63, 1.23, "15.6 ± 1.2"),
        (1234.5, 67.0, "1234 ± 67"),
        (0.5, 0.0996, "0.50 ± 0.10"),
        (-0.41, 0.02, "−0.410 ± 0.020"),
        (0.25, None, "0.25"),
        (0.25, 0.0, "0.25"),
        (0.25, math.nan, "0.25"),
        (math.nan, 0.1, "–"),
        (1.5e-7, 2e-8, "(1.50 ± 0.20)×10⁻⁷"),
    ],
)
def test_a_value_is_printed_to_two_digits_of_its_error(value: float, stderr: float | None, printed: str):
    assert plus_minus(value, stderr) == printed


def test_numbers_that_are_not_finite_print_as_signs():
    assert [number(x) for x in (math.nan, math.inf, -math.inf)] == ["–", "∞", "−∞"]
    assert interval((math.nan, math.nan)) == "–"
