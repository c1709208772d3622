"""Worst-case sharpness in a geodesic ball, which no change of basis of attention heads moves."""

from __future__ import annotations

from dataclasses import replace

from lossatlas.connectivity.alignment import symmetries_of
from lossatlas.errors import InputError
from lossatlas.sharpness.balls import worst_case
from lossatlas.sharpness.geodesics import GeodesicBall, Metric, Normal, metric_of
from lossatlas.sharpness.measure import BASIS, PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import Problem
from lossatlas.sharpness.reparametrisations import Reparametrisations

PASSES = 60  # an ascent


def geodesic(problem: Problem, rho: float) -> Estimate:
    """max L(Exp(a)) - L(w) over |a| <= rho in the metric of ``Metric``, by ascent: a lower bound.

    A ball around w covers the ball around its class in the quotient by changes of basis, since L is the same all over
    a class: the velocities need not be horizontal. The geodesics are integrated, not expanded to second order.

    da Silva et al. 2025, arXiv 2505.05409, section 4.
    """
    metric = problem.shared("metric", lambda: _metric(problem))
    found = worst_case(Normal(problem, metric), GeodesicBall(rho, metric))
    pairs = sum(side.shape[0] for side in metric.sides) // 2
    return replace(
        found, note=f"{pairs} products of two matrices, as queries and keys of a head. {found.note}".rstrip()
    )


def _metric(problem: Problem) -> Metric:
    objective = problem.objective
    mixing = Reparametrisations(objective, symmetries_of(objective, None), problem.seed).mixing()
    if not mixing:
        raise InputError("There is no attention head, and no other product of two linear layers: see adaptive_worst.")
    return metric_of(objective, mixing)


MEASURES = (
    Measure(
        "geodesic_worst",
        "worst case in a geodesic ball",
        r"\max_{\lVert a \rVert_w \le \rho} L(\mathrm{Exp}_w(a)) - L(w)",
        "dasilva2025",
        geodesic,
        frozenset({PERMUTATION, BASIS}),
        PASSES,
        rho=0.5,
        needs="heads",
    ),
)
