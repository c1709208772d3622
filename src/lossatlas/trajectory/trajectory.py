"""The points that training passed through: their principal components, the plane of the first two, their losses."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lossatlas.errors import CheckpointError, InputError
from lossatlas.geometry.region import Region
from lossatlas.geometry.regions import plane
from lossatlas.model.data.batches import tensor_bytes
from lossatlas.objective import Objective
from lossatlas.results.making import result
from lossatlas.trajectory.analysis import component_shares, snapshot_losses, snapshot_places
from lossatlas.trajectory.components import (
    Center,
    Matrix,
    centered,
    coordinates,
    gram_of_increments,
    principal_components,
    shares,
)
from lossatlas.trajectory.history import history_dataset
from lossatlas.trajectory.sharpness import TOLERANCE, snapshot_sharpness
from lossatlas.trajectory.snapshots import HISTORY, SNAPSHOTS, read_history, read_point, step_of


class Trajectory:
    """theta_1 .. theta_T, ``points`` ``(T, n)`` at ``steps``, with the ``history`` of every recorded step.

    A ``Recorder`` makes it (``record.trajectory``), ``Trajectory.load(folder)`` reads it. Only T x T matrices are
    formed, never n x n.

    Parameters
    ----------
    points : the snapshots as rows ``(T, n)``, in their order, from any device; they are kept on the CPU.
    steps : the training step of each.
    history : what was recorded at each step, such as ``{"step": 3, "loss": 0.5}``.

    Raises
    ------
    InputError : there are too few snapshots for what is asked, or one of them is not finite.
    CheckpointError : a folder without snapshots, of two networks, or with a damaged history.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 7 (the principal plane of
    snapshots); Antognini & Sohl-Dickstein 2018, "PCA of High Dimensional Random Walks with Comparison to Neural Network
    Training" (why its explained variance needs a null model).

    Examples
    --------
    >>> points = torch.tensor([[4.0, 0.0, 0.0], [2.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> trajectory = Trajectory(points, steps=[0, 10, 20, 30])
    >>> trajectory.explained_variance().round(3)
    array([0.922, 0.078, 0.   ])
    >>> region = trajectory.plane(steps=11)
    >>> region.shape, region.provenance()["directions"]
    ((11, 11), 'principal components')
    """

    def __init__(self, points: Tensor, steps: Sequence[int], history: Sequence[Mapping[str, float]] = ()) -> None:
        self.points = points.cpu()  # where the T x T matrices are
        self.steps = list(steps)
        self._rows = list(history)

    @classmethod
    def load(cls, folder: str | Path) -> Trajectory:
        """The snapshots a ``Recorder`` left in ``folder``. Raises ``CheckpointError`` for none, or of two networks."""
        folder = Path(folder)
        files = sorted(folder.glob(SNAPSHOTS))
        if not files:
            raise CheckpointError(f"{folder} holds no snapshots ({SNAPSHOTS}): give the folder of a Recorder.")
        points = [read_point(file) for file in files]
        if len({len(point) for point in points}) > 1:
            raise CheckpointError(f"The snapshots in {folder} are of different networks: keep one run in one folder.")
        return cls(torch.stack(points), [step_of(file) for file in files], read_history(folder / HISTORY))

    def __len__(self) -> int:
        return len(self.steps)

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the points and their steps."""
        return self._fingerprint

    @property
    def history(self) -> xr.Dataset:
        """What was recorded at every step, over ``("step",)``; NaN where a call did not state a value."""
        names = sorted({name for row in self._rows for name in row} - {"step"})
        columns = {name: ("step", [row.get(name, math.nan) for row in self._rows]) for name in names}
        steps = [int(row["step"]) for row in self._rows]
        return history_dataset(columns, steps, trajectory_fingerprint=self.fingerprint())

    def explained_variance(self, center: Center = "mean") -> Matrix:
        """lambda_k / sum lambda of the scatter about the snapshots' mean (or the last), descending, ``(T - 1,)``."""
        return shares(centered(self._gram, center))

    def components(self, k: int = 2, center: Center = "mean") -> Tensor:
        """PC_k = M' C' u_k / sqrt(lambda_k) as rows ``(k, n)``, from G = C M M' C', T x T, with G u_k = lambda_k u_k.

        M holds the snapshots as rows and C centers them; G is built from the increments theta_{t+1} - theta_t in
        float64, so that nothing cancels. Signs: the first snapshot has no negative coordinate. Raises ``InputError``
        when the snapshots span fewer than k dimensions.
        """
        return principal_components(self.points, self._gram, k, center)

    def plane(self, *, steps: int | tuple[int, int] = 51, margin: float = 0.2, center: Center = "mean") -> Region:
        """The plane through the *last* snapshot along the first two principal components, wide enough for all of them.

        Each axis covers the trajectory's projection and ``margin`` of its extent beyond it on either side; the shorter
        axis covers at least a quarter of the longer. The last snapshot lies on the grid. Distances on the plane are
        distances in parameter space. Raises ``InputError`` for fewer than 3 steps on an axis.
        """
        basis = self.components(2, center)
        projection = self.project(basis)
        low, high = projection.min(axis=0), projection.max(axis=0)
        widest = float((high - low).max())
        extra = np.maximum(margin * (high - low), (0.25 * widest - (high - low)) / 2).clip(min=margin * widest / 4)
        counts = steps if isinstance(steps, tuple) else (steps, steps)
        spans = [_through_zero(a, b, count) for a, b, count in zip(low - extra, high + extra, counts, strict=True)]
        region = plane(self.points[-1], basis, span=(spans[0], spans[1]), steps=counts)
        made = {"directions": "principal components", "trajectory_fingerprint": self.fingerprint(), "center": center}
        return replace(region, origin=made)

    def project(self, directions: Tensor) -> Matrix:
        """<theta_t - theta_T, d_k>, ``(T, k)``: coordinates about the last point on orthonormal rows ``(k, n)``."""
        return coordinates(self.points, directions)

    def analyse(
        self,
        objective: Objective | None = None,
        *,
        components: int = 10,
        sharpness: int = 0,
        center: Center = "mean",
        draws: int = 200,
        seed: int = 0,
        progress: bool = True,
    ) -> xr.Dataset:
        """The principal components' shares of variance, two null models of them, and the distances from their plane.

        Returns
        -------
        Dataset over ``("component",)``: ``explained_variance_ratio``, and ``random_walk_ratio``, what a random walk of
        T equal orthogonal steps shows (n large; Antognini & Sohl-Dickstein 2018: 1 / (4 sin^2(pi k / 2T)), so that
        two components "explain" 76 % of no structure at all); over ``("draw",)``: ``sign_flip_two``, the first two
        components' share when the observed increments keep their length and line but take random signs; over
        ``("snapshot",)``: ``alpha``, ``beta`` on the principal plane, ``off_plane_distance``, ``distance`` from the
        last snapshot and, given an objective, the true ``loss`` there and the ``plane_loss`` of its projection; at
        ``sharpness`` of the snapshots, evenly from the first to the last, ``lambda_max`` of the Hessian with its
        ``lambda_max_residual`` (NaN at the others).
        ``attrs["trajectory_fingerprint"]`` is the fingerprint that a surface on ``plane()`` has too.

        Raises ``InputError`` for fewer than two components, which the null models are compared with, and for a
        sharpness without an objective.
        """
        if components < 2:
            raise InputError(f"components={components}: give at least 2, those of the plane.")
        if sharpness and (objective is None or sharpness < 0):
            raise InputError(f"sharpness={sharpness}: give a number of snapshots, and an objective to measure it of.")
        basis = self.components(2, center)
        variables = component_shares(self._gram, center, components, draws, seed)
        variables |= snapshot_places(self.points, self.steps, basis)
        dataset = xr.Dataset(variables, {"component": np.arange(1, min(components, len(self) - 1) + 1)})
        made = {"trajectory_fingerprint": self.fingerprint(), "n_snapshots": len(self), "center": center, "seed": seed}
        if objective is None:
            return result("trajectory", dataset, made)
        dataset = dataset.assign(snapshot_losses(objective, self.points, basis, progress))
        if sharpness:
            found, products = snapshot_sharpness(objective, self.points, sharpness, seed, progress)
            dataset, made = dataset.assign(found), made | {"sharpness_products": products, "sharpness_tol": TOLERANCE}
        over = objective.samples(self.points[-1])["loss"].over
        return result("trajectory", dataset, objective.provenance(), made, stderr_over=over)

    @functools.cached_property
    def _gram(self) -> Matrix:
        return gram_of_increments(self.points, self.steps)

    @functools.cached_property
    def _fingerprint(self) -> str:
        sha = hashlib.sha256(json.dumps([str(self.points.dtype), list(self.points.shape), self.steps]).encode())
        sha.update(tensor_bytes(self.points))
        return sha.hexdigest()[:16]


def _through_zero(low: float, high: float, steps: int) -> tuple[float, float]:
    """The ends of a grid of ``steps`` nodes that covers [low, high], 0 inside it, and has a node at 0."""
    if steps < 3:
        raise InputError(f"steps={steps}: a plane that contains the trajectory needs at least 3 points on each axis.")
    width = (high - low) / (steps - 2)
    below = math.ceil(-low / width)
    return -below * width, (steps - 1 - below) * width
