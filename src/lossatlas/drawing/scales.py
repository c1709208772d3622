"""The scale of an axis, read from its coordinates: linear, logarithmic, or logarithmic on both sides of zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.scale import SymmetricalLogTransform

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lossatlas.drawing.style import FloatArray

LINEAR_PART = 0.5  # of a symlog axis: from 0 to the smallest magnitude is drawn as long as half a decade


@dataclass(frozen=True)
class Scale:
    """How coordinates are spread over an axis; a symlog axis is linear below ``threshold``."""

    kind: Literal["linear", "log", "symlog"]
    threshold: float = 1.0

    def positions(self, coordinates: FloatArray) -> FloatArray:
        """Where they lie on a linear axis: what the 3D views, which know linear axes only, are given."""
        if self.kind == "linear":
            return coordinates
        if self.kind == "log":
            return np.asarray(np.log10(coordinates), dtype=float)
        transform = SymmetricalLogTransform(10, self.threshold, LINEAR_PART)
        return np.asarray(transform.transform(coordinates), dtype=float)

    def ticks(self, coordinates: FloatArray, most: int = 3) -> FloatArray:
        """Powers of ten within the coordinates, at most so many on a side, and 0 where it lies between."""
        size = np.abs(coordinates[coordinates != 0])
        low, high = np.log10(size.min()) - 1e-9, np.log10(size.max()) + 1e-9
        exponents = np.arange(np.ceil(low), np.floor(high) + 1)[::-1]
        tens = 10.0 ** exponents[:: max(1, int(np.ceil(len(exponents) / most)))]
        every = np.concatenate([-tens, [0.0], tens[::-1]])
        slack = 1e-9 * size.min()
        within = (every >= coordinates.min() - slack) & (every <= coordinates.max() + slack)
        return np.asarray(every[within], dtype=float)


def tick_names(ticks: FloatArray) -> list[str]:
    """Plain numbers with a typographic minus.

    >>> tick_names(np.array([-0.1, 0, 100]))
    ['−0.1', '0', '100']
    """
    return [f"{tick:g}".replace("-", "−") for tick in ticks]


def scale_of(coordinates: FloatArray) -> Scale:
    """Logarithmic where positive coordinates form a geometric series, symlog where they do on both sides of zero.

    >>> import numpy as np
    >>> scale_of(np.linspace(-1, 1, 5)).kind, scale_of(np.array([0.01, 0.1, 1.0])).kind
    ('linear', 'log')
    >>> scale_of(np.array([-1, -0.1, -0.01, 0, 0.01, 0.1, 1]))
    Scale(kind='symlog', threshold=0.01)
    """
    positive = coordinates[coordinates > 0]
    if len(positive) < 2 or _even(coordinates) or not _even(np.log(positive)):
        return Scale("linear")
    if len(positive) == len(coordinates):
        return Scale("log")
    mirrored = np.allclose(coordinates, -coordinates[::-1], rtol=1e-9, atol=0)
    return Scale("symlog", float(positive.min())) if mirrored else Scale("linear")


def _even(values: FloatArray) -> bool:
    steps = np.diff(values)
    return bool(np.allclose(steps, steps.mean(), rtol=1e-4, atol=0))


def apply_scale(axes: Axes, which: Literal["x", "y"], coordinates: FloatArray) -> Scale:
    """Give an axis the scale of its coordinates, with ticks that do not run together; a linear one stays as it is."""
    scale = scale_of(coordinates)
    if scale.kind == "linear":
        return scale
    options = {"linthresh": scale.threshold, "linscale": LINEAR_PART} if scale.kind == "symlog" else {}
    ticks = scale.ticks(coordinates, most=4 if scale.kind == "log" else 3)
    names = tick_names(ticks)
    if which == "x":
        axes.set_xscale(scale.kind, **options)
        axes.set_xticks(ticks, names)
        axes.set_xticks([], minor=True)
    else:
        axes.set_yscale(scale.kind, **options)
        axes.set_yticks(ticks, names)
        axes.set_yticks([], minor=True)
    return scale
