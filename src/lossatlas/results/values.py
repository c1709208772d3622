"""Numbers of a Dataset, and as text with their errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lossatlas.results.uncertainty import number, plus_minus

if TYPE_CHECKING:
    import xarray as xr


def scalar(dataset: xr.Dataset, name: str) -> float:
    """A single number; NaN where the Dataset has none of this name."""
    return float(dataset[name]) if name in dataset else math.nan


def value(dataset: xr.Dataset, name: str, **at: int) -> str:
    """A variable ± its standard error at these indices; a dash where there is none."""
    if name not in dataset:
        return number(math.nan)
    error = float(dataset[f"{name}_stderr"].isel(at)) if f"{name}_stderr" in dataset else None
    return plus_minus(float(dataset[name].isel(at)), error)
