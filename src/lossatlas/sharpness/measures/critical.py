"""Critical sharpness: how far one can go along a direction before the loss is where it was."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import brentq
from torch import Tensor

from lossatlas.errors import InputError, NumericalError
from lossatlas.model.loss.samples import Sample
from lossatlas.sharpness.measure import PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import Problem

NEAR = 1e-3  # of |w|: the length of the first step
DOUBLINGS = 60


def critical(problem: Problem) -> Estimate:
    """lambda_c = 2 / eta_c, eta_c the smallest eta > 0 with L(w - eta g) > L(w).

    On a quadratic it is g' H g / |g|^2. Kalra et al. 2026, "A Scalable Measure of Loss Landscape Curvature", arXiv
    2601.16979.
    """
    return _along(problem, problem.gradient())


def critical_update(problem: Problem) -> Estimate:
    """The same along the last update: eta_c is the smallest eta > 0 with L(w + eta (w - previous)) > L(w).

    In units of that update: a training that takes another such step stays below the loss where lambda_c < 2.
    """
    if problem.previous is None:
        raise InputError("There is no last update: give previous=, the parameters before it.")
    return _along(problem, problem.previous - problem.point)


def _along(problem: Problem, direction: Tensor) -> Estimate:
    """The root of h(eta) = (L(w - eta D) - L(w)) / eta, which is linear in eta on a quadratic, by Brent's method.

    The data's error of eta_c is that of the rise there over its slope, which is -h(0) on a quadratic.
    """
    start = -float(direction.double() @ problem.gradient().double())
    if start >= 0:
        raise NumericalError("No step along this direction lowers the loss: there is no smallest one to find.")
    seen: dict[float, Sample] = {}

    def secant(eta: float) -> float:
        if eta == 0:
            return start
        seen[eta] = seen.get(eta) or problem.rise(-eta * direction)
        return seen[eta].mean / eta

    first = NEAR * float(torch.linalg.vector_norm(problem.point) / torch.linalg.vector_norm(direction)) or 1.0
    low, high = _bracket(secant, first)
    eta = float(brentq(secant, low, high, rtol=problem.tol / 10))
    nearest = min(seen, key=lambda each: abs(each - eta))
    value, off = 2 / eta, 2 / eta * problem.tol / 10
    note = f"eta_c = {eta:.4g}, from {len(seen)} forward passes."
    stderr = value * seen[nearest].stderr / (-start * eta)
    return Estimate.normal(value, stderr, off=off, errors=("solver", "data"), note=note)


def _bracket(secant: Callable[[float], float], first: float) -> tuple[float, float]:
    """Two steps, one twice the other, between which the loss comes back to where it was."""
    low = high = first
    if _rises(secant(first)):
        for _ in range(DOUBLINGS):
            low = high / 2
            if not _rises(secant(low)):
                return low, high
            high = low
    for _ in range(DOUBLINGS):
        high = 2 * low
        if _rises(secant(high)):
            return low, high
        low = high
    raise NumericalError("The loss does not come back to where it was along this direction, however long the step.")


def _rises(value: float) -> bool:
    return not value <= 0  # NaN and infinity too


MEASURES = (
    Measure(
        "critical",
        "critical sharpness along the gradient",
        r"2 / \eta_c,\ \eta_c = \min \{\eta > 0: L(w - \eta g) > L(w)\}",
        "kalra2026",
        critical,
        frozenset({PERMUTATION}),
        5,
    ),
    Measure(
        "critical_update",
        "critical sharpness along the last update",
        r"2 / \eta_c,\ \eta_c = \min \{\eta > 0: L(w + \eta\, \Delta w) > L(w)\}",
        "kalra2026",
        critical_update,
        frozenset({PERMUTATION}),
        5,
        needs="update",
    ),
)
