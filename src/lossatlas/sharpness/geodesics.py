"""Geodesics of a metric that no change of basis moves, in attention heads and other linear products of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.model.loss.samples import Sample
from lossatlas.objective import Objective
from lossatlas.sharpness.balls import Ball
from lossatlas.sharpness.places import Scaling
from lossatlas.sharpness.problem import Problem

STEPS = 8  # of the integrator


@dataclass(frozen=True)
class Metric:
    """<a, b> = sum_G tr(a_G' (G G')^-1 b_G) + sum_i a_i b_i / w_i^2: matrices G ``(units, inputs)``, and other weights.

    Both sides of a product G' H of layers are such matrices, W_Q and W_K or W_V and W_O of a head, so that G -> A G and
    H -> A^-T H leave every length as it is. ``sides``: which entries of theta they are, ``(heads, units, inputs)``.

    Source: da Silva, Dangel & Oore 2025, "Hide & Seek: Transformer Symmetries Obscure Sharpness & Riemannian Geometry
    Finds It" (arXiv 2505.05409), the invariant metric of their attention layers.
    """

    point: Tensor
    sides: tuple[Tensor, ...]

    def raised(self, gradient: Tensor) -> Tensor:
        """The vector a with <a, b> = gradient . b for every b: steepest ascent; 0 where a weight is 0."""
        found = self.point**2 * gradient
        for side in self.sides:
            matrix = self.point[side]
            found[side] = matrix @ matrix.mT @ gradient[side]
        return found

    def exponential(self, velocity: Tensor) -> Tensor:
        """Exp(velocity) - w: where the geodesic that starts so arrives at time 1; a straight line for other weights."""
        found = velocity.clone()
        for side in self.sides:
            found = found.index_put((side,), _arrived(self.point[side], velocity[side]))
        return found

    def elsewhere(self, vector: Tensor) -> Tensor:
        """The vector with 0 in all matrices."""
        found = vector.clone()
        for side in self.sides:
            found[side] = 0.0
        return found


def _arrived(start: Tensor, velocity: Tensor) -> Tensor:
    """The way along d2G/dt2 = (G' G~ + G G'~) S^-1 G' - G' G'~ S^-1 G, with S = G G~, G' = dG/dt and ~ the transpose.

    By Runge and Kutta's method in float64. It commutes with G -> A G, as the equation does.
    """
    place, speed, step = start.double(), velocity.double(), 1 / STEPS

    def rates(g: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        cross, gram = v @ g.mT, g @ g.mT
        pulled = torch.linalg.solve(gram, torch.cat([v, g], dim=-1))
        along, at = pulled.split(g.shape[-1], dim=-1)
        return v, (cross + cross.mT) @ along - v @ v.mT @ at

    for _ in range(STEPS):
        k1 = rates(place, speed)
        k2 = rates(place + step / 2 * k1[0], speed + step / 2 * k1[1])
        k3 = rates(place + step / 2 * k2[0], speed + step / 2 * k2[1])
        k4 = rates(place + step * k3[0], speed + step * k3[1])
        place = place + step / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
        speed = speed + step / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])
    return (place - start.double()).to(start)


def metric_of(objective: Objective, mixing: Sequence[tuple[Scaling, int]]) -> Metric:
    """The metric with both sides of every product whose units can be mixed; an entry of two of them is in the first."""
    own = objective.space.unflatten(torch.arange(objective.n_parameters, dtype=torch.float64))
    point, used = objective.point, set[int]()
    sides: list[Tensor] = []
    for scaling, inner in mixing:
        pair = [side.to(point.device) for side in _pair(scaling, inner, {n: t.long() for n, t in own.items()})]
        entries = {entry for side in pair for entry in side.flatten().tolist()}
        if not entries & used:
            used |= entries
            sides += pair
    for side in sides:
        values = torch.linalg.svdvals(point[side].double())
        if side.shape[1] > side.shape[2] or bool((values[:, -1] <= 1e-6 * values[:, 0]).any()):
            raise InputError("The matrices of a head have not full rank, and no metric: train the network first.")
    return Metric(point, tuple(sides))


def _pair(scaling: Scaling, inner: int, entries: dict[str, Tensor]) -> list[Tensor]:
    """The entries of theta of what makes the units, and of what takes them in: ``(outer, inner, -1)`` each."""
    sides: dict[bool, list[Tensor]] = {True: [], False: []}
    for place, exponent in scaling.exponents:
        rows = place.of(entries).movedim(place.dim, 0)[place.order]
        sides[exponent > 0].append(rows.reshape(scaling.size // inner, inner, -1))
    return [torch.cat(side, dim=2) for side in sides.values()]


@dataclass(frozen=True)
class GeodesicBall(Ball):
    """|a| <= rho in a metric; the random one of its points has no part in the matrices, which no basis moves then."""

    rho: float
    metric: Metric

    def farthest(self, gradient: Tensor) -> Tensor:
        raised = self.metric.raised(gradient)
        squared = float((raised.double() * gradient.double()).sum())
        return raised * (self.rho / squared**0.5 if squared > 0 else 0.0)

    def random(self, noise: Tensor) -> Tensor:
        noise = self.metric.elsewhere(noise)
        length = float(torch.linalg.vector_norm(noise, dtype=torch.float64))
        return self.metric.point * noise * (self.rho / length if length else 0.0)


@dataclass(frozen=True)
class Normal:
    """The loss in normal coordinates: at Exp(a) for a velocity a."""

    problem: Problem
    metric: Metric

    @property
    def tol(self) -> float:
        return self.problem.tol

    def normal(self, draw: int, stream: int = 0) -> Tensor:
        """N(0, I) ``(n,)``."""
        return self.problem.normal(draw, stream)

    def rise(self, delta: Tensor) -> Sample:
        """L(Exp(delta)) - L(w)."""
        return self.problem.rise(self.metric.exponential(delta))

    def gradient(self, delta: Tensor | None = None) -> Tensor:
        """Of L(Exp(delta)) by delta."""
        if delta is None:
            return self.problem.gradient()
        with torch.enable_grad():
            velocity = delta.detach().requires_grad_()
            arrived = self.metric.exponential(velocity)
        slope = self.problem.gradient(arrived.detach())
        return torch.autograd.grad(arrived, velocity, slope)[0]
