"""Changes from the unperturbed network, with their errors and the intervals that follow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from scipy.special import stdtrit

from lossatlas.results.uncertainty import plus_minus
from lossatlas.robustness.show.words import dimension

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.claim import Interval


class Estimate(NamedTuple):
    """A value, its standard error, and the degrees of freedom of that error: few where there are few draws."""

    value: float
    stderr: float
    degrees: float

    def interval(self, bound: float = 0.0) -> Interval:
        """Student's 95 % interval, widened by a bound."""
        known = self.degrees > 0
        half = (float(stdtrit(self.degrees, 0.975)) if known else math.nan) * self.stderr + bound
        return self.value - half, self.value + half

    @property
    def text(self) -> str:
        """The value ± its standard error."""
        return plus_minus(self.value, self.stderr)

    def minus(self, other: Estimate) -> Estimate:
        """The difference of two estimates that are taken as independent; degrees by Welch and Satterthwaite."""
        squares = self.stderr**2, other.stderr**2
        parts = squares[0] ** 2 / self.degrees + squares[1] ** 2 / other.degrees
        degrees = math.inf if parts == 0 else sum(squares) ** 2 / parts
        return Estimate(self.value - other.value, math.sqrt(sum(squares)), degrees)


def change(dataset: xr.Dataset, name: str, size: float, scale: float = 1.0) -> Estimate:
    """Scale (value at this size - value of the unperturbed network), paired over the examples."""
    return changed(dataset.sel({dimension(dataset): size}), name, scale)


def changed(at: xr.Dataset, name: str, scale: float = 1.0) -> Estimate:
    """The same of a Dataset at one size, and for one layer (``layer_loss``)."""
    stderr, degrees = float(at[f"{name}_change_stderr"]), float(at[f"{name}_change_degrees"])
    return Estimate(scale * float(at[f"{name}_change"]) + 0.0, abs(scale) * stderr, degrees)
