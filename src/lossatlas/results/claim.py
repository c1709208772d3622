"""What a claim is, and what an interval says about its hypothesis. A verdict is decided here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from lossatlas.errors import InputError
from lossatlas.results.uncertainty import interval as interval_text
from lossatlas.results.uncertainty import number

Interval = tuple[float, float]

UNKNOWN: Interval = (math.nan, math.nan)
LEVEL = 0.05  # the chance that a 95 % interval misses


class Verdict(StrEnum):
    """What an interval says about a hypothesis."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Claim:
    """A hypothesis "the quantity is above (below) a threshold", a statistic with its 95 % interval, and the verdict.

    Supported where the whole interval lies beyond the threshold; contradicted where it lies wholly short of it, or is
    a single number, the threshold itself; undecided otherwise, and where value or interval are not known (NaN).

    Parameters
    ----------
    hypothesis : a sentence without its full stop.
    statistic : what was computed, with its threshold.
    value, interval : the estimate and its 95 % interval.
    threshold, direction : what the interval is compared with.
    detail : how it was computed and how far it reaches.
    datasets : ``attrs["id"]`` of the Datasets that it was computed from.
    basis : what the interval is.

    Raises ``InputError`` for a direction that is neither, and for an interval whose ends are in the wrong order.

    Examples
    --------
    >>> claim = Claim("The loss rises", "rise of the loss, threshold 0", 0.3, (0.2, 0.4))
    >>> claim.verdict
    <Verdict.SUPPORTED: 'supported'>
    >>> claim.sentence
    'Supported: the loss rises (rise of the loss, threshold 0: 0.3, normal 95 % interval [0.200, 0.400]).'
    """

    hypothesis: str
    statistic: str
    value: float
    interval: Interval
    threshold: float = 0.0
    direction: Literal["above", "below"] = "above"
    detail: str = ""
    datasets: tuple[str, ...] = ()
    basis: str = "normal 95 % interval"

    def __post_init__(self) -> None:
        if self.direction not in ("above", "below"):
            raise InputError(f"direction={self.direction!r}: a claim says 'above' or 'below' a threshold.")
        if self.interval[0] > self.interval[1]:
            raise InputError(f"interval={self.interval}: give (low, high) with low <= high.")

    @property
    def verdict(self) -> Verdict:
        """What the interval says about the hypothesis."""
        return Verdict.UNDECIDED if math.isnan(self.value) else verdict(self.interval, self.threshold, self.direction)

    @property
    def sentence(self) -> str:
        """The claim in one sentence, the verdict first."""
        return (
            f"{self.verdict.capitalize()}: {self.hypothesis[0].lower()}{self.hypothesis[1:]} "
            f"({self.statistic}: {number(self.value)}, {self.basis} {interval_text(self.interval)})."
        )


def verdict(bounds: Interval, threshold: float, direction: Literal["above", "below"] = "above") -> Verdict:
    """What an interval says about "the quantity is above (below) the threshold".

    >>> [str(verdict(bounds, 0)) for bounds in ((0.2, 0.4), (-0.4, -0.2), (-0.1, 0.3), (math.nan, 1.0))]
    ['supported', 'contradicted', 'undecided', 'undecided']
    """
    low, high = bounds
    if math.isnan(low) or math.isnan(high):
        return Verdict.UNDECIDED
    if direction == "below":
        low, high, threshold = -high, -low, -threshold
    if low > threshold:
        return Verdict.SUPPORTED
    exactly_there = low == high == threshold
    return Verdict.CONTRADICTED if high < threshold or exactly_there else Verdict.UNDECIDED
