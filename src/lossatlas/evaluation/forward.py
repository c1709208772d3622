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

    Of a step, which holds model and loss together, it is the loss. Raises ``Untraceable``, with the module where it
    happened, for a model that is no fixed sequence of functions of tensors.
    """

    def __init__(self, function: FunctionalModel, batch: Any) -> None:
        if function.differentiates:
            raise Untraceable("as a whole: it differentiates while it is evaluated")
        named = function.tensors(function.point)
        batch = copied(batch)  # a model may write into its inputs
        inputs = {f"tensor_{i}": tensor for i, tensor in enumerate(named.values())}
        self.tensors = {node: name.removeprefix("model.") for node, name in zip(inputs, named, strict=True)}
        inputs |= {f"batch_{i}": tensor for i, tensor in enumerate(tensors_in(batch))}
        run = function.outputs if function.supervised else lambda *given: function.measure(*given)["loss"]
        with torch.no_grad(), preserved_rng(function.point.device), _naming_the_module(function.module):
            self.trace: Trace = trace(lambda: {"outputs": run(named, batch, 0)}, inputs)
        self._graph = fx.GraphModule(dict(self.trace.constants), self.trace.graph)

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
def _naming_the_module(model: nn.Module) -> Iterator[None]:
    """An ``Untraceable`` from inside says in which module it happened."""
    inside: list[str] = []

    def leave(*_: Any) -> None:
        inside.pop()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: inside.append(name)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    except Untraceable as error:
        where = inside[-1] if inside else ""
        place = f"in {where!r} ({type(model.get_submodule(where)).__name__})" if where else "outside of its modules"
        raise Untraceable(f"{place}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
