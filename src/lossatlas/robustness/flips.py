"""Errors of memory: bits of the weights' representation flipped at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lossatlas.model.parameters import Entry
from lossatlas.robustness.noise import generator
from lossatlas.robustness.quantisation import Quantisation, levels, matrices, step_of


class FloatFlips:
    """theta as float32 numbers, each of whose 32 bits is flipped with probability ``rate``, independently.

    A flip in the exponent can make a weight of 1e38, infinite, or no number. The bits that are flipped at one rate are
    among those of a larger one.
    """

    def __init__(self, point: Tensor, seed: int) -> None:
        self._point, self._seed = point, seed

    def __call__(self, size: float, draw: int, entries: Sequence[Entry]) -> Tensor:
        """The point with flips at this rate in these tensors."""
        theta = self._point.clone()
        for entry in entries:
            part = theta[entry.start : entry.stop]
            stored = part.to(torch.float32, copy=True)
            flipped = stored.view(torch.int32) ^ _mask(stored.view(torch.int32), 32, size, (self._seed, draw, entry))
            part.copy_(torch.where(flipped == stored.view(torch.int32), part, flipped.view(torch.float32).to(part)))
        return theta


class IntegerFlips:
    """theta with its weights as int8 levels of ``Quantisation`` to 8 bits, each bit flipped with probability ``rate``.

    Two's complement, so that the top bit moves a weight by 128 steps; no weight leaves -128 s .. 127 s. At rate 0 it is
    the quantised network. Tensors of fewer than two dimensions keep their values.
    """

    def __init__(self, point: Tensor, scheme: Quantisation, seed: int) -> None:
        self._point, self._scheme, self._seed = point, scheme, seed

    def __call__(self, size: float, draw: int, entries: Sequence[Entry]) -> Tensor:
        """The point with these tensors in int8, with flips at this rate."""
        theta = self._point.clone()
        for entry in matrices(entries):
            cut = self._scheme.cuts[entry.name]
            step, view = step_of(cut, theta, 8), cut.of(theta)
            stored = levels(view, step).to(torch.int8)
            view.copy_((stored ^ _mask(stored, 8, size, (self._seed, draw, entry))).to(theta.dtype) * step)
        return theta


def _mask(stored: Tensor, bits: int, rate: float, place: tuple[int, int, Entry]) -> Tensor:
    """Ones at the bits to be flipped, in the integers' own type."""
    seed, draw, entry = place
    # A generator a tensor, so that its flips are the same alone and together with the others.
    source = generator(seed, draw * 2**32 + entry.start)
    mask = torch.zeros_like(stored)
    for bit in range(bits):
        chosen = (torch.rand(stored.shape, generator=source) < rate).to(stored)
        mask |= chosen << bit
    return mask
