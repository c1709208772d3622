"""Principal components of the rows of a ``(T, n)`` matrix from T x T matrices, never n x n."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.errors import InputError

Center = Literal["mean", "last"]
Matrix = NDArray[np.float64]

_COLUMNS = 2**20  # columns of the snapshot matrix held in float64 at a time


def gram_of_increments(points: Tensor, steps: Sequence[int]) -> Matrix:
    """<delta_s, delta_t> of the increments delta_t = theta_{t+1} - theta_t, (T - 1) x (T - 1), float64."""
    if len(points) < 2:
        raise InputError(
            f"A trajectory of {len(points)} snapshot(s) has no directions: record more (a smaller `every`)."
        )
    finite = torch.isfinite(points).all(dim=1)
    if not bool(finite.all()):
        raise InputError(
            f"The snapshot at step {steps[int(finite.int().argmin())]} holds NaN or infinite numbers: "
            "training diverged; analyse the snapshots before it."
        )
    gram = torch.zeros(len(points) - 1, len(points) - 1, dtype=torch.float64)
    for block in _increment_blocks(points):
        gram += block @ block.T
    return gram.numpy()


def principal_components(points: Tensor, gram: Matrix, k: int, center: Center) -> Tensor:
    """The first k as rows ``(k, n)``, from the Gram matrix of the increments; see ``Trajectory.components``."""
    values, vectors = np.linalg.eigh(centered(gram, center))
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    if len(points) < 2 or len(values) < k or values[-1] <= 1e-12 * values[0]:
        raise InputError(
            f"The {len(points)} snapshots span fewer than {k} dimensions: record more of them (a smaller `every`)."
        )
    weights = _lower(len(points)).T @ _centering(len(points), center).T @ vectors / np.sqrt(values)
    rows = [torch.from_numpy(weights.T.copy()) @ block for block in _increment_blocks(points)]
    # The first snapshot's coordinate has the sign of u_k's first entry.
    signs = torch.from_numpy(np.where(vectors[0] < 0, -1.0, 1.0))
    return (torch.cat(rows, dim=1) * signs[:, None]).to(points.dtype)


def coordinates(points: Tensor, directions: Tensor) -> Matrix:
    """<theta_t - theta_T, d_k>, ``(T, k)``, in float64."""
    offsets = (row.double() - points[-1].double() for row in points)
    return torch.stack([directions.to(points.device).double() @ offset for offset in offsets]).numpy()


def _increment_blocks(points: Tensor) -> Iterator[Tensor]:
    for columns in points.split(_COLUMNS, dim=1):
        yield columns.double().diff(dim=0)


def _lower(snapshots: int) -> Matrix:
    """L, T x (T - 1): position = L increments, relative to the first snapshot."""
    return np.tri(snapshots, snapshots - 1, -1)


def _centering(snapshots: int, center: Center) -> Matrix:
    if center not in ("mean", "last"):
        raise InputError(f"center={center!r}: choose 'mean' or 'last'.")
    shift = np.full((snapshots, snapshots), 1 / snapshots) if center == "mean" else np.eye(snapshots)[[-1] * snapshots]
    return np.eye(snapshots) - shift


def centered(gram: Matrix, center: Center) -> Matrix:
    """G = C L D L' C' from the increments' Gram matrix D."""
    snapshots = len(gram) + 1
    map_ = _centering(snapshots, center) @ _lower(snapshots)
    found: Matrix = map_ @ gram @ map_.T
    return found


def shares(gram: Matrix) -> Matrix:
    """lambda_k / sum lambda of a centered Gram matrix, descending, ``(T - 1,)``."""
    values = np.linalg.eigvalsh(gram)[::-1][:-1].clip(min=0)  # one dimension is lost to centering
    if not values.sum() > 0:
        raise InputError("All snapshots are the same point: the trajectory has no directions.")
    found: Matrix = values / values.sum()
    return found
