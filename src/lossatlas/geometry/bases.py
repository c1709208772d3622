"""The center and the directions of a region, checked: of one size, finite, linearly independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lossatlas.errors import DirectionError

FLAT = ("line", "plane", "volume")
DIMENSIONS = {"line": 1, "plane": 2, "volume": 3, "polar": 2}
_DEPENDENT = 1e-6  # of the unit directions' Gram matrix: a smallest eigenvalue (1 - |cosine| of two) below this is none
_ROUNDING = 8  # units in the last place of a point: a distance below this is no distance


def rows_of(directions: Sequence[Tensor], region: str) -> list[Tensor]:
    """As many directions ``(n,)`` as the region has axes, given one by one or as the rows of one tensor ``(k, n)``."""
    count = DIMENSIONS[region]
    rows = list(directions[0]) if len(directions) == 1 and directions[0].ndim == 2 else list(directions)
    if len(rows) != count:
        raise DirectionError(
            f"{len(rows)} directions are given and a {region} has {count}: give {count}, one by one or as rows, "
            f"e.g. random_directions(objective, {count}, seed=0)."
        )
    return rows


def basis(center: Tensor, directions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The center and the directions as rows, both the region's own."""
    for direction in directions:
        _check(center, direction)
    stacked = torch.stack([d.to(center) for d in directions])
    units = stacked.double() / torch.linalg.vector_norm(stacked.double(), dim=1, keepdim=True)
    gram = units @ units.T
    if len(directions) > 1 and float(torch.linalg.eigvalsh(gram)[0]) < _DEPENDENT:
        cosines = ", ".join(f"{float(gram[i, j]):.6f}" for i in range(len(gram)) for j in range(i))
        what = "collinear" if len(directions) == 2 else "linearly dependent"
        raise DirectionError(
            f"The {len(directions)} directions are {what} (cosine {cosines}): give ones that span a "
            f"{FLAT[len(directions) - 1]}, e.g. random_directions(objective, {len(directions)}, seed=0)."
        )
    return center.detach().clone(), stacked.detach()


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


def check_points(*points: Tensor) -> float:
    """The distance below which two of the points are one, to rounding; raises where that is so."""
    if any(p.ndim != 1 or p.shape != points[0].shape or not p.is_floating_point() for p in points):
        given = ", ".join(f"{p.dtype} {tuple(p.shape)}" for p in points)
        raise DirectionError(f"The points are {given}: give flat floating-point vectors of one architecture.")
    norms = [float(torch.linalg.vector_norm(p.double())) for p in points]
    if not all(map(math.isfinite, norms)):
        raise DirectionError(f"The points have norms {norms}: give finite ones.")
    rounding = _ROUNDING * max(n * torch.finfo(p.dtype).eps for n, p in zip(norms, points, strict=True))
    for first, second in pairwise([*points, points[0]]):
        if float(torch.linalg.vector_norm(first.double() - second.to(first.device).double())) <= rounding:
            raise DirectionError("Two of the three points are the same, to rounding: give three different points.")
    return rounding
