"""Points that an earlier surface has evaluated: whether they are this objective's, and their rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from lossatlas.errors import InputError
from lossatlas.geometry.region import Region
from lossatlas.objective import Objective
from lossatlas.surfaces.cells import Column
from lossatlas.surfaces.interpolation import Floats

_SAME = 1e-5  # relative: what rounding may do to a loss between two machines


def identity(objective: Objective, region: Region) -> dict[str, Any]:
    """What an objective on a region is: network, data, center, directions, axes."""
    axes = hashlib.sha256(b"".join(axis.tobytes() for axis in region.coordinates)).hexdigest()[:16]
    return objective.provenance() | {"region": region.fingerprint(), "axes": axes}


def rows_of(
    earlier: xr.Dataset, objective: Objective, region: Region, columns: Sequence[Column], center: float
) -> dict[tuple[float, ...], Floats]:
    """The rows of an earlier surface's evaluated pixels, by their weights; ``center`` is the loss at the center.

    Raises ``InputError`` where the earlier surface is of anything else, or lacks a column.
    """
    _check(earlier, objective, region, center)
    rows = np.stack([_values(earlier, column) for column in columns], axis=1)
    axes = [np.asarray(earlier[dim]) for dim in region.dims]
    pixels = np.flatnonzero(np.asarray(earlier["evaluated"]).ravel())
    places = np.stack(np.unravel_index(pixels, tuple(map(len, axes))), axis=1)
    weights = [region.weights(*(float(a[i]) for a, i in zip(axes, place, strict=True))) for place in places]
    return dict(zip(weights, rows[pixels], strict=True))


def _check(earlier: xr.Dataset, objective: Objective, region: Region, center: float) -> None:
    if missing := {"batch_norm", "center_loss", "region_fingerprint"} - earlier.attrs.keys():
        raise InputError(f"The earlier surface does not say its {min(missing)}: give one that surface() made.")
    own = objective.provenance() | {"region_fingerprint": region.fingerprint()}
    same = {
        "region_fingerprint": "center and directions",
        "model_fingerprint": "model",
        "data_fingerprint": "data",
    }
    for name, what in same.items():
        if earlier.attrs.get(name) != own[name]:
            raise InputError(f"The earlier surface has another {what}: give one of this model, data and region.zoom().")
    if "plane" in earlier.dims:
        raise InputError("Several planes at once cannot be re-used: give a surface of one region.")
    if earlier.attrs["batch_norm"] != own["batch_norm"]:
        raise InputError("The earlier surface has another batch_norm policy: give one of this objective.")
    if not math.isclose(earlier.attrs["center_loss"], center, rel_tol=_SAME):
        raise InputError("The earlier surface has another loss: its value at the center is not this objective's.")


def _values(earlier: xr.Dataset, column: Column) -> Floats:
    """``(pixels,)`` of one column."""
    grid = earlier.get(column.name)
    if grid is None:
        raise InputError(f"The earlier surface has no {column}: make it with the same metrics, subset and by_class.")
    values: Floats = np.asarray(grid if column.label is None else grid.sel({"class": column.label})).ravel()
    return values
