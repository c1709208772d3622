"""A direction in which a score falls soon, found by ascent on the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lossatlas.model.loss.samples import Sample
from lossatlas.objective import Objective
from lossatlas.robustness.crossing import BOUNDS, FEWEST, Crossing, bracketed, crossing
from lossatlas.robustness.measurement import Samples, samples_at
from lossatlas.robustness.noise import normal

ROUNDS = 2  # of the ascent, each at the size at which the score falls along the direction so far
_LOOKS = 8 + 5 + ROUNDS  # evaluations that find these sizes, and compare directions


def fewest(steps: int) -> int:
    """Evaluations and gradients that a search of so many steps needs."""
    return _LOOKS + steps + 1 + FEWEST


class WorstDirection:
    """u with |u| = sqrt(n): u <- sqrt(n) (s o g) / |s o g|, g = grad L(w + sigma s o u), from u = s o grad L(w).

    Each step maximises the loss's linear form at the last place over the sphere, so that where L is convex the loss
    rises at every step (a power iteration, where it is quadratic). Half of the steps are at the sigma where the score
    falls by ``fall`` along the first direction, the others at that along the one found by then; of all directions met
    that of the largest loss is taken. ``gradients`` counts those.
    """

    def __init__(
        self, objective: Objective, scale: Tensor, score: Callable[[Samples], Sample], fall: float, clean: Sample
    ) -> None:
        self._objective, self._scale, self._score, self._fall, self._clean = objective, scale, score, fall, clean
        self._point = objective.function.point
        self.gradients = 0

    def find(self, steps: int, limit: int, seed: int) -> Crossing:
        """Where the score falls by so much along it; gradients are counted among the evaluations."""
        unit = self._longest(self._value_and_gradient(self._point)[1], normal(self._point, seed, 0))
        bounds, looks = BOUNDS, 0
        for k in range(ROUNDS):
            (low, high), spent = bracketed(partial(self._along, unit), self._fall, bounds)
            size, bounds = math.sqrt(low * high), (max(low / 16, BOUNDS[0]), min(2 * high, BOUNDS[1]))
            unit = self._ascended(unit, size, steps * (k + 1) // ROUNDS - steps * k // ROUNDS)
            looks += spent + 1
        spent = self.gradients + looks
        last = crossing(partial(self._along, unit), self._fall, limit=limit - spent, exact=True)
        return Crossing(last.outcome, last.value, last.low, last.high, last.evaluations + spent, last.trials)

    def _along(self, unit: Tensor, size: float, draw: int) -> Sample:
        return self._clean if size == 0 else self._score(samples_at(self._objective, self._moved(unit, size)))

    def _moved(self, unit: Tensor, size: float) -> Tensor:
        return self._point + size * self._scale * unit

    def _ascended(self, unit: Tensor, size: float, steps: int) -> Tensor:
        """The direction of the largest loss among this one and so many steps from it."""
        best, most = unit, -math.inf
        for _ in range(steps):
            loss, gradient = self._value_and_gradient(self._moved(unit, size))
            best, most = (unit, loss) if loss > most else (best, most)
            unit = self._longest(gradient, unit)
        loss = samples_at(self._objective, self._moved(unit, size))["loss"].mean
        return unit if loss > most else best

    def _longest(self, gradient: Tensor, otherwise: Tensor) -> Tensor:
        """sqrt(n) (s o g) / |s o g|; of a gradient that is 0 or not finite the other one, to that length."""
        scaled = (self._scale * gradient).double()
        usable = bool(torch.isfinite(scaled).all()) and bool(scaled.any())
        chosen = scaled if usable else otherwise.double()
        unit: Tensor = math.sqrt(len(chosen)) * chosen / torch.linalg.vector_norm(chosen)
        return unit.to(self._point)

    def _value_and_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        self.gradients += 1
        return self._objective.value_and_gradient(theta)
