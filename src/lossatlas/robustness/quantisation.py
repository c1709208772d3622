"""Weights rounded to a few levels: symmetric, uniform, to nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lossatlas.geometry.blocks import Cut, cuts
from lossatlas.model.filters import Filters
from lossatlas.model.parameters import Entry
from lossatlas.objective import Objective


class Quantisation:
    """theta with its weights rounded to b bits, w -> s round(w / s), s = max |w| / (2^(b - 1) - 1).

    The step s is one for each tensor, or with ``filters`` one for each of its filters ("per channel"). Round is to
    nearest, halves to even; no value is clipped, since the largest is a level. Tensors of fewer than two dimensions
    (biases, norms) keep their values, as inference engines leave them in higher precision. A tensor of zeros stays one,
    and so does a tensor of equal values, whose value is a level.

    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 2.2
    (symmetric, per tensor and per channel), with the range narrowed to -(2^(b - 1) - 1) .. 2^(b - 1) - 1.
    """

    def __init__(self, objective: Objective, filters: Mapping[str, Filters]) -> None:
        self._point = objective.function.point
        every = cuts(objective.space, "filter" if filters else "layer", filters)
        self.cuts = {entry.name: cut for entry, cut in zip(objective.space, every, strict=True)}

    def __call__(self, size: float, draw: int, entries: Sequence[Entry]) -> Tensor:
        """The point with these tensors in so many bits; nothing is drawn."""
        theta = self._point.clone()
        for entry in matrices(entries):
            cut = self.cuts[entry.name]
            step = step_of(cut, theta, int(size))
            view = cut.of(theta)
            view.copy_(levels(view, step) * step)
        return theta


def step_of(cut: Cut, theta: Tensor, bits: int) -> Tensor:
    """s of each block, 0 where all of it is 0."""
    step: Tensor = cut.of(theta).abs().amax(dim=cut.within, keepdim=True) / (2 ** (bits - 1) - 1)
    return step


def levels(values: Tensor, step: Tensor) -> Tensor:
    """round(w / s), whole numbers; 0 where s is."""
    found: Tensor = torch.round(values / torch.where(step == 0, 1, step))
    return found


def matrices(entries: Sequence[Entry]) -> list[Entry]:
    """Those of two or more dimensions: weights of layers, without biases and norms."""
    return [entry for entry in entries if not entry.has_one_dimension]
