"""Exact draws from the localised posterior of a network, by Langevin steps with a Metropolis test."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lossatlas.objective import Objective


@dataclass(frozen=True)
class Place:
    """delta = w - w*, with L(w) - L(w*), U(w) and grad U(w)."""

    delta: Tensor
    rise: float
    energy: float
    gradient: Tensor

    @property
    def finite(self) -> bool:
        return math.isfinite(self.energy) and bool(torch.isfinite(self.gradient).all())


class Posterior:
    """exp(-U(w)), U(w) = n beta (L(w) - L(w*)) + gamma |w - w*|^2 / 2, with w* the objective's own point.

    ``count`` is told of every gradient pass over the data.
    """

    def __init__(
        self, objective: Objective, n_beta: float, gamma: float, count: Callable[[float], None] = lambda passes: None
    ) -> None:
        self.objective, self.n_beta, self.gamma, self._count = objective, n_beta, gamma, count
        self._lowest = 0.0
        self._lowest, gradient = self._loss(torch.zeros_like(objective.point))
        self.start = Place(torch.zeros_like(objective.point), 0.0, 0.0, n_beta * gradient)

    def localised(self, gamma: float) -> Posterior:
        """The same with another gamma."""
        other = copy.copy(self)
        other.gamma = gamma
        return other

    def at(self, delta: Tensor) -> Place:
        """The posterior at w* + delta: one gradient pass over the data."""
        rise, gradient = self._loss(delta)
        energy = self.n_beta * rise + self.gamma * squared(delta) / 2
        return Place(delta, rise, energy, self.n_beta * gradient + self.gamma * delta)

    def _loss(self, delta: Tensor) -> tuple[float, Tensor]:
        """L(w* + delta) - L(w*) and grad L; NaN where a chain has left all bounds."""
        if not bool(torch.isfinite(delta).all()):
            return math.nan, torch.full_like(delta, math.nan)
        loss, gradient = self.objective.value_and_gradient(self.objective.function.point + delta)
        self._count(1.0)
        return loss - self._lowest, gradient


@dataclass
class Sampler:
    """w -> w', by leapfrog steps from a fresh momentum p ~ N(0, I), and a Metropolis test (Duane et al. 1987).

    One leapfrog step is the step of SGLD, w' = w - eps/2 S^2 grad U + sqrt(eps) S z with S = diag(scale); the test
    makes its draws exact at any eps (MALA; Roberts & Tweedie 1996). More of them, at a gradient each, keep the momentum
    and so cross flat directions in fewer steps. Their number is uniform in 1 .. 2 ``leaps`` - 1, so that no direction
    comes back to where it was at every draw.
    """

    posterior: Posterior
    step: float
    leaps: int
    scale: Tensor | float = 1.0
    seed: int = 0
    chain: int = 0
    place: Place = field(init=False)
    accepted: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place = self.posterior.start
        # Consecutive seeds of a Mersenne twister give chains that are correlated.
        entropy = np.random.SeedSequence([self.seed, self.chain]).generate_state(1, np.uint64)[0]
        self._generator = torch.Generator().manual_seed(int(entropy))
        self._squares, self._seen = torch.zeros_like(self.place.gradient), 0

    @property
    def squares(self) -> Tensor:
        """The mean of (grad U)^2 ``(n,)`` over all that was seen."""
        return self._squares / max(self._seen, 1)

    def burn_in(self, draws: int) -> bool:
        """Moves without the test, which would hold a chain at the bottom where it starts; False if it diverges."""
        for _ in range(draws):
            place, change = self._proposed()
            if not math.isfinite(change):
                return False
            self.place = place
        return True

    def draw(self, draws: int) -> list[float]:
        """L(w) - L(w*) at each of so many draws."""
        found = []
        for _ in range(draws):
            place, change = self._proposed()
            self.accepted.append(math.exp(-max(0.0, change)))
            if self._uniform() < self.accepted[-1]:
                self.place = place
            found.append(self.place.rise)
        return found

    def _proposed(self) -> tuple[Place, float]:
        """Where the trajectory ends, and the change of U + |p|^2 / 2 along it; infinite where it leaves the numbers."""
        step, place = math.sqrt(self.step), self.place
        momentum = torch.randn(len(place.delta), generator=self._generator).to(place.delta)
        before = place.energy + squared(momentum) / 2
        for _ in range(1 + int(self._uniform() * (2 * self.leaps - 1))):
            momentum = momentum - step / 2 * self.scale * place.gradient
            place = self.posterior.at(place.delta + step * self.scale * momentum)
            if not place.finite:
                return place, math.inf
            momentum = momentum - step / 2 * self.scale * place.gradient
            self._squares += place.gradient**2
            self._seen += 1
        return place, place.energy + squared(momentum) / 2 - before

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self._generator))


def squared(vector: Tensor) -> float:
    """|v|^2, summed in float64."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64) ** 2)  # infinite where it is too large
