"""Losses of one parameter w with a known profile between w = 0 and w = 1."""

from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor, nn

import lossatlas as la
from lossatlas.objective import Objective

UNIT = la.Segment(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
DEFINITIONS = ["entezari", "frankle", "draxler"]


class Path:
    """The straight line from 0 to 1, declared 1.5 long; it keeps account of the t at which it was asked."""

    length = 1.5

    def __init__(self) -> None:
        self.asked: list[float] = []

    def point(self, t: float) -> Tensor:
        self.asked.append(t)
        return torch.tensor([t], dtype=torch.float64)


class Number(nn.Module):
    """One parameter w; its output for x is (w, x)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.w.expand(len(x), 1), x], dim=1)


def profile(function, x: Tensor | None = None, **options) -> Objective:
    """L(w) is the mean of ``function(w, x_i)``; without x there are four examples, all of them 0."""
    x = torch.zeros(4, dtype=torch.float64) if x is None else x
    options = {"metrics": None} | options
    return Objective(
        Number(),
        lambda outputs, _: function(outputs[:, 0], outputs[:, 1]),
        (x[:, None], torch.zeros(len(x))),
        **options,
    )


def numbered(function, n: int = 3) -> Objective:
    """L(w) is the mean of ``function(w, x_i)`` for x_i = 0 .. n - 1."""
    return profile(function, torch.arange(float(n), dtype=torch.float64))


def errors(wrong, n: int) -> Objective:
    """A classifier whose example i of n is wrong where ``wrong(w, i / n)``; its loss is flat."""
    data = (torch.arange(float(n), dtype=torch.float64)[:, None] / n, torch.zeros(n))
    metrics = {"accuracy": lambda outputs, _: 1 - wrong(outputs[:, 0], outputs[:, 1]).double()}
    return Objective(Number(), lambda outputs, _: 1 + 0 * outputs[:, 0], data, metrics=metrics)


def hill(w: Tensor, x: Tensor) -> Tensor:
    """1 + 3 w + 8 w^2 (1 - w), and x_i of ``numbered`` adds 0 on average: ends at 1 and 4."""
    return 1 + 3 * w + 8 * w**2 * (1 - w) + (x - 1) * w


def measured(o: Objective, curve=UNIT, **options) -> xr.Dataset:
    return la.barrier(o, curve, progress=False, **options)
