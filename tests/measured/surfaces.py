"""Surfaces of two small networks on digits, each measured by the verbs once and then shared by the tests."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch.nn.functional as F
import xarray as xr

import lossatlas as la
from lossatlas.surfaces.slices import slices
from measured.connectivity import data
from measured.connectivity import network as trained


@cache
def objective(network: str) -> la.Objective:
    """A trained network, "A" or "B", and 300 digits."""
    return la.Objective(trained(ord(network) - 64), F.cross_entropy, data("test"), name="digits", network=network)


@cache
def line(network: str = "A", *, tol: float | None = None, planes: int = 1, by_class: bool = False) -> xr.Dataset:
    steps = 201 if tol else 21
    options = {"steps": steps, "tol": tol, "planes": planes, "by_class": by_class}
    return slices(objective(network), dims=1, progress=False, **options)


@cache
def plane(network: str = "A", *, planes: int = 1, by_class: bool = False, steps: int = 9) -> xr.Dataset:
    return slices(objective(network), steps=steps, planes=planes, by_class=by_class, progress=False)


@cache
def interpolated_plane(network: str = "A") -> xr.Dataset:
    return slices(objective(network), steps=31, span=0.4, tol=0.05, progress=False)


@cache
def hessian_plane() -> xr.Dataset:
    return slices(objective("A"), axes="hessian", steps=9, progress=False)


@cache
def volume() -> xr.Dataset:
    return slices(objective("A"), dims=3, steps=7, progress=False)


@cache
def polar() -> xr.Dataset:
    directions = la.random_directions(objective("A"), 2, seed=0)
    return la.surface(objective("A"), la.polar(objective("A").point, directions, steps=(5, 9)), progress=False)


@cache
def log_spaced() -> xr.Dataset:
    return slices(objective("A"), steps=9, spacing="log", progress=False)


def with_losses(dataset: xr.Dataset, losses: float | np.ndarray | xr.DataArray, **variables: object) -> xr.Dataset:
    """The Dataset with other losses; further variables over the same dimensions."""
    new = dataset.copy(deep=True)
    for name, values in {"loss": losses, **variables}.items():
        new[name] = dataset["loss"].copy(data=np.broadcast_to(values, dataset["loss"].shape))
    return new


def without_cells(dataset: xr.Dataset, every: int = 7) -> xr.Dataset:
    """Every so many cells of the loss infinite, as where the model overflows; the center is kept."""
    loss = dataset["loss"].to_numpy().copy()
    loss.flat[1::every] = np.inf
    return with_losses(dataset, loss).assign_attrs(n_nonfinite=int((~np.isfinite(loss)).sum()))


def some_beyond(count: int) -> xr.Dataset:
    """The interpolated plane as if so many of its held-out points had been beyond the tolerance."""
    dataset = interpolated_plane().copy(deep=True)
    held_out = np.flatnonzero(dataset["evaluation_role"].to_numpy() == "held-out")
    dataset["evaluation_surprise"][held_out[:count]] = 0.06
    return dataset
