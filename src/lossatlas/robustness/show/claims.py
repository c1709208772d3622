"""Claims on weight noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.curvature.show import SPECTRUM
from lossatlas.results.claim import Claim, Interval, Verdict, verdict
from lossatlas.results.groups import alike, by_network
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import normal_interval, plus_minus
from lossatlas.results.values import scalar

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """What noise costs each network, and for each two networks whether the sharper one loses more."""
    for dataset in datasets:
        yield from noise_costs_accuracy(dataset)
    for spectra in map(by_network, alike(catalogue.of(SPECTRUM), "data", "parameters")):
        for noisy in map(by_network, alike(datasets, "data", "relative")):
            for a, b in combinations([network for network in noisy if network in spectra], 2):
                yield from sharper_less_robust((spectra[a], spectra[b]), (noisy[a], noisy[b]))


def sharper_less_robust(
    spectra: tuple[xr.Dataset, xr.Dataset], noisy: tuple[xr.Dataset, xr.Dataset]
) -> Iterator[Claim]:
    """Of two networks, whether the one with the larger lambda_max loses more under weight noise.

    At the upper middle of the positive sigmas that both were tested at; none where there is none.
    """
    tested = [set(dataset["sigma"].to_numpy().tolist()) for dataset in noisy]
    common = sorted(tested[0] & tested[1])
    if len(common) < 2 or common[0] != 0:
        return
    at = common[1:][len(common[1:]) // 2]
    sharpness = [float(spectrum["eigenvalue"].sel(end="top").isel(rank=0)) for spectrum in spectra]
    sharper, flatter = noisy if sharpness[0] >= sharpness[1] else noisy[::-1]
    rises = [_change(dataset, "loss", at) for dataset in (sharper, flatter)]
    value, stderr = rises[0][0] - rises[1][0], math.hypot(rises[0][1], rises[1][1])
    of = Provenance.of(sharper)
    yield Claim(
        hypothesis=f"Of the two networks, the sharper one ({of.who}) loses more under weight noise of "
        f"sigma = {at:g}{_relative(sharper)}",
        statistic="rise of the loss of the sharper network minus that of the flatter one, threshold 0",
        value=value,
        interval=normal_interval(value, stderr),
        detail=f"The loss rises by {plus_minus(*rises[0])} for the sharper and {plus_minus(*rises[1])} for the flatter "
        f"network, on {of.data_label}, {sharper.attrs['draws']} draws each. About these two networks only; sharpness "
        "here is the order of the two largest eigenvalues as computed.",
        datasets=tuple(dataset.attrs["id"] for dataset in (*noisy, *spectra)),
    )


def noise_costs_accuracy(dataset: xr.Dataset, points: float = 1.0) -> Iterator[Claim]:
    """Whether weight noise lowers the accuracy by more than so many points, at the smallest sigma that supports it.

    Where no tested sigma supports it, the largest is reported. None where accuracy or sigma = 0 is missing.
    """
    sigmas = np.sort(dataset["sigma"].to_numpy().astype(float))
    if "accuracy" not in dataset or sigmas[0] != 0 or sigmas[-1] <= 0:
        return
    positive = sigmas[sigmas > 0]
    falls = [_change(dataset, "accuracy", sigma, -100.0) for sigma in positive]
    k = _smallest_supported([normal_interval(*fall) for fall in falls], points)
    smallest = (
        f"the smallest of the {len(positive)} tested sigmas at which this is supported"
        if k is not None
        else f"the largest of the {len(positive)} tested sigmas; none supports this"
    )
    k = len(positive) - 1 if k is None else k
    of = Provenance.of(dataset)
    yield Claim(
        hypothesis=f"Weight noise of sigma = {positive[k]:g}{_relative(dataset)} lowers the accuracy of {of.who} by "
        f"more than {'one percentage point' if points == 1 else f'{points:g} percentage points'}",
        statistic=f"fall of the accuracy in percentage points, threshold {points:g}",
        value=falls[k][0],
        interval=normal_interval(*falls[k]),
        threshold=points,
        detail=f"It is {smallest}. On {of.data_label}, {dataset.attrs['draws']} draws; the two accuracies are treated "
        "as if from different examples.",
        datasets=(dataset.attrs["id"],),
    )


def _smallest_supported(intervals: Sequence[Interval], threshold: float) -> int | None:
    return next((k for k, each in enumerate(intervals) if verdict(each, threshold) is Verdict.SUPPORTED), None)


def _change(dataset: xr.Dataset, name: str, sigma: float, scale: float = 1.0) -> tuple[float, float]:
    """Scale (value at sigma - value at 0) with its standard error, the two taken as independent."""
    noisy, clean = dataset.sel(sigma=sigma), dataset.sel(sigma=0.0)
    errors = [scalar(at, f"{name}_stderr") for at in (noisy, clean)]
    return scale * (float(noisy[name]) - float(clean[name])), abs(scale) * math.hypot(*errors)


def _relative(dataset: xr.Dataset) -> str:
    return " (relative to each filter's norm)" if dataset.attrs["relative"] == "filter" else ""
