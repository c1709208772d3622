"""The axes of a region's grid: increasing coordinates, evenly or geometrically spaced, the center exactly 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lossatlas.errors import InputError

Axis = NDArray[np.float64]
Span = float | tuple[float, float]
Spacing = Literal["linear", "log"]


def one_per_axis(given: Any, count: int, what: str) -> list[Any]:
    """One entry an axis: of a tuple of them, or the same for all. Two numbers are (low, high) of a span."""
    several = isinstance(given, tuple) and (
        what == "steps" or len(given) != 2 or any(isinstance(one, tuple) for one in given)
    )
    if several and len(given) != count:
        raise InputError(f"{what}={given} names {len(given)} axes: give one value for all, or one for each of {count}.")
    return list(given) if several else [given] * count


def grid_axes(
    spans: Sequence[Any],
    steps: Sequence[int],
    spacing: Spacing = "linear",
    smallest: float = 1e-3,
    with_center: bool = False,
) -> tuple[Axis, ...]:
    """One increasing axis for each span; ``InputError`` for an impossible one, or one without the center asked for."""
    if spacing not in ("linear", "log") or not 0 < smallest < 1:
        raise InputError(
            f"spacing={spacing!r}, smallest={smallest}: choose 'linear' or 'log', and smallest between 0 and 1."
        )
    axes = tuple(_axis(span, count, spacing, smallest) for span, count in zip(spans, steps, strict=True))
    for axis, span in zip(axes, spans, strict=True):
        if with_center and not (axis == 0).any():
            even = axis[0] == -axis[-1]
            remedy = f"give {len(axis) + 1} steps" if even else "give a half-width and an odd number of steps"
            raise InputError(f"{len(axis)} steps over span={span} have none at the center: {remedy}.")
    return axes


def _axis(span: Any, steps: int, spacing: Spacing, smallest: float) -> Axis:
    low, high = _interval(span)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise InputError(f"steps={steps}: give a whole number of at least 2.")
    axis = np.linspace(low, high, steps) if spacing == "linear" else _geometric(low, high, steps, smallest)
    if not (np.diff(axis) > 0).all():
        raise InputError(f"span={span} is too narrow for {steps} steps in float64: give a wider one or fewer steps.")
    if spacing == "linear":
        axis[np.abs(axis) < 1e-12 * (high - low)] = 0.0  # the center is exactly the center
    return axis


def _interval(span: Any) -> tuple[float, float]:
    ends = span if isinstance(span, tuple) else (-span, span) if isinstance(span, int | float) else ()
    real = len(ends) == 2 and all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
    if not (real and ends[0] < ends[1]):
        raise InputError(
            f"span={span} is no interval: give a positive half-width or a tuple (low, high) with low < high."
        )
    return float(ends[0]), float(ends[1])


def interval_about(span: Any, at: float) -> tuple[float, float]:
    """(low, high) of a span whose half-width is taken about ``at``."""
    low, high = _interval(span)
    return (low, high) if isinstance(span, tuple) else (at + low, at + high)


def _geometric(low: float, high: float, steps: int, smallest: float) -> Axis:
    if low > 0:
        return np.geomspace(low, high, steps)
    if low != -high:
        raise InputError(f"span=({low}, {high}) with spacing='log': give a half-width, or (low, high) with 0 < low.")
    above = np.geomspace(high, smallest * high, steps // 2)[::-1]
    return np.concatenate([-above[::-1], np.zeros(steps % 2), above])


def snapped(new: Axis, old: Axis) -> Axis:
    """``new``, with the values of ``old`` where both are the same coordinate up to rounding."""
    nearest = old[np.abs(new[:, None] - old).argmin(axis=1)]
    snapped: Axis = np.where(np.abs(new - nearest) < 1e-9 * np.diff(new).min(), nearest, new)
    return snapped
