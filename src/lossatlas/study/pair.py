"""The whole question about two checkpoints: the straight line, the line after alignment, the curve, and their plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from lossatlas.connectivity.alignment import Given, Method, align
from lossatlas.connectivity.barrier import PATH_NAMES, barrier
from lossatlas.connectivity.connect import connect
from lossatlas.connectivity.heights import Definition
from lossatlas.connectivity.plane import connectivity_plane
from lossatlas.geometry.curves import Curve, ParametricCurve, Segment
from lossatlas.geometry.directions import random_directions
from lossatlas.model.checkpoints import write_state
from lossatlas.model.functional import BatchNormPolicy
from lossatlas.objective import Objective, Source

ALIGNED = "line after alignment"
Named = tuple[str, xr.Dataset]


@dataclass(frozen=True)
class Wanted:
    """What is to be measured between two networks."""

    method: Method | None = "weights"
    symmetries: Given | None = None
    curve: ParametricCurve | None = None
    definition: Definition = "entezari"
    steps: int = 25
    epochs: int | None = None
    learning_rate: float = 1e-3
    plane_steps: int = 0
    batch_norm: BatchNormPolicy | None = None
    seed: int = 0


def answers(
    objective: Objective, a: Source, b: Source, wanted: Wanted, folder: Path, *, test: Objective | None, progress: bool
) -> Iterator[Named]:
    """Each result with its name, as soon as it is there; weights and the curve's training go to ``folder``.

    All barriers are on the data of ``objective``, on which the curve is trained, and of ``test``, with "_test" at the
    end of their names.
    """
    straight = Segment(objective.point_of(a), objective.point_of(b))
    ways: dict[str, Curve] = {"line": straight}
    sets = {"": objective} | ({} if test is None else {"_test": test})
    shared: dict[str, Any] = {
        "definition": wanted.definition,
        "batch_norm": wanted.batch_norm,
        "seed": wanted.seed,
        "progress": progress,
    }

    def measured(name: str, way: str) -> Iterator[Named]:
        for suffix, data in sets.items():
            found = barrier(data, ways[way], steps=wanted.steps, path=way, **shared)
            yield name + suffix, found.assign_attrs(split="test" if suffix else "train")

    yield from measured("barrier", "line")
    if wanted.method is not None:
        aligned = align(objective, a, b, method=wanted.method, symmetries=wanted.symmetries, seed=wanted.seed)
        write_state(aligned.state_dict, folder / "aligned.safetensors")
        ways[ALIGNED] = Segment(straight.a, aligned.point)
        yield "alignment", aligned.summary
        yield from measured("barrier_aligned", ALIGNED)
    if wanted.curve is not None:
        found = connect(
            objective,
            straight.a,
            straight.b,
            curve=wanted.curve,
            epochs=wanted.epochs,
            learning_rate=wanted.learning_rate,
            profile_steps=0,
            seed=wanted.seed,
            folder=folder / "curve",
            progress=progress,
        )
        write_state({"points": laid(found.curve)}, folder / "curve.safetensors")
        ways[PATH_NAMES[type(found.curve).__name__]] = found.curve
        yield "connection", found.training
        yield from measured("barrier_curve", PATH_NAMES[type(found.curve).__name__])
    if wanted.plane_steps and len(ways) > 1:
        yield "plane", plane_of(objective, ways, wanted.plane_steps, progress=progress)


def plane_of(objective: Objective, ways: dict[str, Curve], steps: int, *, progress: bool) -> xr.Dataset:
    """The plane through both networks and the middle bend of the curve; without a curve through the aligned network.

    Where the alignment leaves the second network as it is, these are two points, and the plane's second axis is a
    random direction.
    """
    line = ways["line"]
    marks = {"first network": line.point(0.0), "second network": line.point(1.0)}
    curve = next((way for way in ways.values() if isinstance(way, ParametricCurve)), None)
    if curve is not None:  # the line after alignment is far from its plane
        bends = laid(curve)[1:-1]
        third = bends[len(bends) // 2]
        marks |= {"bend" if len(bends) == 1 else f"bend {i}": bend for i, bend in enumerate(bends, start=1)}
        ways = {name: way for name, way in ways.items() if name != ALIGNED}
    else:
        third = ways[ALIGNED].point(1.0)
        marks |= {"second network, aligned": third}
        if torch.equal(third, line.point(1.0)):
            third = third + random_directions(objective, 1, seed=0)[0]
    return connectivity_plane(objective, ways, marks, third, steps=steps, progress=progress)


def laid(curve: ParametricCurve) -> Tensor:
    """The points of a curve that is fitted."""
    assert curve.points is not None
    return curve.points


def verdicts(results: dict[str, xr.Dataset]) -> Iterator[str]:
    """What a claim says of each barrier is in the report; nothing is decided here."""
    yield from ()
