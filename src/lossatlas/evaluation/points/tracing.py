"""A measure as a graph of PyTorch's functions, recorded while it runs."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode

from lossatlas.errors import LossAtlasError
from lossatlas.model.data.batches import tensors_in

# The shape of the result depends on the values of the argument in this place.
_SHAPED_BY_VALUES = {
    "nonzero": 0, "argwhere": 0, "unique": 0, "unique_consecutive": 0, "masked_select": 1, "repeat_interleave": 1,
    "_pack_padded_sequence": 1,
}  # fmt: skip
# What changes no value: switches of autograd, and assertions, which a replay does not make.
_NO_FUNCTIONS = {"_set_grad_enabled", "_assert", "_assert_async"}
# What an argument may be, other than a tensor: it becomes part of the graph.
_PLAIN = (bool, int, float, complex, str, type(None), type(...), torch.Size)
_PLAIN_OF_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format)
# What may be asked of a tensor without asking for its values.
_METADATA = {
    "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "element_size", "type", "get_device",
    "is_floating_point", "is_complex", "is_signed", "is_contiguous", "is_same_size", "is_inference", "__len__",
    "__hash__",
}  # fmt: skip
# A graph of functions keeps no graph of autograd.
_DIFFERENTIATE = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)

POINT_PREFIX = "point_"  # of the names of inputs that change from point to point; all others belong to the batch


class Untraceable(LossAtlasError):
    """The computation cannot be written down as a fixed sequence of functions; the message says why."""


@dataclass(frozen=True)
class Trace:
    """A graph with one placeholder an input, ending in an output; the constants' names are ``get_attr`` targets.

    ``hidden``: whether a constant requires a gradient, so that something moves it that no function showed.
    ``by_values``: whether values of inputs that are held decided something, so that it holds for these values alone.
    A node's ``meta["module"]`` is the module in which its function was called, where the trace was told of it.
    """

    graph: fx.Graph
    constants: dict[str, Tensor]
    hidden: bool = False
    by_values: bool = False

    def copy(self) -> Trace:
        """One to be rewritten; the constants are shared."""
        graph = fx.Graph()
        graph.output(graph.graph_copy(self.graph, {}))
        return Trace(graph, dict(self.constants))


def trace(
    measure: Callable[[], Mapping[str, Tensor]],
    inputs: Mapping[str, Tensor],
    numbers: Sequence[str] = (),
    held: Collection[str] = (),
    module: Callable[[], str] = str,
) -> Trace:
    """Every function that ``measure`` applies to ``inputs``, in order.

    ``numbers`` names further inputs, which rewrites may use; ``held`` inputs whose values may decide what is done;
    ``module()`` is the name of the module that is running.

    The shapes of the inputs, and whatever Python decides by them, become part of the graph. A change in place is
    recorded as the function that makes a new tensor. Raises ``Untraceable`` where a decision depends on a tensor's
    values, or where something is written that has no such function. What no function sees (an extension in C++, a
    number drawn by NumPy) becomes a constant: whoever uses a trace compares it with the measure at other points. It is
    replayed for its values: where autograd was off in ``measure`` is not written down.
    """
    recorder = _Recorder(inputs, held, module)
    for name in numbers:
        recorder.graph.placeholder(name)
    with recorder:
        result = measure()
    recorder.graph.output({name: recorder.written(tensor) for name, tensor in result.items()})
    return Trace(recorder.graph, recorder.constants, recorder.hidden, recorder.by_values)


class _Recorder(TorchFunctionMode):
    def __init__(self, inputs: Mapping[str, Tensor], held: Collection[str], module: Callable[[], str]) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.hidden = self.by_values = False
        self._module, self._holds = module, bool(held)
        self._nodes: dict[int, fx.Node] = {}
        self._alive: list[Tensor] = []  # an id is a name only as long as its tensor lives
        self._moving = set[fx.Node]()  # what depends on inputs that are not held
        for name, tensor in inputs.items():
            self._know(tensor, self.graph.placeholder(name))
            if name not in held:
                self._moving.add(self._nodes[id(tensor)])

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", str(function))
        given = list(tensors_in([args, kwargs]))
        if name in _NO_FUNCTIONS or (name == "__bool__" and sys._getframe(1).f_code is torch._assert.__code__):
            return function(*args, **kwargs)
        self._check(function, name, args, given)
        if given and (name.endswith("_") or name.startswith("__i")) and id(given[0]) not in self._nodes:
            self._constant(given[0], given[0].clone())  # as it is before it is written to
        versions = [tensor._version for tensor in given]
        result = function(*args, **kwargs)
        changed = [tensor for tensor, version in zip(given, versions, strict=True) if tensor._version != version]
        if changed:
            if any(map(self._shared, changed)):
                raise Untraceable(f"it writes into a tensor that is seen elsewhere ({name})")
            function, name, kwargs = _out_of_place(function, name, args, kwargs, changed, result)
        if isinstance(result, Tensor) or (isinstance(result, tuple | list) and any(True for _ in tensors_in(result))):
            self._record(function, name, args, kwargs, result)
        elif name not in _METADATA and name != "__get__":
            self._decide(given, f"what it does depends on values ({name})")
        return result

    def _check(self, function: Any, name: str, args: tuple[Any, ...], given: list[Tensor]) -> None:
        if function in _DIFFERENTIATE:
            raise Untraceable("it differentiates by torch.autograd")
        if any(map(is_functorch_wrapped_tensor, given)):
            raise Untraceable("it runs under vmap or another of torch.func's transforms")
        place = 1 if name == "__getitem__" and _masks(args[1]) else _SHAPED_BY_VALUES.get(name)
        if place is not None and (shaping := list(tensors_in(args[place : place + 1])) if len(args) > place else given):
            self._decide(shaping, f"what shape it has depends on values ({name})")

    def _decide(self, given: Iterable[Tensor], reason: str) -> None:
        """The values of these tensors become part of the graph, where they come from inputs that are held."""
        nodes = [self._nodes.get(id(tensor)) for tensor in given]
        if not self._holds or not nodes or any(node in self._moving for node in nodes):
            raise Untraceable(reason)
        self.by_values = True

    def written(self, value: Any) -> Any:
        """``value`` with each tensor replaced by the node that makes it."""
        if isinstance(value, Tensor):
            return self._nodes.get(id(value)) or self._constant(value, value.detach())
        if isinstance(value, dict):
            return {key: self.written(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(self.written(value.start), self.written(value.stop), self.written(value.step))
        if type(value) in (tuple, list):
            return type(value)(map(self.written, value))
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, (*_PLAIN, *_PLAIN_OF_TORCH)):
            raise Untraceable(f"a {type(value).__name__} is passed to a function")
        return value

    def _record(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        args, kwargs = self.written(args), self.written(kwargs)
        if name == "__get__":  # a property whose value is a tensor: .T, .data, .real
            node = self.graph.call_function(getattr, (args[0], function.__self__.__name__))
        elif hasattr(function, "__objclass__"):
            node = self.graph.call_method(name, args, kwargs)
        else:
            node = self.graph.call_function(function, args, kwargs)
        node.meta["module"] = self._module()
        if any(source in self._moving for source in node.all_input_nodes):
            self._moving.add(node)
        if isinstance(result, Tensor):
            node.meta["ndim"] = result.ndim
            self._know(result, node)
            return
        for index, item in enumerate(result):
            if isinstance(item, Tensor):
                self._know(item, self.graph.call_function(operator.getitem, (node, index)))
                self._nodes[id(item)].meta["module"] = node.meta["module"]
                self._moving |= {self._nodes[id(item)]} if node in self._moving else set()

    def _know(self, tensor: Tensor, node: fx.Node) -> None:
        self._nodes[id(tensor)] = node
        self._alive.append(tensor)

    def _shared(self, tensor: Tensor) -> bool:
        """Whether another tensor shares its numbers."""
        place = tensor.untyped_storage().data_ptr()
        return any(t is not tensor and t.untyped_storage().data_ptr() == place for t in self._alive)

    def _constant(self, tensor: Tensor, value: Tensor) -> fx.Node:
        self.hidden |= tensor.requires_grad
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value
        self._know(tensor, self.graph.get_attr(name))
        return self._nodes[id(tensor)]


def _masks(index: Any) -> bool:
    return any(t.dtype in (torch.bool, torch.uint8) for t in tensors_in([index]))


def _out_of_place(
    function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], changed: list[Tensor], result: Any
) -> tuple[Any, str, dict[str, Any]]:
    """The function that gives as a new tensor what this one wrote into its first argument."""
    if len(changed) == 1 and changed[0] is result and not result._is_view():
        if kwargs.get("inplace"):
            return function, name, kwargs | {"inplace": False}
        plain = "__" + name[3:] if name.startswith("__i") else name.removesuffix("_")
        if plain != name and args and args[0] is result and hasattr(Tensor, plain):
            return getattr(Tensor, plain), plain, kwargs
    raise Untraceable(f"it writes into a tensor ({name})")
