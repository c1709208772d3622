"""The model's outputs on a batch as a graph of functions of its named tensors, to be read and to be run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from lossatlas.evaluation.points.tracing import Trace, Untraceable, trace
from lossatlas.model.data.batches import copied, preserved_rng, seed_generators, tensors_in
from lossatlas.model.functional import FunctionalModel

Watch = Callable[[fx.Node, Any], None]


class Forward:
    """f(tensors, batch) as a graph: a placeholder for each parameter and buffer (``tensors``: node name -> its name).

    Of a step, which holds model and loss together, it is the loss. What depends on the batch alone, or on buffers that
    theta does not decide, may depend on values: the graph then holds for this batch alone (``by_values``). Raises
    ``Untraceable``, with the module where it happened, for a model that is no fixed sequence of functions of tensors.
    """

    def __init__(self, function: FunctionalModel, batch: Any) -> None:
        if function.differentiates:
            raise Untraceable("as a whole: it differentiates while it is evaluated")
        named = function.tensors(function.point)
        batch = copied(batch)  # a model may write into its inputs
        inputs = {f"tensor_{i}": tensor for i, tensor in enumerate(named.values())}
        self.tensors = {node: name.removeprefix("model.") for node, name in zip(inputs, named, strict=True)}
        moving = {entry.name for entry in function.space} | function.statistics
        held = {node for node, name in self.tensors.items() if name not in moving}
        examples = {f"batch_{i}": tensor for i, tensor in enumerate(tensors_in(batch))}
        run = function.outputs if function.supervised else lambda *given: function.measure(*given)["loss"]
        self._model = function.module
        fixed = (*function.module.named_parameters(), *function.module.named_buffers())
        self._fixed = {tensor.data_ptr(): name for name, tensor in fixed if tensor.numel()}
        with torch.no_grad(), preserved_rng(function.point.device), _running_module(function.module) as running:
            measured = lambda: {"outputs": run(named, batch, 0)}  # noqa: E731 - it is called inside of trace
            self.trace: Trace = trace(measured, inputs | examples, held=held | examples.keys(), module=running)
        self._graph = fx.GraphModule(dict(self.trace.constants), self.trace.graph)

    @property
    def names(self) -> list[str]:
        """Of its nodes, in order: the same for batches for which it does the same."""
        return [node.name for node in self.trace.graph.nodes]

    def name_of(self, node: fx.Node) -> str | None:
        """The parameter or buffer that a node is."""
        if node.op == "get_attr":  # a parameter that is no part of theta
            return self._fixed.get(self.trace.constants[str(node.target)].data_ptr())
        return self.tensors.get(str(node.target)) if node.op == "placeholder" else None

    def place(self, node: fx.Node) -> str:
        """The module in which a function was called, as text."""
        return _place(self._model, node.meta.get("module", ""))

    def run(self, tensors: Mapping[str, Tensor], batch: Any, watch: Watch | None = None) -> Tensor:
        """The outputs on a batch of the form that was traced; ``watch(node, value)`` sees every intermediate value."""
        given = [tensors[name] for name in self.tensors.values()]
        with torch.no_grad(), preserved_rng(given[0].device):
            seed_generators(0, given[0].device)  # as for the batch that was traced
            outputs: Tensor = _Watched(self._graph, watch).run(*given, *tensors_in(copied(batch)))["outputs"]
        return outputs


class _Watched(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, watch: Watch | None) -> None:
        super().__init__(module)
        self._watch = watch

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if self._watch is not None:
            self._watch(n, value)
        return value


@contextmanager
def _running_module(model: nn.Module) -> Iterator[Callable[[], str]]:
    """The name of the module that is running; an ``Untraceable`` from inside says in which it happened."""
    inside: list[str] = [""]

    def leave(*_: Any) -> None:
        inside.pop()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: inside.append(name)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield lambda: inside[-1]
    except Untraceable as error:
        raise Untraceable(f"{_place(model, inside[-1])}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()


def _place(model: nn.Module, name: str) -> str:
    return f"in {name!r} ({type(model.get_submodule(name)).__name__})" if name else "outside of its modules"
