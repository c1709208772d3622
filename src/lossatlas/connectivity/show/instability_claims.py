"""Claims on runs that share their first steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lossatlas.connectivity.show.claims import BOOTSTRAP, FRANKLE_THRESHOLD
from lossatlas.results.claim import Claim
from lossatlas.results.provenance import Provenance

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """Of each analysis with errors, for each k whether the runs are stable."""
    for dataset in datasets:
        if "barrier_error" in dataset:
            yield from stability(dataset)


def stability(dataset: xr.Dataset) -> Iterator[Claim]:
    """For each k whether runs that share k steps end linearly connected: an error barrier below 2 % in every pair."""
    of = Provenance.of(dataset)
    whose = f" of {of.who}" if of.network else ""
    for k in dataset["k"].to_numpy():
        row = dataset.sel(k=k)
        largest = {
            name: float(row[name].max(skipna=False))
            for name in ("barrier_error", "barrier_error_low", "barrier_error_high")
        }
        yield Claim(
            hypothesis=f"Two runs{whose} that share their first {int(k):,} steps and then see the data in other "
            f"orders are stable in the sense of Frankle et al. (2020), an error barrier below 2 %, on {of.data_label}",
            statistic=f"largest error barrier of the pairs, threshold {FRANKLE_THRESHOLD:g}",
            value=largest["barrier_error"],
            interval=(largest["barrier_error_low"], largest["barrier_error_high"]),
            threshold=FRANKLE_THRESHOLD,
            direction="below",
            detail=f"Over {dataset.sizes['pair']} pair(s) of runs. The interval is over the examples, for the "
            "pairs that were trained; other orders of the data are not in it.",
            datasets=(dataset.attrs["id"],),
            basis=BOOTSTRAP,
        )
