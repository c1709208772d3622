"""Claims on runs that share their first steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lossatlas.connectivity.show.claims import FRANKLE_THRESHOLD
from lossatlas.results.claim import Claim, data_of, verdict

if TYPE_CHECKING:
    import xarray as xr


def stability(dataset: xr.Dataset) -> Iterator[Claim]:
    """For each k whether runs that share k steps end linearly connected: an error barrier below 2 % in every pair."""
    if "barrier_error" not in dataset:
        return
    for k in dataset["k"].to_numpy():
        row = dataset.sel(k=k)
        bounds = (float(row["barrier_error_low"].max()), float(row["barrier_error_high"].max()))
        yield Claim(
            hypothesis=f"Two runs that share their first {int(k):,} steps and then see the data in other orders are "
            f"stable in the sense of Frankle et al. (2020), an error barrier below 2 %, on {data_of(dataset)}",
            statistic="largest error barrier of the pairs, threshold 0.02",
            value=float(row["barrier_error"].max()),
            interval=bounds,
            verdict=verdict(bounds, FRANKLE_THRESHOLD, "below"),
            detail=f"Over {dataset.sizes['pair']} pair(s) of runs. The interval is over the examples, for the "
            "pairs that were trained; other orders of the data are not in it.",
            kind="instability",
            basis="95 % interval of a paired bootstrap",
        )
