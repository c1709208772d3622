"""The figures of a trajectory: on its principal plane, and how much that plane shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lossatlas.drawing.grids import has_error_map
from lossatlas.results.blocks import FigureGroup, Picture
from lossatlas.surfaces.show import SURFACE
from lossatlas.surfaces.show.surfaces import surface, surface_3d
from lossatlas.trajectory.show import HISTORY, captions, views
from lossatlas.trajectory.show.drawings import explained, on_plane, sharpness
from lossatlas.trajectory.show.reading import has_sharpness, history_of

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """For each trajectory a group for each of its planes, and one of how much they show."""
    owners = [(plane, owner(plane, datasets)) for plane in catalogue.of(SURFACE)]
    for trajectory in datasets:
        history = history_of(trajectory, catalogue.of(HISTORY))
        own = [plane for plane, found in owners if found is trajectory]
        for plane in own:
            yield FigureGroup((plane, trajectory), tuple(plane_pictures(plane, trajectory, history)))
        view = None if own else partial(views.steps, None, trajectory, history)
        shares = Picture("explained", partial(explained, trajectory), **captions.shares(trajectory), view=view)
        yield FigureGroup((trajectory,), (shares, *_along(trajectory)))


def _along(trajectory: xr.Dataset) -> Iterator[Picture]:
    """The sharpness along the trajectory, where it was measured."""
    if has_sharpness(trajectory):
        yield Picture("sharpness", partial(sharpness, trajectory), **captions.sharpness(trajectory), width=0.6)


def planes(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> list[xr.Dataset]:
    """The surfaces on which these trajectories are drawn."""
    return [plane for plane in catalogue.of(SURFACE) if owner(plane, datasets) is not None]


def owner(plane: xr.Dataset, trajectories: Sequence[xr.Dataset]) -> xr.Dataset | None:
    """The trajectory whose principal plane this is, measured on the same data rather than on others; None without one.

    Components about another center are other directions, on which the snapshots have other coordinates.
    """
    keys = ("trajectory_fingerprint", "center")
    if not all(key in plane.attrs for key in keys) or plane["loss"].dims not in {("alpha", "beta"), ("beta", "alpha")}:
        return None
    found = [each for each in trajectories if all(each.attrs[key] == plane.attrs[key] for key in keys)]
    return max(found, key=lambda trajectory: _same_data(plane, trajectory), default=None)


def plane_pictures(plane: xr.Dataset, trajectory: xr.Dataset, history: xr.Dataset | None = None) -> Iterator[Picture]:
    """The trajectory over contours and in space, and the error of the plane where it was interpolated."""
    view = partial(views.steps, plane, trajectory, history)
    draw = partial(on_plane, plane, trajectory)
    yield Picture("trajectory", draw, **captions.projection(plane, trajectory), width=0.85, view=view)
    raised = trajectory if _same_data(plane, trajectory) else None
    yield Picture(
        "trajectory-3d",
        partial(surface_3d, plane, raised),
        **captions.in_space(plane, raised is not None),
        width=0.62,
        view=partial(views.in_space, plane, raised),
        vector=False,
    )
    if has_error_map(plane):
        yield Picture("trajectory-error", partial(surface, plane), **captions.error_map(plane))


def _same_data(plane: xr.Dataset, trajectory: xr.Dataset) -> bool:
    """Whether the snapshots have losses, and of the same examples: then they can be drawn at their height."""
    return bool(plane.attrs["data_fingerprint"] == trajectory.attrs.get("data_fingerprint"))
