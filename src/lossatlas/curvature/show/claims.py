"""Claims on the Hessian: the signs of its eigenvalues, its sharpness, its Gauss-Newton part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from scipy import stats

from lossatlas.curvature.show import SPECTRUM
from lossatlas.curvature.show.captions import matrix, outermost, restricted
from lossatlas.results.claim import LEVEL, UNKNOWN, Claim, Interval
from lossatlas.results.groups import alike, by_network
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import normal_interval, number, percent, plus_minus
from lossatlas.results.values import scalar

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue


def of_spectra(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """The signs of each network's eigenvalues, and for each two networks whether they differ in sharpness."""
    for dataset in datasets:
        if "bottom" in dataset["end"].to_numpy():
            yield no_negative_curvature(dataset)
        if "negative_mass" in dataset:
            yield few_negative_eigenvalues(dataset)
    for networks in map(by_network, alike(datasets, "data", "parameters")):
        yield from (sharpness_difference(networks[a], networks[b]) for a, b in combinations(networks, 2))


def of_densities(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """The signs of the Hessian's eigenvalues, where no spectrum of the same network on the same data says it."""
    known = {_whose(dataset) for dataset in catalogue.of(SPECTRUM) if "negative_mass" in dataset}
    hessians = [dataset for dataset in datasets if matrix(dataset) == "Hessian"]
    yield from (few_negative_eigenvalues(dataset) for dataset in hessians if _whose(dataset) not in known)


def of_splits(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """Whether each network's Hessian is mostly its Gauss-Newton part."""
    yield from map(gauss_newton_dominates, datasets)


def _whose(dataset: xr.Dataset) -> tuple[object, ...]:
    """Which parameters of which network on which data."""
    of = Provenance.of(dataset)
    return int(dataset.attrs["n_parameters"]), of.network, of.data, of.model_fingerprint, of.data_fingerprint


def _at_the_point(dataset: xr.Dataset) -> str:
    of = Provenance.of(dataset)
    return f"Hessian{restricted(dataset)} at the trained point of {of.who}, on {of.data_label},"


def no_negative_curvature(dataset: xr.Dataset) -> Claim:
    """Whether the smallest Hessian eigenvalue is above 0: [lambda - residual, lambda + residual]."""
    value, _, residual = outermost(dataset, "bottom")
    return Claim(
        hypothesis=f"The {_at_the_point(dataset)} has no negative eigenvalue",
        statistic="smallest eigenvalue, threshold 0",
        value=value,
        interval=(value - residual, value + residual),
        detail="For the loss of the examples given, not for the population. The interval surely contains an "
        "eigenvalue (residual bound), so a wholly negative one proves a negative eigenvalue; a positive one is as "
        "good as the solver's reach to the end of the spectrum.",
        datasets=(dataset.attrs["id"],),
        basis="solver's residual bound",
    )


def few_negative_eigenvalues(dataset: xr.Dataset, share: float = 0.01) -> Claim:
    """Whether at most this share of the eigenvalues is negative, from the density's own interval."""
    known = {"steps": "Lanczos steps", "probes": "probes"}
    how = ", ".join(f"{dataset.attrs[key]} {name}" for key, name in known.items() if dataset.attrs.get(key))
    return Claim(
        hypothesis=f"At most {100 * share:g} % of the eigenvalues of the {_at_the_point(dataset)} are negative",
        statistic=f"share of the eigenvalues below 0, threshold {share:g}",
        value=scalar(dataset, "negative_mass"),
        interval=(scalar(dataset, "negative_mass_low"), scalar(dataset, "negative_mass_high")),
        threshold=share,
        direction="below",
        detail=f"{f'By stochastic Lanczos quadrature ({how})' if how else 'By all the eigenvalues'}, for the loss of "
        "the examples given. It counts eigenvalues whatever their size; many of them may be negative and none far from "
        "0.",
        datasets=(dataset.attrs["id"],),
        basis="95 % interval from the probes and the quadrature",
    )


def sharpness_difference(a: xr.Dataset, b: xr.Dataset) -> Claim:
    """Whether |lambda_max(A) - lambda_max(B)| exceeds the data-sampling error and the residuals together.

    Undecided where the data-sampling error is not known, as on a single batch.
    """
    (first, error_a, residual_a), (second, error_b, residual_b) = outermost(a), outermost(b)
    value, stderr = abs(first - second), math.hypot(error_a, error_b)
    names = f"{Provenance.of(a).subject} and {Provenance.of(b).who}"
    return Claim(
        hypothesis=f"{names} differ in sharpness (largest eigenvalue of the Hessian{restricted(a)})",
        statistic="absolute difference of the largest eigenvalues, threshold 0",
        value=value,
        interval=normal_interval(value, stderr, residual_a + residual_b),
        detail=f"{plus_minus(first, error_a)} and {plus_minus(second, error_b)}; residuals {number(residual_a, 2)} "
        f"and {number(residual_b, 2)} widen the interval. {_scope(stderr)}",
        datasets=(a.attrs["id"], b.attrs["id"]),
        basis="normal 95 % interval widened by the residuals",
    )


def _scope(stderr: float) -> str:
    if math.isnan(stderr):
        return "The data-sampling error is not known: it takes at least two batches of data."
    return "The standard errors of the two networks are added as if their examples were different ones."


def gauss_newton_dominates(dataset: xr.Dataset, share: float = 0.5) -> Claim:
    """Whether |H - G|_F is less than this share of |H|_F, H the Hessian and G its Gauss-Newton part.

    The interval of the ratio is made of 97.5 % intervals of the two norms, so it holds for any correlation of their
    errors.
    """
    value, bounds = _share_of_the_rest(dataset)
    return Claim(
        hypothesis=f"The Hessian at the trained point of {Provenance.of(dataset).who} is dominated by its Gauss-Newton "
        f"part: what is left has less than {100 * share:g} % of its Frobenius norm",
        statistic=f"Frobenius norm of the rest over that of the Hessian, threshold {share:g}",
        value=value,
        interval=bounds,
        threshold=share,
        direction="below",
        detail="Where the loss is convex in the outputs the Gauss-Newton part is positive semidefinite, and the "
        f"Hessian lies within {percent(value)} of a positive semidefinite matrix in this norm. For the loss of the "
        f"examples given, on {Provenance.of(dataset).data_label}.",
        datasets=(dataset.attrs["id"],),
        basis="95 % interval of a ratio (Bonferroni)",
    )


def _share_of_the_rest(dataset: xr.Dataset) -> tuple[float, Interval]:
    """|R| / |H| and its interval; both unknown where |H| may be 0."""
    quantile = float(stats.norm.isf(LEVEL / 4))
    rest, whole = (_bounds(dataset, f"frobenius_{part}", quantile) for part in ("residual", "hessian"))
    if not whole[0] > 0:
        return math.nan, UNKNOWN
    ratio = scalar(dataset, "frobenius_residual") / scalar(dataset, "frobenius_hessian")
    return ratio, (max(rest[0], 0.0) / whole[1], rest[1] / whole[0])


def _bounds(dataset: xr.Dataset, name: str, quantile: float) -> Interval:
    value, half = scalar(dataset, name), quantile * scalar(dataset, f"{name}_stderr")
    return value - half, value + half
