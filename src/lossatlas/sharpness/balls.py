"""Sets of perturbations delta around w, and the largest rise of the loss in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from lossatlas.errors import NumericalError
from lossatlas.geometry.blocks import cuts
from lossatlas.model.filters import Filters
from lossatlas.model.loss.samples import Sample
from lossatlas.model.parameters import ParameterSpace
from lossatlas.sharpness.measure import Estimate
from lossatlas.sharpness.problem import Problem

STEPS = 20  # of an ascent, from each start
SHARES = (1.0, 0.5, 0.25)  # of a step that are tried where the whole one does not rise


class Ball(ABC):
    """A convex set of perturbations, which holds 0."""

    @abstractmethod
    def farthest(self, gradient: Tensor) -> Tensor:
        """argmax <gradient, delta> over the set, ``(n,)``."""

    def random(self, noise: Tensor) -> Tensor:
        """A point on its boundary from N(0, I): the set is scaled with the weights, and the point is with it."""
        return self.farthest(noise)


@dataclass(frozen=True)
class Euclidean(Ball):
    """|delta / scale| <= rho; ``scale`` is a number, or ``(n,)`` with entries that may be 0, which stand still."""

    rho: float
    scale: Tensor | float = 1.0

    def farthest(self, gradient: Tensor) -> Tensor:
        scaled = self.scale * gradient
        length = float(torch.linalg.vector_norm(scaled, dtype=torch.float64))
        return torch.zeros_like(gradient) if length == 0 else self.scale * scaled * (self.rho / length)

    def random(self, noise: Tensor) -> Tensor:
        length = float(torch.linalg.vector_norm(noise, dtype=torch.float64))
        return self.scale * noise * (self.rho / length)


@dataclass(frozen=True)
class Box(Ball):
    """|delta_i| <= rho scale_i."""

    rho: float
    scale: Tensor | float = 1.0

    def farthest(self, gradient: Tensor) -> Tensor:
        return self.rho * self.scale * gradient.sign()


def filter_norms(space: ParameterSpace, point: Tensor, filters: Mapping[str, Filters]) -> Tensor:
    """``(n,)``: |w_f| at each entry of the filter f; |w_i| at those of 1-D tensors (Kwon et al. 2021, section 3)."""
    scale = point.abs()
    for entry, cut in zip(space, cuts(space, "filter", filters), strict=True):
        if not entry.has_one_dimension:
            cut.of(scale).copy_(cut.norms(point).expand_as(cut.of(scale)))
    return scale


def one_step(problem: Problem, ball: Ball) -> Estimate:
    """L(w + delta) - L(w) at delta = argmax <grad L(w), delta>."""
    delta = ball.farthest(problem.gradient())
    if not bool(delta.any()):
        raise NumericalError("The gradient is 0 where it could be followed: ask for an ascent, which starts elsewhere.")
    rise = problem.rise(delta)
    return Estimate.normal(rise.mean, rise.stderr)


class Rising(Protocol):
    """What an ascent asks for: a problem, or one in other coordinates."""

    @property
    def tol(self) -> float:
        """The relative gain that ends an ascent."""

    def rise(self, delta: Tensor) -> Sample:
        """L(w + delta) - L(w)."""

    def gradient(self, delta: Tensor | None = None) -> Tensor:
        """Its gradient by delta; at 0 for None."""

    def normal(self, draw: int, stream: int = 0) -> Tensor:
        """N(0, I) ``(n,)``."""


@dataclass(frozen=True)
class Climbed:
    """The end of an ascent: ``delta``, how far the loss has risen there, and whether the last step gained little."""

    delta: Tensor
    rise: Sample
    ended: bool


def ascent(problem: Rising, ball: Ball) -> Climbed:
    """The largest L(w + delta) - L(w) that conditional-gradient ascent finds in the ball, from two starts.

    A step goes to, or towards, argmax <grad L(w + delta), delta'> over the ball, so none leaves it, and none is taken
    that does not raise the loss. An ascent ends when a step gains less than ``tol`` of the rise so far, or after 20.
    The starts are where the gradient at w points, and at random.

    Source: Frank & Wolfe 1956, "An algorithm for quadratic programming".
    """
    starts = (ball.farthest(problem.gradient()), ball.random(problem.normal(0, stream=1)))
    return max((_climb(problem, ball, delta) for delta in starts), key=lambda end: end.rise.mean)


def _climb(problem: Rising, ball: Ball, delta: Tensor) -> Climbed:
    at = Climbed(delta, problem.rise(delta), ended=False)
    for _ in range(STEPS):
        better = _step(problem, ball, at)
        if better is None or better.rise.mean - at.rise.mean <= problem.tol * abs(better.rise.mean):
            return replace(better or at, ended=True)
        at = better
    return at


def _step(problem: Rising, ball: Ball, at: Climbed) -> Climbed | None:
    """The first point on the way to the ball's farthest along the gradient that is higher; None where none is."""
    toward = ball.farthest(problem.gradient(at.delta)) - at.delta
    for share in SHARES:
        delta = at.delta + share * toward
        rise = problem.rise(delta)
        if rise.mean > at.rise.mean:
            return Climbed(delta, rise, ended=False)
    return None


def worst_case(problem: Rising, ball: Ball) -> Estimate:
    """The rise at the end of an ascent, with the data's error at that delta: a lower bound of the maximum."""
    found = ascent(problem, ball)
    note = "" if found.ended else f"The last of {STEPS} steps still gained over {problem.tol:g} of it."
    return Estimate.normal(found.rise.mean, found.rise.stderr, bound="lower", note=note)
