"""Claims on the trajectory of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import values
from lossatlas.results.claim import UNKNOWN, Claim
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import percent

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """Of each trajectory, whether its plane shows more than it would of a random walk."""
    yield from map(beyond_random_walk, datasets)


def beyond_random_walk(dataset: xr.Dataset) -> Claim:
    """Whether two components explain more of the trajectory than when each step's sign is drawn at random."""
    observed, walk = (values(dataset, f"{name}_ratio")[:2].sum() for name in ("explained_variance", "random_walk"))
    null = values(dataset, "sign_flip_two")
    bounds, value, draws = UNKNOWN, observed - walk, "no sign flips were drawn, so there is no interval"
    if null.size:
        median = float(np.median(null))
        bounds = (observed - float(np.quantile(null, 0.975)), observed - float(np.quantile(null, 0.025)))
        value = observed - median
        p = (1 + int((null >= observed).sum())) / (1 + null.size)
        draws = f"{null.size} draws with random signs explain {percent(median)} in the median, p = {p:.2g}"
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
