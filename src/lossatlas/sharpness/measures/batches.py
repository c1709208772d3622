"""Means over batches: m-sharpness and batch sharpness."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from lossatlas.curvature.krylov import Floats
from lossatlas.errors import NumericalError
from lossatlas.objective import Objective
from lossatlas.sharpness.balls import Euclidean
from lossatlas.sharpness.measure import PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import FORWARD, GRADIENT, PRODUCT, Problem

Found = TypeVar("Found")


def m_sharpness(problem: Problem, rho: float) -> Estimate:
    """E_B [L_B(w + rho g_B / |g_B|) - L_B(w)]: each batch B of ``batch_size`` = m examples by its own step.

    Foret et al. 2021, section 4.1; Andriushchenko & Flammarion 2022, "Towards Understanding Sharpness-Aware
    Minimization", equation 3.
    """

    def of_batch(batch: Objective, gradient: Tensor) -> float:
        delta = Euclidean(rho).farthest(gradient)
        return batch.value(batch.point + delta) - batch.value()

    return _mean(np.array(_each(problem, of_batch, 2 * FORWARD)), f"m = {problem.batch_size}.")


def batch_sharpness(problem: Problem) -> Estimate:
    """E_B [g_B' H_B g_B / |g_B|^2]: the curvature that SGD with such batches B meets along its own steps.

    For SGD with the learning rate eta it settles near 2 / eta, while lambda_max stays below. Andreyev & Beneventano
    2024, "Edge of Stochastic Stability", arXiv 2412.20553, definition 1.
    """

    def of_batch(batch: Objective, gradient: Tensor) -> tuple[float, float]:
        return float(gradient @ batch.hvp(gradient)), float(gradient @ gradient)

    forms, squares = np.array(_each(problem, of_batch, PRODUCT)).T
    note = f"E g'Hg / E |g|^2 = {forms.mean() / squares.mean():.4g}; batches of {problem.batch_size}."
    return _mean(forms / squares, note)


def _each(problem: Problem, of_batch: Callable[[Objective, Tensor], Found], passes: float) -> list[Found]:
    """``of_batch(batch, its gradient)``, which takes so many gradient passes, of every batch."""
    found = []
    for batch in problem.batches():
        gradient = batch.gradient()
        if not bool(torch.any(gradient)):
            raise NumericalError("The gradient of a batch is 0: it has no direction in which to go.")
        found.append(of_batch(batch, gradient))
        problem.count((GRADIENT + passes) * batch.n_examples / problem.objective.n_examples)
    return found


def _mean(values: Floats, note: str) -> Estimate:
    """Student's interval over the batches."""
    value, stderr = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(t.ppf(0.975, len(values) - 1)) * stderr
    return Estimate(value, stderr, value - half, value + half, ("data",), note=note)


MEASURES = (
    Measure(
        "m_sharpness",
        "worst case of a batch, one step",
        r"\mathbb{E}_B [L_B(w + \rho\, g_B / \lVert g_B \rVert) - L_B(w)]",
        "foret2021",
        m_sharpness,
        frozenset({PERMUTATION}),
        2,
        rho=0.05,
    ),
    Measure(
        "batch_sharpness",
        "batch sharpness",
        r"\mathbb{E}_B [g_B' H_B g_B / \lVert g_B \rVert^2]",
        "andreyev2024",
        batch_sharpness,
        frozenset({PERMUTATION}),
        3,
    ),
)
