"""One objective on one region: the reference at the center, the evaluators, the cells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.evaluation.points.plans import Plan
from lossatlas.evaluation.points.tuning import Evaluator
from lossatlas.geometry.region import Region
from lossatlas.model.data.strata import Strata
from lossatlas.model.loss.samples import Sample
from lossatlas.objective import Objective
from lossatlas.surfaces.cells import Cells, Column, Row
from lossatlas.surfaces.options import SurfaceOptions
from lossatlas.surfaces.reuse import identity, rows_of
from lossatlas.surfaces.store import Store

_EXPECTED = 0.1  # of the pixels: how many evaluations a tolerance is expected to take, for what tuning may cost


@dataclass(frozen=True)
class Sweep:
    """What is evaluated: an objective or its subset, the region, further objectives, the columns of every point."""

    objective: Objective
    region: Region
    options: SurfaceOptions
    strata: Strata | None
    center: dict[str, Sample]
    row: Row
    columns: list[Column]

    @property
    def loss(self) -> float:
        """The loss at the center."""
        return self.center["loss"].mean

    def identity(self) -> dict[str, Any]:
        """What a store of this sweep holds."""
        found = identity(self.objective, self.region) | self.options.identity()
        # Last, so that what differs first is named first: another loss or metric shows in nothing but its value.
        found |= {name: repr(sample.mean) for name, sample in self.center.items()}
        return found | {f"also {name}": identity(other, self.region) for name, other in self.options.also.items()}


@dataclass(frozen=True)
class OpenSweep:
    """A sweep with its evaluator and its cells, ready to be asked for points."""

    sweep: Sweep
    evaluator: Evaluator
    cells: Cells


def prepared(objective: Objective, region: Region, options: SurfaceOptions) -> Sweep:
    """The sweep of a region, its options checked and its center evaluated."""
    objective.space.check(region.center, "region's center")
    options.check(objective.dtype)
    used, strata = (objective, None) if options.subset is None else objective.subset(options.subset, seed=options.seed)
    center = _center(used, region)
    row = Row(center["loss"], strata, _labels(used) if options.by_class else None)
    others = {name: _center(other, region) for name, other in options.also.items()}
    return Sweep(used, region, options, strata, center, row, list(row(center, others)))


@contextmanager
def opened(sweep: Sweep, folder: str | Path | None) -> Iterator[OpenSweep]:
    """The evaluators and the cells of a sweep, while its store is open."""
    options, region = sweep.options, sweep.region
    columns = [str(column) for column in sweep.columns]
    with nullcontext() if folder is None else Store(folder, sweep.identity(), columns) as store:
        evaluator = _evaluator(sweep.objective, region, options, store, "plan")
        further = {
            name: _evaluator(other, region, options, store, f"plan of {name}") for name, other in options.also.items()
        }
        cells = Cells(evaluator, further, region, sweep.row, sweep.columns, store)
        if options.reuse is not None:
            cells.know(rows_of(options.reuse, sweep.objective, region, sweep.columns, sweep.loss))
        yield OpenSweep(sweep, evaluator, cells)


def _center(objective: Objective, region: Region) -> dict[str, Sample]:
    objective.space.check(region.center, "region's center")
    center = objective.samples(region.center)
    own = torch.equal(region.center.to(objective.point), objective.point)
    if not own or not np.isfinite(center["loss"].mean):
        objective.require_finite()
    return center


def _labels(objective: Objective) -> Tensor:
    labels = objective.batches.labels()
    if labels is None:
        raise InputError("by_class needs the class of each example: give data as (inputs, class indices) in memory.")
    return labels


def _evaluator(
    objective: Objective, region: Region, options: SurfaceOptions, store: Store | None, name: str
) -> Evaluator:
    """By the plan that the store was begun with, or by a new one, which the store then notes."""
    corner = region.weights(*(float(axis[0]) for axis in region.coordinates))
    probes = [tuple(w / 3 for w in corner), corner]
    pixels = math.prod(region.shape)
    count = pixels if options.tol is None else math.ceil(_EXPECTED * pixels)
    noted = store.notes.get(name) if store else None
    plan = _plan(options.fast) if noted is None else Plan.from_json(noted["plan"])
    evaluator = objective.evaluator(region.center, region.directions, probes, count, plan)
    if noted is not None:
        return replace(evaluator, findings=replace(evaluator.findings, fallback=noted["fallback"]))
    if store:
        store.note(**{name: {"plan": evaluator.plan.to_json(), "fallback": evaluator.findings.fallback}})
    return evaluator


def _plan(fast: bool | str) -> Plan | None:
    """The plan that ``fast`` gives, or None where one is to be chosen."""
    if isinstance(fast, str):
        return Plan.from_json(fast)
    return None if fast else Plan()
