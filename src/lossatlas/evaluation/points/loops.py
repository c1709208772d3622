"""Many points of one objective: the plain loop, and the same loop prepared once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lossatlas.evaluation.points import rewrites
from lossatlas.evaluation.points.staging import Program
from lossatlas.evaluation.points.tracing import POINT_PREFIX, Trace, Untraceable, trace
from lossatlas.model.arithmetic import full_precision
from lossatlas.model.data.batches import KEEP_BYTES, Batches, copied, form, preserved_rng, tensors_in
from lossatlas.model.data.randomness import has_drawn
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.parameters import Entry
from lossatlas.model.points import Points, Weights

REWRITES: dict[str, Callable[[Trace, rewrites.Frame], bool]] = {
    # In this order they are tried and applied: each sees what the ones before it left.
    "shared layer": rewrites.shared_layer,
    "oneDNN linear": rewrites.onednn_linear,
    "max pooling": rewrites.max_pooling,
    "channels last": rewrites.channels_last,
    "batch norm": rewrites.batch_norm,
    "in place": rewrites.in_place,
}

Measured = list[dict[str, Tensor]]
Loop = Callable[[Weights], Measured]


def sweep(function: FunctionalModel, batches: Iterable[Any], theta: Tensor) -> Measured:
    """What each batch yields at ``theta``, without gradients: the reference for every other loop."""
    # Not inference_mode: a model may keep what it computes here (a table of positions) for a pass with gradients.
    with torch.no_grad(), preserved_rng(function.point.device):
        tensors = function.tensors(theta)
        return [function.measure(tensors, batch, index) for index, batch in enumerate(batches)]


def measured_with(function: FunctionalModel, batches: Batches, tensors: dict[str, Tensor]) -> Measured:
    """The same with these tensors, instead of those of a theta."""
    with torch.no_grad(), preserved_rng(function.point.device):
        return [function.measure(tensors, batch, index) for index, batch in enumerate(batches)]


class PlainLoop:
    """The reference: every batch through the model by ``functional_call``."""

    def __init__(self, function: FunctionalModel, batches: Batches, points: Points) -> None:
        self.function, self.batches, self.points = function, batches, points

    def __call__(self, weights: Weights) -> Measured:
        """What each batch yields at theta(weights)."""
        return sweep(self.function, self.batches, self.points.at(weights))


class PreparedLoop:
    """The measure traced, rewritten and staged: per point the moving tensors, per batch what depends on both.

    ``traces`` keeps the traces of batches of one form for further loops. Raises ``Untraceable`` where the measure is no
    fixed sequence of functions of tensors.
    """

    def __init__(
        self,
        function: FunctionalModel,
        batches: Sequence[Any],
        points: Points,
        names: Sequence[str] = (),
        traces: dict[Any, Trace] | None = None,
    ) -> None:
        self.function, self.points = function, points
        self._traces = {} if traces is None else traces
        self._frame, self._entries = _frame(function, points)
        self.changed = set[str]()
        self._rewritten: dict[Any, Trace] = {}
        self._programs: dict[Any, Program] = {}
        self._prepared: list[tuple[Program, tuple[Tensor, ...]]] = []
        kept = 0
        for batch in batches:
            program = self._program(batch, names)
            with torch.inference_mode(), full_precision(function.point.device):
                fixed = program.fixed(*tensors_in(batch))
            kept += sum(t.nbytes for t in tensors_in(list(fixed)))
            if kept > KEEP_BYTES:
                raise Untraceable(f"what its batches share takes more than {KEEP_BYTES / 2**30:.0f} GiB")
            self._prepared.append((program, fixed))

    def __call__(self, weights: Weights) -> Measured:
        """What each batch yields at theta(weights)."""
        with torch.inference_mode(), full_precision(self.function.point.device):
            inputs = self._inputs(weights)
            given = {id(program): program.pointwise(*inputs) for program in self._programs.values()}
            return [program.rest(*fixed, *given[id(program)]) for program, fixed in self._prepared]

    def _inputs(self, weights: Weights) -> list[Any]:
        theta = self.points.at(weights)
        moving = [e.tensor(theta[e.start : e.stop]) for e in self._entries]
        return [*moving, *map(float, weights)]

    def _program(self, batch: Any, names: Sequence[str]) -> Program:
        key = form(batch)
        if key not in self._programs:
            if key not in self._traces:
                self._traces[key] = self._trace(batch)
            traced = self._rewritten[key] = self._traces[key].copy()
            self.changed |= {name for name in REWRITES if name in names and REWRITES[name](traced, self._frame)}
            self._programs[key] = Program(traced)
        return self._programs[key]

    def offers(self, name: str) -> bool:
        """Whether a further rewrite finds anything to change."""
        return any(REWRITES[name](traced.copy(), self._frame) for traced in self._rewritten.values())

    def _trace(self, batch: Any) -> Trace:
        function, batch = self.function, copied(batch)  # a model may write into its inputs
        tensors = function.tensors(self.points.center)
        inputs = {name: tensors[f"model.{e.name}"] for name, e in zip(self._frame.moving, self._entries, strict=True)}
        inputs |= {f"batch_{i}": tensor for i, tensor in enumerate(tensors_in(batch))}
        with torch.no_grad(), preserved_rng(function.point.device):
            traced = trace(lambda: function.measure(tensors, batch, 0), inputs, self._frame.weights)
            if has_drawn(function.point.device):
                raise Untraceable("it draws random numbers")
            return traced


class OnThreads:
    """A loop on so many threads of PyTorch; as many as before are set again after each point."""

    def __init__(self, loop: Loop, threads: int) -> None:
        self.loop, self.threads = loop, threads

    def __call__(self, weights: Weights) -> Measured:
        """What each batch yields at theta(weights)."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return self.loop(weights)
        finally:
            torch.set_num_threads(before)


def _frame(function: FunctionalModel, points: Points) -> tuple[rewrites.Frame, list[Entry]]:
    entries = [e for e in function.space if bool(points.directions[:, e.start : e.stop].any())]
    rows = [points.center, *points.directions]
    moving = {f"{POINT_PREFIX}{i}": [e.tensor(row[e.start : e.stop]) for row in rows] for i, e in enumerate(entries)}
    return rewrites.Frame(moving, tuple(f"{POINT_PREFIX}weight_{j}" for j in range(len(points.directions)))), entries
