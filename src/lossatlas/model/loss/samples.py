"""Means over the data and their standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lossatlas.model.loss.metrics import weight_key


@dataclass(frozen=True)
class Sample:
    """Values x_1 .. x_m of one quantity with weights w_1 .. w_m, over examples or (``over``) over batches.

    ``mean`` = sum w x / sum w, and ``stderr`` is the standard error of that mean when the m values are independent
    draws: sqrt(m / (m - 1) sum w^2 (x - mean)^2) / sum w, which is sd / sqrt(m) for equal weights.
    """

    values: Tensor
    weights: Tensor
    over: Literal["examples", "batches"]

    @property
    def mean(self) -> float:
        return float(self.weights @ self.values / self.weights.sum())

    @property
    def stderr(self) -> float:
        m = len(self.values)
        if m < 2:
            return math.nan
        spread = torch.linalg.vector_norm(self.weights * (self.values - self.mean))
        return math.sqrt(m / (m - 1)) * float(spread / self.weights.sum())

    def combined(self, other: Sample, weight: float) -> Sample:
        """x + weight y, example by example: the errors of differences come out right, since both share the examples."""
        return Sample(self.values + weight * other.values, self.weights, self.over)


def samples_of(found: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Sample]:
    """What was measured on batches with these weights, joined: a value an example where every batch has one.

    Beside values x_1 .. x_m of a batch there can be weights v_1 .. v_m (``weight_key``), for which the mean over the
    batch of the x_i is that of y_i = x_i sum(v) / (m v_i) with the weights v_i: then the sample has the y_i and v_i.
    """
    weighed = {weight_key(name) for name in found[0]}
    return {
        name: _weighed([one[name] for one in found], [one[weight_key(name)] for one in found])
        if weight_key(name) in found[0]
        else _joined([one[name] for one in found], weights)
        for name in found[0]
        if name not in weighed
    }


def _joined(parts: list[Tensor], weights: Sequence[float]) -> Sample:
    if all(part.ndim and len(part) == weight for part, weight in zip(parts, weights, strict=True)):
        values = torch.cat(parts).double().cpu()
        return Sample(values, torch.ones_like(values), "examples")
    means = torch.stack([part.double().mean().cpu() for part in parts])
    return Sample(means, torch.tensor(weights, dtype=torch.float64), "batches")


def _weighed(parts: list[Tensor], weights: list[Tensor]) -> Sample:
    over: Literal["examples", "batches"] = "examples" if all(part.ndim for part in parts) else "batches"
    pairs = [(x.double().cpu().reshape(-1), v.double().cpu().reshape(-1)) for x, v in zip(parts, weights, strict=True)]
    values = [torch.where(v > 0, x * v.sum() / (len(v) * torch.where(v > 0, v, 1)), 0) for x, v in pairs]
    return Sample(torch.cat(values), torch.cat([v for _, v in pairs]), over)
