"""Measures that are sums over the whole spectrum: the effective dimension and Gabdullin's criteria."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr
from scipy.stats import t

from lossatlas.curvature.density import Beyond, density_to_tolerance, spectral_density, total
from lossatlas.curvature.gabdullin import gabdullin
from lossatlas.curvature.krylov import Floats
from lossatlas.curvature.lanczos import search
from lossatlas.curvature.progress import Budget, product_bar
from lossatlas.curvature.quadrature import Rule
from lossatlas.errors import ConvergenceWarning
from lossatlas.sharpness.measure import PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import Problem

STEPS, PROBES = 40, 4  # of the criteria: with n < 1 they depend on the steps
QUANTILE = float(t.ppf(0.975, PROBES - 1))
LEAST = (10, 2)  # steps and random vectors of a density
PAIRS = 20
COST = 300  # gradient passes


def effective_dimension(problem: Problem, rho: float) -> Estimate:
    """N_eff = sum_i lambda_i / (lambda_i + rho) over the positive eigenvalues of H, of the mean loss.

    MacKay 1992; Maddox, Benton & Wilson 2020, "Rethinking Parameter Counting", equation 3. A posterior of N examples
    with a prior of precision alpha has rho = alpha / N.
    """

    def counted(values: Floats) -> Floats:
        positive = np.maximum(values, 0)
        return positive / (positive + rho)

    found = problem.shared("density", partial(_density, problem))
    value, stderr = total(found, counted)
    off = abs(value - total(_shorter(found), counted)[0])
    errors = ("solver", "draws") if found.rules else ()
    return Estimate.normal(value, stderr, off=off, errors=errors)


def gabdullin_k(problem: Problem) -> Estimate:
    """K_{H 0.5} = sum_{lambda < 0} |lambda w|^0.5 / sum_{lambda > 0} (lambda w)^0.5, after 40 Lanczos steps.

    Gabdullin 2024, arXiv 2412.10146, equation 5: it depends on the number of steps.
    """
    found = gabdullin(_quadrature(problem)).isel(step=-1)
    note = f"After {found['step'].item()} Lanczos steps, on which it depends."
    return _over_probes(float(found["k_h05"]), float(found["k_h05_stderr"]), note)


def gabdullin_k1(problem: Problem) -> Estimate:
    """K_{H 1} = sum of |lambda| below 0 over that above 0: the form that does not depend on the steps.

    Gabdullin 2024, arXiv 2412.10146, equation 5 with n = 1.
    """
    found = _quadrature(problem)
    share, stderr = float(found["negative_share"]), float(found["negative_share_stderr"])
    if share == 1:
        return Estimate.missing("No eigenvalue is above 0.")
    return _over_probes(share / (1 - share), stderr / (1 - share) ** 2, "")


def _over_probes(value: float, stderr: float, note: str) -> Estimate:
    half = QUANTILE * stderr
    return Estimate(value, stderr, value - half, value + half, ("draws",), note=note)


def _quadrature(problem: Problem) -> xr.Dataset:
    def compute() -> xr.Dataset:
        steps = min(STEPS, problem.n - 1)
        return spectral_density(problem.hessian, steps=steps, probes=PROBES, seed=problem.seed, progress=False)

    return problem.shared("quadrature", compute)


def _density(problem: Problem) -> Beyond:
    """The largest eigenvalues one by one, which carry most of the sum, and random vectors for the others."""
    operator, count = problem.hessian, max(min(PAIRS, problem.n // 3), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the interval tells
        run = search(operator, count, tol=problem.tol, floor=problem.tol / 10, seed=problem.seed)
        budget = Budget(product_bar("", shown=False))
        return density_to_tolerance(operator, run, problem.tol, LEAST, budget, problem.seed)


def _shorter(found: Beyond) -> Beyond:
    """The same from half of the Lanczos steps of each random vector."""
    return replace(found, rules=[rule if rule.taken.size else _half(rule) for rule in found.rules])


def _half(rule: Rule) -> Rule:
    steps = max(len(rule.diagonal) // 2, 1)
    return Rule(rule.diagonal[:steps], rule.off_diagonal[: steps - 1], rule.off_diagonal[steps - 1], rule.rounding)


MEASURES = (
    Measure(
        "effective_dimension",
        "effective dimension",
        r"\sum_{\lambda_i > 0} \lambda_i / (\lambda_i + \rho)",
        "maddox2020",
        effective_dimension,
        frozenset({PERMUTATION}),
        COST,
        rho=1.0,
    ),
    Measure(
        "gabdullin_k",
        "negative share, Gabdullin's K",
        r"\sum_{\lambda<0} |\lambda w|^{1/2} / \sum_{\lambda>0} (\lambda w)^{1/2}",
        "gabdullin2024",
        gabdullin_k,
        frozenset({PERMUTATION}),
        COST,
    ),
    Measure(
        "gabdullin_k1",
        "negative share, n = 1",
        r"\sum_{\lambda<0} |\lambda| / \sum_{\lambda>0} \lambda",
        "gabdullin2024",
        gabdullin_k1,
        frozenset({PERMUTATION}),
        COST,
    ),
)
