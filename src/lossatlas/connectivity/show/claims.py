"""Claims on the way between two networks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.results.claim import UNKNOWN, Claim, Interval, data_of, scalar, verdict
from lossatlas.results.uncertainty import normal_interval, number

if TYPE_CHECKING:
    import xarray as xr

FRANKLE_THRESHOLD = 0.02  # Frankle et al. 2020: instability below 2 % of error counts as linear connectivity
BOOTSTRAP = "95 % interval of a paired bootstrap"
NORMAL = "normal 95 % interval"
DEFINITIONS = {
    "entezari": "the highest loss above the straight line between the end losses (Entezari et al. 2022)",
    "frankle": "the highest loss above the mean of the end losses (Frankle et al. 2020)",
    "draxler": "the highest loss above the worse end (Draxler et al. 2018)",
}


def barrier_height(dataset: xr.Dataset) -> Claim:
    """Whether the loss on the way between two networks rises above the definition's reference (barrier > 0)."""
    value, (bounds, basis) = scalar(dataset, "barrier"), _barrier_interval(dataset)
    meaning = DEFINITIONS.get(str(dataset.attrs.get("definition")), "the definition is not recorded")
    maximum = (
        "The interval holds for the maximum over these points, wherever it is."
        if basis == BOOTSTRAP
        else "Taking the maximum over points biases a small barrier upwards."
    )
    return Claim(
        hypothesis=f"The {_way(dataset)} between the two networks crosses a barrier of the loss on {data_of(dataset)}",
        statistic="barrier of the loss, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"Barrier: {meaning}, over the {dataset.sizes['t']} points evaluated; reached at "
        f"t = {number(scalar(dataset, 't_max'), 3)}. {maximum} These two networks only.",
        kind="barrier",
        basis=basis,
    )


def linear_connectivity(dataset: xr.Dataset) -> Claim:
    """Whether sup_t E(t) - (E(0) + E(1)) / 2 is below 2 % of error on the line (Frankle et al. 2020)."""
    after = " after alignment" if "alignment" in str(dataset.attrs.get("way")) else ""
    return _connectivity(
        dataset, f"The two networks are linearly mode connected{after} in the sense of Frankle et al. (2020)", "line"
    )


def curve_connectivity(dataset: xr.Dataset) -> Claim:
    """Whether sup_t E(t) - (E(0) + E(1)) / 2 is below 2 % of error on a curve (Garipov et al. 2018)."""
    return _connectivity(dataset, f"The two networks are connected by a curve, the {_way(dataset)}, with", "curve")


def lower_path(line: xr.Dataset, other: xr.Dataset) -> Claim:
    """Whether the barrier of the loss is lower on another path between the same networks than on the straight line.

    Supported where the two intervals do not overlap: both hold at once in 90 % of the cases at least, whatever hangs
    together in their errors.
    """
    (first, _), (second, _) = _barrier_interval(line), _barrier_interval(other)
    bounds = (first[0] - second[1], first[1] - second[0])
    value, name = scalar(line, "barrier") - scalar(other, "barrier"), _way(other)
    return Claim(
        hypothesis=f"The {name} crosses a lower barrier of the loss than the {_way(line)} between the same two "
        f"networks on {data_of(line)}",
        statistic="barrier on the line minus that on the other path, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"{number(scalar(line, 'barrier'))} on the {_way(line)}, {number(scalar(other, 'barrier'))} on the "
        f"{name}. The interval is the widest that the two barriers' own intervals allow. These two networks only.",
        kind="barrier",
        basis="interval from the two 95 % intervals",
    )


def straight(dataset: xr.Dataset) -> bool:
    """Whether the path is a straight line in the space of the weights."""
    return str(dataset.attrs.get("curve", "Segment")) == "Segment"


def unaligned(dataset: xr.Dataset) -> bool:
    """Whether the path is the straight line between the networks as they were given."""
    return straight(dataset) and str(dataset.attrs.get("way", "line")) == "line"


def _way(dataset: xr.Dataset) -> str:
    way = str(dataset.attrs.get("way", "line" if straight(dataset) else "curve"))
    return "straight line" if way == "line" else way


def _barrier_interval(dataset: xr.Dataset) -> tuple[Interval, str]:
    """The bootstrap's interval, or the normal one where there was no bootstrap."""
    bounds = scalar(dataset, "barrier_low"), scalar(dataset, "barrier_high")
    if math.isfinite(bounds[1]):
        return bounds, BOOTSTRAP
    return normal_interval(scalar(dataset, "barrier"), scalar(dataset, "barrier_stderr")), NORMAL


def _connectivity(dataset: xr.Dataset, hypothesis: str, where: str) -> Claim:
    value, bounds, basis, detail = _error_barrier(dataset)
    return Claim(
        hypothesis=f"{hypothesis}{',' if where == 'line' else ''} an error barrier below 2 %, on {data_of(dataset)}",
        statistic=f"highest error on the {where} minus the mean error of the ends, threshold {FRANKLE_THRESHOLD:g}",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, FRANKLE_THRESHOLD, "below"),
        detail=detail,
        kind="barrier",
        basis=basis,
    )


def _error_barrier(dataset: xr.Dataset) -> tuple[float, Interval, str, str]:
    """Frankle's barrier of the error: value, interval, what the interval is, how it came about."""
    error = 1 - dataset["accuracy"].to_numpy().astype(float)
    top = int(np.nanargmax(error))
    value = float(error[top] - (error[0] + error[-1]) / 2)
    place = f"Highest error at t = {dataset['t'].to_numpy()[top]:.4g} of {len(error)} points."
    if "height_error_high" in dataset:
        own = dataset.sel(definition="frankle")
        bounds = scalar(own, "height_error_low"), scalar(own, "height_error_high")
        if math.isfinite(bounds[1]):
            return value, bounds, BOOTSTRAP, f"{place} The examples were drawn anew, the same ones at every point."
    if "accuracy_stderr" not in dataset:
        return value, UNKNOWN, NORMAL, place
    each = dataset["accuracy_stderr"].to_numpy().astype(float)
    stderr = float(np.sqrt(each[top] ** 2 + (each[0] ** 2 + each[-1] ** 2) / 4))
    detail = (
        f"{place} The standard error adds those of the three errors as if they came from different examples; they come "
        "from the same ones, so it is too wide rather than too narrow where they rise and fall together."
    )
    return value, normal_interval(value, stderr), NORMAL, detail
