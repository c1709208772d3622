"""Keskar's epsilon-sharpness, in the whole space and in a random subspace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from lossatlas.sharpness.balls import Ball, Box, ascent
from lossatlas.sharpness.measure import PERMUTATION, Estimate, Measure, Z
from lossatlas.sharpness.problem import Problem, joint

COLUMNS, SUBSPACES = 100, 3
BLOCK = 2**16  # parameters
KEPT = 2**30  # bytes of a basis that is not drawn anew at each use


def keskar(problem: Problem, rho: float) -> Estimate:
    """100 max_z (L(w + z) - L(w)) / (1 + L(w)) over |z_i| <= rho (|w_i| + 1), by ascent: a lower bound.

    Keskar et al. 2017, "On Large-Batch Training for Deep Learning", metric 2.1, A = I.
    """
    return _relative_rise(problem, Box(rho, problem.point.abs() + 1))


def keskar_subspace(problem: Problem, rho: float) -> Estimate:
    """The same over w + A z, |z_i| <= rho (|(A^+ w)_i| + 1), for random A of 100 columns: the mean over three.

    Keskar et al. 2017, metric 2.1, A random.
    """
    every = [_relative_rise(problem, Subspace(rho, problem.point, (problem.seed, k))) for k in range(SUBSPACES)]
    values = np.array([each.value for each in every])
    over_subspaces = float(values.std(ddof=1)) / math.sqrt(SUBSPACES)
    over_data = float(np.mean([each.stderr for each in every]))
    drawn = float(t.ppf(0.975, SUBSPACES - 1)) * over_subspaces
    half = joint(drawn, Z * over_data)
    value = float(values.mean())
    stderr, note = joint(over_subspaces, over_data), f"{SUBSPACES} subspaces of {COLUMNS} dimensions."
    return Estimate(value, stderr, value - half, value + half, ("draws", "data"), "lower", note, drawn)


def _relative_rise(problem: Problem, ball: Ball) -> Estimate:
    rise = ascent(problem, ball).rise
    clean = problem.clean["loss"]
    share = rise.mean / (1 + clean.mean)
    # The error of r / (1 + l) to first order is that of (r - share l) / (1 + l).
    stderr = rise.combined(clean, -share).stderr / (1 + clean.mean)
    return Estimate.normal(100 * share, 100 * stderr, bound="lower")


class Subspace(Ball):
    """{A z: |z_i| <= rho (|(A^+ w)_i| + 1)} for a matrix A ``(n, 100)`` of independent N(0, 1)."""

    def __init__(self, rho: float, point: Tensor, seed: tuple[int, int]) -> None:
        self._seed, self._n = seed, len(point)
        self._own = point
        self._limits = rho * (self._coordinates().abs() + 1)

    def farthest(self, gradient: Tensor) -> Tensor:
        z = self._limits * self._slopes(gradient).sign()
        return torch.cat([block @ z.to(block) for block in self._blocks()])

    def _coordinates(self) -> Tensor:
        """A^+ w, by the normal equations."""
        slopes = self._slopes(self._own)
        gram = torch.zeros(COLUMNS, COLUMNS).to(slopes)
        for block in self._blocks():
            gram += block.double().T @ block.double()
        solved: Tensor = torch.linalg.lstsq(gram, slopes).solution  # A may have more columns than parameters
        return solved

    def _slopes(self, vector: Tensor) -> Tensor:
        """A' v ``(100,)`` float64."""
        total = torch.zeros(COLUMNS, dtype=torch.float64, device=vector.device)
        for block, part in zip(self._blocks(), vector.split(BLOCK), strict=True):
            total += block.T.double() @ part.double()
        return total

    def _blocks(self) -> Iterator[Tensor]:
        """A, some rows at a time."""
        if self._n * COLUMNS * self._own.itemsize <= KEPT:
            yield from self._whole.split(BLOCK)
        else:
            for start in range(0, self._n, BLOCK):
                yield self._drawn(start)

    @cached_property
    def _whole(self) -> Tensor:
        return torch.cat([self._drawn(start) for start in range(0, self._n, BLOCK)])

    def _drawn(self, start: int) -> Tensor:
        seed = int(np.random.SeedSequence([*self._seed, start]).generate_state(1, np.uint64)[0])
        rows = min(BLOCK, self._n - start)
        return torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(seed)).to(self._own)


MEASURES = (
    Measure(
        "keskar",
        "epsilon-sharpness",
        r"100 \max_{|z_i| \le \rho (|w_i| + 1)} \frac{L(w + z) - L(w)}{1 + L(w)}",
        "keskar2017",
        keskar,
        frozenset({PERMUTATION}),
        60,
        rho=1e-3,
    ),
    Measure(
        "keskar_subspace",
        "epsilon-sharpness in random subspaces",
        r"100 \max_{|z_i| \le \rho (|(A^+ w)_i| + 1)} \frac{L(w + A z) - L(w)}{1 + L(w)}",
        "keskar2017",
        keskar_subspace,
        frozenset({PERMUTATION}),
        180,
        rho=1e-3,
    ),
)
