"""A stratified sample of the examples, and what it leaves unknown of the whole data set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lossatlas.errors import InputError


@dataclass(frozen=True)
class Strata:
    """n_h of the N_h examples of each class h, drawn without replacement, as many as its share of the data.

    The mean over all data is estimated by sum_h (N_h / N) mean_h (Cochran 1977, chapter 5).
    """

    indices: Tensor  # (n,): which examples were drawn, in order
    labels: Tensor  # (n,): their classes
    totals: Tensor  # (classes,): N_h

    @property
    def weights(self) -> Tensor:
        """``(n,)`` float64: N_h / n_h of each example, so that a weighted mean is the estimate."""
        return (self.totals / self._drawn)[self.labels]

    def stderr(self, values: Tensor) -> float:
        """sqrt(sum_h (N_h / N)^2 (1 - n_h / N_h) s_h^2 / n_h): of the estimate against the mean over *these* data."""
        variance = 0.0
        for h, (n, total) in enumerate(zip(self._drawn.tolist(), self.totals.tolist(), strict=True)):
            if 1 < n < total:
                spread = float(values[self.labels == h].var())
                variance += (total / float(self.totals.sum())) ** 2 * (1 - n / total) * spread / n
        return math.sqrt(variance)

    @property
    def _drawn(self) -> Tensor:
        return torch.bincount(self.labels, minlength=len(self.totals)).double()


def stratified(labels: Tensor, count: int, seed: int) -> Strata:
    """About ``count`` examples, at least two of each class that has two. ``labels`` ``(N,)`` are whole numbers.

    Raises ``InputError`` for a count that is no whole number between two a class and N.
    """
    own = torch.unique(labels, return_inverse=True)[1]
    totals = torch.bincount(own)
    least = int(totals.clamp(max=2).sum())
    if isinstance(count, bool) or not isinstance(count, int) or not least <= count <= len(labels):
        raise InputError(
            f"subset={count}: give a whole number from {least} (two a class) to {len(labels)} (all of them)."
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for h, total in enumerate(totals.tolist()):
        size = min(total, max(2, round(count * total / len(labels))))
        members = (own == h).nonzero().flatten()
        drawn.append(members[torch.randperm(total, generator=generator)[:size]])
    indices = torch.cat(drawn).sort().values
    return Strata(indices, own[indices], totals.double())
