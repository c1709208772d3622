"""Observations: sentences that read numbers off a Dataset, with their errors, and judge nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.plot.style import network_label, short_data
from lossatlas.uncertainty import number, percent, plus_minus

if TYPE_CHECKING:
    import xarray as xr


def value(dataset: xr.Dataset, name: str, **at: int) -> str:
    """A variable ± its standard error at these indices; a dash where there is none."""
    if name not in dataset:
        return number(float("nan"))
    error = float(dataset[f"{name}_stderr"].isel(at)) if f"{name}_stderr" in dataset else None
    return plus_minus(float(dataset[name].isel(at)), error)


def _who(dataset: xr.Dataset) -> str:
    label = network_label(dataset)
    return label[0].upper() + label[1:]


def history(dataset: xr.Dataset) -> Iterator[str]:
    if not dataset.sizes.get("epoch"):
        return
    parts = [
        f"{split} {quantity} {value(dataset, f'{split}_{quantity}', epoch=-1)}"
        for quantity in ("loss", "accuracy")
        for split in ("train", "test")
        if f"{split}_{quantity}" in dataset
    ]
    yield f"{_who(dataset)} after epoch {dataset['epoch'].to_numpy()[-1]:g}: {', '.join(parts)}."
    if "gradient_norm" in dataset and dataset["gradient_norm"].notnull().any():
        norm = dataset["gradient_norm"].dropna("step").to_numpy()
        tenth = max(len(norm) // 10, 1)
        first, last = np.median(norm[:tenth]), np.median(norm[-tenth:])
        yield (
            f"The median of its mini-batch gradient norms is {number(first, 3)} over the first tenth of the steps "
            f"recorded and {number(last, 3)} over the last tenth."
        )


def surface(dataset: xr.Dataset) -> Iterator[str]:
    loss = dataset["loss"]
    values = loss.to_numpy()
    finite = values[np.isfinite(values)]
    centre = {dim: int(np.abs(dataset[dim].to_numpy()).argmin()) for dim in loss.dims}
    if finite.size == 0:
        yield f"{_who(dataset)}: no cell is finite."
        return
    at = ", ".join(f"{dim} = {number(float(dataset[dim][index]), 2)}" for dim, index in centre.items())
    yield (
        f"{_who(dataset)}: the loss is {value(dataset, 'loss', **{str(k): v for k, v in centre.items()})} at {at}, and "
        f"between {number(finite.min())} and {number(finite.max())} over the {values.size:,} cells."
    )
    if finite.size < values.size:
        yield f"{values.size - finite.size} of its cells are not finite and are left out."


def trajectory(dataset: xr.Dataset) -> Iterator[str]:
    ratio = dataset["explained_variance_ratio"].to_numpy()[:2]
    walk = ""
    if "random_walk_ratio" in dataset:
        walk = f"; a random walk's explain {percent(dataset['random_walk_ratio'].to_numpy()[:2].sum())}"
    yield f"{_who(dataset)}: the first two components explain {percent(ratio.sum())} of the variance of the road{walk}."
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
            yield f"{_who(dataset)}: the {name} eigenvalue is {value(found[end], 'eigenvalue', rank=0)}{residual}."
    if len(found) == 2:
        lowest, highest = (float(found[end]["eigenvalue"][0]) for end in ("bottom", "top"))
        yield f"The ratio of the smallest to the largest is {number(lowest / highest, 3)}."
    if not dataset.attrs.get("converged", 1):
        yield "The solver did not reach its tolerance; the residuals say how far it came."


def power_iteration(dataset: xr.Dataset) -> Iterator[str]:
    values = dataset["eigenvalue"].to_numpy()
    late = values[-5:]
    yield (
        f"{_who(dataset)}, {dataset.attrs.get('batches', 'unknown')} batches: {number(values[-1])} after {len(values)} "
        f"iterations, between {number(late.min())} and {number(late.max())} over the last {len(late)}."
    )


def barrier(dataset: xr.Dataset) -> Iterator[str]:
    error = ""
    if "barrier_error" in dataset:
        error = f"; of the error {value(dataset, 'barrier_error')}"
        error += f" at t = {number(float(dataset['t_max_error']), 3)}" if "t_max_error" in dataset else ""
    at = f" at t = {number(float(dataset['t_max']), 3)}" if "t_max" in dataset else ""
    yield f"On {short_data(dataset)} the barrier of the loss is {value(dataset, 'barrier')}{at}{error}."


def robustness(dataset: xr.Dataset) -> Iterator[str]:
    sigma = dataset["sigma"].to_numpy()
    lowest, highest = int(sigma.argmin()), int(sigma.argmax())
    for name in ("loss", "accuracy"):
        if name in dataset:
            yield (
                f"{_who(dataset)}: {name} {value(dataset, name, sigma=lowest)} at sigma = {sigma[lowest]:g} and "
                f"{value(dataset, name, sigma=highest)} at sigma = {sigma[highest]:g}."
            )
