"""Random noise on the weights: w + sigma s o u, with u of mean 0 and variance 1."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lossatlas.geometry.blocks import cuts
from lossatlas.model.filters import Filters
from lossatlas.model.parameters import Entry
from lossatlas.objective import Objective

Relative = Literal["none", "filter", "weight"]
Law = Literal["gaussian", "uniform"]


class WeightNoise:
    """theta + sigma s o u_j ``(n,)``, the same draws u_j at every sigma.

    Gaussian: u ~ N(0, I). Uniform: u ~ U(-sqrt 3, sqrt 3), of the same variance.
    """

    def __init__(self, point: Tensor, scale: Tensor, law: Law, seed: int) -> None:
        self._point, self._scale, self._seed = point, scale, seed
        self._draw = normal if law == "gaussian" else uniform
        self._noise = functools.lru_cache(maxsize=1)(self._scaled)

    def __call__(self, size: float, draw: int, entries: Sequence[Entry]) -> Tensor:
        """The point with noise of this size on these tensors."""
        moved = self._point + size * self._noise(draw)
        if sum(entry.size for entry in entries) == len(moved):
            return moved
        theta = self._point.clone()
        for entry in entries:
            theta[entry.start : entry.stop] = moved[entry.start : entry.stop]
        return theta

    def _scaled(self, draw: int) -> Tensor:
        return self._scale * self._draw(self._point, self._seed, draw)


def scale_of(objective: Objective, relative: Relative, filters: Mapping[str, Filters]) -> Tensor:
    """s ``(n,)``: 1; the root mean square of each entry's filter; or |w|."""
    point = objective.function.point
    if relative == "weight":
        return point.abs()
    scale = torch.ones_like(point)
    for cut in cuts(objective.space, "filter", filters) if filters else ():
        cut.of(scale).copy_(cut.norms(point) / math.sqrt(cut.size))
    return scale


def normal(like: Tensor, seed: int, draw: int) -> Tensor:
    """u ~ N(0, I), as many as ``like`` has."""
    return torch.randn(like.shape, generator=generator(seed, draw)).to(like)


def uniform(like: Tensor, seed: int, draw: int) -> Tensor:
    """u ~ U(-sqrt 3, sqrt 3), as many as ``like`` has."""
    return (math.sqrt(12) * (torch.rand(like.shape, generator=generator(seed, draw)) - 0.5)).to(like)


def generator(seed: int, draw: int) -> torch.Generator:
    """One generator a draw, so that draw 7 is the same whether 10 or 100 are asked for."""
    entropy = int(np.random.SeedSequence([seed, draw]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(entropy)
