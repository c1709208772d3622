"""Sentences that read numbers off a surface, with their errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.grids import over_planes
from lossatlas.drawing.overlays import has_overlays
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, percent
from lossatlas.results.values import value
from lossatlas.surfaces.show.captions import held_out, share

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

Index = dict[str, int]


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """The loss at the center and its range, how accurate the picture is, and what else the surface has."""
    picture, subject = over_planes(dataset), Provenance.of(dataset).subject
    cells, finite = picture["loss"].size, _finite(picture["loss"])
    if finite.size == 0:
        yield f"{subject}: no cell is finite."
        return
    yield (
        f"{subject}: the {_quantity(dataset)} is {_at_center(picture)}between {number(finite.min())} and "
        f"{number(finite.max())} over the {cells:,} cells."
    )
    if finite.size < cells:
        yield f"{cells - finite.size} of its cells are not finite and are left out."
    yield from _accuracy(dataset)
    yield from _quadratic(picture)
    yield from _spread(picture)
    yield from _classes(dataset)
    yield from _off_plane(picture)


def _quantity(dataset: xr.Dataset) -> str:
    if "plane" not in dataset.dims:
        return "loss"
    regions = "directions" if dataset["loss"].ndim == 2 else "planes"
    return f"mean loss over {dataset.sizes['plane']} {regions}"


def _at_center(picture: xr.Dataset) -> str:
    """The loss at the center; empty on a plane of paths, whose center is nothing that is shown."""
    if has_overlays(picture):
        return ""
    center = _center(picture)
    return f"{value(picture, 'loss', **center)} at {_place(picture, center)}, and "


def _center(picture: xr.Dataset) -> Index:
    """The index nearest to the center; at radius 0 any angle is as good as the first."""
    dims = (str(dim) for dim in picture["loss"].dims if dim != "plane")
    return {dim: int(np.abs(picture[dim].to_numpy()).argmin()) for dim in dims}


def _place(picture: xr.Dataset, index: Index) -> str:
    return ", ".join(
        f"{dim} = {number(float(picture[dim][k]), 2)}"
        for dim, k in index.items()
        if not (dim == "angle" and index.get("radius") == 0)
    )


def _accuracy(dataset: xr.Dataset) -> Iterator[str]:
    a = dataset.attrs
    if "tolerance" not in a:
        return
    if tested := held_out(dataset):
        yield f"Its accuracy: {tested}"
    if a.get("note"):
        yield f"Note: {a['note']}."
    if tested:
        yield (
            f"Its worst pixel is estimated to be {share(a['error_estimate'])} off; the error of the data is "
            f"{share(a['data_error'])} of the loss in the median (one standard error)."
        )


def _finite(variable: xr.DataArray) -> FloatArray:
    values: FloatArray = variable.to_numpy()
    return values[np.isfinite(values)]


def _quadratic(picture: xr.Dataset) -> Iterator[str]:
    if "quadratic" not in picture:
        return
    off = abs(_finite(picture["quadratic"] / picture["loss"]) - 1)
    if off.size:
        yield f"The quadratic model lies within 10 % of the loss on {percent((off <= 0.1).mean())} of the finite cells."


def _spread(picture: xr.Dataset) -> Iterator[str]:
    """How much the loss differs between several regions."""
    if "relative_spread" not in picture:
        return
    spread = _finite(picture["relative_spread"])
    if spread.size:
        yield (
            f"The standard deviation over them is {percent(float(np.median(spread)))} of the mean in the median "
            f"of the cells and {percent(spread.max())} at most."
        )


def _classes(dataset: xr.Dataset) -> Iterator[str]:
    """The classes with the highest and the lowest loss at the center."""
    if "class_loss" not in dataset:
        return
    center = _center(dataset)
    loss = dataset["class_loss"].isel(center)
    loss = loss.mean("plane") if "plane" in loss.dims else loss
    if not bool(np.isfinite(loss).any()):
        return
    names, low, high = loss["class"].to_numpy(), int(np.nanargmin(loss)), int(np.nanargmax(loss))
    yield (
        f"At {_place(dataset, center)} the loss is highest for class {names[high]} ({number(float(loss[high]))}) and "
        f"lowest for class {names[low]} ({number(float(loss[low]))})."
    )


def _off_plane(picture: xr.Dataset) -> Iterator[str]:
    """How far the paths that are drawn on it are from the plane."""
    if "path_off_plane" not in picture:
        return
    farthest = picture["path_off_plane"].max("t_path")
    each = [f"{name} {number(float(off), 2)}" for name, off in zip(picture["path"].to_numpy(), farthest, strict=True)]
    yield f"Greatest distance of the paths from the plane: {'; '.join(each)}."
