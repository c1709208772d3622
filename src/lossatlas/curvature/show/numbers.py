"""The key numbers of results on curvature, in sentences that judge nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.curvature.show.captions import batches, matrix
from lossatlas.curvature.show.trends import over_subsets
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, percent, plus_minus
from lossatlas.results.values import value

if TYPE_CHECKING:
    import xarray as xr

CRITERIA = {"k_h1": "K_H1", "k_h05": "K_H0.5", "r_e": "r_e"}


def spectrum(dataset: xr.Dataset) -> Iterator[str]:
    """Both ends, the trace, the density, the dependence on the data, and how the solver ended."""
    yield from _ends(dataset)
    yield from _trace(dataset)
    yield from spectral_density(dataset)
    if "largest_gap" in dataset:
        k = dataset.sizes["rank"]
        yield f"The largest gap between two of its {k} largest eigenvalues is {largest_gap(dataset)}."
    yield from _trend(dataset)
    if not dataset.attrs["converged"]:
        yield "The solver did not reach its tolerance; the residuals say how far it came."
    if dataset.attrs.get("note"):
        yield f"Note: {dataset.attrs['note'].rstrip('.')}."


def _ends(dataset: xr.Dataset) -> Iterator[str]:
    found = {end: dataset.sel(end=end) for end in dataset["end"].to_numpy()}
    for end, name in (("top", "largest"), ("bottom", "smallest")):
        if end in found:
            yield (
                f"{Provenance.of(dataset).subject}: the {name} eigenvalue is {value(found[end], 'eigenvalue', rank=0)}"
                f", residual {number(float(found[end]['residual'][0]), 2)}."
            )
    if len(found) == 2:
        lowest, highest = (float(found[end]["eigenvalue"][0]) for end in ("bottom", "top"))
        yield f"The ratio of the smallest to the largest is {number(lowest / highest if highest else np.nan, 3)}."


def _trace(dataset: xr.Dataset) -> Iterator[str]:
    if "trace" in dataset and "top" in dataset["end"].to_numpy():
        leading, k = number(float(dataset["eigenvalue"].sel(end="top").sum())), dataset.sizes["rank"]
        yield f"Its trace is {value(dataset, 'trace')}; the {k} largest eigenvalues add up to {leading}."
    yield from _estimate("The trace", dataset.attrs.get("trace_reason"))


def _estimate(what: str, reason: str | None) -> Iterator[str]:
    """Why a trace is not exact, where it is not."""
    if reason:
        yield f"{what} is an estimate: {reason}"


def spectral_density(dataset: xr.Dataset) -> Iterator[str]:
    """The share below 0, that about 0, and the effective rank."""
    if "negative_mass" in dataset:
        of = "" if matrix(dataset) == "Hessian" else f" of the {matrix(dataset)}"
        yield f"{Provenance.of(dataset).subject}: {share_below_0(dataset)} of the eigenvalues{of} are below 0."
    yield from _about_0(dataset)
    if "effective_rank" in dataset:
        n = int(dataset.attrs["n_parameters"])
        yield f"Its effective rank is {value(dataset, 'effective_rank')} of {n:,}."


def _about_0(dataset: xr.Dataset) -> Iterator[str]:
    """The share in the bin about 0: so many eigenvalues the quadrature cannot give a sign."""
    if "histogram" not in dataset:
        return
    middle = (dataset["bin_left"].to_numpy() < 0) & (dataset["bin_right"].to_numpy() > 0)
    shares, edges = dataset["histogram"].to_numpy()[middle], dataset["bin_right"].to_numpy()[middle]
    for share, edge in zip(shares, edges, strict=True):
        yield f"{percent(share)} of the eigenvalues are within {number(edge, 2)} of 0."


def share_below_0(dataset: xr.Dataset) -> str:
    """The share of negative eigenvalues with its 95 % interval: "14.1 % [12.2 %, 16.0 %]"."""
    if "negative_mass" not in dataset:
        return number(np.nan)
    low, high = (percent(float(dataset[f"negative_mass_{end}"])) for end in ("low", "high"))
    return f"{percent(float(dataset['negative_mass']))} [{low}, {high}]"


def largest_gap(dataset: xr.Dataset) -> str:
    """The largest gap between leading eigenvalues, with the residuals at its two sides, and where it lies."""
    if "largest_gap" not in dataset:
        return number(np.nan)
    rank = int(dataset["largest_gap_rank"])
    sides = dataset["residual"].sel(end="top").isel(rank=slice(rank - 1, rank + 1))
    return f"{plus_minus(float(dataset['largest_gap']), float(sides.sum()))} after rank {rank}"


def _trend(dataset: xr.Dataset) -> Iterator[str]:
    if "trend_eigenvalue" not in dataset or not dataset.sizes["n_examples"]:
        return
    mean, stderr = over_subsets(dataset)
    whole = float(dataset["eigenvalue"].sel(end="top").isel(rank=0))
    smallest, largest = (int(dataset["n_examples"].to_numpy().argsort()[k]) for k in (0, -1))
    parts = [
        f"{plus_minus(mean[k], stderr[k])} on subsets of {int(dataset['n_examples'][k]):,} examples "
        f"({number(mean[k] / whole if whole else np.nan, 3)} times that of all the data)"
        for k in dict.fromkeys((smallest, largest))
    ]
    yield f"The mean of its largest eigenvalue is {' and '.join(parts)}."


def gauss_newton_split(dataset: xr.Dataset) -> Iterator[str]:
    """Cosine and norms, the share of the curvature along the leading eigenvectors, and why a trace is an estimate."""
    yield (
        f"{Provenance.of(dataset).subject}: the cosine of the Hessian and its Gauss-Newton part is "
        f"{value(dataset, 'cosine')}; the Frobenius norm of the Hessian is {value(dataset, 'frobenius_hessian')}, that "
        f"of the rest {value(dataset, 'frobenius_residual')}."
    )
    curved = dataset.isel(rank=dataset["curvature_hessian"].to_numpy() > 0)
    if curved.sizes["rank"]:
        ratio = (curved["curvature_gauss_newton"] / curved["curvature_hessian"]).to_numpy()
        yield (
            f"Along its {len(ratio)} leading eigenvectors the Gauss-Newton part has between {percent(ratio.min())} and "
            f"{percent(ratio.max())} of the curvature."
        )
    yield from _estimate("The trace of the Hessian", dataset.attrs.get("trace_reason"))
    yield from _estimate("The trace of the Gauss-Newton part", dataset.attrs.get("trace_reason_gauss_newton"))


def gabdullin(dataset: xr.Dataset) -> Iterator[str]:
    """The criteria after the last step, and as multiples of their values at half the steps."""
    step, last = dataset["step"].to_numpy(), dataset.sizes["step"] - 1
    half = int(np.abs(step - step[-1] / 2).argmin())
    ends = [f"{name} {value(dataset, key, step=last)}" for key, name in CRITERIA.items()]
    growth = [f"{name} {number(_ratio(dataset[key], last, half), 3)}" for key, name in CRITERIA.items()]
    yield (
        f"{Provenance.of(dataset).subject} after {step[last]:g} steps: {', '.join(ends)}; as multiples of their values "
        f"after {step[half]:g} steps: {', '.join(growth)}."
    )


def _ratio(values: xr.DataArray, last: int, half: int) -> float:
    return float(values[last] / values[half]) if values[half] else np.nan


def power_iteration(dataset: xr.Dataset) -> Iterator[str]:
    """The last Rayleigh quotient and the range of the last five."""
    values, subject = dataset["eigenvalue"].to_numpy(), batches(dataset)
    late = values[-5:]
    yield (
        f"{subject[0].upper()}{subject[1:]}: {number(values[-1])} after {len(values)} iterations, between "
        f"{number(late.min())} and {number(late.max())} over the last {len(late)}."
    )
