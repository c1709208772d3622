"""The mean over draws of a perturbation and over examples, with an error from both."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from lossatlas.model.loss.samples import Sample


class Spread(NamedTuple):
    """The errors of a mean over draws and examples; NaN where they are not known.

    ``over_draws`` a: of the draws' means, sd / sqrt(J). ``over_examples`` b: of the examples' means over the draws.
    Both hold the interaction c of draws and examples, and ``stderr`` holds it once: sqrt(a^2 + b^2 - c^2), as in a
    two-way analysis of variance with random effects. ``degrees`` of freedom: Welch's and Satterthwaite's, of a and b.
    """

    over_draws: float
    over_examples: float
    stderr: float
    degrees: float


class Average:
    """The mean over draws j and examples i of x_ij, one ``Sample`` a draw, kept as sums: memory is that of one sample.

    ``exact`` says that there is nothing to draw: then one sample is all, and a = c = 0.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self.means: list[float] = []
        self._within: list[float] = []  # each draw's own error over the examples
        self._exact = exact
        self._total: Tensor | None = None

    def add(self, sample: Sample) -> None:
        """One more draw."""
        self._total = sample.values if self._total is None else self._total + sample.values
        self.means.append(sample.mean)
        self._within.append(sample.stderr)
        self._last = sample

    @property
    def draws(self) -> int:
        """How many there are."""
        return len(self.means)

    @property
    def mean(self) -> float:
        """Over draws and examples."""
        return float(np.mean(self.means))

    @property
    def averaged(self) -> Sample:
        """Each example's mean over the draws."""
        assert self._total is not None, "of no draws there is no mean"
        return Sample(self._total / self.draws, self._last.weights, self._last.over)

    def spread(self) -> Spread:
        """The errors of the mean."""
        a, b = self._over_draws(), self.averaged.stderr
        both = a * a + b * b
        if not math.isfinite(both):
            return Spread(a, b, math.hypot(a, b), math.inf)
        stderr = math.sqrt(max(both - self._interaction(b), a * a, b * b))
        parts = [part**4 / (m - 1) for part, m in ((a, self.draws), (b, len(self._last.values))) if part > 0]
        return Spread(a, b, stderr, both**2 / sum(parts) if parts else math.inf)

    def _over_draws(self) -> float:
        if self._exact:
            return 0.0
        if self.draws < 2:
            return math.nan
        with np.errstate(invalid="ignore"):  # of an infinite loss the error is unknown: NaN
            return float(np.std(self.means, ddof=1)) / math.sqrt(self.draws)

    def _interaction(self, b: float) -> float:
        """c^2: the mean of the draws' own b_j^2 holds it J times, b^2 once."""
        if self.draws < 2:
            return 0.0
        return max(float(np.mean(np.square(self._within))) - b * b, 0.0) / (self.draws - 1)
