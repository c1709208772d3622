"""Average-case sharpness: the mean rise of the loss under random perturbations."""

from __future__ import annotations

import math

import torch
from scipy.stats import t
from torch import Tensor

from lossatlas.model.loss.samples import Sample
from lossatlas.sharpness.measure import LAYER, NEURON, PERMUTATION, Estimate, Measure, Z
from lossatlas.sharpness.problem import Problem, joint

FIRST, MOST = 10, 60  # pairs of draws
PASSES = 2 * FIRST / 3


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
    lower; 10 pairs at least, 60 at most. The quantile is Student's of the first ones (Stein 1945), since their spread
    decides on how many follow.
    """
    draws: list[Sample] = []
    while len(draws) < MOST and not _enough(draws, problem.tol):
        delta = rho * scale * problem.normal(len(draws))
        pair = problem.rise(delta).combined(problem.rise(-delta), 1.0)
        draws.append(Sample(pair.values / 2, pair.weights, pair.over))
    over_draws, mean = _over_draws(draws), _mean(draws)
    half = joint(float(t.ppf(0.975, FIRST - 1)) * over_draws, Z * mean.stderr)
    note = "" if _enough(draws, problem.tol) else f"After {2 * MOST} draws their own error is still {over_draws:.2g}."
    value, errors = mean.mean, ("draws", "data")
    return Estimate(value, joint(over_draws, mean.stderr), value - half, value + half, errors, note=note)


def _enough(draws: list[Sample], tol: float) -> bool:
    if len(draws) < FIRST:
        return False
    mean = _mean(draws)
    return _over_draws(draws) <= max(tol * abs(mean.mean), mean.stderr / 2 if mean.stderr > 0 else 0.0)


def _mean(draws: list[Sample]) -> Sample:
    """Of each example over the draws."""
    return Sample(torch.stack([draw.values for draw in draws]).mean(0), draws[0].weights, draws[0].over)


def _over_draws(draws: list[Sample]) -> float:
    means = torch.tensor([draw.mean for draw in draws], dtype=torch.float64)
    return float(means.std()) / math.sqrt(len(draws))


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
        frozenset({LAYER, NEURON, PERMUTATION}),
        PASSES,
        rho=0.1,
    ),
)
