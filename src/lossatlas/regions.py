"""Where to look: flat pieces of parameter space, sampled on a grid. Index -> point is a pure function."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.errors import DirectionError, InputError

Span = float | tuple[float, float]
_AXES = ("alpha", "beta")
_PARALLEL = 1 - 1e-6  # a cosine above this spans a line in float32, not a plane


@dataclass(frozen=True)
class Region:
    """theta(i, j, ..) = center + alpha_i d_1 + beta_j d_2 + ..

    ``center`` is ``(n,)``, ``directions`` are d rows ``(d, n)``, and ``coordinates`` holds one increasing axis for
    each of them, named in ``dims``. Points are made one at a time: a region of any resolution costs (d + 1) n numbers.
    """

    center: Tensor
    directions: Tensor
    coordinates: tuple[NDArray[np.float64], ...]

    @property
    def dims(self) -> tuple[str, ...]:
        return _AXES[: len(self.coordinates)]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.coordinates)

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Every index, the last axis running fastest."""
        return iter(np.ndindex(*self.shape))

    def point(self, *index: int) -> Tensor:
        """theta ``(n,)`` at a grid index; the center itself, bit for bit, where all coordinates are 0."""
        return self.at(*(float(axis[i]) for axis, i in zip(self.coordinates, index, strict=True)))

    def at(self, *coordinates: float) -> Tensor:
        """theta ``(n,)`` at any coordinates, on the grid or not."""
        if not any(coordinates):
            return self.center.clone()
        return (
            self.center
            + torch.tensor(coordinates, dtype=self.center.dtype, device=self.center.device) @ self.directions
        )


def line(center: Tensor, direction: Tensor, *, span: Span = 1.0, steps: int = 51) -> Region:
    """theta(alpha) = center + alpha d on ``steps`` values of alpha over [-span, span] (or ``(low, high)``).

    Raises ``DirectionError`` for a direction of another size, zero or not finite, ``InputError`` for an impossible
    grid. An odd number of steps has the center on a symmetric grid.

    >>> line(torch.zeros(2), torch.tensor([1.0, 0.0]), span=2.0, steps=3).point(2)
    tensor([2., 0.])
    """
    return _region(center, [direction], [span], [steps])


def plane(
    center: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    span: Span | tuple[Span, Span] = 1.0,
    steps: int | tuple[int, int] = 51,
) -> Region:
    """theta(alpha, beta) = center + alpha d_1 + beta d_2.

    ``span`` is a half-width for both axes, ``(low, high)`` for both, or ``((low, high), (low, high))`` for each;
    ``steps`` one number or one for each axis. Raises as ``line``, and ``DirectionError`` for collinear directions.
    """
    spans = list(span) if isinstance(span, tuple) and any(isinstance(s, tuple) for s in span) else [span, span]
    if len(spans) != 2:
        raise InputError(f"span={span} names {len(spans)} axes: give a half-width, (low, high), or a pair of pairs.")
    counts = list(steps) if isinstance(steps, tuple) else [steps, steps]
    if len(counts) != 2:
        raise InputError(f"steps={steps} names {len(counts)} axes: give one number, or a pair.")
    return _region(center, [first, second], spans, counts)  # type: ignore[arg-type]


def _region(center: Tensor, directions: Sequence[Tensor], spans: Sequence[Span], steps: Sequence[int]) -> Region:
    for direction in directions:
        _check(center, direction)
    stacked = torch.stack([d.to(center) for d in directions])
    if len(directions) == 2:
        cosine = float(torch.nn.functional.cosine_similarity(stacked[0].double(), stacked[1].double(), dim=0))
        if abs(cosine) > _PARALLEL:
            raise DirectionError(f"The two directions are collinear (cosine {cosine:.6f}): give two that span a plane.")
    axes = tuple(_axis(span, count) for span, count in zip(spans, steps, strict=True))
    return Region(center.detach().clone(), stacked.detach(), axes)


def _check(center: Tensor, direction: Tensor) -> None:
    if center.ndim != 1 or direction.shape != center.shape:
        raise DirectionError(
            f"The direction has shape {tuple(direction.shape)} and the center {tuple(center.shape)}: "
            "both are flat vectors with one number a parameter."
        )
    if not center.is_floating_point() or not direction.is_floating_point():
        raise DirectionError(
            f"The center is {center.dtype}, the direction {direction.dtype}: give floating-point tensors."
        )
    norm = float(torch.linalg.vector_norm(direction.double()))
    if not math.isfinite(norm) or norm == 0:
        raise DirectionError(f"The direction has norm {norm}: give a finite direction that is not zero.")


def _axis(span: Span, steps: int) -> NDArray[np.float64]:
    if not isinstance(span, tuple | int | float) or (isinstance(span, tuple) and len(span) != 2):
        raise InputError(f"span={span} is no interval: give a positive half-width or a tuple (low, high).")
    low, high = span if isinstance(span, tuple) else (-span, span)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"span={span} is no interval: give a positive half-width or (low, high) with low < high.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise InputError(f"steps={steps}: give a whole number of at least 2.")
    axis = np.linspace(low, high, steps)
    axis[np.abs(axis) < 1e-12 * (high - low)] = 0.0  # the center is exactly the center
    return axis
