"""The key numbers of a training and of its trajectory, the most telling first; they judge nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import values
from lossatlas.results.blocks import Number
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import DASH, number, percent, plus_minus
from lossatlas.results.values import value
from lossatlas.trajectory.show.claims import random_signs, shares_of_two
from lossatlas.trajectory.show.ranks import gap, has_gap
from lossatlas.trajectory.show.reading import after_epochs, has_sharpness, known, sharpness_of

if TYPE_CHECKING:
    import xarray as xr

Rows = Iterator[tuple[str, str]]


def _named(dataset: xr.Dataset, rows: Iterable[tuple[str, str]]) -> Iterator[Number]:
    """The rows that hold something, as numbers of this network."""
    of = Provenance.of(dataset).subject
    yield from (Number(name, text, of) for name, text in rows if text != DASH)


def of_trajectory(dataset: xr.Dataset) -> Iterator[Number]:
    """What the plane explains, how far from it the snapshots lie, and how much their loss differs on it."""
    yield from _named(dataset, _of_trajectory(dataset))


def _of_trajectory(dataset: xr.Dataset) -> Rows:
    (observed, walk), (median, p) = shares_of_two(dataset), random_signs(dataset)
    yield "variance on two components", percent(observed)
    yield "with random signs of the steps", f"{percent(median)} (p = {number(p, 2)})" if p == p else DASH
    yield "of an isotropic random walk", percent(walk)
    yield "farthest off the plane", farthest(dataset)
    yield "over the greatest distance from the end", percent(off_plane(dataset)[1])
    if has_sharpness(dataset):
        yield "λ_max at the first and the last snapshot, highest", sharpness(dataset)
    if "loss" in dataset and "plane_loss" in dataset:
        yield from _loss_differences(dataset)


def sharpness(dataset: xr.Dataset) -> str:
    """lambda_max where training began and ended, and the highest: "1.2, 14.1; 26.0 (step 120)"."""
    steps, found = sharpness_of(dataset)
    k = int(found.argmax())
    first, last, top = (number(each, 3) for each in (found[0], found[-1], found[k]))
    return f"{first}, {last}; {top} (step {steps[k]:g})"


def farthest(dataset: xr.Dataset) -> str:
    """How far off the plane the trajectory lies at most: "0.995 at step 70"."""
    distance, _, step = off_plane(dataset)
    return DASH if math.isnan(distance) else f"{number(distance, 3)} at step {step:g}"


def off_plane(dataset: xr.Dataset) -> tuple[float, float, float]:
    """Of the snapshot farthest off the plane: its distance, that over the greatest distance from the end, its step."""
    off, length = values(dataset, "off_plane_distance"), float(dataset["distance"].max())
    if not np.isfinite(off).any():
        return math.nan, math.nan, math.nan
    k = int(np.nanargmax(off))
    return float(off[k]), float(off[k]) / length if length > 0 else math.nan, float(dataset["step"][k])


def _loss_differences(dataset: xr.Dataset) -> Rows:
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.abs(values(dataset, "plane_loss") / values(dataset, "loss") - 1)
    finite = np.isfinite(relative)
    if finite.any():
        worst = int(np.where(finite, relative, -1).argmax())
        step = dataset["step"].to_numpy()[worst]
        yield "loss on the plane off the true one, at most", f"{percent(relative[worst])} (step {step:g})"
        yield "loss on the plane off the true one, median", percent(float(np.median(relative[finite])))


def of_history(dataset: xr.Dataset) -> Iterator[Number]:
    """What the last epoch left, the gap, and what the mini-batches showed at the beginning and at the end."""
    yield from _named(dataset, _of_history(dataset))


def _of_history(dataset: xr.Dataset) -> Rows:
    names = [name for quantity in ("accuracy", "loss") for name in reversed(after_epochs(dataset, quantity))]
    for name in names:
        yield spelt(name), at_the_end(dataset, name)
    if has_gap(dataset):
        yield "test loss minus training loss", plus_minus(*gap(dataset))
    if names:
        yield "epochs", f"{dataset['epoch'].to_numpy()[-1]:g}"
    steps = {"gradient_norm": "gradient norm"} if names else {"loss": "loss", "gradient_norm": "gradient norm"}
    for name, quantity in steps.items():
        if known(dataset, name, "step"):
            first, last = medians(dataset, name)
            yield f"{quantity} of a mini-batch, first and last tenth", f"{number(first, 3)}, {number(last, 3)}"


def spelt(name: str) -> str:
    """Such as "training loss" for ``train_loss``."""
    return name.replace("train_", "training ").replace("_", " ")


def at_the_end(dataset: xr.Dataset, name: str) -> str:
    """A value after the last epoch ± its standard error, an accuracy in per cent."""
    if not name.endswith("accuracy") or not np.isfinite(float(dataset[name][-1])):
        return value(dataset, name, epoch=-1)
    stderr = float(dataset[f"{name}_stderr"][-1]) if f"{name}_stderr" in dataset else None
    return f"{plus_minus(100 * float(dataset[name][-1]), 100 * stderr if stderr else None)} %"


def medians(dataset: xr.Dataset, name: str) -> tuple[float, float]:
    """Of what was recorded at each step: over the first tenth of the steps, and over the last."""
    recorded = dataset[name].dropna("step").to_numpy()
    tenth = max(len(recorded) // 10, 1)
    return float(np.median(recorded[:tenth])), float(np.median(recorded[-tenth:]))
