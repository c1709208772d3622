"""Claims on a slice of the loss."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lossatlas.results.claim import Claim
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number
from lossatlas.surfaces.show.grouping import slice_name
from lossatlas.surfaces.show.reading import simultaneous

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

Place = dict[Hashable, int]


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """For each slice through the trained point, whether that point is its minimum."""
    for dataset in datasets:
        yield from slice_minimum(dataset)


def slice_minimum(dataset: xr.Dataset) -> Iterator[Claim]:
    """Whether every other sampled point of a slice has a higher loss than the trained point at its center.

    The interval is simultaneous over the slice's other points (Bonferroni), since the lowest was chosen among them,
    and uses the paired error of the difference. Only points at which the model was evaluated count. None where the
    slice does not contain its center, or where its center is not the trained point; and on polar axes or several
    planes, where many cells are the center.
    """
    loss = dataset["loss"].where((dataset["evaluated"] == 1) & np.isfinite(dataset["loss"]))
    center = _center(dataset)
    if center is None or not np.isfinite(loss[center]):
        return
    others = loss.copy()
    others[center] = np.nan
    compared = int(np.isfinite(others).sum())
    if not compared:
        return
    lowest = {dim: int(index) for dim, index in others.argmin(...).items()}
    of = Provenance.of(dataset)
    value = float(loss[lowest] - loss[center])
    yield Claim(
        hypothesis=f"The trained point of {of.who} is the minimum of its {slice_name(dataset)} on {of.data_label}",
        statistic="lowest loss elsewhere on the slice minus the loss at the center, threshold 0",
        value=value,
        interval=simultaneous(value, float(dataset["loss_rise_stderr"][lowest]), compared),
        detail=f"{_losses(dataset, loss, lowest, center)} On these very examples the difference is exact: the center "
        f"is {'' if value > 0 else 'not '}the lowest of {_sampled(dataset)}. The interval is for the population, "
        f"simultaneous over {compared} comparisons, with the paired error of the difference, example by example. A "
        "slice shows few of all directions.",
        datasets=(dataset.attrs["id"],),
        basis="simultaneous 95 % interval (Bonferroni)",
    )


def _center(dataset: xr.Dataset) -> Place | None:
    """The cell of the trained point; None where there is none, or more than one."""
    dims = dataset["loss"].dims
    if not set(dims) <= {"alpha", "beta", "gamma"} or not dataset.attrs["center_is_model"]:
        return None
    found = {dim: _zero(dataset[dim].to_numpy()) for dim in dims}
    return None if None in found.values() else {dim: index for dim, index in found.items() if index is not None}


def _zero(coordinate: Any) -> int | None:
    nearest = int(np.abs(coordinate).argmin())
    return nearest if abs(coordinate[nearest]) <= 1e-9 * max(np.abs(coordinate).max(), 1e-300) else None


def _losses(dataset: xr.Dataset, loss: xr.DataArray, lowest: Place, center: Place) -> str:
    where = ", ".join(f"{dim} = {dataset[dim].to_numpy()[index]:.3g}" for dim, index in lowest.items())
    counted = int(np.isfinite(loss).sum())
    left_out = f", {loss.size - counted} left out" if counted < loss.size else ""
    return (
        f"Lowest other loss {number(float(loss[lowest]))} at {where}, {number(float(loss[center]))} at the center; "
        f"{counted} finite cells{left_out}."
    )


def _sampled(dataset: xr.Dataset) -> str:
    return "the slice" if bool(dataset["evaluated"].all()) else "the evaluated cells"
