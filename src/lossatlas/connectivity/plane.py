"""The plane through two networks and a third point, with the ways between them drawn on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.geometry.curves import Curve
from lossatlas.geometry.regions import Region, plane_through
from lossatlas.objective import Objective
from lossatlas.surfaces.surface import surface

_MARGIN = 0.2  # of the extent of what is drawn, on either side
_PLACES = 61  # on each way: divides by 2 to 6, so the corners of a chain are among them


def connectivity_plane(
    objective: Objective,
    ways: Mapping[str, Curve],
    marks: Mapping[str, Tensor],
    third: Tensor,
    *,
    steps: int | tuple[int, int] = 31,
    progress: bool = True,
) -> xr.Dataset:
    """L on the plane through theta(0), theta(1) of the first way and ``third``, with every way and mark (Garipov et al.
    2018, figure 1).

    The axes are distances in parameter space from theta(0), alpha towards theta(1). What is not on the plane is drawn
    where it is nearest, and how far away it is goes with it: a Bezier curve or chain with one bend lies on the plane
    through its bend. BatchNorm statistics that an objective holds frozen are estimated anew at each pixel, as on the
    ways (``"recompute"``).

    Parameters
    ----------
    ways : what each path is called, such as "line" or "Bezier curve", and the path.
    marks : what each point is called, and the point ``(n,)``.
    third : ``(n,)``, beside the straight line between the ends: a bend, or the second network aligned.
    steps : pixels on each axis; the axes hold all ways and marks, and 20 % of their extent on either side.

    Returns
    -------
    Dataset of ``surface``, and over ``("way", "t_way")`` ``way_alpha``, ``way_beta`` and ``way_off_plane``, the
    distance from the plane, over ``("mark",)`` ``mark_alpha``, ``mark_beta``, ``mark_off_plane``.

    Raises ``InputError`` without a way, ``DirectionError`` where the three points lie on one line.
    """
    if not ways:
        raise InputError("There is no way to draw: give at least one, such as {'line': Segment(a, b)}.")
    if objective.has_batch_norm and objective.batch_norm == "frozen":
        objective = objective.with_batch_norm("recompute")
    first = next(iter(ways.values()))
    region = plane_through(first.point(0.0), first.point(1.0), third)
    t = np.linspace(0.0, 1.0, _PLACES)
    roads = np.stack([[_place(region, way.point(float(x))) for x in t] for way in ways.values()])
    places = np.stack([_place(region, point) for point in marks.values()]) if marks else np.empty((0, 3))
    corners = np.stack([_place(region, third), *roads.reshape(-1, 3), *places])[:, :2]
    dataset = surface(objective, region.zoom(_spans(corners), steps=steps), progress=progress)
    for index, name in enumerate(("alpha", "beta", "off_plane")):
        dataset[f"way_{name}"] = (("way", "t_way"), roads[:, :, index])
        dataset[f"mark_{name}"] = ("mark", places[:, index])
    return dataset.assign_coords(way=list(ways), t_way=t, mark=list(marks)).assign_attrs(
        directions="through three points"
    )


def _place(region: Region, point: Tensor) -> NDArray[np.float64]:
    """alpha, beta and the distance from the plane."""
    (found,) = region.project(point[None])
    nearest = region.center.double() + torch.from_numpy(found).to(region.center.device) @ region.directions.double()
    return np.array([*found, float(torch.linalg.vector_norm(point.to(nearest) - nearest))])


def _spans(corners: NDArray[np.float64]) -> tuple[tuple[float, float], tuple[float, float]]:
    low, high = corners.min(axis=0), corners.max(axis=0)
    extra = _MARGIN * (high - low)
    (one, other) = zip((low - extra).tolist(), (high + extra).tolist(), strict=True)
    return one, other
