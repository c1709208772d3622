"""The tensors of a batch of any form: found, replaced, copied and described, with every class kept.

A batch is a tensor, a container of Python (tuple, named tuple, list, dict), or an object. Objects (dict subclasses,
dataclasses, graph batches) are taken apart and put together as ``copy`` and ``pickle`` do it, by ``__reduce_ex__``, so
that whatever can be pickled keeps its class and its attributes. What cannot be pickled is refused, never passed over.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lossatlas.errors import DataError

NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
"""What stands for itself by its name: classes, functions, modules."""
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), slice, range, np.generic)
OF_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, torch.Generator)
_ATOMS = (*NAMED, *PLAIN, *OF_TORCH, weakref.ref)
_NOTHING = contextlib.nullcontext()


@dataclass(frozen=True)
class Reduced:
    """An object as ``pickle`` sees it: ``make(*args)``, then its state, its items and its pairs of key and value."""

    make: Callable[..., Any]
    args: tuple[Any, ...]
    state: Any
    items: list[Any]
    pairs: list[tuple[Any, Any]]

    @property
    def parts(self) -> list[Any]:
        """All that it holds, in a fixed order."""
        return [*self.args, self.state, *self.items, *(part for pair in self.pairs for part in pair)]


def is_atom(node: Any) -> bool:
    """Whether a node holds no others and is never copied: numbers, strings, classes, functions."""
    return isinstance(node, _ATOMS)


def is_array(node: Any) -> bool:
    """Whether a node is a plain numpy array of numbers or texts, not of objects, and not a masked one."""
    return type(node) in (np.ndarray, np.memmap) and not node.dtype.hasobject


def is_named_tuple(node: Any) -> bool:
    """Whether a node is an instance of a named tuple's class."""
    return isinstance(node, tuple) and hasattr(type(node), "_fields")


def reduced(node: Any) -> Reduced:
    """The parts of an object; ``DataError`` where it has none that can be known (locks, open files, generators)."""
    try:
        parts: Any = cast(Any, type(node)).__reduce_ex__(node, 4)
        if isinstance(parts, str):
            return Reduced(lambda name: node, (parts,), None, [], [])  # one of a kind, known by its name
        make, args, state, items, pairs = (*parts, None, None, None)[:5]
        return Reduced(make, tuple(args), state, list(items or ()), list(pairs or ()))
    except Exception as error:
        raise DataError(
            f"A batch holds a {type(node).__name__}, which cannot be copied ({' '.join(str(error).split())}): leave it "
            "out of the batch, or make its class picklable (__getstate__ without it)."
        ) from error


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """The tensors of a batch, in order; those of an object once, however often it is met."""
    yield from _tensors(batch, {})


def _tensors(node: Any, seen: dict[int, Any]) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif is_atom(node) or is_array(node):
        return
    elif type(node) is dict:
        for value in node.values():
            yield from _tensors(value, seen)
    elif type(node) in (tuple, list) or is_named_tuple(node):
        for value in node:
            yield from _tensors(value, seen)
    elif id(node) not in seen:
        seen[id(node)] = node, (object_ := reduced(node))  # an id is a name only as long as its object lives
        for part in object_.parts:
            yield from _tensors(part, seen)


def mapped(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A batch of the same form with ``function`` of each tensor; arrays and objects are copies, atoms are shared."""
    return _Mapping(function)(batch)


class _Mapping:
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._made: dict[int, Any] = {}
        self._alive: list[Any] = []

    def __call__(self, node: Any) -> Any:
        if isinstance(node, Tensor):
            return self._function(node)
        if type(node) is weakref.ref:
            return self._reference(node)
        if is_atom(node):
            return node
        return self._array(cast(Any, node)) if is_array(node) else self._container(node)

    def _array(self, node: Any) -> Any:
        return node.copy()

    def _container(self, node: Any) -> Any:
        if type(node) is dict:
            return {key: self(value) for key, value in node.items()}
        if isinstance(node, PackedSequence):  # its sizes are counts, which live on the CPU
            data, sizes, *orders = map(self, node)
            return tuple.__new__(type(node), (data, sizes.cpu(), *orders))
        if is_named_tuple(node):
            return tuple.__new__(type(node), map(self, node))
        if type(node) in (tuple, list):
            return type(node)(map(self, node))
        return self._made[id(node)] if id(node) in self._made else self._object(node)

    def _object(self, node: Any) -> Any:
        parts = reduced(node)
        self._alive += [node, parts]
        made = self._made[id(node)] = parts.make(*map(self, parts.args))
        try:
            _fill(made, self(parts.state), list(map(self, parts.items)), [(self(k), self(v)) for k, v in parts.pairs])
        except (AttributeError, TypeError) as error:
            raise DataError(
                f"A batch holds a {type(node).__name__}, whose copy cannot be given its contents "
                f"({' '.join(str(error).split())}): make its class picklable, or hand over its tensors in a dict."
            ) from error
        return made

    def _reference(self, node: Any) -> Any:
        made = self._made.get(id(node()))
        return node if made is None else weakref.ref(made)


def _fill(made: Any, state: Any, items: list[Any], pairs: list[tuple[Any, Any]]) -> None:
    # Looked up on the class, since an instance may answer every name with one of its entries.
    if state is not None and hasattr(type(made), "__setstate__"):
        made.__setstate__(state)
    elif state is not None:
        attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
        if attributes:
            made.__dict__.update(attributes)
        for name, value in (slots or {}).items():
            object.__setattr__(made, name, value)
    for item in items:
        made.append(item)
    for key, value in pairs:
        made[key] = value


def refill(batch: Any, tensors: Iterator[Tensor]) -> Any:
    """A batch of the same form that holds other tensors, in the order of ``tensors_in``."""
    return mapped(batch, lambda _: next(tensors))


def copied(batch: Any) -> Any:
    """The same batch with tensors of its own."""
    with torch.inference_mode(False) if torch.is_inference_mode_enabled() else _NOTHING:
        return mapped(batch, torch.clone)


def cast_floats(batch: Any, dtype: torch.dtype) -> Any:
    """The batch with its floating-point tensors in ``dtype``, and complex ones in the complex type of that width."""
    return mapped(batch, lambda tensor: tensor.to(cast_type(tensor, dtype) or tensor.dtype))


def cast_type(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype | None:
    """What a tensor's numbers are cast to: never what is whole, and None for as it is."""
    if dtype is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return None
    return dtype.to_complex() if tensor.is_complex() else dtype


def leading_size(batch: Any) -> int:
    """The number of examples in a batch: the length of its first tensor that has one."""
    for tensor in tensors_in(batch):
        if tensor.ndim:
            return int(tensor.size(0))
    raise DataError(
        f"A batch of type {type(batch).__name__} holds no tensor with a batch axis, so its size is unknown: "
        "give batches of torch tensors, or state weight=."
    )


def describe(batch: Any) -> str:
    """``float32 (128, 1, 28, 28), int64 (128)``: a batch in an error message."""
    return ", ".join(map(_described, tensors_in(batch))) or f"a {type(batch).__name__} without tensors"


def _described(tensor: Tensor) -> str:
    name, layout = str(tensor.dtype).removeprefix("torch."), str(tensor.layout).removeprefix("torch.")
    if tensor.is_nested:
        return f"nested {name} ({tensor.size(0)}, ...)"
    kind = "" if tensor.layout is torch.strided else f"{layout} "
    return f"{kind}{name} ({', '.join(map(str, tensor.shape))})"
