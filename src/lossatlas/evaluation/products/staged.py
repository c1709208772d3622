"""A product A_b v written down as a graph of ATen operations, and cut: what does not depend on v is computed once."""

from __future__ import annotations

import itertools
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

from lossatlas.evaluation.points.staging import Program
from lossatlas.evaluation.points.tracing import POINT_PREFIX, Trace, Untraceable
from lossatlas.evaluation.products.linearised import Linearised
from lossatlas.evaluation.products.reuse import reuse_memory
from lossatlas.model.data.batches import refill, tensors_in

VECTOR = f"{POINT_PREFIX}vector"


class StagedProduct:
    """``at(theta, batch)`` -> v -> A_b v, for batches of the form of the one that it is traced with.

    Forward over reverse differentiation is traced down to ATen, so that replaying it needs no differentiation and
    keeps no graph: only the numbers that meet v. Raises ``Untraceable`` with the reason: an operation without forward
    mode, a decision that depends on values, a random number, more than ``limit`` operations.
    """

    def __init__(self, form: Linearised, theta: Tensor, batch: Any, index: int, limit: int) -> None:
        # A second and more of imports, which small problems and the command line's help do without.
        from torch.fx.experimental.proxy_tensor import make_fx

        def product(at: Tensor, *rest: Tensor) -> Tensor:
            *tensors, vector = rest
            with _Limit(limit):
                return form.direct(at, refill(batch, iter(tensors)), index, vector)

        vector = torch.zeros_like(theta)
        try:
            with torch.no_grad(), forward_mode():
                make = make_fx(product, tracing_mode="fake", _allow_non_fake_inputs=True)
                module = make(theta, *tensors_in(batch), vector)
        except Untraceable:
            raise
        except Exception as error:  # whatever a user's model does that cannot be traced
            raise Untraceable(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
        self._program = Program(_as_trace(module), reuse_memory)
        self.operations = len(module.graph.nodes)

    def at(self, theta: Tensor, batch: Any) -> Replay:
        """v -> A_b v."""
        with torch.no_grad():
            return Replay(self._program, self._program.fixed(theta, *tensors_in(batch)))


class Replay:
    """v -> A_b v from what was computed once, ``fixed``."""

    def __init__(self, program: Program, fixed: tuple[Any, ...]) -> None:
        self._program, self.fixed = program, fixed

    def __call__(self, vector: Tensor, keep: bool = True) -> Tensor:
        with torch.no_grad():
            product: Tensor = self._program.rest(*self.fixed, *self._program.pointwise(vector))
            return product


@contextmanager
def forward_mode() -> Iterator[None]:
    """Without PyTorch's warnings: it compiles its rules of forward mode with its own deprecated torch.jit.script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
        yield


class _Limit(TorchDispatchMode):
    """``Untraceable`` after so many operations: a loop in Python, say, that takes longer than it is worth."""

    def __init__(self, operations: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations = self._left = operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Untraceable(f"it takes more than {self._operations:,} operations")
        return func(*args, **(kwargs or {}))


def _as_trace(module: fx.GraphModule) -> Trace:
    graph = module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    names = itertools.chain(["theta"], (f"batch_{i}" for i in range(len(placeholders) - 2)), [VECTOR])
    for node, name in zip(placeholders, names, strict=True):
        node.target = name
    _merge_equal(graph)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        _require_pure(node)
    constants = {str(node.target): getattr(module, node.target) for node in graph.nodes if node.op == "get_attr"}
    return Trace(graph, constants)


def _require_pure(node: fx.Node) -> None:
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    if torch.Tag.nondeterministic_seeded in node.target.tags:
        raise Untraceable(f"it draws random numbers ({node.target})")


def _merge_equal(graph: fx.Graph) -> None:
    """One node for what is computed twice alike, as the forward pass is by two transforms."""
    known: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        pure = isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.is_mutable
        if not pure and node.target is not operator.getitem:
            continue
        key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        if key in known:
            node.replace_all_uses_with(known[key])
            graph.erase_node(node)
        else:
            known[key] = node


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _hashable(item)) for key, item in value.items())
    if isinstance(value, tuple | list):
        return tuple(map(_hashable, value))
    # 1 == 1.0 == True, but operations tell them apart.
    return (type(value), value)
