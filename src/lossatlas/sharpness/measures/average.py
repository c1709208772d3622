"""Average-case sharpness: the mean rise of the loss under random perturbations."""

from __future__ import annotations

import math

import torch
from scipy.special import stdtrit
from torch import Tensor

from lossatlas.model.loss.samples import Sample
from lossatlas.robustness.averages import Average
from lossatlas.sharpness.measure import BATCH_NORM, LAYER, NEURON, PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import Problem

FIRST, MOST = 10, 60  # pairs of draws
QUANTILE = float(stdtrit(FIRST - 1, 0.975))
PASSES = 30


def average(problem: Problem, rho: float) -> Estimate:
    """E L(w + rho u) - L(w), u ~ N(0, I).

    Andriushchenko et al. 2023, equation 1, c = 1; to second order rho^2/2 tr H.
    """
    return mean_rise(problem, rho, torch.ones_like(problem.point))


def adaptive_average(problem: Problem, rho: float) -> Estimate:
    """E L(w + rho |w| o u) - L(w), u ~ N(0, I).

    Andriushchenko et al. 2023, equation 1, c = |w|; to second order rho^2/2 tr(H o |w| |w|').
    """
    return mean_rise(problem, rho, problem.point.abs())


def mean_rise(problem: Problem, rho: float, scale: Tensor) -> Estimate:
    """E L(w + rho scale o u) - L(w) from pairs +-u, whose linear terms cancel.

    Draws until their standard error is below ``tol`` of the value, or below half of the data's, which more would not
    lower; 10 pairs at least, 60 at most. The quantile for the draws is Student's of the first ones at least (Stein
    1945), since their spread decides on how many follow.
    """
    found = Average()
    while found.draws < MOST and not _enough(found, problem.tol):
        delta = rho * scale * problem.normal(found.draws)
        pair = problem.rise(delta).combined(problem.rise(-delta), 1.0)
        found.add(Sample(pair.values / 2, pair.weights, pair.over))
    spread, note = found.spread(), ""
    known = math.isfinite(spread.stderr)  # of a single example or batch the data's error is not
    half = float(stdtrit(spread.degrees, 0.975)) * spread.stderr if known else 0.0
    drawn = QUANTILE * spread.over_draws
    half = max(half, drawn)
    if not _enough(found, problem.tol):
        note = f"After {2 * MOST} draws their own error is still {spread.over_draws:.2g}."
    stderr, value = spread.stderr if known else spread.over_draws, found.mean
    return Estimate(value, stderr, value - half, value + half, ("draws", "data"), note=note, drawn=drawn)


def _enough(found: Average, tol: float) -> bool:
    if found.draws < FIRST:
        return False
    spread = found.spread()
    over_data = 0.0 if math.isnan(spread.over_examples) else spread.over_examples
    return spread.over_draws <= max(tol * abs(found.mean), over_data / 2)


MEASURES = (
    Measure(
        "average",
        "average case",
        r"\mathbb{E}_u L(w + \rho u) - L(w)",
        "andriushchenko2023",
        average,
        frozenset({PERMUTATION}),
        PASSES,
        rho=0.01,
    ),
    Measure(
        "adaptive_average",
        "adaptive average case",
        r"\mathbb{E}_u L(w + \rho\, |w| \circ u) - L(w)",
        "andriushchenko2023",
        adaptive_average,
        frozenset({LAYER, NEURON, BATCH_NORM, PERMUTATION}),
        PASSES,
        rho=0.1,
    ),
)
