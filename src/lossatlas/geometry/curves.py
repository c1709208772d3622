"""Paths between two points: theta(t) for t in [0, 1]."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import quad
from torch import Tensor

from lossatlas.errors import DirectionError


class Curve(Protocol):
    """theta(t), a point ``(n,)`` for each t in [0, 1]; theta(0) and theta(1) are the ends, bit for bit."""

    def point(self, t: float) -> Tensor:
        """theta(t), ``(n,)``."""
        ...

    @property
    def length(self) -> float:
        """The integral of |theta'(t)| over t, Euclidean."""
        ...


@dataclass(frozen=True)
class Segment:
    """theta(t) = (1 - t) a + t b, the straight line between two points ``(n,)``.

    The two may be one point: two networks can be the same after alignment. It has no parts to fit; ``barrier`` measures
    the loss along it.

    Raises
    ------
    DirectionError : the two differ in size or type, or are not flat floating-point vectors.

    Source: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", section 2.

    Examples
    --------
    >>> segment = Segment(torch.tensor([0.0, 0.0]), torch.tensor([3.0, 4.0]))
    >>> segment.point(0.5), segment.length
    (tensor([1.5000, 2.0000]), 5.0)
    """

    a: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        _check_ends(self.a, self.b, distinct=False)

    def point(self, t: float) -> Tensor:
        if t in (0, 1):  # the end itself: a sum with zeros would lose the sign of a zero
            return (self.a if t == 0 else self.b).clone()
        return torch.lerp(self.a, self.b, t)

    @property
    def length(self) -> float:
        """|b - a|, Euclidean."""
        return _distance(self.a, self.b)


@dataclass(frozen=True, eq=False)
class ParametricCurve(ABC):
    """theta(t) = sum_k c_k(t) p_k, a path between two ends that bends towards the points between them.

    Without ``points`` it is a kind of curve, to be fitted by ``connect`` or given points by ``through`` and
    ``between``. With ``points`` ``(bends + 2, n)``, whose first row is one end and whose last row is the other, it is
    a path.

    Raises
    ------
    DirectionError : fewer bends than 1; points of another number, shape or type, not finite, or with equal ends; a
        place on the path is asked for before it has points, or for a t outside [0, 1].
    """

    bends: int = 1
    points: Tensor | None = None

    def __post_init__(self) -> None:
        if self.bends < 1:
            raise DirectionError(f"bends={self.bends}: give at least 1, or use Segment for the straight line.")
        if self.points is None:
            return
        if self.points.ndim != 2 or len(self.points) != self.bends + 2:
            raise DirectionError(
                f"The points have shape {tuple(self.points.shape)}: give ({self.bends + 2}, n) for bends={self.bends}, "
                "one end, the bends in their order, and the other end."
            )
        _check_ends(self.points[0], self.points[-1])
        if not bool(torch.isfinite(self.points).all()):
            raise DirectionError("The points of the curve hold NaN or infinite numbers: give finite ones.")

    @abstractmethod
    def weights(self, t: float) -> Tensor:
        """``(bends + 2,)`` float64: the coefficients c_k(t) of the points, whose sum is 1."""

    @property
    @abstractmethod
    def length(self) -> float:
        """The integral of |theta'(t)| over t, Euclidean."""

    def point(self, t: float) -> Tensor:
        """theta(t), ``(n,)``."""
        points = self._own_points()
        if t in (0, 1):  # the end itself: a sum with zeros would lose the sign of a zero
            return points[0 if t == 0 else -1].clone()
        return self.weights(t).to(points) @ points

    def through(self, points: Tensor) -> Self:
        """The path of this kind with these points ``(k, n)``, k - 2 of them bends."""
        return replace(self, bends=len(points) - 2, points=points)

    def between(self, a: Tensor, b: Tensor) -> Self:
        """The path from a to b whose bends stand on the straight line, at equal distances."""
        segment = Segment(a, b)
        return self.through(torch.stack([segment.point(k / (self.bends + 1)) for k in range(self.bends + 2)]))

    def _own_points(self) -> Tensor:
        if self.points is None:
            kind = f"{type(self).__name__}(bends={self.bends})"
            raise DirectionError(
                f"{kind} is a kind of curve and has no points yet: fit it by connect(objective, a, b, curve={kind}), "
                "or give it points by through(points) or between(a, b)."
            )
        return self.points


@dataclass(frozen=True, eq=False)
class Bezier(ParametricCurve):
    """theta(t) = sum_k C(m, k) t^k (1 - t)^(m - k) p_k with m = bends + 1: a Bezier curve of degree m.

    It starts at p_0, ends at p_m, and is drawn towards the bends between, which it does not meet. ``Bezier(bends=2)``
    without points is what ``connect`` is asked to fit.

    Raises
    ------
    DirectionError : fewer bends than 1; points of another number, shape or type, not finite, or with equal ends; a
        place on the path is asked for before it has points, or for a t outside [0, 1].

    Source: Garipov et al. 2018, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", equation
    4 for one bend.

    Examples
    --------
    >>> curve = Bezier().through(torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]]))
    >>> curve.point(0.5), round(curve.length, 4)
    (tensor([1., 1.]), 2.9579)
    """

    def weights(self, t: float) -> Tensor:
        _check_place(t)
        return torch.from_numpy(_bernstein(self.bends + 1, t))

    @property
    def length(self) -> float:
        """The integral of |theta'(t)| over t, by adaptive quadrature."""
        steps = self._own_points().diff(dim=0).double()
        # |theta'(t)|^2 = m^2 c' (D D') c: the rows of D are the steps p_k+1 - p_k, c the coefficients of degree m - 1.
        gram, m = (steps @ steps.T).numpy(force=True), self.bends + 1

        def speed(t: float) -> float:
            c = _bernstein(m - 1, t)
            return m * math.sqrt(max(float(c @ gram @ c), 0.0))

        return float(quad(speed, 0.0, 1.0, limit=500)[0])


@dataclass(frozen=True, eq=False)
class PolygonalChain(ParametricCurve):
    """theta(t) = (1 - s) p_k + s p_k+1 with k + s = (bends + 1) t: straight pieces, as much of t for each.

    It meets every bend.

    Raises
    ------
    DirectionError : as for ``Bezier``.

    Source: Garipov et al. 2018, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", equation
    3 for one bend.

    Examples
    --------
    >>> chain = PolygonalChain().through(torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 0.0]]))
    >>> chain.point(0.25), chain.length
    (tensor([1.5000, 2.0000]), 10.0)
    """

    def weights(self, t: float) -> Tensor:
        _check_place(t)
        whole = min(int((self.bends + 1) * t), self.bends)
        s = (self.bends + 1) * t - whole
        weights = torch.zeros(self.bends + 2, dtype=torch.float64)
        weights[whole], weights[whole + 1] = 1 - s, s
        return weights

    @property
    def length(self) -> float:
        """The sum of |p_k+1 - p_k|."""
        return sum(_distance(p, q) for p, q in pairwise(self._own_points()))


def _bernstein(m: int, t: float) -> NDArray[np.float64]:
    return np.array([math.comb(m, k) * t**k * (1 - t) ** (m - k) for k in range(m + 1)])


def _distance(p: Tensor, q: Tensor) -> float:
    # In float64, differences too: float32 sums over a million entries lose digits.
    return float(torch.linalg.vector_norm(q.double() - p.double()))


def _check_place(t: float) -> None:
    if not 0 <= t <= 1:
        raise DirectionError(f"t={t}: a place on the path is a number from 0 (the first end) to 1 (the other).")


def _check_ends(a: Tensor, b: Tensor, *, distinct: bool = True) -> None:
    if a.ndim != 1 or a.shape != b.shape:
        raise DirectionError(
            f"The ends have shapes {tuple(a.shape)} and {tuple(b.shape)}: give two flat points of one architecture."
        )
    if a.dtype != b.dtype or not a.is_floating_point():
        raise DirectionError(f"The ends are {a.dtype} and {b.dtype}: give two points of one floating-point type.")
    if distinct and torch.equal(a, b):
        raise DirectionError("The two ends are the same point: give two different models.")
