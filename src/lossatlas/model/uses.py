"""Which axes of a parameter are summed over where it meets the data: seen in the operations of one forward pass.

An operation knows which axis of a weight it sums over (``mm``, ``convolution``), and a tensor knows by its storage and
strides which axes of which parameter its own ones count. So views need no rules: transposes, slices of packed
matrices, heads. A copy is followed where it was made from parameters and constants alone: ``contiguous``, a cast, a
mask, a norm.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lossatlas.model.data.batches import copied, preserved_rng
from lossatlas.model.filters import Filters, along
from lossatlas.model.parameters import Entry, ParameterSpace

Part = tuple[int, int, int, bool]  # of a parameter's axis: every ``low`` entries one of ``size``; whether it is summed
Parts = frozenset[Part]
Summed = list[tuple[Tensor, Iterable[int]]]  # weights, each with the axes that are summed over

aten = torch.ops.aten

# The places of the two factors.
_PRODUCTS = {
    **dict.fromkeys((aten.mm, aten.bmm, aten.mv, aten._int_mm, aten._scaled_mm), (0, 1)),
    **dict.fromkeys((aten.addmm, aten.baddbmm, aten.addmv, aten._addmm_activation), (1, 2)),
}
# Functions of a weight that keep its axes and are not pointwise.
_KEEP_AXES = {
    aten.clone, aten._to_copy, aten.copy, aten._weight_norm_interface, aten._softmax, aten.tril, aten.triu,
    aten.native_batch_norm, aten._native_batch_norm_legit, aten.native_dropout,
    aten.fake_quantize_per_tensor_affine_cachemask, aten.fake_quantize_per_channel_affine_cachemask,
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams,
}  # fmt: skip


def _convolution(args: Sequence[Any]) -> Summed:
    weight, transposed, groups = args[1], args[6], args[8]
    if not transposed:
        return [(weight, range(1, weight.ndim))]
    return [(weight.unflatten(0, (groups, -1)), (1, *range(3, weight.ndim + 1)))]


def _rows(args: Sequence[Any]) -> Summed:
    """An embedding: one index reads one row, which is one output."""
    return [(args[0], (1,))]


_LAYERS: dict[Any, Callable[[Sequence[Any]], Summed]] = {
    aten.convolution: _convolution,
    aten.embedding: _rows,
    aten._embedding_bag: _rows,
    aten._embedding_bag_forward_only: _rows,
    aten._trilinear: lambda args: [(args[1], (1, 2))],  # nn.Bilinear
    aten.mkldnn_rnn_layer: lambda args: [(weight, (1,)) for weight in args[1:3]],
    aten._cudnn_rnn: lambda args: [(weight, (1,)) for weight in args[1] if weight.ndim == 2],
}


class Function(Protocol):
    """What is needed of a ``FunctionalModel``."""

    module: nn.Module
    space: ParameterSpace
    point: Tensor

    def named(self, theta: Tensor) -> dict[str, Tensor]: ...
    def own_buffers(self) -> dict[str, Tensor]: ...
    def measure(self, tensors: dict[str, Tensor], batch: Any, index: int) -> dict[str, Tensor]: ...


def filters_of(function: Function, batch: Any) -> dict[str, Filters]:
    """The filters of every tensor of theta, seen while the loss of ``batch`` is computed once.

    Their axes are those that are not summed over where the tensor first meets the data. Of an embedding a row is a
    filter: what one index reads, as in the code of Li et al. Where nothing is seen axis 0 is assumed, with the reason.
    """
    theta, buffers = function.point.detach().clone(), function.own_buffers()
    fixed = [*buffers.values(), *function.module.parameters(), *function.module.buffers()]
    uses, unseen = Uses(function.space, theta, fixed), "not used on the first batch"
    try:
        with torch.inference_mode(False), torch.no_grad(), preserved_rng(theta.device), uses:
            function.measure(function.named(theta) | buffers, copied(batch), 0)
    except Exception as error:  # an engine that allows no watching; said in every result
        unseen = f"not seen, since the model cannot be watched ({type(error).__name__})"
    found = {entry.name: _filters(entry, list(uses.seen[entry.name]), uses.entered) for entry in function.space}
    return {name: one or _as_another(name, found, function, unseen) for name, one in found.items()}


def _filters(entry: Entry, uses: list[Parts], entered: Mapping[str, str]) -> Filters | None:
    """By the first use that is understood; None of a tensor that was not used."""
    if entry.has_one_dimension:
        return along(entry.shape, ())
    understood = [one for one in (_by(entry, parts) for parts in uses) if one]
    if understood:
        others = dict.fromkeys(one.label for one in understood if one.label != understood[0].label)
        return replace(understood[0], reason=f"first of its uses; also {', '.join(others)}" if others else "")
    if uses:
        return along(entry.shape, (0,), "summed over in parts of its axes")
    return along(entry.shape, (0,), f"enters {entered[entry.name]}") if entry.name in entered else None


def _as_another(name: str, found: Mapping[str, Filters | None], function: Function, reason: str) -> Filters:
    """As the same parameter of another module of this class and shape (an expert without examples), or by axis 0."""
    shapes = {entry.name: (entry.shape, _role(function.module, entry.name)) for entry in function.space}
    for other, filters in found.items():
        if filters and not filters.reason and shapes[other] == shapes[name]:
            return replace(filters, reason=f"{reason}: as {other}")
    return along(shapes[name][0], (0,), reason)


def _role(module: nn.Module, name: str) -> tuple[type, str]:
    owner, _, own = name.rpartition(".")
    return type(module.get_submodule(owner)), own


def _by(entry: Entry, parts: Parts) -> Filters | None:
    """The filters by one use; None where the parts of an axis do not make up the axis."""
    shape: list[int] = []
    kept: list[tuple[int, str]] = []
    for axis, size in enumerate(entry.shape):
        own = sorted((part[1:] for part in parts if part[0] == axis), reverse=True)  # the slowest first
        if len({summed for *_, summed in own}) < 2:  # all of it, or unseen: at one index in each use
            own = [(1, size, any(summed for *_, summed in own))]
        elif not _is_all(own, size):
            return None
        for low, count, summed in own:
            if not summed:
                kept.append((len(shape), f"axis {axis}" if count == size else _blocks(axis, low, count)))
            shape.append(count)
    kept = [one for one in kept if shape[one[0]] > 1] or kept[:1]
    return Filters(tuple(shape), tuple(at for at, _ in kept), " and ".join(text for _, text in kept) or "whole tensor")


def _is_all(parts: Sequence[tuple[int, int, bool]], size: int) -> bool:
    """Whether parts, the slowest first, follow on each other down to single entries."""
    for low, count, _ in parts:
        if low * count != size:
            return False
        size = low
    return size == 1


def _blocks(axis: int, low: int, count: int) -> str:
    return f"blocks of {low} along axis {axis}" if low > 1 else f"every {count}th of axis {axis}"


@dataclass(frozen=True)
class Digit:
    """In a storage every ``stride`` bytes one of ``size`` indices along a parameter's axis, ``low`` entries apart."""

    stride: int
    size: int
    axis: int
    low: int = 1

    def along(self, size: int, stride: int) -> Digit | None:
        """What of it an axis of a tensor on this storage counts."""
        low, high = max(stride, self.stride), min(stride * size, self.stride * self.size)
        if stride == 0 or low >= high or low % self.stride or high % low:
            return None
        return replace(self, stride=low, size=high // low, low=self.low * low // self.stride)


@dataclass(frozen=True)
class Home:
    """A storage that holds the numbers of a parameter, as they are or as a function keeps their order."""

    name: str
    digits: tuple[Digit, ...]

    def axes(self, tensor: Tensor) -> Iterator[list[Digit]]:
        """What each axis of a tensor on this storage counts, the fastest first."""
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            found = (digit.along(size, stride * tensor.itemsize) for digit in self.digits)
            yield sorted((digit for digit in found if digit), key=lambda digit: digit.stride)

    def inside(self, tensor: Tensor) -> list[Digit]:
        """What lies inside one number: the real and the imaginary part."""
        return [digit for digit in self.digits if digit.stride < tensor.itemsize]


class Uses(TorchDispatchMode):
    """``seen``: by parameter, the parts of its axes in each product with the data; ``entered``: what else it enters."""

    def __init__(self, space: ParameterSpace, theta: Tensor, fixed: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, dict[Parts, None]] = defaultdict(dict)
        self._through: dict[str, str] = {}
        self._ends: dict[str, str] = {}
        self._theta = _place(theta)
        self._starts = [entry.start * theta.itemsize for entry in space]
        self._entries = [_home(entry, theta.itemsize) for entry in space]
        self._homes: dict[int, Home] = {}
        # What is made of parameters and constants alone. Storages are held, so that no other takes their place.
        self._known = {_place(tensor): tensor.untyped_storage() for tensor in (theta, *fixed) if _place(tensor)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if torch._C._current_graph_task_id() == -1:  # in a backward pass products go the other way
            self._see(func, args, [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)], found)
        return found

    def _see(self, func: Any, args: Sequence[Any], given: list[Tensor], found: Any) -> None:
        kind, made = func.overloadpacket, [t for t in tree_leaves(found) if isinstance(t, Tensor) and _place(t)]
        summed, followed = self._summed(kind, args), set[str]()
        for weight, axes in summed:
            self._note(weight, {axis % weight.ndim for axis in axes})
        known = func is aten.lift_fresh.default or all(t.ndim == 0 or _place(t) in self._known for t in given)
        new = [t for t in made if _place(t) not in self._known]
        if known:
            keeps_axes = torch.Tag.pointwise in func.tags or kind in _KEEP_AXES
            followed = {self._keep(tensor, given if keeps_axes else []) for tensor in new}
        else:
            self._forget(made)  # the data were written into it
        for tensor in given if not summed and (new or not known) else ():
            if home := self._home(tensor):
                self._enters(home.name, kind.__name__, home.name in followed)

    def _enters(self, name: str, kind: str, followed: bool) -> None:
        """What is not followed counts, the first of it; where all is, the last."""
        if followed:
            self._through[name] = kind
        else:
            self._ends.setdefault(name, kind)

    @property
    def entered(self) -> dict[str, str]:
        return self._through | self._ends

    def _summed(self, kind: Any, args: Sequence[Any]) -> Summed:
        """The parameters in a product with the data; a product of two parameters alone tells no units of outputs."""
        if kind in _LAYERS:
            return [(weight, axes) for weight, axes in _LAYERS[kind](args) if self._home(weight)]
        left, right = (args[place] for place in _PRODUCTS[kind]) if kind in _PRODUCTS else (None, None)
        if left is None or right is None or bool(self._home(left)) == bool(self._home(right)):
            return []
        return [(left, (-1,))] if self._home(left) else [(right, (max(-2, -right.ndim),))]

    def _note(self, weight: Tensor, summed: set[int]) -> None:
        home = self._home(weight)
        assert home is not None
        parts = [(digit.axis, digit.low, digit.size, True) for digit in home.inside(weight)]
        for axis, digits in enumerate(home.axes(weight)):
            parts += [(digit.axis, digit.low, digit.size, axis in summed) for digit in digits]
        self.seen[home.name][frozenset(parts)] = None

    def _home(self, tensor: Tensor) -> Home | None:
        place = _place(tensor)
        if place != self._theta:
            return self._homes.get(place)
        return self._entries[bisect_right(self._starts, tensor.storage_offset() * tensor.itemsize) - 1]

    def _keep(self, tensor: Tensor, given: list[Tensor]) -> str:
        """A new tensor of parameters and constants; the parameter whose axes are its own, empty where none's are."""
        self._known[_place(tensor)] = tensor.untyped_storage()
        sources = [source for source in given if source.shape == tensor.shape and self._home(source)]
        if not sources:
            return ""
        source = max(sources, key=_varies)
        home = self._home(source)
        assert home is not None
        digits = home.inside(source)
        for stride, parts in zip(tensor.stride(), home.axes(source), strict=True):
            step = stride * tensor.itemsize
            for part in parts:
                digits.append(replace(part, stride=step))
                step *= part.size
        self._homes[_place(tensor)] = Home(home.name, tuple(digits))
        return home.name

    def _forget(self, tensors: list[Tensor]) -> None:
        for place in {_place(tensor) for tensor in tensors} - {self._theta}:
            self._known.pop(place, None)
            self._homes.pop(place, None)


def _home(entry: Entry, itemsize: int) -> Home:
    steps = [math.prod(entry.shape[axis + 1 :]) * itemsize for axis in range(len(entry.shape))]
    return Home(entry.name, tuple(Digit(*of, axis) for axis, of in enumerate(zip(steps, entry.shape, strict=True))))


def _varies(tensor: Tensor) -> int:
    """How many numbers of its own it has: an axis that was expanded has one."""
    return math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)


def _place(tensor: Tensor) -> int:
    """Where a tensor's numbers are; 0 for one that has none of its own (sparse, nested, empty)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
