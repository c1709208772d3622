"""The key numbers of results on curvature, the most telling first; they judge nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.curvature.show.captions import on_batches
from lossatlas.curvature.show.trends import over_subsets
from lossatlas.results.blocks import Number
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import DASH, number, percent, plus_minus
from lossatlas.results.values import scalar, value

if TYPE_CHECKING:
    import xarray as xr

Rows = Iterator[tuple[str, str]]
Spell = Callable[["xr.Dataset"], str]

CRITERIA = {"k_h1": "K_H1", "k_h05": "K_H0.5", "r_e": "r_e"}
ENDS = {"top": "largest", "bottom": "smallest"}
PARTS = {"hessian": "the Hessian H", "gauss_newton": "its Gauss-Newton part G", "residual": "the rest H − G"}
COSTS = {"eigenpairs": "the eigenpairs", "density": "the density", "trace": "the trace"}
COSTS |= {"trend": "the subsets", "layers": "the layers"}


def named(dataset: xr.Dataset, rows: Iterable[tuple[str, str]]) -> Iterator[Number]:
    """The rows that hold something, as numbers of this network."""
    of = Provenance.of(dataset).subject
    if "parameters" in dataset.attrs:
        of += f", {dataset.attrs['parameters']}"
    yield from (Number(name, text, of) for name, text in rows if text != DASH)


def spectrum(dataset: xr.Dataset) -> Iterator[Number]:
    """Both ends, the trace, the density, the dependence on the data, and what it cost."""
    yield from named(dataset, _of_spectrum(dataset))


def _of_spectrum(dataset: xr.Dataset) -> Rows:
    found = {end: dataset.sel(end=end) for end in ENDS if end in dataset["end"].to_numpy()}
    for end, at in found.items():
        yield f"{ENDS[end]} eigenvalue", value(at, "eigenvalue", rank=0)
    yield from _of_density(dataset)
    yield "largest gap between leading eigenvalues", largest_gap(dataset)
    if len(found) == 2:
        lowest, highest = (float(found[end]["eigenvalue"][0]) for end in ("bottom", "top"))
        yield "smallest over largest eigenvalue", number(lowest / highest if highest else np.nan, 3)
    if "top" in found:
        yield f"sum of the {dataset.sizes['rank']} largest", number(float(found["top"]["eigenvalue"].sum()))
        yield from _trend(dataset)
    for end, at in found.items():
        yield f"residual of the {ENDS[end]}", number(float(at["residual"][0]), 2)
    yield from _costs(dataset)


def _trend(dataset: xr.Dataset) -> Rows:
    if "trend_eigenvalue" not in dataset or not dataset.sizes["n_examples"]:
        return
    mean, stderr = over_subsets(dataset)
    whole = float(dataset["eigenvalue"].sel(end="top").isel(rank=0))
    order = dataset["n_examples"].to_numpy().argsort()
    for k in dict.fromkeys(int(order[end]) for end in (0, -1)):
        times = number(mean[k] / whole if whole else np.nan, 3)
        yield (
            f"largest eigenvalue, subsets of {int(dataset['n_examples'][k]):,}",
            f"{plus_minus(mean[k], stderr[k])} ({times} times that of all)",
        )


def _costs(dataset: xr.Dataset) -> Rows:
    """What it cost, and how the solver ended."""
    spent = {f"products for {name}": f"products_{part}" for part, name in COSTS.items()} | {"products": "products"}
    for name, key in spent.items():
        if dataset.attrs.get(key):
            yield name, f"{int(dataset.attrs[key]):,}"
    yield "seconds", number(float(dataset.attrs.get("seconds", np.nan)), 3)
    if not dataset.attrs["converged"]:
        yield "solver", "tolerance not reached"
    if dataset.attrs.get("note"):
        yield "note", str(dataset.attrs["note"])


def spectral_density(dataset: xr.Dataset) -> Iterator[Number]:
    """The trace, the effective rank, and the shares of the eigenvalues below and about 0."""
    yield from named(dataset, _of_density(dataset))


def _of_density(dataset: xr.Dataset) -> Rows:
    yield "trace", value(dataset, "trace")
    if "effective_rank" in dataset:
        yield "effective rank", f"{value(dataset, 'effective_rank')} of {int(dataset.attrs['n_parameters']):,}"
    yield "share of |λ| below 0", value(dataset, "negative_share")
    yield "eigenvalues below 0", share_below_0(dataset)
    yield "eigenvalues about 0", _about_0(dataset)
    yield "eigenvalues not told from 0", percent(scalar(dataset, "undecided_mass"))
    yield "Frobenius norm", value(dataset, "frobenius_norm")
    yield (
        "error of the density, of its width",
        f"{number(100 * scalar(dataset, 'density_error'), 2)} %" if "density_error" in dataset else DASH,
    )


def _about_0(dataset: xr.Dataset) -> str:
    """The share in the bin about 0: so many eigenvalues the quadrature cannot give a sign."""
    if "histogram" not in dataset:
        return DASH
    middle = (dataset["bin_left"].to_numpy() < 0) & (dataset["bin_right"].to_numpy() > 0)
    shares, edges = dataset["histogram"].to_numpy()[middle], dataset["bin_right"].to_numpy()[middle]
    return f"{percent(shares[0])} within {number(edges[0], 2)}" if shares.size else DASH


def share_below_0(dataset: xr.Dataset) -> str:
    """The share of negative eigenvalues with its 95 % interval: "14.1 % [12.2, 16.0]"."""
    if not np.isfinite(scalar(dataset, "negative_mass")):
        return DASH
    low, high = (percent(float(dataset[f"negative_mass_{end}"])).removesuffix(" %") for end in ("low", "high"))
    return f"{percent(float(dataset['negative_mass']))} [{low}, {high}]"


def largest_gap(dataset: xr.Dataset) -> str:
    """The largest gap between leading eigenvalues, with the residuals at its two sides, and where it lies."""
    if not np.isfinite(scalar(dataset, "largest_gap")) or "top" not in dataset["end"].to_numpy():
        return DASH
    rank = int(dataset["largest_gap_rank"])
    sides = dataset["residual"].sel(end="top").isel(rank=slice(rank - 1, rank + 1))
    return f"{plus_minus(float(dataset['largest_gap']), float(sides.sum()))} after rank {rank}"


def gauss_newton_split(dataset: xr.Dataset) -> Iterator[Number]:
    """Cosine, norms and traces, and the share of the curvature along the leading eigenvectors."""
    yield from named(dataset, _of_split(dataset))


def _of_split(dataset: xr.Dataset) -> Rows:
    yield "cosine of H and G", value(dataset, "cosine")
    ratio = shares_of_curvature(dataset)
    if ratio.size:
        span = f"{percent(ratio.min())} to {percent(ratio.max())}"
        yield f"share of G along {len(ratio)} leading eigenvectors", span
    for quantity, spelt in (("frobenius", "Frobenius norm"), ("trace", "trace")):
        for part, whose in PARTS.items():
            yield f"{spelt} of {whose}", value(dataset, f"{quantity}_{part}")
    yield "products", f"{int(dataset.attrs['products']):,}"


def shares_of_curvature(dataset: xr.Dataset) -> np.ndarray:
    """v' G v over v' H v along each leading eigenvector v of H of positive curvature."""
    curved = dataset.isel(rank=dataset["curvature_hessian"].to_numpy() > 0)
    return np.asarray(curved["curvature_gauss_newton"] / curved["curvature_hessian"], float)


def gabdullin(dataset: xr.Dataset) -> Iterator[Number]:
    """The criteria after the last step, and as multiples of their values at half the steps."""
    yield from named(dataset, _of_criteria(dataset))


def _of_criteria(dataset: xr.Dataset) -> Rows:
    step, last = dataset["step"].to_numpy(), dataset.sizes["step"] - 1
    half = int(np.abs(step - step[-1] / 2).argmin())
    for key, name in CRITERIA.items():
        yield f"{name} after {step[last]:g} steps", value(dataset, key, step=last)
    for key, name in CRITERIA.items():
        growth = float(dataset[key][last] / dataset[key][half]) if dataset[key][half] else np.nan
        yield f"{name}, times that after {step[half]:g}", number(growth, 3)


def power_iteration(dataset: xr.Dataset) -> Iterator[Number]:
    """The last Rayleigh quotient and the range of the last five."""
    values = dataset["eigenvalue"].to_numpy()
    late, what = values[-5:], f"power iteration, {on_batches(dataset)}"
    yield from named(
        dataset,
        [
            (f"{what}: after {len(values)} products", number(values[-1])),
            (f"{what}: the last {len(late)}", f"{number(late.min())} to {number(late.max())}"),
        ],
    )
