"""Every claim that some Datasets allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show.claims import (
    barrier_height,
    curve_connectivity,
    linear_connectivity,
    lower_path,
    straight,
    unaligned,
)
from lossatlas.results.claim import Claim
from lossatlas.curvature.show.claims import (
    eigenvalue,
    few_negative_eigenvalues,
    gauss_newton_dominates,
    no_negative_curvature,
    sharpness_difference,
)
from lossatlas.connectivity.show.instability_claims import stability
from lossatlas.claims.noise import noise_costs_accuracy, sharper_less_robust
from lossatlas.trajectory.show.ranks import sharper_generalises_worse
from lossatlas.trajectory.show.claims import beyond_random_walk
from lossatlas.surfaces.show.claims import slice_minimum

if TYPE_CHECKING:
    import xarray as xr

KINDS = (
    "surface",
    "spectrum",
    "spectral_density",
    "gauss_newton_split",
    "trajectory",
    "barrier",
    "instability",
    "robustness",
)
ALWAYS: dict[str, Callable[[xr.Dataset], Claim | None]] = {
    "surface": slice_minimum,
    "gauss_newton_split": gauss_newton_dominates,
    "trajectory": beyond_random_walk,
    "barrier": barrier_height,
    "robustness": noise_costs_accuracy,
}


def derive(datasets: Iterable[xr.Dataset]) -> list[Claim]:
    """Every claim that these Datasets allow, in a fixed order whatever theirs."""
    every = sorted(datasets, key=_order)
    shown = {_place(d) for d in every if d.attrs.get("kind") == "spectrum" and "negative_mass" in d}
    alone = [d for d in every if not (d.attrs.get("kind") == "spectral_density" and _place(d) in shown)]
    found = [claim for dataset in alone for claim in _alone(dataset)] + list(_across(every))
    return sorted(found, key=lambda claim: KINDS.index(claim.kind))


def _place(dataset: xr.Dataset) -> tuple[str, str]:
    """Whose Hessian it is: a spectrum there says what a density by itself would say again."""
    return str(dataset.attrs.get("network", "")), str(dataset.attrs.get("data", ""))


def _alone(dataset: xr.Dataset) -> Iterator[Claim]:
    yield from (claim for make in _makers(dataset) if (claim := make(dataset)) is not None)
    if dataset.attrs.get("kind") == "instability":
        yield from stability(dataset)


def _makers(dataset: xr.Dataset) -> Iterator[Callable[[xr.Dataset], Claim | None]]:
    kind = dataset.attrs.get("kind")
    if kind in ALWAYS:
        yield ALWAYS[kind]
    if kind == "barrier" and "accuracy" in dataset:
        yield linear_connectivity if straight(dataset) else curve_connectivity
    if kind == "spectrum" and "bottom" in dataset["end"].to_numpy():
        yield no_negative_curvature
    if kind in ("spectrum", "spectral_density") and "negative_mass" in dataset:
        yield few_negative_eigenvalues


def _across(every: list[xr.Dataset]) -> Iterator[Claim]:
    """Claims that compare paths or networks on the same data; without a `network` a spectrum takes no part."""
    yield from _paths([dataset for dataset in every if dataset.attrs.get("kind") == "barrier"])
    histories = _by_network(every, "history")
    for spectra in _comparable(every, "spectrum"):
        sharpness = {network: eigenvalue(dataset, "top")[0] for network, dataset in spectra.items()}
        yield from (sharpness_difference(spectra[a], spectra[b]) for a, b in combinations(spectra, 2))
        yield from _generalisation(sharpness, histories)
        for noisy in _comparable(every, "robustness"):
            for a, b in combinations([network for network in noisy if network in sharpness], 2):
                claim = sharper_less_robust((sharpness[a], sharpness[b]), noisy[a], noisy[b])
                yield from [claim] if claim is not None else []


def _paths(barriers: list[xr.Dataset]) -> Iterator[Claim]:
    """Each other path beside the straight line between the same two networks."""
    for line in filter(unaligned, barriers):
        yield from (lower_path(line, o) for o in barriers if not unaligned(o) and _same_question(line, o))


def _same_question(a: xr.Dataset, b: xr.Dataset) -> bool:
    """One definition on the same data between the same networks, which are known by the losses at the two ends."""
    keys = ("data", "data_fingerprint", "definition", "batch_norm")
    ends, others = (dataset["loss"].to_numpy()[[0, -1]].astype(float) for dataset in (a, b))
    same = bool(np.allclose(ends, others, rtol=1e-4, atol=1e-6))
    return same and all(a.attrs.get(key) == b.attrs.get(key) for key in keys)


def _generalisation(sharpness: dict[str, float], histories: dict[str, xr.Dataset]) -> Iterator[Claim]:
    for name, quantity, sign in (("test_loss", "test loss", 1), ("test_accuracy", "test error", -1)):
        named = [network for network in sharpness if network in histories and name in histories[network]]
        if len(named) > 1:
            last = [sign * float(histories[network][name][-1]) for network in named]
            yield sharper_generalises_worse([sharpness[network] for network in named], last, quantity)


def _comparable(every: list[xr.Dataset], kind: str) -> list[dict[str, xr.Dataset]]:
    """The Datasets of a kind by network, apart for each data set and each kind of noise."""
    groups = sorted({_setting(dataset) for dataset in every if dataset.attrs.get("kind") == kind})
    return [_by_network([d for d in every if _setting(d) == group], kind) for group in groups]


def _setting(dataset: xr.Dataset) -> tuple[str, str]:
    return str(dataset.attrs.get("data", "")), str(dataset.attrs.get("relative", "none"))


def _by_network(every: list[xr.Dataset], kind: str) -> dict[str, xr.Dataset]:
    return {str(d.attrs["network"]): d for d in every if d.attrs.get("kind") == kind and "network" in d.attrs}


def _order(dataset: xr.Dataset) -> tuple[str, ...]:
    keys = ("kind", "network", "region", "directions", "relative", "data", "name", "way", "definition")
    return tuple(str(dataset.attrs.get(key, "")) for key in keys)
