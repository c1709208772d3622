"""Barriers between two networks: which belong into one figure, captions, tables, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show import paths as drawn
from lossatlas.connectivity.show.captions import (
    bounds,
    definition,
    has_interval,
    height,
    intervals,
    pair,
    path,
    resolution,
    short_names,
)
from lossatlas.results.blocks import FigureGroup, Picture, Table
from lossatlas.results.captions import data_basis, joined
from lossatlas.results.groups import alike
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, with_interval
from lossatlas.results.values import scalar, value

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

BANDS = "Bands: 95 %, ± 1.96 standard errors."


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """Profiles between the same two networks in one figure, their heights in tables."""
    for group in between_the_same(drawn.by_path(datasets)):
        several = len({path(dataset) for dataset in group}) > 1
        if several:
            picture = Picture("paths", partial(drawn.paths, *group), paths_caption(group))
        else:
            picture = Picture("barrier", partial(drawn.barrier, *group), barrier_caption(group))
        yield FigureGroup(tuple(group), (picture,), (barrier_table(group), heights_table(group)))


def between_the_same(datasets: Sequence[xr.Dataset]) -> Iterator[list[xr.Dataset]]:
    """Groups that may be of the same two networks: each path on each data set once, with the same end losses."""
    for group in alike(datasets, "definition", "network", "model_fingerprint"):
        parts: list[list[xr.Dataset]] = []
        for dataset in group:
            part = next((part for part in parts if all(_belong_together(dataset, other) for other in part)), None)
            if part is None:
                parts.append([dataset])
            else:
                part.append(dataset)
        yield from parts


def _belong_together(a: xr.Dataset, b: xr.Dataset) -> bool:
    """On other data nothing speaks against it; on the same data the ends have to agree, and the paths to differ."""
    if a.attrs["data"] != b.attrs["data"]:
        return True
    ends, others = (dataset["loss"].to_numpy().astype(float)[[0, -1]] for dataset in (a, b))
    return path(a) != path(b) and bool(np.allclose(ends, others, rtol=1e-4, atol=0, equal_nan=True))


def barrier_caption(datasets: Sequence[xr.Dataset]) -> str:
    """Of one path."""
    curved = any(dataset.attrs["curve"] != "Segment" for dataset in datasets)
    where = "path" if curved else "straight line"
    known = intervals(datasets)
    bars = "; bars at its tip: the intervals of the height and of its place" if known else ""
    return joined(
        f"Loss and error on the {where} between {pair(datasets)}. {BANDS} Dashed: what the height is measured from. "
        f"Arrows: the barrier{bars}.",
        definition(datasets),
        known,
        resolution(datasets),
        data_basis(datasets),
    )


def paths_caption(datasets: Sequence[xr.Dataset]) -> str:
    """Of several paths."""
    return joined(
        f"Loss and error on several paths between {pair(datasets)}. Colour: the path; solid and dashed lines: the "
        f"data. {BANDS} Dots: the maxima. The legends give the barriers, the left one of the loss, the right one, in "
        "the same order, of the error.",
        definition(datasets),
        intervals(datasets),
        resolution(datasets),
        data_basis(datasets),
    )


def barrier_table(datasets: Sequence[xr.Dataset]) -> Table:
    """The barrier of each path on each data set, of the loss and of the error."""
    rows = tuple(
        (
            path(dataset),
            Provenance.of(dataset).short_data,
            height(dataset, "barrier"),
            number(scalar(dataset, "t_max"), 3),
            height(dataset, "barrier_error"),
        )
        for dataset in datasets
    )
    errors = "with their 95 % bootstrap interval" if intervals(datasets) else "± one standard error"
    caption = joined(f"Barriers between {pair(datasets)}, {errors}.", definition(datasets))
    header = ("path", "data", "barrier of the loss", "at t", "barrier of the error")
    return Table(caption, header, rows, (0.2, 0.2, 0.25, 0.07, 0.25))


def heights_table(datasets: Sequence[xr.Dataset]) -> Table:
    """The heights by each definition, of the loss and of the error."""
    rows = []
    for dataset, data in zip(datasets, short_names(datasets), strict=True):
        length = number(scalar(dataset, "length_ratio"), 3)
        for name, quantity in (("height", "loss"), ("height_error", "error")):
            if name in dataset:
                rows.append((f"{path(dataset)}, {data}: {quantity}", *_heights(dataset, name), length))
    caption = (
        "The same barriers by each definition, with 95 % intervals: above the line between the ends (Entezari), above "
        "their mean (Frankle), above the worse end (Draxler). Length: of the path, as a multiple of the straight line "
        "between its ends."
    )
    header = ("path, data: quantity", "Entezari", "Frankle", "Draxler", "length")
    return Table(caption, header, tuple(rows), (0.23, 0.22, 0.22, 0.22, 0.07))


def _heights(dataset: xr.Dataset, name: str) -> Iterator[str]:
    for one in ("entezari", "frankle", "draxler"):
        by_this = dataset.sel(definition=one)
        yield with_interval(float(by_this[name]), bounds(by_this, name))


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """The barrier of the loss and of the error, where it is, the highest loss, and the length of the path."""
    error = ""
    if "barrier_error" in dataset:
        error = f"; of the error {height(dataset, 'barrier_error')}{_at(dataset, 't_max_error')}"
    yield (
        f"On {Provenance.of(dataset).short_data}, {path(dataset)}: the barrier of the loss is "
        f"{height(dataset, 'barrier')}{_at(dataset, 't_max')}{error}; the highest loss is "
        f"{value(dataset, 'highest_loss')}{_length(dataset)}."
    )
    if not dataset.attrs["refined"]:
        yield f"Refinement about the maximum: {str(dataset.attrs['refinement_note']).rstrip('.')}."


def _at(dataset: xr.Dataset, name: str) -> str:
    if has_interval(dataset, name):
        return f" at t = {with_interval(float(dataset[name]), bounds(dataset, name))}"
    return f" at t = {number(scalar(dataset, name), 3)}"


def _length(dataset: xr.Dataset) -> str:
    longer = scalar(dataset, "length_ratio")
    return f"; its length is {number(longer, 3)} times that of the straight line" if longer > 1.0005 else ""
