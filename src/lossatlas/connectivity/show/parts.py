"""The parts of the results on the ways between two networks: alignment, curve, barriers, plane, instability."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from lossatlas import plot
from lossatlas.plot import interactive
from lossatlas.drawing.style import short_data
from lossatlas.connectivity.show.paths import bounds, by_way, height, split_names, way
from lossatlas.report import connectivity_captions as caption
from lossatlas.report import observations
from lossatlas.report.blocks import Datasets, Results, alike, numbered, observed
from lossatlas.report.document import Block, Picture, Table
from lossatlas.results.uncertainty import number, percent, with_interval

if TYPE_CHECKING:
    import xarray as xr

MOST_ROWS = 12  # of the table of an alignment: beyond it the figure says enough


def alignments(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, dataset in enumerate(datasets):
        blocks += [
            Picture(numbered("alignment", k), plot.alignment(dataset), caption.alignment(dataset)),
            observed(observations.alignment, [dataset]),
            results.interpretation("alignment", [dataset]),
            *([_group_table(dataset)] if dataset.sizes["group"] <= MOST_ROWS else []),
        ]
    return blocks


def _group_table(dataset: xr.Dataset) -> Table:
    rows = tuple(
        (
            str(name),
            f"{int(dataset['size'][k]):,}",
            percent(float(dataset["moved"][k])),
            number(float(dataset["cosine_before"][k]), 3),
            number(float(dataset["cosine_after"][k]), 3),
        )
        for k, name in enumerate(dataset["group"].to_numpy())
    )
    header = ("group", "units", "changed place", "cosine before", "cosine after")
    return Table(caption.alignment_table(dataset), header, rows)


def connections(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, dataset in enumerate(datasets):
        width = 1.0 if "t_drawn" in dataset else 0.7
        blocks += [
            Picture(numbered("connection", k), plot.connection(dataset), caption.connection(dataset), width),
            observed(observations.connection, [dataset]),
            results.interpretation("connection", [dataset]),
        ]
    return blocks


def barriers(datasets: Datasets, results: Results) -> list[Block]:
    """Profiles between the same two networks in one figure, then all heights in a table."""
    blocks: list[Block] = []
    datasets = by_way(datasets)
    groups = [part for group in alike(datasets, "definition", "network", "model_fingerprint") for part in _once(group)]
    for k, group in enumerate(groups):
        several = len({way(dataset) for dataset in group}) > 1
        figure = plot.ways(*group) if several else plot.barrier(*group)
        said = caption.ways(group) if several else caption.barrier(group)
        blocks += [
            Picture(numbered("ways" if several else "barrier", k), figure, said),
            observed(observations.barrier, group),
            results.interpretation("barrier", group),
        ]
    by_name = [dataset for dataset in datasets if "height" in dataset]
    return [*blocks, _barrier_table(datasets), *([_heights_table(by_name)] if by_name else [])]


def _once(group: Datasets) -> list[list[xr.Dataset]]:
    """Parts that may be of the same two networks: each way on each data set once, with the same losses at its ends."""
    parts: list[list[xr.Dataset]] = []
    for dataset in group:
        part = next((part for part in parts if all(_belong_together(dataset, other) for other in part)), None)
        if part is None:
            parts.append([dataset])
        else:
            part.append(dataset)
    return parts


def _belong_together(a: xr.Dataset, b: xr.Dataset) -> bool:
    """On other data nothing speaks against it; on the same data the ends have to agree, and the ways to differ."""
    if a.attrs.get("data") != b.attrs.get("data"):
        return True
    ends, others = (dataset["loss"].to_numpy().astype(float)[[0, -1]] for dataset in (a, b))
    return way(a) != way(b) and bool(np.allclose(ends, others, rtol=1e-4, atol=0, equal_nan=True))


def _barrier_table(datasets: Datasets) -> Table:
    rows = tuple(
        (
            way(dataset),
            short_data(dataset),
            height(dataset, "barrier") if "barrier" in dataset else number(float("nan")),
            number(float(dataset["t_max"]), 3) if "t_max" in dataset else number(float("nan")),
            height(dataset, "barrier_error") if "barrier_error" in dataset else number(float("nan")),
        )
        for dataset in datasets
    )
    header = ("way", "data", "barrier of the loss", "at t", "barrier of the error")
    return Table(caption.barrier_table(datasets), header, rows, (0.2, 0.2, 0.25, 0.07, 0.25))


def _heights_table(datasets: Datasets) -> Table:
    def cells(dataset: xr.Dataset, name: str) -> Iterable[str]:
        for definition in ("entezari", "frankle", "draxler"):
            one = dataset.sel(definition=definition)
            yield with_interval(float(one[name]), bounds(one, name)) if name in one else number(float("nan"))

    rows = []
    for dataset, data in zip(datasets, split_names(datasets), strict=True):
        length = number(float(dataset["length_ratio"]), 3) if "length_ratio" in dataset else number(float("nan"))
        for name, quantity in (("height", "loss"), ("height_error", "error")):
            if name in dataset:
                rows.append((f"{way(dataset)}, {data}: {quantity}", *cells(dataset, name), length))
    header = ("way, data: quantity", "Entezari", "Frankle", "Draxler", "length")
    return Table(caption.heights_table(datasets), header, tuple(rows), (0.23, 0.22, 0.22, 0.22, 0.07))


def planes(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, dataset in enumerate(datasets):
        turning = interactive.surface_3d(dataset)
        still = plot.surface_3d(dataset)
        blocks += [
            Picture(numbered("ways-plane", k), plot.surface(dataset), caption.plane(dataset), 0.9),
            observed(observations.surface, [dataset]),
            results.interpretation("surface", [dataset]),
            Picture(numbered("ways-plane-3d", k), still, caption.plane_3d(), 0.62, interactive=turning, vector=False),
        ]
    return blocks


def instabilities(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, dataset in enumerate(datasets):
        width = 1.0 if "barrier_error" in dataset else 0.7
        blocks += [
            Picture(numbered("instability", k), plot.instability(dataset), caption.instability(dataset), width),
            observed(observations.instability, [dataset]),
            results.interpretation("instability", [dataset]),
            _instability_table(dataset),
        ]
    return blocks


def _instability_table(dataset: xr.Dataset) -> Table:
    ordered = dataset.transpose("k", "pair", ...).sortby("k")
    names = {
        "barrier": "barrier of the loss",
        "barrier_error": "barrier of the error",
        "end_error": "error of the ends",
    }
    present = {name: spelt for name, spelt in names.items() if name in dataset}
    rows = tuple(
        (f"{int(k):,}", *(_over_pairs(ordered, name, row) for name in present))
        for row, k in enumerate(ordered["k"].to_numpy())
    )
    return Table(caption.instability_table(dataset), ("k", *present.values()), rows)


def _over_pairs(ordered: xr.Dataset, name: str, row: int) -> str:
    mean = float(ordered[name][row].mean())
    if f"{name}_low" not in ordered or f"{name}_high" not in ordered:
        return number(mean)
    return with_interval(mean, (float(ordered[f"{name}_low"][row].min()), float(ordered[f"{name}_high"][row].max())))
