"""Which axes of a parameter are summed over where it meets the data: seen in the operations of one forward pass.

An operation knows which axis of a weight it sums over (``mm``, ``convolution``), and a tensor knows by its storage and
strides which axes of which parameter its own ones count. So views need no rules: transposes, slices of packed
matrices, heads. A copy is followed where it was made from parameters and constants alone: ``contiguous``, a cast, a
mask, a norm.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lossatlas.model.parameters import ParameterSpace
from lossatlas.model.strides import Home, home_of, place_of, varying

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
    aten.clone, aten._to_copy, aten.copy, aten.complex, aten._weight_norm_interface, aten._softmax, aten.tril,
    aten.triu, aten.native_batch_norm, aten._native_batch_norm_legit, aten.native_dropout,
    aten.fake_quantize_per_tensor_affine_cachemask, aten.fake_quantize_per_channel_affine_cachemask,
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams, aten._fused_moving_avg_obs_fq_helper,
}  # fmt: skip


def _convolution(args: Sequence[Any]) -> Summed:
    weight, transposed, groups = args[1], args[6], args[8]
    if not transposed:
        return [(weight, range(1, weight.ndim))]
    return [(weight.unflatten(0, (groups, -1)), (1, *range(3, weight.ndim + 1)))]


def _rows(args: Sequence[Any]) -> Summed:
    """An embedding: one index reads one row, which is one output."""
    return [(args[0], (1,))]


def _indexed(args: Sequence[Any]) -> Summed:
    """The same, written as ``table[index]``."""
    return [(args[0], range(1, args[0].ndim))] if len(args[1]) == 1 else []


_LAYERS: dict[Any, Callable[[Sequence[Any]], Summed]] = {
    aten.convolution: _convolution,
    aten.embedding: _rows,
    aten.index: _indexed,
    aten._embedding_bag: _rows,
    aten._embedding_bag_forward_only: _rows,
    aten._trilinear: lambda args: [(args[1], (1, 2))],  # nn.Bilinear
    aten.mkldnn_rnn_layer: lambda args: [(weight, (1,)) for weight in args[1:3]],
    aten._cudnn_rnn: lambda args: [(weight, (1,)) for weight in args[1] if weight.ndim == 2],
}


class Uses(TorchDispatchMode):
    """By parameter, the parts of its axes in every product; ``entered``: what else it enters."""

    def __init__(self, space: ParameterSpace, theta: Tensor, fixed: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: dict[bool, dict[str, dict[Parts, None]]] = {True: defaultdict(dict), False: defaultdict(dict)}
        self._through: dict[str, str] = {}
        self._ends: dict[str, str] = {}
        self._theta = place_of(theta)
        self._starts = [entry.start * theta.itemsize for entry in space]
        self._entries = [home_of(entry, theta.itemsize) for entry in space]
        self._homes: dict[int, Home] = {}
        # What is made of parameters and constants alone. Storages are held, so that no other takes their place.
        self._known = {place_of(tensor): tensor.untyped_storage() for tensor in (theta, *fixed) if place_of(tensor)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if torch._C._current_graph_task_id() == -1:  # in a backward pass products go the other way
            self._see(func, args, [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)], found)
        return found

    def _see(self, func: Any, args: Sequence[Any], given: list[Tensor], found: Any) -> None:
        kind, made = func.overloadpacket, [t for t in tree_leaves(found) if isinstance(t, Tensor) and place_of(t)]
        known = func is aten.lift_fresh.default or all(t.ndim == 0 or place_of(t) in self._known for t in given)
        summed, followed = self._summed(kind, args), set[str]()
        for weight, axes in summed:
            self._note(weight, {axis % weight.ndim for axis in axes}, not known)
        new = [t for t in made if place_of(t) not in self._known]
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

    def of(self, name: str) -> list[Parts]:
        """In products with the data; without any in those with constants (a grid, the vectors of spectral_norm)."""
        return list(self._seen[True][name] or self._seen[False][name])

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

    def _note(self, weight: Tensor, summed: set[int], data: bool) -> None:
        home = self._home(weight)
        assert home is not None
        parts = [(digit.axis, digit.low, digit.size, True) for digit in home.inside(weight)]
        for axis, digits in enumerate(home.axes(weight)):
            parts += [(digit.axis, digit.low, digit.size, axis in summed) for digit in digits]
        self._seen[data][home.name][frozenset(parts)] = None

    def _home(self, tensor: Tensor) -> Home | None:
        place = place_of(tensor)
        if place != self._theta:
            return self._homes.get(place)
        return self._entries[bisect_right(self._starts, tensor.storage_offset() * tensor.itemsize) - 1]

    def _keep(self, tensor: Tensor, given: list[Tensor]) -> str:
        """A new tensor of parameters and constants; the parameter whose axes are its own, empty where none's are."""
        self._known[place_of(tensor)] = tensor.untyped_storage()
        sources = [source for source in given if source.shape == tensor.shape and self._home(source)]
        if not sources:
            return ""
        source = max(sources, key=varying)
        home = self._home(source)
        assert home is not None
        digits = home.inside(source)
        for stride, parts in zip(tensor.stride(), home.axes(source), strict=True):
            step = stride * tensor.itemsize
            for part in parts:
                digits.append(replace(part, stride=step))
                step *= part.size
        self._homes[place_of(tensor)] = Home(home.name, tuple(digits))
        return home.name

    def _forget(self, tensors: list[Tensor]) -> None:
        for place in {place_of(tensor) for tensor in tensors} - {self._theta}:
            self._known.pop(place, None)
            self._homes.pop(place, None)
