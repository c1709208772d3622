"""Blocks of a direction (filters, layers, the whole model): right angles and norms inside each, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lossatlas.model.filters import Filters, by_text
from lossatlas.model.parameters import ParameterSpace

Blocks = Literal["filter", "layer", "model"]

_NAMES = 8  # that a list of what does not vary has
_LOST = 1e-6  # of a block's squared norm: what is left below this after projection is rounding


@dataclass(frozen=True)
class Cut:
    """The entries ``[start, stop)`` of theta in blocks: slices of their view ``shape`` at each index of ``axes``."""

    start: int
    stop: int
    shape: tuple[int, ...]
    axes: tuple[int, ...] = ()

    def of(self, vectors: Tensor) -> Tensor:
        """A view ``(.., *shape, 1)`` into vectors ``(.., n)``."""
        return vectors[..., self.start : self.stop].view(*vectors.shape[:-1], *self.shape, 1)

    @property
    def within(self) -> list[int]:
        """The axes of such a view, from the end, that lie inside one block. The last is there so that one is."""
        return [axis - len(self.shape) - 1 for axis in range(len(self.shape) + 1) if axis not in self.axes]

    @property
    def size(self) -> int:
        """How many entries a block has."""
        return (self.stop - self.start) // math.prod(self.shape[axis] for axis in self.axes)

    def norms(self, vectors: Tensor) -> Tensor:
        """Of every block, in float64: a filter of 1e5 entries would lose digits of its norm in float32."""
        norms: Tensor = torch.linalg.vector_norm(self.of(vectors), dim=self.within, keepdim=True, dtype=torch.float64)
        return norms

    def orthogonalise(self, rows: Tensor) -> None:
        """Each row made orthogonal to the earlier ones in every block, in place; one with no room keeps its draw."""
        blocks = self.of(rows)
        for i in range(1, len(blocks)):
            left = blocks[i]
            for _ in range(2):  # twice is enough: the second pass removes what rounding left behind
                for other in blocks[:i]:
                    left = left - other * _ratio(self._sums(left * other), self._sums(other * other))
            lost = self._sums(left * left) <= _LOST * self._sums(blocks[i] * blocks[i])
            blocks[i] = torch.where(lost, blocks[i], left)

    def scale(self, rows: Tensor, weights: Tensor) -> None:
        """d_f |w_f| / |d_f| in each block f, in place; 0 where the block of a row or of ``weights`` is 0."""
        target = self.norms(weights)
        for row in rows:
            self.of(row).mul_(_ratio(target, self.norms(row)).to(row.dtype))

    def _sums(self, values: Tensor) -> Tensor:
        return values.sum(self.within, keepdim=True)


def cuts(space: ParameterSpace, by: Blocks, filters: Mapping[str, Filters]) -> list[Cut]:
    """All of theta in blocks; ``filters`` are needed where these are the blocks."""
    if by == "model":
        return [Cut(0, space.n, (space.n,))]
    if by == "layer":
        return [Cut(entry.start, entry.stop, entry.shape) for entry in space]
    found = ((entry, filters[entry.name]) for entry in space)
    return [Cut(entry.start, entry.stop, own.shape, own.axes) for entry, own in found]


def without_one_dimension(vectors: Tensor, space: ParameterSpace) -> Tensor:
    """``vectors`` ``(.., n)`` with 0, in place, at the entries of biases, scales of norms and scalars."""
    for entry in space:
        if entry.has_one_dimension:
            vectors[..., entry.start : entry.stop] = 0
    return vectors


def at_rest(space: ParameterSpace, rows: Tensor, filters: Mapping[str, Filters]) -> str:
    """In which weights some filters, or all, do not vary in any row ``(k, n)``, in one line; empty where none."""
    found = {}
    for entry, cut in zip(space, cuts(space, "filter", filters), strict=True):
        if entry.has_one_dimension:
            continue
        moves = torch.stack([cut.norms(row) for row in rows]).any(dim=0)
        some = f"{moves.numel() - int(moves.sum())} of {moves.numel()} filters" if moves.any() else "all filters"
        found[entry.name] = "" if moves.all() else some
    return by_text(found, most=_NAMES)


def normalisation(
    space: ParameterSpace, point: Tensor, direction: Tensor, filters: Mapping[str, Filters]
) -> tuple[str, str]:
    """(blocks, 1-D tensors) of ``direction``, *measured*: how they are scaled against ``point``.

    The first word is ``"filter"``, ``"layer"``, ``"model"`` or ``"none"``, the second ``"zero"`` or ``"scaled"``.

    A direction is filter-normalised when each of its filters has the norm of the filter of ``point`` to 1e-3; the
    second word says whether the entries of 1-D tensors are all zero.
    """
    one_d = [entry for entry in space if entry.has_one_dimension]
    fixed = bool(one_d) and not any(bool(direction[e.start : e.stop].any()) for e in one_d)
    weights = without_one_dimension(point.clone(), space) if fixed else point
    blocks: tuple[Blocks, ...] = ("filter", "layer", "model")
    for by in blocks:
        pairs = ((cut.norms(direction), cut.norms(weights)) for cut in cuts(space, by, filters))
        if all(torch.allclose(own, target, rtol=1e-3, atol=0) for own, target in pairs):
            return by, "zero" if fixed else "scaled"
    return "none", "zero" if fixed else "scaled"


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 0 where ``below`` is 0."""
    return torch.where(below == 0, torch.zeros_like(above), above / torch.where(below == 0, 1, below))
