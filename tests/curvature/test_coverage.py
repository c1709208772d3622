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
from lossatlas.curvature.operators import Operator
from lossatlas.errors import ConvergenceWarning

SEEDS = range(0, 2000, 10)
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
    ("name", "known"), [("gapped", 0), pytest.param("few negative", 0, marks=pytest.mark.slow), ("few negative", 3)]
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
        "many zeros",
        pytest.param("both signs in decades", marks=pytest.mark.slow),
        pytest.param("positive down to 0", marks=pytest.mark.slow),
    ],
)
def test_what_the_quadrature_leaves_open_at_zero_only_widens_the_interval(name):
    values = CONTINUOUS[name]
    found = densities(name, 0)
    low, high = ([float(one[f"negative_mass_{end}"]) for one in found] for end in ("low", "high"))
    assert covered(low, high, float((values < 0).double().mean())) >= 0.95


@pytest.mark.parametrize("name", [*GAPPED, "bulk across 0"])
def test_the_moments_of_a_density_are_as_far_off_as_their_errors_say(name):
    values = (GAPPED | CONTINUOUS)[name].double()
    found = densities(name, 0)
    quantile = scipy.stats.t.ppf(0.975, 3)
    sizes = values.abs().sum()
    for moment, truth in (
        ("trace", values.sum()),
        ("frobenius_norm", values.norm()),
        ("effective_rank", sizes**2 / (values @ values)),
    ):
        center, half = ([float(one[q]) for one in found] for q in (moment, f"{moment}_stderr"))
        low, high = np.array(center) - quantile * np.array(half), np.array(center) + quantile * np.array(half)
        assert 0.90 <= covered(low, high, float(truth)) <= 0.99


@pytest.mark.slow
def test_the_intervals_of_a_whole_spectrum_cover_too():
    """Its probes are orthogonal to the pairs, one of them is the vector that the search for the pairs began with."""
    bulk = torch.cat([torch.linspace(0.5, 2, 57), -torch.linspace(0.5, 1, 17)])
    values = torch.cat([torch.tensor([40.0, 30.0, 20.0, -40.0, -30.0, -20.0]), bulk])
    matrix = symmetric(values.double())[0]
    o = quadratic(matrix, torch.zeros(1, 80, dtype=torch.float64), torch.zeros(80, dtype=torch.float64))
    found = []
    for seed in SEEDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.append(la.spectrum(o, 3, steps=9, trend=False, seed=seed, tol=1e-3, trace_tol=1.0))
    low, high = ([float(one[f"negative_mass_{end}"]) for one in found] for end in ("low", "high"))
    assert 0.90 <= covered(low, high, 20 / 80) <= 0.99
    quantile = scipy.stats.t.ppf(0.975, 3)
    for moment, truth in (("trace", values.sum()), ("frobenius_norm", values.norm())):
        off = np.array([abs(float(one[moment]) - float(truth)) for one in found])
        errors = np.array([float(one[f"{moment}_stderr"]) for one in found])
        assert 0.90 <= float((off <= quantile * errors).mean()) <= 0.99


@pytest.mark.parametrize("zero", [0.0, 1e-8])
def test_every_probe_of_a_spectrum_sees_the_zeros_that_are_left_beside_the_known_ones(zero):
    """Also the vector that the search began with: of equal eigenvalues it shows one vector, which is all of its own."""
    values = torch.cat(
        [torch.full((40,), zero), torch.linspace(1, 2, 34), torch.tensor([4.0, 5.0, 6.0, 8.0, 9.0, 10.0])]
    )
    o = quadratic(
        symmetric(values.double())[0], torch.zeros(1, 80, dtype=torch.float64), torch.zeros(80, dtype=torch.float64)
    )
    masses, traces = [], []
    for seed in range(0, 400, 10):
        found = la.spectrum(o, 3, steps=8, trend=False, seed=seed, trace_tol=1.0)
        near = abs(found["node"]) < 0.3
        masses.append(found["weight"].where(near, 0).sum("step").to_numpy())
        traces.append(float(found["trace"]))
    error = np.std(masses, axis=0, ddof=1) / math.sqrt(40)
    assert (np.abs(np.mean(masses, axis=0) - 37 / 74) <= 4.5 * error + 1e-3).all()
    assert abs(np.mean(traces) - float(values.sum())) <= 4 * np.std(traces, ddof=1) / math.sqrt(40)
