"""Claims on weight noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lossatlas.curvature.show import SPECTRUM
from lossatlas.results.claim import Claim, Verdict, verdict
from lossatlas.results.groups import alike, by_network
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import normal_interval, plus_minus
from lossatlas.results.values import scalar

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

Estimate = tuple[float, float]  # with its standard error
POINTS = 1.0  # percentage points of accuracy that noise is asked to cost


class Cost(NamedTuple):
    """What noise of this size costs one network, and the claim on it."""

    sigma: float
    claim: Claim


class Comparison(NamedTuple):
    """At this sigma, whether the sharper of two networks loses more."""

    sharper: xr.Dataset
    sigma: float
    claim: Claim


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """What noise costs each network, and for each two networks whether the sharper one loses more."""
    for dataset in datasets:
        if cost := accuracy_cost(dataset):
            yield cost.claim
    for comparison in comparisons(datasets, catalogue):
        yield comparison.claim


def comparisons(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Comparison]:
    """For each two networks with spectra and noise measured alike, whether the sharper one loses more."""
    for spectra in map(by_network, alike(catalogue.of(SPECTRUM), "data", "parameters")):
        for noisy in map(by_network, alike(datasets, "data", "relative")):
            for a, b in combinations([network for network in noisy if network in spectra], 2):
                if found := sharper_less_robust((spectra[a], spectra[b]), (noisy[a], noisy[b])):
                    yield found


def sharper_less_robust(
    spectra: tuple[xr.Dataset, xr.Dataset], noisy: tuple[xr.Dataset, xr.Dataset]
) -> Comparison | None:
    """Of two networks, whether the one with the larger lambda_max loses more under weight noise.

    At the upper middle of the positive sigmas that both were tested at; None where there is none.
    """
    tested = [set(dataset["sigma"].to_numpy().tolist()) for dataset in noisy]
    common = sorted(tested[0] & tested[1])
    if len(common) < 2 or common[0] != 0:
        return None
    at = common[1:][len(common[1:]) // 2]
    sharpness = [float(spectrum["eigenvalue"].sel(end="top").isel(rank=0)) for spectrum in spectra]
    sharper, flatter = noisy if sharpness[0] >= sharpness[1] else noisy[::-1]
    rises = change(sharper, "loss", at), change(flatter, "loss", at)
    ids = tuple(dataset.attrs["id"] for dataset in (*noisy, *spectra))
    return Comparison(sharper, at, _loses_more(sharper, at, rises, ids))


def _loses_more(sharper: xr.Dataset, at: float, rises: tuple[Estimate, Estimate], ids: tuple[str, ...]) -> Claim:
    value, stderr = rises[0][0] - rises[1][0], math.hypot(rises[0][1], rises[1][1])
    of = Provenance.of(sharper)
    return Claim(
        hypothesis=f"Of the two networks, the sharper one ({of.who}) loses more under weight noise of sigma = {at:g}"
        f"{relative(sharper)}",
        statistic="rise of the loss of the sharper network minus that of the flatter one, threshold 0",
        value=value,
        interval=normal_interval(value, stderr),
        detail=f"The loss rises by {plus_minus(*rises[0])} for the sharper and {plus_minus(*rises[1])} for the flatter "
        f"network, on {of.data_label}, {sharper.attrs['draws']} draws each. About these two networks only; sharpness "
        "here is the order of the two largest eigenvalues as computed.",
        datasets=ids,
    )


def accuracy_cost(dataset: xr.Dataset, points: float = POINTS) -> Cost | None:
    """Whether weight noise lowers the accuracy by more than so many points, at the smallest sigma that supports it.

    Where no tested sigma supports it, the largest is reported. None where accuracy or sigma = 0 is missing.
    """
    sigmas = np.sort(dataset["sigma"].to_numpy().astype(float))
    if "accuracy" not in dataset or sigmas[0] != 0 or sigmas[-1] <= 0:
        return None
    positive = sigmas[sigmas > 0]
    falls = [change(dataset, "accuracy", sigma, -100.0) for sigma in positive]
    supported = [verdict(normal_interval(*fall), points) is Verdict.SUPPORTED for fall in falls]
    k = supported.index(True) if any(supported) else len(positive) - 1
    which = (
        f"the smallest of the {len(positive)} tested sigmas at which this is supported"
        if any(supported)
        else f"the largest of the {len(positive)} tested sigmas; none supports this"
    )
    return Cost(
        float(positive[k]), _costs(dataset, f"sigma = {positive[k]:g}{relative(dataset)}", falls[k], which, points)
    )


def _costs(dataset: xr.Dataset, at: str, fall: Estimate, which: str, points: float) -> Claim:
    of = Provenance.of(dataset)
    return Claim(
        hypothesis=f"Weight noise of {at} lowers the accuracy of {of.who} by more than "
        f"{'one percentage point' if points == 1 else f'{points:g} percentage points'}",
        statistic=f"fall of the accuracy in percentage points, threshold {points:g}",
        value=fall[0],
        interval=normal_interval(*fall),
        threshold=points,
        detail=f"It is {which}. On {of.data_label}, {dataset.attrs['draws']} draws; the two accuracies are treated "
        "as if from different examples.",
        datasets=(dataset.attrs["id"],),
    )


def change(dataset: xr.Dataset, name: str, sigma: float, scale: float = 1.0) -> Estimate:
    """Scale (value at sigma - value at 0) with its standard error, the two taken as independent."""
    noisy, clean = dataset.sel(sigma=sigma), dataset.sel(sigma=0.0)
    errors = [scalar(at, f"{name}_stderr") for at in (noisy, clean)]
    return scale * (float(noisy[name]) - float(clean[name])), abs(scale) * math.hypot(*errors)


def relative(dataset: xr.Dataset) -> str:
    """What sigma is relative to, where it is."""
    return " (relative to each filter's norm)" if dataset.attrs["relative"] == "filter" else ""
