"""The key numbers of a surface, with their errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.grids import over_planes
from lossatlas.drawing.overlays import has_overlays
from lossatlas.results.blocks import Number
from lossatlas.results.captions import count
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, percent, with_interval
from lossatlas.surfaces.show.claims import slice_minimum
from lossatlas.surfaces.show.error_maps import percent_of
from lossatlas.surfaces.show.grouping import slice_name
from lossatlas.surfaces.show.reading import center, center_loss, has_center, highest_loss

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

Row = tuple[str, str]


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """The loss at the center and at its highest, how accurate the picture is, and what else the surface has."""
    of = Provenance.of(dataset).subject
    for name, text in _rows(dataset):
        yield Number(name, text, of)


def _rows(dataset: xr.Dataset) -> Iterator[Row]:
    picture, where = over_planes(dataset), _where(dataset)
    cells, finite = picture["loss"].size, _finite(picture["loss"])
    if finite.size:
        yield from _losses(dataset, where)
    if finite.size < cells:
        yield f"cells that are not finite, {where}", f"{cells - finite.size:,} of {cells:,}"
    if finite.size:
        yield from _accuracy(dataset, where)
        yield from _quadratic(picture, where)
        yield from _spread(picture, where)
        yield from _classes(dataset)
        yield from _off_plane(picture)


def _where(dataset: xr.Dataset) -> str:
    """The name of the slice, of several that of their mean."""
    if "plane" not in dataset.dims:
        return slice_name(dataset)
    several = "directions" if dataset["loss"].ndim == 2 else "planes"
    return f"mean of {dataset.sizes['plane']} {several}"


def _losses(dataset: xr.Dataset, where: str) -> Iterator[Row]:
    """At the center, at the highest, and the lowest against the center; a plane of paths has no center of its own."""
    if not has_overlays(dataset):
        at = "the trained point" if dataset.attrs["center_is_model"] else "the center"
        yield f"loss at {at} ({Provenance.of(dataset).short_data})", center_loss(dataset)
    yield f"highest loss, {where}", highest_loss(dataset)
    if has_overlays(dataset):
        yield f"lowest loss, {where}", number(float(_finite(dataset["loss"]).min()))
    for claim in slice_minimum(dataset) if not has_overlays(dataset) else ():
        yield f"lowest other loss minus the center's, {where}", with_interval(claim.value, claim.interval)


def _accuracy(dataset: xr.Dataset, where: str) -> Iterator[Row]:
    a = dataset.attrs
    if "tolerance" not in a or not a["held_out"]:
        return
    tested, beyond = int(a["held_out"]), int(a["held_out_beyond"])
    yield f"held-out cells within {percent_of(a['tolerance'])}, {where}", f"{tested - beyond} of {tested}"
    yield f"evaluations of {count(dataset['loss'].size)} cells, {where}", count(a["n_evaluations"])
    yield f"largest interpolation error (an estimate), {where}", share(a["error_estimate"])
    yield f"standard error over loss (median), {where}", share(a["data_error"])


def share(value: float) -> str:
    """A small share in per cent, to two digits.

    >>> share(0.0314), share(0.00012)
    ('3.1 %', '0.012 %')
    """
    return f"{number(100 * float(value), 2)} %"


def _finite(variable: xr.DataArray) -> FloatArray:
    values: FloatArray = variable.to_numpy()
    return values[np.isfinite(values)]


def _quadratic(picture: xr.Dataset, where: str) -> Iterator[Row]:
    if "quadratic" not in picture:
        return
    off = abs(_finite(picture["quadratic"] / picture["loss"]) - 1)
    if off.size:
        yield f"cells where the quadratic model is within 10 %, {where}", percent((off <= 0.1).mean())


def _spread(picture: xr.Dataset, where: str) -> Iterator[Row]:
    """How much the loss differs between several regions."""
    spread = _finite(picture["relative_spread"]) if "relative_spread" in picture else np.zeros(0)
    if spread.size:
        median, most = percent(float(np.median(spread))), percent(float(spread.max()))
        yield f"standard deviation over mean, median (largest), {where}", f"{median} ({most})"


def _classes(dataset: xr.Dataset) -> Iterator[Row]:
    """The classes with the highest and the lowest loss at the center."""
    if "class_loss" not in dataset or not has_center(dataset):
        return
    loss = dataset["class_loss"].isel(center(dataset))
    if not bool(np.isfinite(loss).any()):
        return
    for which, k in (("highest", int(np.nanargmax(loss))), ("lowest", int(np.nanargmin(loss)))):
        yield f"class of the {which} loss at the center", f"{loss['class'].to_numpy()[k]} ({number(float(loss[k]), 3)})"


def _off_plane(picture: xr.Dataset) -> Iterator[Row]:
    """How far the paths that are drawn on it are from the plane."""
    if "path_off_plane" not in picture:
        return
    farthest = picture["path_off_plane"].max("t_path")
    for name, off in zip(picture["path"].to_numpy(), farthest, strict=True):
        yield f"largest distance of the {name} from the plane", number(float(off), 2)
