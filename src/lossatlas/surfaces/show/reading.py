"""What is read off a surface: the loss at the center, the highest loss, and how far it rises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from lossatlas.drawing.grids import over_planes
from lossatlas.results.claim import LEVEL, UNKNOWN, Interval
from lossatlas.results.uncertainty import normal_interval, plus_minus
from lossatlas.results.values import value

if TYPE_CHECKING:
    import xarray as xr

Index = dict[str, int]


def center(dataset: xr.Dataset) -> Index:
    """The index nearest to the center; at radius 0 any angle is as good as the first, and so is any plane."""
    dims = (str(dim) for dim in dataset["loss"].dims)
    return {dim: 0 if dim == "plane" else int(np.abs(dataset[dim].to_numpy()).argmin()) for dim in dims}


def has_center(dataset: xr.Dataset) -> bool:
    """Whether the center is a cell: every axis but an angle has 0 among its coordinates."""
    at = {dim: k for dim, k in center(dataset).items() if dim not in ("plane", "angle")}
    return all(
        abs(float(dataset[dim][k])) <= 1e-9 * max(float(abs(dataset[dim]).max()), 1e-300) for dim, k in at.items()
    )


def center_loss(dataset: xr.Dataset) -> str:
    """The loss at the center ± its standard error; without one where the center is no cell."""
    if has_center(dataset):
        return value(dataset, "loss", **center(dataset))
    return plus_minus(float(dataset.attrs["center_loss"]))


def highest(dataset: xr.Dataset) -> Index:
    """The index of the highest finite loss, of the mean over several planes."""
    loss = over_planes(dataset)["loss"]
    return {str(dim): int(k) for dim, k in loss.where(np.isfinite(loss)).argmax(...).items()}


def highest_loss(dataset: xr.Dataset) -> str:
    """The highest finite loss ± its standard error; over several planes ± the standard deviation of their losses."""
    at = highest(dataset)
    if "plane" in dataset.dims:
        return plus_minus(float(dataset["loss_mean"].isel(at)), float(dataset["loss_spread"].isel(at)))
    return value(dataset, "loss", **at)


def highest_rise(dataset: xr.Dataset) -> tuple[float, Interval]:
    """How far the loss rises above the center at most, with a 95 % interval that holds for all cells at once.

    Of the cells at which the model was evaluated. Over several planes the interval is unknown.
    """
    if "plane" in dataset.dims:
        return float(dataset["loss_mean"].isel(highest(dataset))) - float(dataset.attrs["center_loss"]), UNKNOWN
    loss = dataset["loss"].where((dataset["evaluated"] == 1) & np.isfinite(dataset["loss"]))
    rise = (loss - float(dataset.attrs["center_loss"])).to_numpy().ravel()
    known = np.isfinite(rise)
    errors = dataset["loss_rise_stderr"].transpose(*loss.dims).to_numpy().ravel()[known]
    bounds = [simultaneous(float(r), float(e), known.sum()) for r, e in zip(rise[known], errors, strict=True)]
    if not bounds or not np.isfinite(bounds).all():
        return float(np.nanmax(rise, initial=-np.inf)), UNKNOWN
    return float(rise[known].max()), (max(low for low, _ in bounds), max(high for _, high in bounds))


def simultaneous(value: float, stderr: float, comparisons: int) -> Interval:
    """The normal 95 % interval that holds for so many comparisons at once (Bonferroni)."""
    wider = stats.norm.isf(LEVEL / 2 / comparisons) / stats.norm.isf(LEVEL / 2)
    return normal_interval(value, stderr * float(wider))
