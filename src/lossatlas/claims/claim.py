"""What a claim is, and what an interval says about its hypothesis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lossatlas.results.uncertainty import interval as interval_text
from lossatlas.results.uncertainty import number

if TYPE_CHECKING:
    import xarray as xr

Verdict = Literal["supported", "contradicted", "undecided"]
Interval = tuple[float, float]

UNKNOWN: Interval = (math.nan, math.nan)
LEVEL = 0.05


@dataclass(frozen=True)
class Claim:
    """A hypothesis with the statistic that was computed, its value and 95 % interval, and the verdict.

    `detail` says how it was computed and how far it reaches, `basis` what the interval is, `kind` which kind of
    Dataset the claim is about.
    """

    hypothesis: str
    statistic: str
    value: float
    interval: tuple[float, float]
    verdict: Verdict
    detail: str
    kind: str = ""
    basis: str = "normal 95 % interval"

    @property
    def sentence(self) -> str:
        """The claim in one sentence, the verdict first."""
        return (
            f"{self.verdict.capitalize()}: {self.hypothesis[0].lower()}{self.hypothesis[1:]} "
            f"({self.statistic}: {number(self.value)}, {self.basis} {interval_text(self.interval)})."
        )


def verdict(bounds: Interval, threshold: float, direction: Literal["above", "below"] = "above") -> Verdict:
    """What an interval says about "the quantity is above (below) the threshold".

    Supported where the whole interval lies beyond the threshold, contradicted where it lies wholly short of it (or
    is a single number, the threshold itself), undecided otherwise and where the interval is not known.

    >>> verdict((0.2, 0.4), 0), verdict((-0.4, -0.2), 0), verdict((-0.1, 0.3), 0)
    ('supported', 'contradicted', 'undecided')
    """
    low, high = bounds
    if direction == "below":
        low, high, threshold = -high, -low, -threshold
    if low > threshold:
        return "supported"
    exactly_there = low == high == threshold
    return "contradicted" if high < threshold or exactly_there else "undecided"


def scalar(dataset: xr.Dataset, name: str) -> float:
    return float(dataset[name]) if name in dataset else math.nan


def who(dataset: xr.Dataset) -> str:
    return f"network {dataset.attrs['network']}" if "network" in dataset.attrs else "the network"


def data_of(dataset: xr.Dataset) -> str:
    return str(dataset.attrs.get("data", "the data given"))
