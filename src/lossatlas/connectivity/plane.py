"""The plane through two networks and a third point, with the paths between them on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.connectivity.barrier import with_statistics_on_paths
from lossatlas.connectivity.buffers import carrying_buffers, measured_ends
from lossatlas.errors import InputError
from lossatlas.geometry.curves import Curve
from lossatlas.geometry.regions import Region, plane_through
from lossatlas.objective import Objective
from lossatlas.results.making import result
from lossatlas.surfaces.surface import surface

_MARGIN = 0.2  # of the extent of paths and marks, on either side
_PLACES = 61  # on each path: divides by 2 to 6, so the corners of a chain are among them


def connectivity_plane(
    objective: Objective,
    paths: Mapping[str, Curve],
    marks: Mapping[str, Tensor],
    third: Tensor,
    *,
    steps: int | tuple[int, int] = 31,
    progress: bool = True,
) -> xr.Dataset:
    """L(theta(0) + alpha u + beta v), where u points from theta(0) to theta(1) of the first path, and v, orthogonal to
    u, spans with it the plane that holds ``third``; u and v have length 1.

    The axes are distances in parameter space from theta(0). Every path and mark is projected onto the plane, and its
    distance from the plane is given: a Bezier curve or chain with one bend lies on the plane through its bend.
    BatchNorm statistics that an objective holds frozen are estimated anew at each grid point, as on the paths
    (``"recompute"``).

    Parameters
    ----------
    paths : what each path is called, such as "line" or "Bezier curve", and the path.
    marks : what each point is called, and the point ``(n,)``.
    third : ``(n,)``, off the straight line between the ends: a bend, or the second network aligned.
    steps : grid points on each axis; the axes hold all paths and marks, and 20 % of their extent on either side.

    Returns
    -------
    Dataset with the variables of a ``surface``, and over ``("path", "t_path")`` ``path_alpha``, ``path_beta`` and
    ``path_off_plane``, the distance from the plane, over ``("mark",)`` ``mark_alpha``, ``mark_beta``,
    ``mark_off_plane``.

    Raises
    ------
    InputError : no path.
    DirectionError : the three points lie on one line, or a point has another size or is not finite.

    Source: Garipov et al. (2018), "Loss surfaces, mode connectivity, and fast ensembling of DNNs", figure 1.

    Examples
    --------
    >>> from lossatlas.geometry.curves import Segment
    >>> model = torch.nn.Linear(3, 1, bias=False)
    >>> objective = Objective(model, torch.nn.functional.mse_loss, (torch.eye(3), torch.zeros(3, 1)))
    >>> a, b, c = torch.eye(3)
    >>> found = connectivity_plane(objective, {"line": Segment(a, b)}, {"c": c}, c, steps=5, progress=False)
    >>> found["loss"].shape, round(float(found["path_alpha"][0, -1]), 4)
    ((5, 5), 1.4142)
    """
    if not paths:
        raise InputError("There is no path to draw: give at least one, such as {'line': Segment(a, b)}.")
    first = next(iter(paths.values()))
    region = plane_through(first.point(0.0), first.point(1.0), third)
    t = np.linspace(0.0, 1.0, _PLACES)
    along = np.stack([[_place(region, path.point(float(x))) for x in t] for path in paths.values()])
    places = np.stack([_place(region, point) for point in marks.values()]) if marks else np.empty((0, 3))
    corners = np.stack([_place(region, third), *along.reshape(-1, 3), *places])[:, :2]
    region = region.zoom(_spans(corners), steps=steps)
    carrying = carrying_buffers(with_statistics_on_paths(objective), first.point(0.0), first.point(1.0))
    dataset = surface(carrying, region, progress=progress)
    for index, name in enumerate(("alpha", "beta", "off_plane")):
        dataset[f"path_{name}"] = (("path", "t_path"), along[:, :, index])
        dataset[f"mark_{name}"] = ("mark", places[:, index])
    dataset = dataset.assign_coords(path=list(paths), t_path=t, mark=list(marks))
    dataset.attrs |= {"kind": "connectivity_plane", "directions": "through three points"}
    dataset.attrs["ends_note"] = measured_ends(carrying, _ends(paths))
    return result("connectivity_plane", dataset)


def _ends(paths: Mapping[str, Curve]) -> dict[str, Tensor]:
    """What each end is called, and its point: those that several paths share once."""
    named = {
        f"the {'last' if t else 'first'} end of the {name}": (p.point(t))
        for name, p in paths.items()
        for t in (0.0, 1.0)
    }
    found: dict[str, Tensor] = {}
    for name, point in named.items():
        if not any(torch.equal(point, other) for other in found.values()):
            found[name] = point
    return found


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
