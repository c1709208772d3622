"""How high a path rises above its ends, by three definitions, and the paired bootstrap of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from lossatlas.model.loss.samples import Sample

Definition = Literal["entezari", "frankle", "draxler"]
FloatArray = NDArray[np.float64]

TAIL = 0.025
COUNTS_AT_ONCE = 4_000_000  # entries of the matrix of counts, 32 MB


class Interval(NamedTuple):
    """95 % of a height and of its place."""

    low: float
    high: float
    t_low: float
    t_high: float


UNKNOWN = Interval(math.nan, math.nan, math.nan, math.nan)


def heights(values: FloatArray, t: FloatArray, definition: Definition) -> FloatArray:
    """Values ``(..., n_t)`` along the path above the definition's base, which the values at the two ends make.

    >>> heights(np.array([1.0, 5.0, 3.0]), np.array([0.0, 0.5, 1.0]), "entezari")
    array([0., 3., 0.])
    """
    first, last = values[..., :1], values[..., -1:]
    bases: dict[Definition, FloatArray] = {
        "entezari": (1 - t) * first + t * last,
        "frankle": (first + last) / 2,
        "draxler": np.maximum(first, last),
    }
    return values - bases[definition]


def relative_heights(values: FloatArray) -> FloatArray:
    """Values ``(..., n_t)`` above the mean of the ends, as a share of that mean."""
    return values / ((values[..., :1] + values[..., -1:]) / 2) - 1


def summit(values: FloatArray) -> int:
    """The index of the highest value; one that is infinite or NaN is higher than any other."""
    return int(np.argmax(np.where(np.isfinite(values), values, np.inf)))


@dataclass(frozen=True)
class Profile:
    """One quantity along a path: values of the same examples (or batches) at each t ``(n_t,)``, sorted from 0 to 1."""

    t: FloatArray
    samples: Sequence[Sample]

    @cached_property
    def means(self) -> FloatArray:
        return np.array([sample.mean for sample in self.samples])

    @cached_property
    def stderrs(self) -> FloatArray:
        return np.array([sample.stderr for sample in self.samples])

    @property
    def units(self) -> int:
        """The number of examples (or batches)."""
        return len(self.samples[0].values)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.means).all())

    def heights(self, definition: Definition) -> FloatArray:
        return heights(self.means, self.t, definition)

    def paired_stderr(self, index: int, definition: Definition) -> float:
        """The standard error of the height at ``t[index]``: of the differences, example by example."""
        first, last, x = self.samples[0], self.samples[-1], float(self.t[index])
        a, b = {
            "entezari": (1 - x, x),
            "frankle": (0.5, 0.5),
            "draxler": (1.0, 0.0) if first.mean >= last.mean else (0.0, 1.0),
        }[definition]
        return self.samples[index].combined(first, -a).combined(last, -b).stderr

    def replicates(self, draws: int, seed: int) -> FloatArray | None:
        """``(draws, n_t)``: the means when the examples are drawn anew, the same ones at every t.

        None where there are no draws, two units or fewer, or values that are not finite. One seed draws the same
        examples for every quantity that has a value for each.
        """
        if draws == 0 or self.units < 3 or not self.finite:
            return None
        weights = self.samples[0].weights.numpy()
        weighted = np.column_stack([(torch.stack([s.values for s in self.samples]).numpy() * weights).T, weights])
        rng, size = np.random.default_rng(seed), max(1, COUNTS_AT_ONCE // self.units)
        sums = [_counts(rng, self.units, min(size, draws - k)) @ weighted for k in range(0, draws, size)]
        drawn = np.concatenate(sums)
        return np.asarray(drawn[:, :-1] / drawn[:, -1:])


def interval(t: FloatArray, found: FloatArray, replicates: FloatArray, units: int) -> Interval:
    """95 % of max_t h(t) and of its place, from the heights found ``(n_t,)`` and their ``replicates`` ``(draws, n_t)``.

    With d(t) = h*(t) - h(t), the error of a height in a replicate:

    - low = max h - q_97.5(max_t d): max h lies above the true maximum by no more than the largest error on the path,
      so that the bias of a maximum over noisy points cannot pass for a barrier;
    - high = max_t (h(t) + q(t)), with q the larger of d's 97.5 % and minus its 2.5 % quantile: the true maximum is
      the height of one t, whose own bound holds there, wherever it is.

    A barrier is never below 0, the height of one of the ends. These are the intersection bounds of Chernozhukov, Lee &
    Rosen (2013) at constant width, d widened by Student's t. Simulated on nine kinds of profile, 100 and 400 examples,
    three definitions, they cover in 87 % (heavy tails, ends that tie) to 100 % of the cases, 97 to 100 % where the
    profile is flat. There the percentile interval covers in 0 to 87 %, Efron's bias-corrected one in 23 to 93 % and
    the basic one in 72 to 92 %: the maximum of a flat profile is far above the truth, and in a replicate farther.
    """
    student = float(stats.t.ppf(1 - TAIL, units - 1) / stats.norm.ppf(1 - TAIL)) * math.sqrt(units / (units - 1))
    errors = student * (replicates - found)
    down, up = np.quantile(errors, [TAIL, 1 - TAIL], axis=0)
    low = found.max() - np.quantile(errors.max(1), 1 - TAIL)
    high = (found + np.maximum(up, -down)).max()
    places = t[np.argmax(replicates, axis=1)]
    first = np.quantile(places, TAIL, method="lower")
    last = np.quantile(places, 1 - TAIL, method="higher")
    here = float(t[summit(found)])
    return Interval(max(0.0, float(low)), float(high), min(here, float(first)), max(here, float(last)))


def relative_interval(loss: Profile, replicates: FloatArray | None) -> tuple[float, float, float]:
    """Frankle's barrier as a share of the mean loss of the ends, and its interval; NaN where that is not positive."""
    if loss.means[[0, -1]].mean() <= 0:
        return math.nan, math.nan, math.nan
    found = relative_heights(loss.means)
    value = float(found[summit(found)])
    if replicates is None or (replicates[:, [0, -1]].mean(1) <= 0).any():
        return value, math.nan, math.nan
    low, high, *_ = interval(loss.t, found, relative_heights(replicates), loss.units)
    return value, low, high


def _counts(rng: np.random.Generator, units: int, draws: int) -> FloatArray:
    """``(draws, units)``: how often each unit comes when as many as there are come, with replacement."""
    drawn = [np.bincount(rng.integers(units, size=units), minlength=units) for _ in range(draws)]
    return np.array(drawn, dtype=np.float64)
