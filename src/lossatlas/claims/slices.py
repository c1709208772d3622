"""Claims on a slice of the loss."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from lossatlas.claims.claim import LEVEL, Claim, data_of, verdict, who
from lossatlas.results.uncertainty import normal_interval, number

if TYPE_CHECKING:
    import xarray as xr


def slice_minimum(dataset: xr.Dataset) -> Claim | None:
    """Whether every other sampled point of a slice has a higher loss than the trained point at its centre.

    The interval is simultaneous over the slice's other points (Bonferroni), since the lowest was chosen among them,
    and uses the paired error of the difference where the Dataset has it. Only points at which the model was evaluated
    count. None where the slice does not contain its centre, or where its centre is not the trained point; and on polar
    axes or several planes, where many cells are the centre.
    """
    loss = dataset["loss"]
    if "evaluated" in dataset:
        loss = loss.where(dataset["evaluated"] == 1)
    if not set(loss.dims) <= {"alpha", "beta", "gamma"}:
        return None
    at_centre = {dim: _zero(dataset[dim].to_numpy()) for dim in loss.dims}
    if any(index is None for index in at_centre.values()) or not dataset.attrs.get("center_is_model", 1):
        return None
    if not np.isfinite(loss[at_centre]):
        return None
    others = loss.where(np.isfinite(loss)).copy()
    others[at_centre] = np.nan
    if not np.isfinite(others).any():
        return None
    lowest = {dim: int(index) for dim, index in others.argmin(...).items()}
    value = float(loss[lowest] - loss[at_centre])
    noise, pairing = _rise_error(dataset, lowest, at_centre)
    compared = int(np.isfinite(others).sum())
    bounds = normal_interval(value, noise * float(stats.norm.isf(LEVEL / 2 / compared) / stats.norm.isf(LEVEL / 2)))
    where = ", ".join(f"{dim} = {dataset[dim].to_numpy()[index]:.3g}" for dim, index in lowest.items())
    skipped = int((~np.isfinite(loss)).sum())
    whole = "the slice" if "evaluated" not in dataset or bool(dataset["evaluated"].all()) else "the evaluated cells"
    return Claim(
        hypothesis=f"The trained point of {who(dataset)} is the minimum of the sampled {_slice_name(dataset)} "
        f"on {data_of(dataset)}",
        statistic="lowest loss elsewhere on the slice minus the loss at the centre, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"Lowest other loss {number(float(loss[lowest]))} at {where}, {number(float(loss[at_centre]))} at the "
        f"centre; {loss.size - skipped} finite cells{f', {skipped} left out' if skipped else ''}. On these very "
        f"examples the difference is exact: the centre is {'' if value > 0 else 'not '}the lowest of {whole}. The "
        f"interval is for the population, simultaneous over {compared} comparisons, {pairing}. A slice shows few of "
        "all directions.",
        kind="surface",
        basis="simultaneous 95 % interval (Bonferroni)",
    )


def _rise_error(
    dataset: xr.Dataset, lowest: dict[Hashable, int], centre: dict[Hashable, int | None]
) -> tuple[float, str]:
    """The standard error of a difference of two losses, and how it was had."""
    if "loss_rise_stderr" in dataset:
        return float(dataset["loss_rise_stderr"][lowest]), "with the paired error of the difference, example by example"
    if "loss_stderr" in dataset:
        each = dataset["loss_stderr"]
        return math.hypot(float(each[lowest]), float(each[centre])), "with both errors as if from different examples"
    return math.nan, "of unknown error"


def _zero(coordinate: Any) -> int | None:
    nearest = int(np.abs(coordinate).argmin())
    return nearest if abs(coordinate[nearest]) <= 1e-9 * max(np.abs(coordinate).max(), 1e-300) else None


def _slice_name(dataset: xr.Dataset) -> str:
    shape = str(dataset.attrs.get("region", "slice"))
    directions = str(dataset.attrs.get("directions", ""))
    return f"{shape} ({directions})" if directions else shape
