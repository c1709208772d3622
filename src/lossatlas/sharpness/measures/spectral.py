"""Measures that are numbers of the Hessian's spectrum."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial

import torch

from lossatlas.curvature.trace import COLUMNS, ROUND, TraceEstimate, exact_trace
from lossatlas.errors import ConvergenceWarning
from lossatlas.sharpness.measure import PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import PRODUCTS, Problem

ENDS, TRACE, NORM = 30, 60, 50  # gradient passes


def lambda_max(problem: Problem) -> Estimate:
    """max_{|v| = 1} v' H v: the largest eigenvalue, within its residual, with the data's error of v' H v.

    Keskar et al. 2017; Parlett 1998, chapter 4 (the residual).
    """
    pairs = problem.ends.pairs
    value, residual, stderr = (float(each[0]) for each in (pairs.values, pairs.residuals, pairs.stderrs))
    return Estimate.normal(value, stderr, off=residual, errors=("solver", "data"), note=_unconverged(problem))


def eigenvalue_ratio(problem: Problem) -> Estimate:
    """r_e = |lambda_min / lambda_max|, 0 where none is negative.

    Gabdullin 2024, arXiv 2412.10146, section 3.
    """
    pairs = problem.ends.pairs
    (high, low), off = pairs.values.tolist(), [float(each) for each in pairs.residuals]
    if not high > off[0]:
        return Estimate.missing("No eigenvalue is above 0 beyond its residual, so that there is no ratio to it.")
    value = max(-low, 0.0) / high
    error = (off[1] + value * off[0]) / (high - off[0])
    stderrs = [float(each) for each in pairs.stderrs]
    stderr = math.hypot(stderrs[1], value * stderrs[0]) / high
    return Estimate.normal(value, stderr, off=error, errors=("solver", "data"), note=_unconverged(problem))


def trace(problem: Problem) -> Estimate:
    """tr H = sum_i lambda_i: exact where a backward pass for each output gives the diagonal, else by random products.

    The interval does not hold the data's error.
    """
    found = _trace(problem)
    errors = ("draws",) if found.stderr else ()
    note = "" if not found.reason else found.method
    return Estimate(found.value, found.stderr, found.low, found.high, errors, note=note)


def mean_curvature(problem: Problem) -> Estimate:
    """tr H / n: the mean eigenvalue, and the expected curvature along a random direction.

    Boettcher & Wheeler 2022, "Visualizing high-dimensional loss landscapes with Hessian directions".
    """
    whole, n = trace(problem), problem.n
    return replace(whole, value=whole.value / n, stderr=whole.stderr / n, low=whole.low / n, high=whole.high / n)


def frobenius(problem: Problem) -> Estimate:
    """|H|_F = sqrt(sum_i lambda_i^2), by random products beyond the space of the largest eigenvalue.

    The interval does not hold the data's error.
    """
    space = problem.ends.space
    if space.size == problem.n:
        value = float(math.hypot(*space.ritz()[0]))
        return Estimate(value, 0.0, value, value)
    found = problem.probes[1]
    return Estimate(found.value, found.stderr, found.low, found.high, ("draws",))


def _trace(problem: Problem) -> TraceEstimate:
    return problem.shared("trace", partial(_computed_trace, problem))


def _computed_trace(problem: Problem) -> TraceEstimate:
    operator = problem.hessian
    exact = operator.exact_diagonal()
    if exact.values is not None:
        problem.count(passes=problem.outputs)
        return exact_trace(exact.values)
    space = problem.ends.space
    if space.size == problem.n:
        return exact_trace(torch.from_numpy(space.ritz()[0]), COLUMNS)
    most = max(PRODUCTS - problem.ends.pairs.products, ROUND)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the interval tells
        return problem.probes[0].trace(problem.tol, most).of(operator).because(exact.reason)


def _unconverged(problem: Problem) -> str:
    pairs = problem.ends.pairs
    if bool(pairs.converged.all()):
        return ""
    return f"Residuals are above the tolerance after {pairs.products} products: spectrum(objective, k=1) goes on."


MEASURES = (
    Measure(
        "lambda_max",
        "largest eigenvalue",
        r"\lambda_{\max}(H)",
        "keskar2017",
        lambda_max,
        frozenset({PERMUTATION}),
        ENDS,
    ),
    Measure("trace", "trace", r"\mathrm{tr}\,H", "dinh2017", trace, frozenset({PERMUTATION}), TRACE),
    Measure(
        "mean_curvature",
        "mean eigenvalue",
        r"\mathrm{tr}\,H / n",
        "boettcher2022",
        mean_curvature,
        frozenset({PERMUTATION}),
        TRACE,
    ),
    Measure("frobenius", "Frobenius norm", r"\lVert H \rVert_F", "dinh2017", frobenius, frozenset({PERMUTATION}), NORM),
    Measure(
        "eigenvalue_ratio",
        "ratio of the extreme eigenvalues",
        r"|\lambda_{\min} / \lambda_{\max}|",
        "gabdullin2024",
        eigenvalue_ratio,
        frozenset({PERMUTATION}),
        ENDS,
    ),
)
