"""Measures that are sums over the whole spectrum: the effective dimension and Gabdullin's criteria."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from scipy.stats import t

from lossatlas.curvature.density import Beyond, Prober, spectral_density, total
from lossatlas.curvature.gabdullin import gabdullin
from lossatlas.curvature.krylov import Floats
from lossatlas.curvature.lanczos import search
from lossatlas.errors import ConvergenceWarning, InputError
from lossatlas.sharpness.measure import PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import Problem

STEPS, PROBES = 40, 4  # of the criteria: with n < 1 they depend on the steps
QUANTILE = float(t.ppf(0.975, PROBES - 1))
PAIRS = 20  # eigenvalues that are computed one by one
FEWEST, MOST = 2, 10  # random vectors for the others
COST = 300  # gradient passes


def effective_dimension(problem: Problem, rho: float) -> Estimate:
    """N_eff = sum_i lambda_i / (lambda_i + rho) over the positive eigenvalues of H, of the mean loss.

    MacKay 1992; Maddox, Benton & Wilson 2020, "Rethinking Parameter Counting", equation 3. A posterior of N examples
    with a prior of precision alpha has rho = alpha / N.
    """

    def counted(values: Floats) -> Floats:
        positive = np.maximum(values, 0)
        return positive / (positive + rho)

    found = _density(problem, counted)
    value, stderr = total(found, counted)
    return Estimate.normal(value, stderr, errors=("solver", "draws") if found.rules else ("solver",))


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
        if problem.n <= 2:
            raise InputError(f"Of {problem.n} parameters all eigenvalues can be had: see spectrum(objective, k=1).")
        steps = min(STEPS, problem.n - 1)
        return spectral_density(problem.hessian, steps=steps, probes=PROBES, seed=problem.seed, progress=False)

    return problem.shared("quadrature", compute)


def _density(problem: Problem, function: Callable[[Floats], Floats]) -> Beyond:
    """The largest eigenvalues one by one, which carry most of the sum, and random vectors for the others.

    As many of these as make the standard error of the sum ``tol`` of it, from 2 to 10; none for a small matrix.
    """
    operator, count = problem.hessian, min(PAIRS, problem.n // 3)
    if problem.n <= PAIRS:
        matrix = operator @ torch.eye(problem.n).to(problem.point)
        return Beyond(problem.n, torch.linalg.eigvalsh(matrix.double()).cpu().numpy(), [], operator.errors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # residuals only change where the rest begins
        pairs = search(operator, count, tol=0.1, look=False, seed=problem.seed).pairs
    atoms, rest = pairs.values.numpy(), problem.n - count
    prober = Prober(operator, pairs.vectors, float(np.abs(atoms).max(initial=0)))
    found = Beyond(problem.n, atoms, [], operator.errors)
    for seed in np.random.SeedSequence(problem.seed).generate_state(MOST):
        steps = min(STEPS, rest)
        found = replace(found, rules=[*found.rules, prober.rule(int(seed), steps, steps, lambda _: False)])
        value, stderr = total(found, function) if len(found.rules) >= FEWEST else (0.0, math.inf)
        if stderr <= problem.tol * abs(value):
            break
    return found


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
