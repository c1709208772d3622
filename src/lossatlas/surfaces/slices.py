"""Slices of a loss through the model: along random directions or the Hessian's extreme eigenvectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from lossatlas.curvature.axes import eigen_plane
from lossatlas.curvature.spectrum import spectrum
from lossatlas.errors import InputError
from lossatlas.geometry.axes import Spacing
from lossatlas.geometry.blocks import Blocks
from lossatlas.geometry.directions import OneD
from lossatlas.geometry.draws import random_directions
from lossatlas.geometry.region import Region
from lossatlas.geometry.regions import line, plane, volume
from lossatlas.model.filters import Axes as FilterAxes
from lossatlas.objective import Objective
from lossatlas.surfaces.surface import surface

Axes = Literal["random", "hessian"]

_REGIONS: dict[int, Callable[..., Region]] = {1: line, 2: plane, 3: volume}


def slices(
    objective: Objective,
    *,
    train: Objective | None = None,
    test: Objective | None = None,
    dims: int = 2,
    steps: int = 51,
    span: float | None = None,
    axes: Axes = "random",
    norm: Blocks | None = "filter",
    one_d: OneD | None = None,
    filters: Mapping[str, FilterAxes] | None = None,
    spacing: Spacing = "linear",
    seed: int = 0,
    planes: int = 1,
    tol: float | None = None,
    subset: int | None = None,
    by_class: bool = False,
    store: str | Path | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """L(theta + alpha d_1 + ..) at the model's own theta along ``dims`` random directions, or on the Hessian's plane.

    Parameters
    ----------
    train, test : objectives of the same model on other data, measured at the same points: ``train_loss``,
        ``test_loss`` and their metrics.
    dims : 1 for a line, 2 for a plane, 3 for a volume.
    steps : points on each axis; an odd number has the model on the grid.
    span : half-width of each axis, in lengths of the direction. By default 1 for random directions; a Hessian axis
        reaches to where the curvature alone changes the loss by 1.
    axes : ``"random"`` directions, or ``"hessian"``: unit eigenvectors of the two extreme eigenvalues.
    norm, one_d, filters : how random directions are scaled, as in ``random_directions``.
    spacing : of the points along random directions, ``"linear"`` or ``"log"``.
    seed : of the random directions, or of the eigenvectors' starting vectors.
    planes : so many draws of the directions, with seeds ``seed``, ``seed + 1``, ..; more than one add ``loss_mean``
        and ``loss_spread``.
    tol, subset, by_class, store, progress : as in ``surface``.

    Returns
    -------
    Dataset as from ``surface``, over ``("alpha",)``, ``("alpha", "beta")`` or ``("alpha", "beta", "gamma")``.

    Raises
    ------
    InputError : ``planes`` below 1, ``dims`` other than 1, 2 or 3, Hessian axes with other ``dims`` or ``planes``;
        and what ``surface`` raises.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 4 (random directions); Böttcher &
    Wheeler 2022, "Visualizing High-Dimensional Loss Landscapes with Hessian Directions".

    Examples
    --------
    >>> import lossatlas as la, torch
    >>> model, data = torch.nn.Linear(2, 1), (torch.ones(4, 2), torch.zeros(4, 1))
    >>> objective = la.Objective(model, torch.nn.functional.mse_loss, data)
    >>> found = slices(objective, dims=1, steps=5, seed=3, progress=False)
    >>> found["loss"].shape, found.attrs["directions"], found.attrs["seed"]
    ((5,), 'random', 3)
    """
    _check(dims, axes, planes)
    if axes == "hessian":
        ends = spectrum(objective, 1, vectors=True, seed=seed, progress=progress)
        regions = [eigen_plane(ends, span=span, steps=steps)]
    else:
        scaling: dict[str, Any] = {"norm": norm, "one_d": one_d, "filters": filters}
        draws = (random_directions(objective, dims, seed=seed + i, **scaling) for i in range(planes))
        width = 1.0 if span is None else span
        regions = [_REGIONS[dims](objective.point, *draw, span=width, steps=steps, spacing=spacing) for draw in draws]
    where = regions if len(regions) > 1 else regions[0]
    further = {name: one for name, one in (("train", train), ("test", test)) if one is not None}
    return surface(
        objective, where, also=further, tol=tol, subset=subset, by_class=by_class, store=store, progress=progress
    )


def _check(dims: int, axes: str, planes: int) -> None:
    if axes not in ("random", "hessian"):
        raise InputError(f"axes={axes!r}: choose 'random' or 'hessian'.")
    if axes == "hessian" and (dims != 2 or planes != 1):
        raise InputError(f"axes='hessian' is one plane: leave out dims={dims} and planes={planes}.")
    if dims not in _REGIONS:
        raise InputError(f"dims={dims}: give 1 for a line, 2 for a plane or 3 for a volume.")
    if planes < 1:
        raise InputError(f"planes={planes}: give at least 1.")
