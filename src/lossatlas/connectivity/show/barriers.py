"""Barriers between two networks: which belong into one figure, captions, tables, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show import paths as drawn
from lossatlas.connectivity.show.captions import (
    bounds,
    column,
    definition,
    has_interval,
    height,
    intervals,
    pair,
    path,
    resolution,
    short_names,
)
from lossatlas.connectivity.show.claims import judged_by
from lossatlas.results.blocks import FigureGroup, Number, Picture, Table
from lossatlas.results.captions import basis, sentences
from lossatlas.results.groups import alike
from lossatlas.results.uncertainty import number, with_interval
from lossatlas.results.values import scalar, value

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

PITFALL = "Another pair of networks, other data or other batch-norm statistics give another barrier."
BANDS = "Bands: 95 %, ± 1.96 standard errors."


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """Profiles between the same two networks in one figure, their heights in a table."""
    for group in between_the_same(drawn.by_path(datasets)):
        several = len({path(dataset) for dataset in group}) > 1
        name, draw, caption = (
            ("paths", drawn.paths, paths_caption) if several else ("barrier", drawn.barrier, barrier_caption)
        )
        picture = Picture(
            name,
            partial(draw, *group),
            caption(group),
            how=_how(group),
            pitfall=PITFALL,
            method=_method(group),
            alt=_alt(group),
        )
        yield FigureGroup(tuple(group), (picture,), (heights_table(group),))


def _method(datasets: Sequence[xr.Dataset]) -> tuple[str, ...]:
    places = (_highest(datasets), _highest_error(datasets), resolution(datasets), *_unrefined(datasets))
    return sentences(BANDS, *intervals(datasets), *places, *basis(datasets))


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
    bars = ", with bars for the intervals of its height and place" if intervals(datasets) else ""
    return (
        f"{_quantities(datasets)} on the {where} between {pair(datasets)}. Arrows: the barrier above the dashed "
        f"reference{bars}."
    )


def paths_caption(datasets: Sequence[xr.Dataset]) -> str:
    """Of several paths."""
    return (
        f"{_quantities(datasets)} on several paths between {pair(datasets)}: the colour tells the path, the kind of "
        "line the data, a dot the maximum. The legends give the barriers."
    )


def _quantities(datasets: Sequence[xr.Dataset]) -> str:
    return "Loss and error" if any("error" in dataset for dataset in datasets) else "Loss"


def _how(datasets: Sequence[xr.Dataset]) -> str:
    counts = sorted({dataset.sizes["t"] for dataset in datasets})
    points = f"{counts[0]} points" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} points"
    refined = ", more about the maximum" if any(dataset.attrs["refined"] for dataset in datasets) else ""
    return f"Each path was evaluated at {points}{refined}. {definition(datasets)}"


def _unrefined(datasets: Sequence[xr.Dataset]) -> Iterator[str]:
    """Why the maximum of a path is known to its grid only."""
    for dataset in datasets:
        if not dataset.attrs["refined"]:
            note = str(dataset.attrs["refinement_note"]).rstrip(".")
            yield f"No refinement about the maximum ({column(dataset)}): {note}."


def _alt(datasets: Sequence[xr.Dataset]) -> str:
    heights = "; ".join(f"{column(dataset)}: {height(dataset, 'barrier')}" for dataset in datasets)
    return f"Barriers of the loss between {pair(datasets)}. {heights}."


def heights_table(datasets: Sequence[xr.Dataset]) -> Table:
    """The heights by each definition, of the loss and of the error."""
    rows = tuple(
        (f"{path(dataset)}, {data}: {quantity}", *_heights(dataset, name))
        for dataset, data in zip(datasets, short_names(datasets), strict=True)
        for name, quantity in (("height", "loss"), ("height_error", "error"))
        if name in dataset
    )
    caption = (
        "The same barriers by each definition, with 95 % intervals: above the line between the ends (Entezari), above "
        "their mean (Frankle), above the worse end (Draxler)."
    )
    return Table(caption, ("path, data: quantity", "Entezari", "Frankle", "Draxler"), rows, (0.24, 0.24, 0.24, 0.24))


def _heights(dataset: xr.Dataset, name: str) -> Iterator[str]:
    for one in ("entezari", "frankle", "draxler"):
        by_this = dataset.sel(definition=one)
        yield with_interval(float(by_this[name]), bounds(by_this, name))


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """The barrier of the loss and of the error, where the loss is highest, and the length of the path."""
    of = column(dataset)
    yield Number("barrier of the loss", height(dataset, "barrier"), of)
    if "barrier_error" in dataset:
        yield Number("barrier of the error", height(dataset, "barrier_error"), of)
    yield Number("at t", number(scalar(dataset, "t_max"), 3), of)
    yield Number("length / line's", number(scalar(dataset, "length_ratio"), 3), of)


def _highest(datasets: Sequence[xr.Dataset]) -> str:
    """How high the loss is and where, on every path."""
    told = (
        f"{column(dataset)} {value(dataset, 'highest_loss')} at t = {_place(dataset, 't_max')}" for dataset in datasets
    )
    return f"Highest loss: {'; '.join(told)}."


def _highest_error(datasets: Sequence[xr.Dataset]) -> str:
    told = [
        f"{column(dataset)} t = {_place(dataset, 't_max_error')}"
        for dataset in datasets
        if "barrier_error" in dataset and judged_by(dataset) == "error"
    ]
    return f"Where the error is highest: {'; '.join(told)}." if told else ""


def _place(dataset: xr.Dataset, name: str) -> str:
    if has_interval(dataset, name):
        return with_interval(float(dataset[name]), bounds(dataset, name))
    return number(scalar(dataset, name), 3)
