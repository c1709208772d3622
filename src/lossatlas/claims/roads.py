"""Claims on the road of training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.claims.claim import UNKNOWN, Claim, verdict, who
from lossatlas.results.uncertainty import percent

if TYPE_CHECKING:
    import xarray as xr


def beyond_random_walk(dataset: xr.Dataset) -> Claim:
    """Whether two principal components explain more of the road than when each step's sign is drawn at random."""
    observed = float(dataset["explained_variance_ratio"].to_numpy()[:2].sum())
    null = dataset["sign_flip_two"].to_numpy().astype(float) if "sign_flip_two" in dataset else np.array([])
    walk = float(dataset["random_walk_ratio"].to_numpy()[:2].sum()) if "random_walk_ratio" in dataset else math.nan
    bounds, value, draws = UNKNOWN, observed - walk, "no sign flips were drawn, so there is no interval"
    if null.size:
        bounds = (observed - float(np.quantile(null, 0.975)), observed - float(np.quantile(null, 0.025)))
        value = observed - float(np.median(null))
        p = (1 + int((null >= observed).sum())) / (1 + null.size)
        draws = (
            f"{null.size} draws with random signs explain {percent(float(np.median(null)))} in the median, p = {p:.2g}"
        )
    return Claim(
        hypothesis="The first two principal components explain more of the road of "
        f"{who(dataset)} than a random walk's would",
        statistic="share of the variance minus its median under random signs of the steps, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"{percent(observed)} observed over {dataset.attrs.get('n_snapshots', '?')} snapshots; {draws}; "
        f"{percent(walk)} for an isotropic random walk of as many steps (Antognini & Sohl-Dickstein 2018). One run of "
        f"training.",
        kind="trajectory",
        basis="95 % of the draws",
    )
