from __future__ import annotations

import math

import made_datasets as made
import numpy as np
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


def test_a_barrier_is_supported_far_above_its_error_and_undecided_within_it():
    assert claims.barrier_height(made.barrier("test", 1.5)).verdict == "supported"
    assert claims.barrier_height(made.barrier("test", 0.001)).verdict == "undecided"


def test_identical_networks_have_no_barrier():
    same = scaled(made.barrier("test", 0.0), barrier=0.0, barrier_stderr=0.0)
    assert claims.barrier_height(same).verdict == "contradicted"


def test_linear_connectivity_is_measured_from_the_mean_error_of_the_ends():
    dataset = made.barrier("test", 1.5)
    claim = claims.linear_connectivity(dataset)
    error = 1 - dataset["accuracy"].to_numpy()
    assert claim.value == pytest.approx(error.max() - (error[0] + error[-1]) / 2, abs=1e-12)
    assert claim.verdict == "contradicted"
    assert claims.linear_connectivity(made.barrier("train", 0.01)).verdict == "supported"


def test_without_errors_of_the_accuracy_connectivity_is_undecided():
    assert claims.linear_connectivity(made.barrier().drop_vars("accuracy_stderr")).verdict == "undecided"


def bounded(low: float, high: float, name: str = "line", error: tuple[float, float] = (0.4, 0.5)) -> xr.Dataset:
    """A path with these bootstrap intervals, of the loss and of Frankle's error barrier."""
    found = made.way(name).assign(barrier=(low + high) / 2, barrier_low=low, barrier_high=high)
    frankle = found["definition"] == "frankle"
    return found.assign(
        height_error_low=found["height_error_low"].where(~frankle, error[0]),
        height_error_high=found["height_error_high"].where(~frankle, error[1]),
    )


@pytest.mark.parametrize(
    ("bounds", "expected"), [((0.1, 0.3), "supported"), ((0.0, 0.3), "undecided"), ((0.0, 0.0), "contradicted")]
)
def test_a_barrier_is_judged_by_the_bootstrap_where_there_is_one(bounds: tuple[float, float], expected: str):
    claim = claims.barrier_height(bounded(*bounds).assign(barrier_stderr=1e-9))
    assert claim.interval == bounds
    assert claim.verdict == expected
    assert claim.basis == "95 % interval of a paired bootstrap"
    without = bounded(*bounds).assign(barrier_low=math.nan, barrier_high=math.nan, barrier_stderr=1e-9)
    assert claims.barrier_height(without).basis == "normal 95 % interval"


@pytest.mark.parametrize(
    ("error", "expected"), [((0.0, 0.019), "supported"), ((0.021, 0.03), "contradicted"), ((0.01, 0.03), "undecided")]
)
def test_connectivity_is_judged_by_the_bootstrap_of_frankles_error_barrier(error: tuple[float, float], expected: str):
    line = claims.linear_connectivity(bounded(0.1, 0.3, error=error))
    curve = claims.curve_connectivity(bounded(0.1, 0.3, "Bezier curve", error))
    for claim in (line, curve):
        assert claim.interval == error
        assert claim.verdict == expected
        assert claim.basis == "95 % interval of a paired bootstrap"
    assert "linearly mode connected in the sense" in line.hypothesis
    assert "connected by a curve, the Bezier curve, with an error barrier below 2 %" in curve.hypothesis


def test_a_line_after_alignment_is_called_so_in_its_claims():
    found = claims.derive([made.way("line after alignment")])
    height, connectivity = (claim.hypothesis for claim in found)
    assert height.startswith("The line after alignment between the two networks crosses a barrier of the loss on ")
    assert "linearly mode connected after alignment in the sense of Frankle et al. (2020)" in connectivity


@pytest.mark.parametrize(
    ("line", "other", "expected"),
    [
        ((1.0, 1.2), (0.1, 0.3), "supported"),
        ((0.1, 0.3), (1.0, 1.2), "contradicted"),
        ((0.2, 0.4), (0.1, 0.3), "undecided"),
    ],
)
def test_a_path_is_lower_where_the_two_intervals_do_not_overlap(
    line: tuple[float, float], other: tuple[float, float], expected: str
):
    claim = claims.lower_path(bounded(*line), bounded(*other, "Bezier curve"))
    assert claim.verdict == expected
    assert claim.value == pytest.approx((sum(line) - sum(other)) / 2)
    assert claim.interval == pytest.approx((line[0] - other[1], line[1] - other[0]))
    assert claim.hypothesis.startswith("The Bezier curve crosses a lower barrier of the loss than the straight line")


def lower(*datasets: xr.Dataset) -> int:
    return len([claim for claim in claims.derive(datasets) if "crosses a lower barrier" in claim.hypothesis])


def test_paths_are_compared_with_the_line_between_the_same_networks_on_the_same_data_by_the_same_definition():
    line, aligned, curve = (made.way(name) for name in made.WAYS)
    assert lower(line, aligned, curve) == 2
    assert lower(*made.ways("train", "test")) == 4
    assert lower(line, made.way("Bezier curve", "train")) == 0
    assert lower(line, curve.assign_attrs(definition="draxler")) == 0
    assert lower(line, curve.assign(loss=curve["loss"] + 0.01)) == 0  # other ends: other networks
    assert lower(aligned, curve) == 0
    assert lower(made.barrier(), made.barrier("train")) == 0


@pytest.mark.parametrize("make", [made.line, made.plane])
def test_the_minimum_of_a_slice_is_decided_where_its_errors_are_small(make):
    sharp = scaled(make("A"), loss_stderr=1e-6)
    assert claims.slice_minimum(sharp).verdict == "supported"
    lower = sharp.copy(deep=True)
    lower["loss"][3] = 0.1
    assert claims.slice_minimum(lower).verdict == "contradicted"
    assert claims.slice_minimum(scaled(make("A"), loss_stderr=100.0)).verdict == "undecided"


def test_the_paired_error_of_the_difference_decides_where_the_two_errors_apart_could_not():
    apart = scaled(made.line("A"), loss_stderr=100.0)
    paired = apart.assign(loss_rise_stderr=("alpha", np.full(apart.sizes["alpha"], 1e-6)))
    assert claims.slice_minimum(apart).verdict == "undecided"
    assert claims.slice_minimum(paired).verdict == "supported"


def test_a_flat_slice_seen_through_noise_is_decided_in_at_most_one_case_of_twenty():
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(400):
        slice_ = made.line("A")
        slice_["loss"] = ("alpha", 1 + 0.01 * rng.standard_normal(slice_.sizes["alpha"]))
        slice_["loss"][25] = 1.0
        slice_ = slice_.assign(loss_rise_stderr=("alpha", np.full(slice_.sizes["alpha"], 0.01)))
        decided += claims.slice_minimum(slice_).verdict != "undecided"
    assert decided <= 20


def test_a_slice_with_missing_cells_says_how_many_and_decides_on_the_others():
    claim = claims.slice_minimum(scaled(made.plane(nonfinite=True), loss_stderr=1e-6))
    assert claim.verdict == "supported"
    assert "13 left out" in claim.detail


def test_a_slice_without_its_centre_allows_no_claim():
    assert claims.slice_minimum(made.line(steps=50)) is None
    assert claims.derive([made.line(steps=50)]) == []


def test_a_slice_about_another_point_than_the_trained_one_allows_no_claim():
    assert claims.slice_minimum(made.line().assign_attrs(center_is_model=0)) is None


def test_a_negative_eigenvalue_beyond_its_residual_contradicts_and_one_within_it_does_not():
    assert claims.no_negative_curvature(made.spectrum(negative=True)).verdict == "contradicted"
    assert claims.no_negative_curvature(made.spectrum(negative=False)).verdict == "supported"
    assert claims.no_negative_curvature(scaled(made.spectrum(), residual=1e5)).verdict == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 0.009, "supported"),
        (0.011, 0.2, "contradicted"),
        (0.005, 0.02, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_how_many_eigenvalues_are_negative_is_judged_by_the_interval_of_their_share(
    low: float, high: float, expected: str
):
    dataset = made.whole_spectrum().assign(negative_mass_low=low, negative_mass_high=high)
    claim = claims.few_negative_eigenvalues(dataset)
    assert claim.verdict == expected
    assert claims.few_negative_eigenvalues(dataset, share=0.5).verdict in ("supported", "undecided")
    assert "40 Lanczos steps, 4 probes" in claim.detail


def test_a_density_says_nothing_that_the_spectrum_of_the_same_hessian_says():
    negative = "of the eigenvalues of the Hessian"
    spectrum, density = made.whole_spectrum(), made.density()
    assert [claim.kind for claim in claims.derive([density])] == ["spectral_density"]
    assert [c.kind for c in claims.derive([spectrum, density]) if negative in c.hypothesis] == ["spectrum"]
    elsewhere = density.assign_attrs(data="digits")
    assert len([c for c in claims.derive([spectrum, elsewhere]) if negative in c.hypothesis]) == 2
    ends_only = made.spectrum()
    assert len([c for c in claims.derive([ends_only, density]) if negative in c.hypothesis]) == 1


def norms(rest: float, whole: float, rest_stderr: float = 0.0, whole_stderr: float = 0.0) -> xr.Dataset:
    return made.gauss_newton_split().assign(
        frobenius_residual=rest,
        frobenius_residual_stderr=rest_stderr,
        frobenius_hessian=whole,
        frobenius_hessian_stderr=whole_stderr,
    )


def test_the_gauss_newton_part_dominates_by_the_norm_of_the_rest():
    assert claims.gauss_newton_dominates(norms(1.0, 10.0, 0.1, 0.1)).verdict == "supported"
    assert claims.gauss_newton_dominates(norms(8.0, 10.0, 0.1, 0.1)).verdict == "contradicted"
    assert claims.gauss_newton_dominates(norms(4.9, 10.0, 0.5, 0.5)).verdict == "undecided"
    assert claims.gauss_newton_dominates(norms(5.0, 10.0)).verdict == "contradicted"  # not less than half


@pytest.mark.parametrize("whole", [norms(1.0, 10.0, 0.1, math.nan), norms(1.0, 10.0, 0.1, 9.0), norms(0.0, 0.0)])
def test_a_ratio_whose_denominator_may_be_0_decides_nothing(whole: xr.Dataset):
    assert claims.gauss_newton_dominates(whole).verdict == "undecided"


@pytest.mark.parametrize("correlation", [-1.0, 0.0, 1.0])
def test_the_interval_of_the_ratio_covers_however_the_two_errors_hang_together(correlation: float):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        first, second = rng.normal(size=2)
        second = correlation * first + math.sqrt(1 - correlation**2) * second
        claim = claims.gauss_newton_dominates(norms(5 + 0.4 * first, 10 + 0.6 * second, 0.4, 0.6))
        covered += claim.interval[0] <= 0.5 <= claim.interval[1]
    assert covered >= 0.95 * 300


def test_a_difference_of_sharpness_is_judged_by_the_data_error_too():
    a, b = made.spectrum("A"), made.spectrum("B")
    claim = claims.sharpness_difference(a, b)
    assert claim.verdict == "supported"
    assert claim.value == pytest.approx(15.8 - 13.1)
    assert claims.sharpness_difference(scaled(a, eigenvalue_stderr=4.0), b).verdict == "undecided"
    assert claims.sharpness_difference(a, a).verdict == "undecided"


def test_without_data_errors_a_difference_of_sharpness_says_that_it_holds_for_these_examples_only():
    claim = claims.sharpness_difference(made.spectrum("A", stderr=False), made.spectrum("B", stderr=False))
    assert "these examples only" in claim.detail


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


def test_spectra_on_different_data_are_not_compared():
    a, b = made.spectrum("A"), made.spectrum("B").assign_attrs(data="digits")
    assert not [claim for claim in claims.derive([a, b]) if "differ" in claim.hypothesis]


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


def test_runs_are_stable_where_the_largest_error_barrier_of_the_pairs_is_below_two_per_cent():
    dataset = xr.Dataset(
        {
            "barrier_error": (("k", "pair"), [[0.10, 0.01], [0.005, 0.01], [0.015, 0.018]]),
            "barrier_error_low": (("k", "pair"), [[0.08, 0.0], [0.0, 0.0], [0.01, 0.01]]),
            "barrier_error_high": (("k", "pair"), [[0.12, 0.015], [0.012, 0.015], [0.019, 0.025]]),
        },
        coords={"k": [0, 20, 400], "pair": [0, 1]},
        attrs={"kind": "instability", "data": "digits test"},
    )
    found = claims.derive([dataset])
    assert [claim.verdict for claim in found] == ["contradicted", "supported", "undecided"]
    assert found[0].value == 0.10
    assert claims.derive([dataset.drop_vars("barrier_error")]) == []
