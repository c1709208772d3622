"""A measure after and before a reparametrisation, one over the other, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossatlas.sharpness.measure import Estimate, Z

MOVES = 1e-3  # of a ratio from 1: above the rounding of float32 after a rescaling by 10


@dataclass(frozen=True)
class Ratio:
    """after / before, with an interval of the errors of solvers and draws."""

    after: float
    value: float
    low: float
    high: float
    note: str = ""

    @property
    def distance(self) -> float:
        """How far the measure moved, up and down alike; -1 where that is not known."""
        return -1.0 if math.isnan(self.value) else abs(math.log(self.value)) if self.value > 0 else math.inf

    @property
    def moved(self) -> bool:
        return abs(self.value - 1) > MOVES and not self.low <= 1 <= self.high


def ratio(before: Estimate, after: Estimate) -> Ratio:
    """after / before; 1 where both are 0, NaN where the divisor alone is, or may be, 0."""
    if math.isnan(before.value) or math.isnan(after.value):
        return Ratio(after.value, math.nan, math.nan, math.nan, after.note or before.note)
    if after.value == before.value:
        return Ratio(after.value, 1.0, *_bounds(before, after))
    if before.value == 0:
        return Ratio(after.value, math.nan, math.nan, math.nan, "It is 0 before.")
    return Ratio(after.value, after.value / before.value, *_bounds(before, after))


def _bounds(before: Estimate, after: Estimate) -> tuple[float, float]:
    (low, high), others = without_data(before), without_data(after)
    if low <= 0 <= high or not all(map(math.isfinite, (low, high, *others))):
        return (1.0, 1.0) if (low, high) == others else (-math.inf, math.inf)
    corners = [other / one for one in (low, high) for other in others]
    return min(corners), max(corners)


def without_data(estimate: Estimate) -> tuple[float, float]:
    """The interval of an estimate without the data's part, as far as that is known."""
    if estimate.errors in ((), ("data",)):
        return estimate.value, estimate.value
    halves = estimate.value - estimate.low, estimate.high - estimate.value
    if "data" not in estimate.errors:
        low, high = halves
    elif "draws" in estimate.errors:
        low, high = halves if math.isnan(estimate.drawn) else (estimate.drawn, estimate.drawn)
    else:
        low, high = (max(half - _width(estimate.stderr), 0.0) for half in halves)
    return estimate.value - low, estimate.value + high


def _width(stderr: float) -> float:
    """Half of a 95 % interval; 0 where the error is not known, since it is then in none."""
    return 0.0 if math.isnan(stderr) else Z * stderr
