"""A recorded training run measured: its analysis and, with an objective, the loss on its principal plane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import xarray as xr

from lossatlas.objective import Objective
from lossatlas.surfaces.surface import surface
from lossatlas.trajectory.trajectory import Trajectory


def trajectory_measurement(
    snapshots: str | Path | Trajectory,
    objective: Objective | None = None,
    *,
    steps: int = 51,
    components: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Iterator[tuple[str, xr.Dataset]]:
    """("trajectory", ``Trajectory.analyse(..)``) and, with an objective, ("trajectory_plane", the surface), one by one.

    Parameters
    ----------
    snapshots : the folder of a ``Recorder``, or a ``Trajectory``.
    objective : for the loss at the snapshots and on their principal plane.
    steps : points on each axis of the plane.
    components : how many are listed.
    seed : of the null model's random signs.

    Raises
    ------
    CheckpointError : a folder without snapshots.
    InputError : too few snapshots for a plane.
    DirectionError : snapshots of another network than the objective's.

    Examples
    --------
    >>> import torch
    >>> made = trajectory_measurement(Trajectory(torch.eye(4).cumsum(0), steps=range(4)))
    >>> [(name, dataset.attrs["n_snapshots"]) for name, dataset in made]
    [('trajectory', 4)]
    """
    trajectory = snapshots if isinstance(snapshots, Trajectory) else Trajectory.load(snapshots)
    yield "trajectory", trajectory.analyse(objective, components=components, seed=seed, progress=progress)
    if objective is not None:
        yield "trajectory_plane", surface(objective, trajectory.plane(steps=steps), progress=progress)
