"""A recorded training run measured: its analysis and, with an objective, the loss on its principal plane."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import xarray as xr

from lossatlas.objective import Objective
from lossatlas.surfaces.surface import surface
from lossatlas.trajectory.trajectory import Trajectory

Keep = Callable[[str, Callable[[], xr.Dataset]], xr.Dataset]


def trajectory_measurement(
    snapshots: str | Path | Trajectory,
    objective: Objective | None = None,
    *,
    steps: int = 51,
    components: int = 10,
    sharpness: int = 0,
    seed: int = 0,
    keep: Keep | None = None,
    progress: bool = True,
) -> dict[str, xr.Dataset]:
    """``"trajectory"``: ``Trajectory.analyse``; with an objective ``"trajectory_plane"`` too, the loss on ``plane()``.

    Parameters
    ----------
    snapshots : the folder of a ``Recorder``, or a ``Trajectory``.
    objective : for the loss at the snapshots and on their principal plane.
    steps : points on each axis of the plane.
    components : how many are listed.
    sharpness : the number of snapshots at which lambda_max of the Hessian is measured, to a relative residual of 5e-2.
    seed : of the null model's random signs.
    keep : ``keep(name, compute)`` returns ``compute()``, or the result of that name from an earlier call, so that a
        measurement that was interrupted goes on.

    Raises
    ------
    CheckpointError : a folder without snapshots.
    InputError : too few snapshots for a plane.
    DirectionError : snapshots of another network than the objective's.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 7.

    Examples
    --------
    >>> import torch
    >>> made = trajectory_measurement(Trajectory(torch.eye(4).cumsum(0), steps=range(4)))
    >>> {name: dataset.attrs["n_snapshots"] for name, dataset in made.items()}
    {'trajectory': 4}
    """
    kept = keep or (lambda _, compute: compute())
    trajectory = snapshots if isinstance(snapshots, Trajectory) else Trajectory.load(snapshots)
    analyse = partial(
        trajectory.analyse, objective, components=components, sharpness=sharpness, seed=seed, progress=progress
    )
    found = {"trajectory": kept("trajectory", analyse)}
    if objective is not None:
        region = trajectory.plane(steps=steps)
        found["trajectory_plane"] = kept("trajectory_plane", partial(surface, objective, region, progress=progress))
    return found
