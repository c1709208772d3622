"""What the Datasets of sharpness hold: which were measured alike, and how two networks compare by one measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lossatlas.results.claim import UNKNOWN, Interval
from lossatlas.results.groups import alike
from lossatlas.results.uncertainty import number, with_interval

if TYPE_CHECKING:
    import xarray as xr

RESCALINGS = ("layer rescaling", "neuron rescaling")
UNCHANGED, CHANGED = "unchanged by rescaling", "changed by rescaling"  # which is then no property of the function


def groups(datasets: Iterable[xr.Dataset]) -> list[list[xr.Dataset]]:
    """Those with the same measures, of the same sizes, on the same data and batches."""
    return alike(datasets, "data", "batch_size", also=_measures)


def _measures(dataset: xr.Dataset) -> tuple[str, ...]:
    return tuple(f"{at['measure'].item()} {at['rho'].item():g}" for at in each(dataset))


def each(dataset: xr.Dataset) -> Iterator[xr.Dataset]:
    """The measures one by one: those that rescaling leaves unchanged first, otherwise in their order."""
    several = [dataset.isel(measure=k) for k in range(dataset.sizes["measure"])]
    yield from sorted(several, key=lambda at: not invariant(at))


def of(dataset: xr.Dataset, name: str) -> xr.Dataset | None:
    """The measure of this name; None where it was not asked for or has no value."""
    if name not in dataset["measure"].to_numpy():
        return None
    at = dataset.sel(measure=name)
    return at if math.isfinite(float(at["value"])) else None


def invariant(at: xr.Dataset) -> bool:
    """Whether theory says that rescaling of layers and of neurons leaves a measure unchanged."""
    return bool(at["invariant"].sel(reparametrisation=list(RESCALINGS)).all())


def is_bound(at: xr.Dataset) -> bool:
    """Whether the value is a lower bound of what is defined."""
    return str(at["bound"].item()) == "lower"


def smaller_is_sharper(at: xr.Dataset) -> bool:
    """Whether a smaller value is the sharper one, as of the noise that a network bears."""
    return str(at["sharper"].item()) == "smaller"


def title(at: xr.Dataset) -> str:
    """What a measure is called, with its size: "worst case, ρ = 0.05"."""
    rho = float(at["rho"])
    return str(at["title"].item()) + ("" if math.isnan(rho) else f", ρ = {rho:g}")


def unbroken(name: str) -> str:
    """The same with its size in one piece at the ends of lines."""
    return name.replace(" = ", "\u00a0=\u00a0")


def spelt(value: float, interval: Interval) -> str:
    """A value with its interval: alone where it is exact, and with an end at infinity where it has one.

    >>> spelt(6.955, (6.955, 6.955)), spelt(93.7, (0.01, math.inf)), spelt(0.25, (0.2, 0.3))
    ('6.955', '93.7 [0.01, ∞]', '0.25 [0.20, 0.30]')
    """
    if value == interval[0] == interval[1]:
        return number(value)
    if math.inf in interval:
        return f"{number(value, 3)} [{number(interval[0], 3)}, {number(interval[1], 3)}]"
    return with_interval(value, interval)


def without_data(at: xr.Dataset) -> bool:
    """Whether the interval leaves out the error of the data: it holds for the loss of the examples given."""
    return "data" not in str(at["errors"].item())


def bounds(at: xr.Dataset) -> Interval:
    """The 95 % interval of a measure."""
    return float(at["low"]), float(at["high"])


class Ratio(NamedTuple):
    """A ratio of two numbers that are not negative, with its interval."""

    value: float
    interval: Interval


def ratio(a: float, of_a: Interval, b: float, of_b: Interval) -> Ratio:
    """a / b with [low_a / high_b, high_a / low_b]: end against end, so it holds for any correlation of the errors.

    What lies below 0 is taken as 0; NaN where neither is above it.

    >>> ratio(2.0, (1.5, 2.5), 1.0, (0.5, 1.5))
    Ratio(value=2.0, interval=(1.0, 5.0))
    >>> ratio(2.0, (1.5, 2.5), -1.0, (-2.0, 0.5))
    Ratio(value=inf, interval=(3.0, inf))
    """
    ends = _quotient(of_a[0], of_b[1]), _quotient(of_a[1], of_b[0])
    return Ratio(_quotient(a, b), UNKNOWN if any(map(math.isnan, (*of_a, *of_b, *ends))) else ends)


def _quotient(a: float, b: float) -> float:
    a, b = max(a, 0.0), max(b, 0.0)
    if b == 0:
        return math.inf if a > 0 else math.nan
    return math.nan if math.isinf(a) and math.isinf(b) else a / b


def sharper_by(a: xr.Dataset, b: xr.Dataset) -> Ratio:
    """By how many times a network is sharper than another by one measure: above 1 where the first is the sharper."""
    pair = (b, a) if smaller_is_sharper(a) else (a, b)
    numerator, denominator = ((float(at["value"]), bounds(at)) for at in pair)
    return ratio(*numerator, *denominator)


def agreement(ratios: Sequence[Ratio]) -> Ratio:
    """max(min_m r_m, min_m 1/r_m), above 1 where all ratios lie on one side of 1, with the interval that theirs give.

    The function never falls where every ratio moves to the same side, so its ends come from theirs: it is wholly above
    1 where all intervals are on one side, wholly below where one is on either side.

    >>> agreement([Ratio(2.0, (1.5, 3.0)), Ratio(1.2, (1.1, 1.4))])
    Ratio(value=1.2, interval=(1.1, 1.4))
    >>> agreement([Ratio(2.0, (1.6, 3.0)), Ratio(0.5, (0.4, 0.8))])
    Ratio(value=0.5, interval=(0.4, 0.8))
    """
    values, lows, highs = ([r.value for r in ratios], *zip(*(r.interval for r in ratios), strict=True))
    if any(map(math.isnan, (*values, *lows, *highs))):
        return Ratio(math.nan, UNKNOWN)
    inverse = [math.inf if value == 0 else 1 / value for value in (max(values), max(highs), max(lows))]
    return Ratio(max(min(values), inverse[0]), (max(min(lows), inverse[1]), max(min(highs), inverse[2])))
