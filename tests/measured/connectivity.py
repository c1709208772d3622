"""Two small networks on digits, each kind of connectivity between them measured by its verb once for all tests."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
import xarray as xr

import lossatlas as la

WIDTHS = (16, 12)
PATHS = ("line", "line after alignment", "Bezier curve")


@cache
def data(split: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    """300 digits for training or for testing."""
    return la.zoo.subset(getattr(la.zoo.load("digits"), split), 300, seed=0)


@cache
def network(seed: int) -> torch.nn.Module:
    model = la.zoo.mlp(widths=WIDTHS, seed=seed)
    la.zoo.fit(model, data(), epochs=30, batch_size=50, learning_rate=0.1, seed=seed, progress=False)
    return model


@cache
def objective(split: str = "test") -> la.Objective:
    return la.Objective(network(1), F.cross_entropy, data(split), name=f"digits {split}, 300 examples")


@cache
def results() -> dict[str, xr.Dataset]:
    """Barriers on three paths, their plane, the alignment and the training of the curve."""
    return la.connectivity(
        objective("train"),
        network(1),
        network(2),
        test=objective(),
        curve="bezier",
        epochs=15,
        learning_rate=3e-2,
        batch_size=50,
        steps=7,
        plane_steps=5,
        progress=False,
    )


def barrier(path: str = "line", split: str = "test") -> xr.Dataset:
    """The barrier on a path, a copy."""
    found = [d for d in results().values() if (d.attrs.get("path"), d.attrs.get("split")) == (path, split)]
    return found[0].copy(deep=True)


def barriers(*splits: str) -> list[xr.Dataset]:
    """On every path, for each data set."""
    return [barrier(path, split) for path in PATHS for split in splits or ("train", "test")]


@cache
def repair() -> xr.Dataset:
    return la.repair(objective(), [network(1), network(2)], [0.25, 0.75]).statistics


@cache
def instability() -> xr.Dataset:
    """Two pairs of runs that share no step, some, and all but the last ones."""

    def spawn(k: int, order: int) -> torch.nn.Module:
        model = la.zoo.mlp(widths=WIDTHS, seed=1)
        la.zoo.fit(model, data(), epochs=3, batch_size=50, learning_rate=0.1, seed=1, fork=(k, order), progress=False)
        return model

    return la.instability(objective(), spawn, [0, 6, 18], pairs=2, steps=5, draws=200, total_steps=18, progress=False)
