"""Observations: sentences that read numbers off a Dataset, with their errors, and judge nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show.numbers import alignment, barrier, connection, instability
from lossatlas.curvature.show.trends import over_subsets
from lossatlas.drawing.grids import over_planes
from lossatlas.drawing.overlays import has_ways
from lossatlas.report.captions import held_out, share
from lossatlas.report.values import subject, value
from lossatlas.results.uncertainty import number, percent, plus_minus

if TYPE_CHECKING:
    import xarray as xr


__all__ = [
    "alignment",
    "barrier",
    "connection",
    "gabdullin",
    "gauss_newton_split",
    "history",
    "instability",
    "largest_gap",
    "power_iteration",
    "robustness",
    "share_below_0",
    "spectral_density",
    "spectrum",
    "surface",
    "trajectory",
]


def history(dataset: xr.Dataset) -> Iterator[str]:
    if not dataset.sizes.get("epoch"):
        return
    parts = [
        f"{split} {quantity} {value(dataset, f'{split}_{quantity}', epoch=-1)}"
        for quantity in ("loss", "accuracy")
        for split in ("train", "test")
        if f"{split}_{quantity}" in dataset
    ]
    yield f"{subject(dataset)} after epoch {dataset['epoch'].to_numpy()[-1]:g}: {', '.join(parts)}."
    if "gradient_norm" in dataset and dataset["gradient_norm"].notnull().any():
        norm = dataset["gradient_norm"].dropna("step").to_numpy()
        tenth = max(len(norm) // 10, 1)
        first, last = np.median(norm[:tenth]), np.median(norm[-tenth:])
        yield (
            f"The median of its mini-batch gradient norms is {number(first, 3)} over the first tenth of the steps "
            f"recorded and {number(last, 3)} over the last tenth."
        )


def surface(dataset: xr.Dataset) -> Iterator[str]:
    picture = over_planes(dataset)
    values = picture["loss"].to_numpy()
    finite = values[np.isfinite(values)]
    centre = _centre(picture)
    if finite.size == 0:
        yield f"{subject(dataset)}: no cell is finite."
        return
    regions = "directions" if len(centre) == 1 else "planes"
    quantity = f"mean loss over {dataset.sizes['plane']} {regions}" if "plane" in dataset.dims else "loss"
    at_centre = f"{value(picture, 'loss', **centre)} at {_place(picture, centre)}, and "
    yield (
        f"{subject(dataset)}: the {quantity} is {'' if has_ways(picture) else at_centre}"
        f"between {number(finite.min())} and {number(finite.max())} over the {values.size:,} cells."
    )
    if finite.size < values.size:
        yield f"{values.size - finite.size} of its cells are not finite and are left out."
    yield from _accuracy(dataset)
    yield from _quadratic(picture)
    yield from _over_planes(picture)
    yield from _classes(dataset, centre)
    yield from _ways(picture)


def _centre(picture: xr.Dataset) -> dict[str, int]:
    """The index nearest to the trained point; at radius 0 any angle is as good as the first."""
    return {str(dim): int(np.abs(picture[dim].to_numpy()).argmin()) for dim in picture["loss"].dims}


def _place(picture: xr.Dataset, index: dict[str, int]) -> str:
    return ", ".join(
        f"{dim} = {number(float(picture[dim][k]), 2)}"
        for dim, k in index.items()
        if not (dim == "angle" and index.get("radius") == 0)
    )


def _accuracy(dataset: xr.Dataset) -> Iterator[str]:
    if "tolerance" not in dataset.attrs:
        return
    shown = held_out(dataset)
    if shown:
        yield f"Its accuracy: {shown}"
    a = dataset.attrs
    if a.get("note"):
        yield f"Note: {a['note']}."
    if "error_estimate" in a and "data_error" in a and a.get("held_out"):
        yield (
            f"Its worst pixel is estimated to be {share(a['error_estimate'])} off; the error of the data is "
            f"{share(a['data_error'])} of the loss in the median (one standard error)."
        )


def _quadratic(picture: xr.Dataset) -> Iterator[str]:
    if "quadratic" not in picture:
        return
    off = np.abs((picture["quadratic"] / picture["loss"]).to_numpy() - 1)
    off = off[np.isfinite(off)]
    if off.size:
        yield f"The quadratic model lies within 10 % of the loss on {percent((off <= 0.1).mean())} of the finite cells."


def _over_planes(picture: xr.Dataset) -> Iterator[str]:
    if "relative_spread" not in picture:
        return
    spread = picture["relative_spread"].to_numpy()
    spread = spread[np.isfinite(spread)]
    if spread.size:
        yield (
            f"The standard deviation over them is {percent(float(np.median(spread)))} of the mean in the median "
            f"of the cells and {percent(spread.max())} at most."
        )


def _classes(dataset: xr.Dataset, centre: dict[str, int]) -> Iterator[str]:
    if "class_loss" not in dataset:
        return
    loss = dataset["class_loss"].isel(centre)
    loss = loss.mean("plane") if "plane" in loss.dims else loss
    if not bool(np.isfinite(loss).any()):
        return
    names = loss["class"].to_numpy() if "class" in loss.coords else np.arange(loss.sizes["class"])
    low, high = int(np.nanargmin(loss)), int(np.nanargmax(loss))
    yield (
        f"At {_place(dataset, centre)} the loss is highest for class {names[high]} ({number(float(loss[high]))}) and "
        f"lowest for class {names[low]} ({number(float(loss[low]))})."
    )


def _ways(picture: xr.Dataset) -> Iterator[str]:
    """How far the ways that are drawn on it are from the plane."""
    if "way_off_plane" not in picture:
        return
    farthest = picture["way_off_plane"].max("t_way")
    said = [f"{name} {number(float(off), 2)}" for name, off in zip(picture["way"].to_numpy(), farthest, strict=True)]
    yield f"Greatest distance of the ways from the plane: {'; '.join(said)}."


def trajectory(dataset: xr.Dataset) -> Iterator[str]:
    ratio = dataset["explained_variance_ratio"].to_numpy()[:2]
    walk = ""
    if "random_walk_ratio" in dataset:
        walk = f"; a random walk's explain {percent(dataset['random_walk_ratio'].to_numpy()[:2].sum())}"
    yield (
        f"{subject(dataset)}: the first two components explain {percent(ratio.sum())} of the variance of the "
        f"road{walk}."
    )
    off, step = dataset["off_plane_distance"].to_numpy(), dataset["step"].to_numpy()
    k = int(off.argmax())
    length = float(dataset["distance"].max())
    share = f", {percent(off[k] / length)} of the greatest distance from the end" if length > 0 else ""
    yield f"The snapshot farthest from the plane, at step {step[k]:g}, lies {number(off[k], 3)} off it{share}."
    if "loss" in dataset and "plane_loss" in dataset:
        relative = np.abs(dataset["plane_loss"].to_numpy() / dataset["loss"].to_numpy() - 1)
        worst = int(np.nanargmax(relative))
        yield (
            f"The loss of the projection differs from the true loss of the snapshot by {percent(relative[worst])} at "
            f"most "
            f"(step {step[worst]:g}), {percent(np.nanmedian(relative))} in the median."
        )


def spectrum(dataset: xr.Dataset) -> Iterator[str]:
    found = {end: dataset.sel(end=end) for end in dataset["end"].to_numpy()}
    for end, name in (("top", "largest"), ("bottom", "smallest")):
        if end in found:
            residual = f", residual {number(float(found[end]['residual'][0]), 2)}" if "residual" in dataset else ""
            yield f"{subject(dataset)}: the {name} eigenvalue is {value(found[end], 'eigenvalue', rank=0)}{residual}."
    if len(found) == 2:
        lowest, highest = (float(found[end]["eigenvalue"][0]) for end in ("bottom", "top"))
        yield f"The ratio of the smallest to the largest is {number(lowest / highest, 3)}."
    yield from _traced(dataset)
    yield from spectral_density(dataset)
    if "largest_gap" in dataset:
        k = dataset.sizes["rank"]
        yield f"The largest gap between two of its {k} largest eigenvalues is {largest_gap(dataset)}."
    yield from _trend(dataset)
    if not dataset.attrs.get("converged", 1):
        yield "The solver did not reach its tolerance; the residuals say how far it came."
    if dataset.attrs.get("note"):
        yield f"Note: {dataset.attrs['note'].rstrip('.')}."


def _traced(dataset: xr.Dataset) -> Iterator[str]:
    if "trace" not in dataset or "top" not in dataset["end"].to_numpy():
        return
    leading, k = number(float(dataset["eigenvalue"].sel(end="top").sum())), dataset.sizes["rank"]
    yield f"Its trace is {value(dataset, 'trace')}; the {k} largest eigenvalues add up to {leading}."


def spectral_density(dataset: xr.Dataset) -> Iterator[str]:
    if "negative_mass" in dataset:
        yield f"{subject(dataset)}: {share_below_0(dataset)} of the eigenvalues are below 0."
    yield from _about_0(dataset)
    if "effective_rank" in dataset:
        of = f" of {int(dataset.attrs['n_parameters']):,}" if "n_parameters" in dataset.attrs else ""
        yield f"Its effective rank is {value(dataset, 'effective_rank')}{of}."


def _about_0(dataset: xr.Dataset) -> Iterator[str]:
    """The share in the bin about 0: so many eigenvalues the quadrature cannot give a sign."""
    if "histogram" not in dataset:
        return
    middle = (dataset["bin_left"].to_numpy() < 0) & (dataset["bin_right"].to_numpy() > 0)
    held, edges = dataset["histogram"].to_numpy()[middle], dataset["bin_right"].to_numpy()[middle]
    for part, edge in zip(held, edges, strict=True):
        yield f"{percent(part)} of the eigenvalues are within {number(edge, 2)} of 0."


def share_below_0(dataset: xr.Dataset) -> str:
    """The share of negative eigenvalues with its 95 % interval: "14.1 % [12.2 %, 16.0 %]"."""
    if "negative_mass" not in dataset:
        return number(float("nan"))
    bounds = [dataset[f"negative_mass_{end}"] for end in ("low", "high") if f"negative_mass_{end}" in dataset]
    within = f" [{', '.join(percent(float(bound)) for bound in bounds)}]" if bounds else ""
    return f"{percent(float(dataset['negative_mass']))}{within}"


def largest_gap(dataset: xr.Dataset) -> str:
    """The largest gap between leading eigenvalues, with the residuals at its two sides, and where it lies."""
    if "largest_gap" not in dataset:
        return number(float("nan"))
    rank = int(dataset["largest_gap_rank"])
    sides = dataset["residual"].sel(end="top").isel(rank=slice(rank - 1, rank + 1)) if "residual" in dataset else None
    error = None if sides is None else float(sides.sum())
    return f"{plus_minus(float(dataset['largest_gap']), error)} after rank {rank}"


def _trend(dataset: xr.Dataset) -> Iterator[str]:
    if "trend_eigenvalue" not in dataset:
        return
    mean, stderr = over_subsets(dataset)
    whole = float(dataset["eigenvalue"].sel(end="top").isel(rank=0))
    smallest, largest = (int(dataset["n_examples"].to_numpy().argsort()[k]) for k in (0, -1))
    said = [
        f"{plus_minus(mean[k], stderr[k])} on subsets of {int(dataset['n_examples'][k]):,} examples "
        f"({number(mean[k] / whole, 3)} times that of all the data)"
        for k in dict.fromkeys((smallest, largest))
    ]
    yield f"The mean of its largest eigenvalue is {' and '.join(said)}."


def gauss_newton_split(dataset: xr.Dataset) -> Iterator[str]:
    yield (
        f"{subject(dataset)}: the cosine of the Hessian and its Gauss-Newton part is {value(dataset, 'cosine')}; the "
        f"Frobenius norm of the Hessian is {value(dataset, 'frobenius_hessian')}, that of the rest "
        f"{value(dataset, 'frobenius_residual')}."
    )
    curved = dataset.isel(rank=dataset["curvature_hessian"].to_numpy() > 0)
    if curved.sizes["rank"]:
        ratio = (curved["curvature_gauss_newton"] / curved["curvature_hessian"]).to_numpy()
        yield (
            f"Along its {len(ratio)} leading eigenvectors the Gauss-Newton part has between {percent(ratio.min())} and "
            f"{percent(ratio.max())} of the curvature."
        )


def gabdullin(dataset: xr.Dataset) -> Iterator[str]:
    step, last = dataset["step"].to_numpy(), dataset.sizes["step"] - 1
    spelt = {"k_h1": "K_H1", "k_h05": "K_H0.5", "r_e": "r_e"}
    ends = [f"{name} {value(dataset, key, step=last)}" for key, name in spelt.items()]
    half = int(np.abs(step - step[-1] / 2).argmin())
    growth = [f"{name} {number(float(dataset[key][last] / dataset[key][half]), 3)}" for key, name in spelt.items()]
    yield (
        f"{subject(dataset)} after {step[last]:g} steps: {', '.join(ends)}; as multiples of their values after "
        f"{step[half]:g} steps: {', '.join(growth)}."
    )


def power_iteration(dataset: xr.Dataset) -> Iterator[str]:
    values = dataset["eigenvalue"].to_numpy()
    late = values[-5:]
    yield (
        f"{subject(dataset)}, {dataset.attrs.get('batches', 'unknown')} batches: {number(values[-1])} after "
        f"{len(values)} iterations, between {number(late.min())} and {number(late.max())} over the last {len(late)}."
    )


def robustness(dataset: xr.Dataset) -> Iterator[str]:
    sigma = dataset["sigma"].to_numpy()
    lowest, highest = int(sigma.argmin()), int(sigma.argmax())
    for name in ("loss", "accuracy"):
        if name in dataset:
            yield (
                f"{subject(dataset)}: {name} {value(dataset, name, sigma=lowest)} at sigma = {sigma[lowest]:g} and "
                f"{value(dataset, name, sigma=highest)} at sigma = {sigma[highest]:g}."
            )
