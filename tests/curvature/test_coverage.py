"""Do the 95 % intervals cover what they say? 200 seeds each, on matrices whose spectrum is known.

With a coverage of 0.95 the share of 200 seeds has a standard error of 0.015: between 0.90 and 0.99 it lies with a
probability of 0.996, so each band is checked with that slack and no more.
"""

from __future__ import annotations

import functools
import math
import warnings

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from oracles.quadratic import quadratic, symmetric
from torch import Tensor

import lossatlas as la
from lossatlas.curvature.density import density_to_tolerance, search_rule
from lossatlas.curvature.lanczos import search
from lossatlas.curvature.operators import Operator
from lossatlas.curvature.progress import Budget, product_bar
from lossatlas.errors import ConvergenceWarning

SEEDS = range(0, 2000, 10)
NORMAL = float(scipy.stats.norm.ppf(0.975))
GAPPED = {
    "gapped": torch.cat([-torch.linspace(0.5, 1, 24), torch.linspace(0.5, 2, 56)]),
    "few negative": torch.cat([-torch.linspace(0.4, 1, 12), torch.linspace(0.4, 2, 68)]),
}
CONTINUOUS = {
    "bulk across 0": torch.linspace(-1, 2, 80),
    "many zeros": torch.cat([torch.linspace(-1, -0.1, 15), torch.zeros(30), torch.linspace(0.1, 2, 35)]),
    "both signs in decades": torch.cat([-(10.0 ** -torch.linspace(0, 6, 30)), 10.0 ** -torch.linspace(-1, 6, 50)]),
    "positive down to 0": torch.linspace(0, 1, 80) ** 3,
}
TRACES = {
    "decaying": (10.0 ** -torch.linspace(0, 3, 300), 0.02),
    "indefinite": (torch.linspace(-1, 2, 300), 0.02),
    "outliers and a bulk": (torch.cat([torch.tensor([50.0, 30.0, 20.0]), torch.linspace(0, 1, 297)]), 0.03),
    "two values": (torch.cat([torch.ones(100), torch.zeros(200)]), 0.05),
    # From the first possible stop.
    "a heavy tail": (torch.linspace(0.01, 1, 300) ** -1.2, 0.3),
    "an outlier of a million": (torch.cat([torch.tensor([1e6]), torch.linspace(-2, 2, 299) ** 3]), 0.01),
    "a bulk at zero": (torch.cat([torch.linspace(1, 5, 60), 1e-3 * torch.linspace(-1, 1, 240)]), 0.1),
}


def operator(matrix: Tensor) -> Operator:
    return Operator(len(matrix), lambda rows: rows @ matrix, matrix.dtype, matrix.device)


def of(values: Tensor) -> Operator:
    return operator(symmetric(values.double())[0])


def covered(low: list[float], high: list[float], truth: float) -> float:
    return float(((np.array(low) <= truth) & (truth <= np.array(high))).mean())


@pytest.mark.parametrize("name", TRACES)
def test_the_interval_of_the_trace_covers_it(name):
    values, tol = TRACES[name]
    matrix = of(values)
    found = [la.trace(matrix, tol=tol, seed=seed) for seed in SEEDS]
    assert max(one.products for one in found) < 200
    assert min(one.probes for one in found) >= 10
    assert min(one.stderr for one in found) > 0
    share = covered([one.low for one in found], [one.high for one in found], float(values.double().sum()))
    assert 0.90 <= share <= 0.99


@functools.cache
def densities(name: str, known: int) -> list[xr.Dataset]:
    matrix = of((GAPPED | CONTINUOUS)[name])
    pairs = la.top_eigenpairs(matrix, known, tol=1e-6) if known else None
    return [la.spectral_density(matrix, steps=12, probes=4, deflate=pairs, seed=seed) for seed in SEEDS]


@pytest.mark.parametrize(
    ("name", "known"),
    [("gapped", 0), *(pytest.param("few negative", known, marks=pytest.mark.slow) for known in (0, 3))],
)
def test_with_a_gap_about_zero_the_interval_of_the_negative_mass_covers_it(name, known):
    values = GAPPED[name]
    found = densities(name, known)
    low, high = ([float(one[f"negative_mass_{end}"]) for one in found] for end in ("low", "high"))
    assert 0.90 <= covered(low, high, float((values < 0).double().mean())) <= 0.99


@pytest.mark.parametrize(
    "name",
    [
        "bulk across 0",
        pytest.param("many zeros", marks=pytest.mark.slow),
        pytest.param("both signs in decades", marks=pytest.mark.slow),
        pytest.param("positive down to 0", marks=pytest.mark.slow),
    ],
)
def test_what_the_quadrature_leaves_open_at_zero_only_widens_the_interval(name):
    values = CONTINUOUS[name]
    found = densities(name, 0)
    low, high = ([float(one[f"negative_mass_{end}"]) for one in found] for end in ("low", "high"))
    assert covered(low, high, float((values < 0).double().mean())) >= 0.95


@pytest.mark.parametrize("name", ["gapped", pytest.param("few negative", marks=pytest.mark.slow), "bulk across 0"])
def test_the_moments_of_a_density_are_as_far_off_as_their_errors_say(name):
    values = (GAPPED | CONTINUOUS)[name].double()
    found = densities(name, 0)
    sizes = values.abs().sum()
    for moment, truth in (
        ("trace", values.sum()),
        ("frobenius_norm", values.norm()),
        ("effective_rank", sizes**2 / (values @ values)),
    ):
        center, half = ([float(one[q]) for one in found] for q in (moment, f"{moment}_stderr"))
        low, high = np.array(center) - NORMAL * np.array(half), np.array(center) + NORMAL * np.array(half)
        assert 0.90 <= covered(low, high, float(truth)) <= 0.99


BINNED = {
    "log-uniform": 10.0 ** (-6 * torch.rand(400, dtype=torch.float64, generator=torch.Generator().manual_seed(1))),
    "an outlier of a million": TRACES["an outlier of a million"][0].double(),
    "a bulk at zero": TRACES["a bulk at zero"][0].double(),
}


@pytest.mark.parametrize("name", BINNED)
def test_the_bins_hold_the_share_of_the_eigenvalues_and_the_error_of_the_density_its_distance(name):
    """The quadrature's own error is in the intervals; they were too small without it in 40 of 100 bins."""
    values = BINNED[name].numpy()
    inside, near = [], []
    for seed in range(20):
        found = la.spectral_density(of(BINNED[name]), steps=40, probes=2, seed=seed, progress=False)
        truth = np.histogram(values, np.append(found["bin_left"], found["bin_right"][-1]))[0] / len(values)
        slack = 1e-12
        low, high = found["histogram_low"].to_numpy() - slack, found["histogram_high"].to_numpy() + slack
        inside.append((low <= truth) & (truth <= high))
        assert (high - low).mean() < 0.2
        distance = scipy.stats.wasserstein_distance(
            values, found["node"].to_numpy().ravel(), None, found["weight"].to_numpy().ravel()
        )
        near.append(distance / np.ptp(values) <= float(found["density_error"]) <= 0.1)
    assert np.concatenate(inside).mean() >= 0.95
    assert np.mean(near) >= 0.85


def test_more_steps_and_probes_bring_a_density_to_its_tolerance():
    bulk = torch.linspace(-5, 5, 19_988, dtype=torch.float64)
    values = torch.cat([10.0 * torch.arange(1, 7), -20.0 * torch.arange(1, 7), bulk])
    matrix = Operator(len(values), lambda rows: rows * values, values.dtype, values.device)
    run = search(matrix, 6, which="both", tol=1e-6)
    spent = []
    for tol in (0.05, 0.002, 0.0005):
        budget = Budget(product_bar("", False))
        found = density_to_tolerance(budget.counted(matrix), run, tol, (10, 1), budget, 0)
        assert 0 < found.error <= tol
        nodes = np.concatenate([found.atoms, *(rule.nodes for rule in found.rules)])
        mass = [found.rest / len(found.rules) * rule.weights for rule in found.rules]
        weights = np.concatenate([np.ones(12), *mass])
        assert scipy.stats.wasserstein_distance(values.numpy(), nodes, None, weights) <= tol * 180
        spent.append(budget.spent)
    assert spent[0] == 0 < spent[1] < spent[2]


def test_where_a_density_would_take_as_many_products_all_eigenvalues_are_computed():
    values = torch.cat([torch.full((30,), -1.0), torch.linspace(0.1, 3, 90)]).double()
    found = la.spectrum(objective_of(values), 2, density_tol=1e-4, trend=False, progress=False)
    assert found.attrs["trace_method"] == "exact: all columns"
    assert float(found["density_error"]) == 0
    for name in ("negative_mass", "negative_mass_low", "negative_mass_high"):
        assert float(found[name]) == pytest.approx(30 / 120, abs=1e-12)
    assert float(found["frobenius_norm"]) == pytest.approx(float(values.norm()), rel=1e-9)
    assert (found["histogram_low"] == found["histogram_high"]).all()
    assert found.attrs["products"] <= 2 * 120


def objective_of(values: Tensor) -> la.Objective:
    n = len(values)
    return quadratic(symmetric(values)[0], torch.zeros(1, n).double(), torch.zeros(n).double())


@pytest.mark.slow
def test_the_intervals_of_a_whole_spectrum_cover_too():
    """Its probes are orthogonal to the pairs, one of them is the vector that the search for the pairs began with."""
    bulk = torch.cat([torch.linspace(0.5, 2, 57), -torch.linspace(0.5, 1, 17)])
    values = torch.cat([torch.tensor([40.0, 30.0, 20.0, -40.0, -30.0, -20.0]), bulk]).double()
    o = objective_of(values)
    found = []
    for seed in SEEDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.append(la.spectrum(o, 3, probes=2, density_tol=1.0, trend=False, seed=seed, trace_tol=1.0))
    for name, truth in (("negative_mass", 20 / 80), ("trace", values.sum()), ("frobenius_norm", values.norm())):
        low, high = ([float(one[f"{name}_{end}"]) for one in found] for end in ("low", "high"))
        assert 0.90 <= covered(low, high, float(truth)) <= 0.995


@pytest.mark.parametrize("zero", [0.0, 1e-8])
def test_the_vector_that_a_search_began_with_sees_the_zeros_that_are_left_beside_the_known_ones(zero):
    """Of equal eigenvalues it shows one vector, which is all of its own, so it is no probe; else it is unbiased."""
    values = torch.cat(
        [torch.full((40,), zero), torch.linspace(1, 2, 34), torch.tensor([4.0, 5.0, 6.0, 8.0, 9.0, 10.0])]
    )
    matrix = of(values)
    for which, left in (("largest", 40), ("both", 37)):
        rules = [search_rule(search(matrix, 3, which=which, tol=1e-3, floor=1e-5, seed=seed)) for seed in range(60)]
        known = 40 - left + 3
        masses = [rule.weights[np.abs(rule.nodes) < 0.3].sum() for rule in rules if rule is not None]
        assert len(masses) == (60 if which == "largest" else 0)
        if masses:
            error = np.std(masses, ddof=1) / math.sqrt(len(masses))
            assert abs(np.mean(masses) - left / (80 - known)) <= 4.5 * error + 1e-3
