"""The mean of paired samples over draws of a perturbation, with an error from both the draws and the examples."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from lossatlas.model.loss.samples import Sample


class Average:
    """The mean over draws j and examples i of x_ij, one ``Sample`` a draw, kept as sums: memory is that of one sample.

    The standard error joins two sources, sqrt(a^2 + b^2): a, over the draws, of each draw's mean; b, over the examples,
    of each example's mean over the draws. It is slightly cautious, since both hold their interaction. ``exact`` says
    that there is nothing to draw: then one sample is all, and a = 0.
    """

    def __init__(self, samples: Iterable[Sample] = (), *, exact: bool = False) -> None:
        self.means: list[float] = []
        self._exact = exact
        self._total: Tensor | None = None
        for sample in samples:
            self.add(sample)

    def add(self, sample: Sample) -> None:
        """One more draw."""
        self._total = sample.values if self._total is None else self._total + sample.values
        self.means.append(sample.mean)
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
    def over_draws(self) -> float:
        """a; NaN for a single draw of several that could be made, or where a mean is infinite."""
        if self._exact:
            return 0.0
        if self.draws < 2:
            return math.nan
        with np.errstate(invalid="ignore"):
            return float(np.std(self.means, ddof=1)) / math.sqrt(self.draws)

    @property
    def averaged(self) -> Sample:
        """Each example's mean over the draws."""
        assert self._total is not None, "of no draws there is no mean"
        return Sample(self._total / self.draws, self._last.weights, self._last.over)

    @property
    def stderr(self) -> float:
        """sqrt(a^2 + b^2); NaN where one of them is not known."""
        return math.hypot(self.over_draws, self.averaged.stderr)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the standard error, by Welch and Satterthwaite."""
        if not math.isfinite(self.stderr):
            return math.inf
        a, b, m = self.over_draws, self.averaged.stderr, len(self._last.values)
        parts = (0.0 if self._exact else a**4 / (self.draws - 1)) + b**4 / (m - 1)
        return (a * a + b * b) ** 2 / parts if parts > 0 else math.inf
