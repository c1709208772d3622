"""Claims on the way between two networks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.claims.claim import Claim, data_of, scalar, verdict
from lossatlas.uncertainty import normal_interval, number

if TYPE_CHECKING:
    import xarray as xr

FRANKLE_THRESHOLD = 0.02  # Frankle et al. 2020: instability below 2 % of error counts as linear connectivity


def barrier_height(dataset: xr.Dataset) -> Claim:
    """Whether the loss on the way between two networks rises above the definition's reference (barrier > 0)."""
    value, stderr = scalar(dataset, "barrier"), scalar(dataset, "barrier_stderr")
    bounds = normal_interval(value, stderr)
    way = "straight line" if dataset.attrs.get("curve", "Segment") == "Segment" else "curve"
    definition = {
        "entezari": "the highest loss above the straight line between the end losses (Entezari et al. 2022)",
        "frankle": "the highest loss above the mean of the end losses (Frankle et al. 2020)",
        "draxler": "the highest loss above the worse end (Draxler et al. 2018)",
    }
    meaning = definition.get(str(dataset.attrs.get("definition")), "the definition is not recorded")
    return Claim(
        hypothesis=f"The {way} between the two networks crosses a barrier of the loss on {data_of(dataset)}",
        statistic="barrier of the loss, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"Barrier: {meaning}, over the {dataset.sizes['t']} points evaluated; reached at "
        f"t = {number(scalar(dataset, 't_max'), 3)}. Taking the maximum over points biases a small barrier "
        "upwards. These two networks only.",
        kind="barrier",
    )


def linear_connectivity(dataset: xr.Dataset) -> Claim:
    """Whether sup_t E(t) - (E(0) + E(1)) / 2 is below 2 % of error (Frankle et al. 2020)."""
    error = 1 - dataset["accuracy"].to_numpy().astype(float)
    top = int(np.nanargmax(error))
    value = float(error[top] - (error[0] + error[-1]) / 2)
    stderr = math.nan
    if "accuracy_stderr" in dataset:
        each = dataset["accuracy_stderr"].to_numpy().astype(float)
        stderr = float(np.sqrt(each[top] ** 2 + (each[0] ** 2 + each[-1] ** 2) / 4))
    bounds = normal_interval(value, stderr)
    return Claim(
        hypothesis="The two networks are linearly mode connected in the sense of Frankle et al. (2020), "
        f"an error barrier below 2 %, on {data_of(dataset)}",
        statistic="highest error on the line minus the mean error of the ends, threshold 0.02",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, FRANKLE_THRESHOLD, "below"),
        detail=f"Highest error at t = {dataset['t'].to_numpy()[top]:g} of {len(error)} points. The standard error adds "
        "those of the three errors as if they came from different examples; they come from the same ones, so it is "
        "too wide rather than too narrow where they rise and fall together.",
        kind="barrier",
    )
