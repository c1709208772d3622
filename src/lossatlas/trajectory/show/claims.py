"""Claims on the trajectory of training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import values
from lossatlas.results.claim import UNKNOWN, Claim
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, percent

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """Of each trajectory, whether its plane shows more than it would of a random walk."""
    yield from map(beyond_random_walk, datasets)


def shares_of_two(dataset: xr.Dataset) -> tuple[float, float]:
    """Of the variance on the first two components: of the trajectory, and of an isotropic random walk of its length."""
    observed, walk = (values(dataset, f"{name}_ratio")[:2].sum() for name in ("explained_variance", "random_walk"))
    return float(observed), float(walk)


def random_signs(dataset: xr.Dataset) -> tuple[float, float]:
    """The median share when the sign of each step is drawn at random, and the p-value; NaN without draws."""
    null, observed = values(dataset, "sign_flip_two"), shares_of_two(dataset)[0]
    if not null.size:
        return math.nan, math.nan
    return float(np.median(null)), (1 + int((null >= observed).sum())) / (1 + null.size)


def beyond_random_walk(dataset: xr.Dataset) -> Claim:
    """Whether two components explain more of the trajectory than when each step's sign is drawn at random."""
    observed, walk = shares_of_two(dataset)
    null, (median, p) = values(dataset, "sign_flip_two"), random_signs(dataset)
    bounds, value, draws = UNKNOWN, observed - walk, "no sign flips were drawn, so there is no interval"
    if null.size:
        bounds = (observed - float(np.quantile(null, 0.975)), observed - float(np.quantile(null, 0.025)))
        value = observed - median
        draws = f"{null.size} draws with random signs explain {percent(median)} in the median, p = {number(p, 2)}"
    return Claim(
        hypothesis="The first two principal components explain more of the trajectory of "
        f"{Provenance.of(dataset).who} than a random walk's would",
        statistic="share of the variance minus its median under random signs of the steps, threshold 0",
        value=float(value),
        interval=(float(bounds[0]), float(bounds[1])),
        detail=f"{percent(observed)} observed over {dataset.attrs['n_snapshots']} snapshots; {draws}; {percent(walk)} "
        "for an isotropic random walk of as many steps (Antognini & Sohl-Dickstein 2018). One run of training.",
        datasets=(dataset.attrs["id"],),
        basis="95 % of the draws",
    )
