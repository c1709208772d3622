"""Blocks of a direction (filters, layers, the whole model): right angles and norms inside each."""

from __future__ import annotations

import torch
from torch import Tensor

from lossatlas.model.parameters import Blocks, ParameterSpace

_LOST = 1e-6  # of a block's squared norm: what is left below this after projection is rounding


def orthogonal_in_blocks(rows: Tensor, space: ParameterSpace, by: Blocks) -> Tensor:
    """Each row made orthogonal to the earlier ones inside every block; a block with no room for it keeps its draw."""
    done: list[Tensor] = []
    for row in rows:
        left = row
        for _ in range(2):  # twice is enough: the second pass removes what rounding left behind
            for other in done:
                left = left - other * _ratio(space.block_sum(left * other, by), space.block_sum(other * other, by))
        lost = space.block_sum(left * left, by) <= _LOST * space.block_sum(row * row, by)
        done.append(torch.where(lost, row, left))
    return torch.stack(done)


def scaled(direction: Tensor, weights: Tensor, space: ParameterSpace, by: Blocks) -> Tensor:
    """d_f |w_f| / |d_f| in each block f; 0 where the block of ``direction`` or ``weights`` is 0."""
    # Squares in float64: a filter of 1e5 entries would lose digits of its norm in float32.
    own, target = (space.block_sum(v.double() ** 2, by) for v in (direction, weights))
    return direction * _ratio(target, own).sqrt().to(direction.dtype)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 0 where ``below`` is 0."""
    return torch.where(below == 0, torch.zeros_like(above), above / torch.where(below == 0, 1, below))
