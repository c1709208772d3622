"""Paths between two points: theta(t) for t in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lossatlas.errors import DirectionError


class Curve(Protocol):
    """theta(t), a point ``(n,)`` for each t in [0, 1]; theta(0) and theta(1) are the ends, bit for bit."""

    def point(self, t: float) -> Tensor: ...


@dataclass(frozen=True)
class Segment:
    """theta(t) = (1 - t) a + t b, the straight line between two points ``(n,)``.

    Raises ``DirectionError`` when the two differ in size or type, or are the same point.

    >>> Segment(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 4.0])).point(0.5)
    tensor([1., 2.])
    """

    a: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        if self.a.ndim != 1 or self.a.shape != self.b.shape:
            raise DirectionError(
                f"The ends have shapes {tuple(self.a.shape)} and {tuple(self.b.shape)}: "
                "give two flat points of one architecture."
            )
        if self.a.dtype != self.b.dtype or not self.a.is_floating_point():
            raise DirectionError(
                f"The ends are {self.a.dtype} and {self.b.dtype}: give two points of one floating-point type."
            )
        if torch.equal(self.a, self.b):
            raise DirectionError("The two ends are the same point: give two different models.")

    def point(self, t: float) -> Tensor:
        # torch.lerp is exact at both ends: a + t (b - a) below 1/2, b - (1 - t) (b - a) above.
        return torch.lerp(self.a, self.b, t)

    @property
    def length(self) -> float:
        """|b - a|, Euclidean."""
        return float(torch.linalg.vector_norm((self.b - self.a).double()))
