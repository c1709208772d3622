"""Tracks: places on a plane one after the other, such as the snapshots of a training, and the plane they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossatlas.drawing.grids import axes_of
from lossatlas.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


def has_plane(dataset: xr.Dataset) -> bool:
    """Whether it has a loss over two axes, which is a surface in space."""
    return "loss" in dataset and len(axes_of(dataset)) == 2


def is_track(dataset: xr.Dataset) -> bool:
    """Whether it has coordinates on a plane for each of its snapshots."""
    return all(name in dataset and dataset[name].dims == ("snapshot",) for name in ("alpha", "beta"))


def check_on(plane: xr.Dataset, track: xr.Dataset) -> None:
    """``InputError`` where the coordinates of a track are not those of this plane.

    Components about another center are other directions, on which the snapshots have other coordinates.
    """
    if not is_track(track):
        raise InputError(f"A result of kind {track.attrs.get('kind')} has no places on a plane: give a trajectory.")
    same = [plane.attrs.get(key) == track.attrs.get(key, "none") for key in ("trajectory_fingerprint", "center")]
    if not (has_plane(plane) and all(same)):
        raise InputError(
            "The trajectory is not of this plane: give the surface over trajectory.plane(), with the same center."
        )


def check_same_data(plane: xr.Dataset, track: xr.Dataset) -> None:
    """``InputError`` where the snapshots have no loss on the data of the plane, and so no height above it."""
    if "loss" not in track or plane.attrs["data_fingerprint"] != track.attrs.get("data_fingerprint"):
        raise InputError("The snapshots have no loss on the data of the surface: measure both with the same objective.")
