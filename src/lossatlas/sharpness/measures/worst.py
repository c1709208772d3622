"""Worst-case sharpness in a ball: SAM's, adaptive ones, by one step and by ascent."""

from __future__ import annotations

from torch import Tensor

from lossatlas.sharpness.balls import Box, Euclidean, filter_norms, one_step, worst_case
from lossatlas.sharpness.measure import BATCH_NORM, LAYER, NEURON, PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import Problem

ONE_STEP, CLIMB = 4 / 3, 60  # gradient passes


def sam(problem: Problem, rho: float) -> Estimate:
    """L(w + rho g / |g|) - L(w): one step of SAM, a lower bound of the maximum over |delta| <= rho up to second order.

    Foret et al. 2021, "Sharpness-Aware Minimization", equation 2.
    """
    return one_step(problem, Euclidean(rho))


def sam_ascent(problem: Problem, rho: float) -> Estimate:
    """max_{|delta| <= rho} L(w + delta) - L(w), by ascent: a lower bound.

    Foret et al. 2021, equation 1.
    """
    return worst_case(problem, Euclidean(rho))


def asam(problem: Problem, rho: float) -> Estimate:
    """L(w + rho T^2 g / |T g|) - L(w), T = diag |w|: one step in the ball |T^-1 delta| <= rho.

    Kwon et al. 2021, "ASAM", equation 8, elementwise, without the eta that is added to |w| there and ends the
    invariance.
    """
    return one_step(problem, Euclidean(rho, problem.point.abs()))


def asam_filter(problem: Problem, rho: float) -> Estimate:
    """As ``asam``, with the norm |w_f| of its filter for each weight in T; |w_i| for biases.

    Kwon et al. 2021, section 3, filter-wise.
    """
    return one_step(problem, Euclidean(rho, _filter_norms(problem)))


def adaptive_worst(problem: Problem, rho: float) -> Estimate:
    """max L(w + delta) - L(w) over |delta / |w||_2 <= rho, by ascent: a lower bound.

    Andriushchenko et al. 2023, "A Modern Look at the Relationship between Sharpness and Generalization", equation 2,
    p = 2; to second order rho^2/2 lambda_max(H o |w| |w|').
    """
    return worst_case(problem, Euclidean(rho, problem.point.abs()))


def adaptive_worst_inf(problem: Problem, rho: float) -> Estimate:
    """max L(w + delta) - L(w) over |delta_i| <= rho |w_i|, by ascent: a lower bound.

    Andriushchenko et al. 2023, equation 2, p = infinity.
    """
    return worst_case(problem, Box(rho, problem.point.abs()))


def _filter_norms(problem: Problem) -> Tensor:
    objective = problem.objective
    return filter_norms(objective.space, problem.point, objective.filters())


MEASURES = (
    Measure(
        "sam",
        "worst case, one step",
        r"L(w + \rho\, g / \lVert g \rVert) - L(w)",
        "foret2021",
        sam,
        frozenset({PERMUTATION}),
        ONE_STEP,
        rho=0.05,
    ),
    Measure(
        "sam_ascent",
        "worst case",
        r"\max_{\lVert \delta \rVert \le \rho} L(w + \delta) - L(w)",
        "foret2021",
        sam_ascent,
        frozenset({PERMUTATION}),
        CLIMB,
        rho=0.05,
    ),
    Measure(
        "asam",
        "adaptive worst case, one step",
        r"L(w + \rho\, T^2 g / \lVert T g \rVert) - L(w),\ T = \mathrm{diag}\,|w|",
        "kwon2021",
        asam,
        frozenset({LAYER, NEURON, BATCH_NORM, PERMUTATION}),
        ONE_STEP,
        rho=0.5,
    ),
    Measure(
        "asam_filter",
        "filter-wise worst case, one step",
        r"L(w + \rho\, T^2 g / \lVert T g \rVert) - L(w),\ T_{f} = \lVert w_f \rVert",
        "kwon2021",
        asam_filter,
        frozenset({LAYER, BATCH_NORM, PERMUTATION}),
        ONE_STEP,
        rho=0.05,
    ),
    Measure(
        "adaptive_worst",
        "adaptive worst case",
        r"\max_{\lVert \delta / |w| \rVert_2 \le \rho} L(w + \delta) - L(w)",
        "andriushchenko2023",
        adaptive_worst,
        frozenset({LAYER, NEURON, BATCH_NORM, PERMUTATION}),
        CLIMB,
        rho=0.5,
    ),
    Measure(
        "adaptive_worst_inf",
        "adaptive worst case, maximum norm",
        r"\max_{|\delta_i| \le \rho |w_i|} L(w + \delta) - L(w)",
        "andriushchenko2023",
        adaptive_worst_inf,
        frozenset({LAYER, NEURON, BATCH_NORM, PERMUTATION}),
        CLIMB,
        rho=0.01,
    ),
)
