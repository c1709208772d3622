"""Numbers of a Dataset as a report prints them: with their errors, and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossatlas.plot.style import network_label
from lossatlas.results.uncertainty import number, plus_minus

if TYPE_CHECKING:
    import xarray as xr


def value(dataset: xr.Dataset, name: str, **at: int) -> str:
    """A variable ± its standard error at these indices; a dash where there is none."""
    if name not in dataset:
        return number(float("nan"))
    error = float(dataset[f"{name}_stderr"].isel(at)) if f"{name}_stderr" in dataset else None
    return plus_minus(float(dataset[name].isel(at)), error)


def subject(dataset: xr.Dataset) -> str:
    """Whose numbers they are, at the beginning of a sentence: "Network A"."""
    label = network_label(dataset)
    return label[0].upper() + label[1:]
