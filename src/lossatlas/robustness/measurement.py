"""A quantity at several sizes of a perturbation, with its change from the unperturbed network, paired over examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.evaluation.points.loops import sweep
from lossatlas.model.loss.samples import Sample, samples_of
from lossatlas.model.parameters import Entry
from lossatlas.objective import Objective
from lossatlas.robustness.averages import Average

Samples = dict[str, Sample]
Measure = Callable[[float, int], Samples]  # (size, number of the draw) -> samples
Columns = dict[str, NDArray[np.float64]]


def samples_at(objective: Objective, theta: Tensor) -> Samples:
    """Losses and metrics at a point that may hold infinite numbers, which ``objective.samples`` would refuse."""
    measured = sweep(objective.function, objective.batches, theta)
    return samples_of(measured, objective.batches.weights)


def modules_of(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The tensors of each module, by its name; a parameter that belongs to the model itself has its own."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.name.rpartition(".")[0] or entry.name, []).append(entry)
    return found


def measured(measure: Measure, clean: Samples, sizes: Sequence[float], draws: int, *, exact: bool) -> Columns:
    """By name a number for each size: the mean, ``_stderr``, ``_change``, ``_change_stderr``, ``_change_degrees``,
    and ``finite``.

    ``_draws`` are ``(sizes, draws)``.
    """
    each = [_OneSize(clean, exact) for _ in sizes]
    for draw in range(draws):
        for one, size in zip(each, sizes, strict=True):
            one.add(measure(size, draw))
    rows = [one.numbers() for one in each]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


class _OneSize:
    def __init__(self, clean: Samples, exact: bool) -> None:
        self._clean = clean
        self._values = {name: Average(exact=exact) for name in clean}
        self._changes = {name: Average(exact=exact) for name in clean}

    def add(self, samples: Samples) -> None:
        for name, sample in samples.items():
            self._values[name].add(sample)
            self._changes[name].add(sample.combined(self._clean[name], -1.0))

    def numbers(self) -> dict[str, float | list[float]]:
        found: dict[str, float | list[float]] = {}
        for name, average in self._values.items():
            spread, change = average.spread(), self._changes[name]
            found |= {name: average.mean, f"{name}_stderr": math.hypot(spread.over_draws, spread.over_examples)}
            found[f"{name}_change"], paired = change.mean, change.spread()
            found |= {f"{name}_change_stderr": paired.stderr, f"{name}_change_degrees": paired.degrees}
            found[f"{name}_draws"] = average.means
        finite = [math.isfinite(mean) for mean in self._values["loss"].means]
        return found | {"finite": sum(finite) / len(finite)}
