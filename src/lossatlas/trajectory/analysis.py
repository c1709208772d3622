"""A trajectory's principal components compared with null models, its distance from their plane, and its losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lossatlas.objective import Objective
from lossatlas.trajectory.components import Center, Matrix, centered, coordinates, shares

Variables = dict[str, tuple[str, Any]]  # of a Dataset: the dimension and the values


def component_shares(gram: Matrix, center: Center, components: int, draws: int, seed: int) -> Variables:
    """What the components explain, what a random walk's would, and what increments of random signs show in two."""
    flips = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(gram)))
    return {
        "explained_variance_ratio": ("component", shares(centered(gram, center))[:components]),
        "random_walk_ratio": ("component", shares(centered(np.eye(len(gram)), center))[:components]),
        "sign_flip_two": ("draw", [shares(centered(gram * np.outer(s, s), center))[:2].sum() for s in flips]),
    }


def snapshot_places(points: Tensor, steps: Sequence[int], basis: Tensor) -> Variables:
    """Where each snapshot is on the plane of ``basis`` ``(2, n)`` through the last one, and how far off it."""
    on_basis = coordinates(points, basis)
    offsets = [row.double() - points[-1].double() for row in points]
    on_plane = torch.from_numpy(on_basis) @ basis.double()
    off = [float(torch.linalg.vector_norm(x - y)) for x, y in zip(offsets, on_plane, strict=True)]
    return {
        "step": ("snapshot", list(steps)),
        "alpha": ("snapshot", on_basis[:, 0]),
        "beta": ("snapshot", on_basis[:, 1]),
        "off_plane_distance": ("snapshot", off),
        "distance": ("snapshot", [float(torch.linalg.vector_norm(x)) for x in offsets]),
    }


def snapshot_losses(objective: Objective, points: Tensor, basis: Tensor, progress: bool) -> Variables:
    """The loss at each snapshot with its standard error, and at its projection onto the plane of ``basis``."""
    objective.space.check(points[-1], "snapshot")
    found: dict[str, list[float]] = {"loss": [], "loss_stderr": [], "plane_loss": []}
    rows = zip(points, torch.from_numpy(coordinates(points, basis)), strict=True)
    for point, place in tqdm(rows, total=len(points), desc="trajectory", disable=not progress, leave=False):
        here = objective.evaluate(point)
        found["loss"].append(here.loss)
        found["loss_stderr"].append(here.loss_stderr)
        found["plane_loss"].append(objective.value(points[-1] + place.to(basis) @ basis))
    return {name: ("snapshot", values) for name, values in found.items()}
