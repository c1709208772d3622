"""Claims on weight noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.claims.claim import Claim, data_of, scalar, verdict, who
from lossatlas.results.uncertainty import normal_interval, plus_minus

if TYPE_CHECKING:
    import xarray as xr


def sharper_less_robust(
    sharpness: tuple[float, float], a: xr.Dataset, b: xr.Dataset, sigma: float | None = None
) -> Claim | None:
    """Of two networks, whether the one with the larger lambda_max loses more under weight noise of size sigma.

    Without `sigma` the upper middle of the positive sigmas that both were tested at is taken. None where there is none.
    """
    common = sorted(set(a["sigma"].to_numpy().tolist()) & set(b["sigma"].to_numpy().tolist()) - {0.0})
    if not common or 0.0 not in a["sigma"].to_numpy() or 0.0 not in b["sigma"].to_numpy():
        return None
    at = common[len(common) // 2] if sigma is None else sigma
    sharper, flatter = (a, b) if sharpness[0] >= sharpness[1] else (b, a)
    rises = [_change(dataset, "loss", at) for dataset in (sharper, flatter)]
    value, stderr = rises[0][0] - rises[1][0], math.hypot(rises[0][1], rises[1][1])
    bounds = normal_interval(value, stderr)
    return Claim(
        hypothesis=f"Of the two networks, the sharper one ({who(sharper)}) loses more under weight noise of "
        f"sigma = {at:g}{_relative(a)}",
        statistic="rise of the loss of the sharper network minus that of the flatter one, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"The loss rises by {plus_minus(*rises[0])} for the sharper and {plus_minus(*rises[1])} for the flatter "
        f"network, on {data_of(a)}, {a.attrs.get('draws', '?')} draws each. About these two networks only; sharpness "
        f"here "
        "is the order of the two largest eigenvalues as computed.",
        kind="robustness",
    )


def noise_costs_accuracy(dataset: xr.Dataset, points: float = 1.0) -> Claim | None:
    """Whether weight noise lowers the accuracy by more than so many points, at the smallest sigma that supports it.

    Where no tested sigma supports it, the largest is reported. None where accuracy or sigma = 0 is missing.
    """
    sigmas = np.sort(dataset["sigma"].to_numpy().astype(float))
    if "accuracy" not in dataset or 0.0 not in sigmas or sigmas[-1] <= 0:
        return None
    positive = sigmas[sigmas > 0]
    drops = [_change(dataset, "accuracy", sigma, -100.0) for sigma in positive]
    bounds = [normal_interval(*drop) for drop in drops]
    verdicts = [verdict(each, points) for each in bounds]
    k = verdicts.index("supported") if "supported" in verdicts else len(positive) - 1
    smallest = (
        f"the smallest of the {len(positive)} tested sigmas at which this is supported"
        if "supported" in verdicts
        else f"the largest of the {len(positive)} tested sigmas; none supports this"
    )
    return Claim(
        hypothesis=f"Weight noise of sigma = {positive[k]:g}{_relative(dataset)} lowers the accuracy of "
        f"{who(dataset)} by "
        f"more than {_points(points)}",
        statistic=f"fall of the accuracy in percentage points, threshold {points:g}",
        value=drops[k][0],
        interval=bounds[k],
        verdict=verdicts[k],
        detail=f"It is {smallest}. On {data_of(dataset)}, "
        f"{dataset.attrs.get('draws', '?')} draws; the two accuracies are treated as if from different examples.",
        kind="robustness",
    )


def _change(dataset: xr.Dataset, name: str, sigma: float, scale: float = 1.0) -> tuple[float, float]:
    """Scale (value at sigma - value at 0) with its standard error, the two taken as independent."""
    noisy, clean = dataset.sel(sigma=sigma), dataset.sel(sigma=0.0)
    errors = [scalar(at, f"{name}_stderr") for at in (noisy, clean)]
    return scale * (float(noisy[name]) - float(clean[name])), abs(scale) * math.hypot(*errors)


def _relative(dataset: xr.Dataset) -> str:
    return " (relative to each filter's norm)" if dataset.attrs.get("relative") == "filter" else ""


def _points(points: float) -> str:
    return "one percentage point" if points == 1 else f"{points:g} percentage points"
