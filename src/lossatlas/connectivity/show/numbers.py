"""Observations on the ways between two networks: alignment, curve, barrier, instability."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.style import short_data
from lossatlas.connectivity.show.paths import height, way
from lossatlas.report.values import value
from lossatlas.results.uncertainty import number, percent, plus_minus, with_interval

if TYPE_CHECKING:
    import xarray as xr


def alignment(dataset: xr.Dataset) -> Iterator[str]:
    share, groups = moved(dataset), dataset.sizes["group"]
    yield (
        f"The permutation moves {percent(share)} of the {int(dataset['size'].sum()):,} units, in {groups} "
        f"group{'s' if groups != 1 else ''} that move together."
    )
    yield (
        f"The cosine of the two networks' permuted tensors goes from {_number(dataset, 'similarity_before')} to "
        f"{_number(dataset, 'similarity_after')}, the distance between the networks from "
        f"{_number(dataset, 'distance_before')} to {_number(dataset, 'distance_after')}."
    )
    yield (
        f"The outputs of the permuted network differ by {_number(dataset, 'deviation', 2)} at most from those of the "
        "given one, relative to the largest output or to 1."
    )
    a = dataset.attrs
    if a.get("starts"):
        yield f"Starts and the similarity that each reached: {a['starts']}; kept: {a.get('start', 'not recorded')}."
    if a.get("half_way"):
        yield f"Of those within 1 % of the best, the loss half-way to the first network decided: {a['half_way']}."
    if "seconds" in a and "seconds_assignment" in a and a["seconds"] > 0:
        share_of_solver = percent(float(a["seconds_assignment"]) / float(a["seconds"]))
        yield f"It took {number(float(a['seconds']), 3)} s, of which the assignment solver had {share_of_solver}."
    if a.get("pinned"):
        yield f"Not permuted: {str(a['pinned']).rstrip('.')}."


def moved(dataset: xr.Dataset) -> float:
    """The share of all units that change place: of each group, weighted by its size."""
    return float((dataset["moved"] * dataset["size"]).sum() / dataset["size"].sum())


def _number(dataset: xr.Dataset, name: str, digits: int = 4) -> str:
    return number(float(dataset[name]) if name in dataset else np.nan, digits)


def connection(dataset: xr.Dataset) -> Iterator[str]:
    means = dataset["epoch_loss"].to_numpy().astype(float)
    if not len(means):
        return
    each = dataset.sizes["step"] // len(means)
    errors = [np.nan, np.nan]
    if each > 1:
        steps = dataset["loss"].to_numpy().astype(float)[: each * len(means)].reshape(len(means), each)
        errors = [float(steps[k].std(ddof=1) / np.sqrt(each)) for k in (0, -1)]
    place = "the highest bend" if dataset.attrs.get("engine") == "elastic_band" else "random t"
    first, last = (plus_minus(float(means[k]), error) for k, error in zip((0, -1), errors, strict=True))
    yield (
        f"{way(dataset)[0].upper()}{way(dataset)[1:]} on {short_data(dataset)}: the mean of the mini-batch losses at "
        f"{place} is {first} over the first epoch and {last} over the last of {len(means)}."
    )


def barrier(dataset: xr.Dataset) -> Iterator[str]:
    named = f", {way(dataset)}" if "way" in dataset.attrs else ""
    error = (
        f"; of the error {height(dataset, 'barrier_error')}{_at(dataset, 't_max_error')}" if _has_error(dataset) else ""
    )
    yield (
        f"On {short_data(dataset)}{named}: the barrier of the loss is {height(dataset, 'barrier')}"
        f"{_at(dataset, 't_max')}{error}{_highest(dataset)}."
    )
    if "verdict" in dataset.attrs:
        statistic = dataset.attrs.get("verdict_statistic")
        yield f"Verdict: {dataset.attrs['verdict']}{f' ({statistic})' if statistic else ''}."
    refined = str(dataset.attrs.get("refined", "yes"))
    if refined.startswith("no"):
        yield f"Refinement about its maximum: {refined.rstrip('.')}."


def _highest(dataset: xr.Dataset) -> str:
    longer = float(dataset["length_ratio"]) if "length_ratio" in dataset else np.nan
    length = f"; its length is {number(longer, 3)} times that of the straight line" if longer > 1.0005 else ""
    return f"; the highest loss is {value(dataset, 'highest_loss')}{length}" if "highest_loss" in dataset else ""


def _has_error(dataset: xr.Dataset) -> bool:
    return "barrier_error" in dataset


def _at(dataset: xr.Dataset, name: str) -> str:
    if name not in dataset:
        return ""
    low, high = f"{name}_low", f"{name}_high"
    if low in dataset and np.isfinite(dataset[low]) and np.isfinite(dataset[high]):
        return f" at t = {with_interval(float(dataset[name]), (float(dataset[low]), float(dataset[high])))}"
    return f" at t = {number(float(dataset[name]), 3)}"


def instability(dataset: xr.Dataset) -> Iterator[str]:
    name = "barrier_error" if "barrier_error" in dataset else "barrier"
    of = "error" if name == "barrier_error" else "loss"
    ordered = dataset.transpose("k", "pair", ...).sortby("k")
    k, each = ordered["k"].to_numpy(), ordered[name].to_numpy().astype(float)
    total = f" of {int(dataset.attrs['total_steps']):,}" if "total_steps" in dataset.attrs else ""
    for row in dict.fromkeys((0, len(k) - 1)):
        pairs = f"{len(each[row])} pairs, " if len(each[row]) > 1 else ""
        yield (
            f"Runs that share their first {int(k[row]):,}{total} steps: barrier of the {of} {number(each[row].mean())} "
            f"({pairs}{_range(ordered, name, row)})."
        )
    if of == "error":
        yield _stable(ordered, k)


def _range(ordered: xr.Dataset, name: str, row: int) -> str:
    if f"{name}_low" not in ordered or f"{name}_high" not in ordered:
        return "without an interval"
    low, high = float(ordered[f"{name}_low"][row].min()), float(ordered[f"{name}_high"][row].max())
    return f"95 % intervals within {number(low, 3)} to {number(high, 3)}"


def _stable(ordered: xr.Dataset, k: np.ndarray) -> str:
    """From which k on the intervals of all pairs lie below the threshold."""
    limit = float(ordered.attrs.get("threshold", 0.02))
    upper = ordered["barrier_error_high" if "barrier_error_high" in ordered else "barrier_error"]
    below = (upper < limit).all("pair").to_numpy()
    stable = [int(at) for row, at in enumerate(k) if below[row:].all()]
    if not stable:
        return f"At no k measured do all pairs lie below {percent(limit)} of error with their whole interval."
    return f"From k = {stable[0]:,} on all pairs lie below {percent(limit)} of error with their whole interval."
