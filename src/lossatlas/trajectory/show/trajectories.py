"""The figures of a trajectory: on its principal plane, and how much that plane shows; their captions, and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import values
from lossatlas.drawing.grids import has_error_map
from lossatlas.results.blocks import FigureGroup, Picture
from lossatlas.results.captions import count, data_basis, joined, sentence
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, percent
from lossatlas.surfaces.show import SURFACE, captions
from lossatlas.surfaces.show.figures import plane_3d
from lossatlas.surfaces.show.surfaces import surface
from lossatlas.trajectory.show.drawings import explained, on_plane

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

CENTERS = {"mean": "their mean", "last": "the last one"}


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """For each trajectory a group for each of its planes, and one of how much they show."""
    owners = [(plane, owner(plane, datasets)) for plane in catalogue.of(SURFACE)]
    for trajectory in datasets:
        for plane in [plane for plane, found in owners if found is trajectory]:
            yield FigureGroup((plane,), tuple(plane_pictures(plane, trajectory)))
        yield FigureGroup((trajectory,), (Picture("explained", partial(explained, trajectory), shares(trajectory)),))


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


def plane_pictures(plane: xr.Dataset, trajectory: xr.Dataset) -> Iterator[Picture]:
    """The trajectory over contours and in space, and the error of the plane where it was interpolated."""
    yield Picture("trajectory", partial(on_plane, plane, trajectory), projection(plane, trajectory), 0.85)
    yield plane_3d(plane, trajectory if _same_data(plane, trajectory) else None, "trajectory-3d")
    if has_error_map(plane):
        yield Picture("trajectory-error", partial(surface, plane), captions.surface([plane]))


def _same_data(plane: xr.Dataset, trajectory: xr.Dataset) -> bool:
    """Whether the snapshots have losses, and of the same examples: then they can be drawn at their height."""
    return bool(plane.attrs["data_fingerprint"] == trajectory.attrs.get("data_fingerprint"))


def projection(plane: xr.Dataset, trajectory: xr.Dataset) -> str:
    """The caption of the trajectory on its plane."""
    evaluated = sentence([plane], "n_evaluations", "Evaluations of the whole data: {}.", count)
    return joined(
        f"The trajectory of {Provenance.of(trajectory).who} projected on the plane of its first two principal "
        "components, over the loss on that plane. The plane passes through the last snapshot. The points are "
        "snapshots, coloured by training step.",
        sentence([trajectory], "n_snapshots", "Snapshots: {}."),
        sentence([trajectory], "center", "Components of the snapshots centered at {}.", CENTERS.__getitem__),
        "The trajectory lies near the plane, not on it; the figure of the explained variance shows how far away.",
        captions.accuracy(plane) or evaluated,
        data_basis([plane]),
    )


def shares(trajectory: xr.Dataset) -> str:
    """The caption of how much the plane shows."""
    loss = "Right: the true loss of each snapshot and the loss of its projection on the plane."
    return joined(
        f"How much of the trajectory of {Provenance.of(trajectory).who} its principal plane shows. Left: explained "
        "variance of the first components, and that of a random walk of as many steps (Antognini & Sohl-Dickstein "
        "2018). Middle: distance of each snapshot from the plane and from the last snapshot.",
        *([loss, data_basis([trajectory])] if "loss" in trajectory else []),
    )


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """What the plane explains, how far from it the snapshots lie, and how much their loss differs on it."""
    ratio, walk = (values(dataset, f"{name}_ratio")[:2].sum() for name in ("explained_variance", "random_walk"))
    yield (
        f"{Provenance.of(dataset).subject}: the first two components explain {percent(ratio)} of the variance of the "
        f"trajectory; a random walk's explain {percent(walk)}."
    )
    yield _farthest(dataset)
    if "loss" in dataset and "plane_loss" in dataset:
        yield from _loss_differences(dataset)


def _farthest(dataset: xr.Dataset) -> str:
    off, length = values(dataset, "off_plane_distance"), float(dataset["distance"].max())
    k = int(off.argmax())
    share = f", {percent(off[k] / length)} of the greatest distance from the end" if length > 0 else ""
    step = dataset["step"].to_numpy()[k]
    return f"The snapshot farthest from the plane, at step {step:g}, lies {number(off[k], 3)} off it{share}."


def _loss_differences(dataset: xr.Dataset) -> Iterator[str]:
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.abs(values(dataset, "plane_loss") / values(dataset, "loss") - 1)
    finite = np.isfinite(relative)
    if finite.any():
        worst = int(np.where(finite, relative, -1).argmax())
        yield (
            f"The loss of the projection differs from the true loss of the snapshot by {percent(relative[worst])} at "
            f"most (step {dataset['step'].to_numpy()[worst]:g}), {percent(np.median(relative[finite]))} in the median."
        )
