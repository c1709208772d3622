"""Average-case sharpness: the mean rise of the loss under random perturbations."""

from __future__ import annotations

import math

import torch
from scipy.stats import t
from torch import Tensor

from lossatlas.model.loss.samples import Sample
from lossatlas.robustness.averages import Average
from lossatlas.sharpness.measure import BATCH_NORM, LAYER, NEURON, PERMUTATION, Estimate, Measure, Z
from lossatlas.sharpness.problem import Problem, joint

FIRST, MOST = 10, 60  # pairs of draws
QUANTILE = float(t.ppf(0.975, FIRST - 1))
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
    lower; 10 pairs at least, 60 at most. The quantile for the draws is Student's of the first ones (Stein 1945), since
    their spread decides on how many follow.
    """
    found = Average()
    while found.draws < MOST and not _enough(found, problem.tol):
        delta = rho * scale * problem.normal(found.draws)
        pair = problem.rise(delta).combined(problem.rise(-delta), 1.0)
        found.add(Sample(pair.values / 2, pair.weights, pair.over))
    over_data = found.averaged.stderr
    half = joint(QUANTILE * found.over_draws, Z * over_data)
    note = "" if _enough(found, problem.tol) else f"After {2 * MOST} draws their error is still {found.over_draws:.2g}."
    value, stderr = found.mean, joint(found.over_draws, over_data)
    return Estimate(value, stderr, value - half, value + half, ("draws", "data"), note=note, data=over_data)


def _enough(found: Average, tol: float) -> bool:
    if found.draws < FIRST:
        return False
    over_data = found.averaged.stderr
    return found.over_draws <= max(tol * abs(found.mean), 0.0 if math.isnan(over_data) else over_data / 2)


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
