"""Rules for functions that only move numbers about: reshape, permute, split, join, select, pad."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, fx

from lossatlas.connectivity.symmetry.calls import Axes, Call, Found, broadcast, factors, fresh
from lossatlas.connectivity.symmetry.extents import Extent, joined, merged
from lossatlas.connectivity.symmetry.indexing import by_tensors


def reshape(call: Call) -> Found:
    x = [e for e in call.first() if e.size != 1]
    found: Axes = []
    pool: list[Extent] = []  # of the axes read, not yet given to one of the result's
    for size in call.result.shape:
        if size == 1:
            found += fresh([1])
            continue
        while math.prod(e.size for e in pool) % size and x:
            pool.append(x.pop(0))
        total = math.prod(e.size for e in pool)
        if total % size:
            return None
        whole = merged(pool)
        first, *rest = whole.split(factors(size, total // size))
        found.append(first)
        pool = rest
    return found


def rearrange(call: Call) -> Found:
    """Any function that only puts axes into another order: strides tell which went where."""
    shape = [extent.size for extent in call.first()]
    labels = [7 ** (i + 1) for i in range(len(shape))]
    dummy = torch.empty_strided(tuple(2 for _ in shape), labels, device="meta")
    arguments = [dummy, *call.node.args[1:]]
    keywords = {name: value for name, value in call.node.kwargs.items() if name != "input"}
    if call.node.target is getattr:
        moved = getattr(dummy, str(arguments[1]))
    elif call.node.op == "call_method":
        moved = getattr(dummy, str(call.node.target))(*arguments[1:], **keywords)
    else:
        moved = call.node.target(*arguments, **keywords)  # type: ignore[operator]
    return [call.first()[labels.index(stride)] for stride in moved.stride()]


def expand(call: Call) -> Found:
    x, shape = call.first(), call.result.shape
    padded: list[Extent | None] = [None] * (len(shape) - len(x)) + list(x)
    return [e if e is not None and e.size == n else Extent(n, n == 1) for e, n in zip(padded, shape, strict=True)]


def concatenate(call: Call) -> Found:
    parts = [call.axes(part) for part in call.get(0, "tensors")]
    several = [p for p in parts if p is not None and all(e.size for e in p)]
    dim = call.get(1, "dim", call.node.kwargs.get("axis", 0)) % len(several[0])
    rest = broadcast(*[[e for i, e in enumerate(p) if i != dim] for p in several])
    return [*rest[:dim], joined([p[dim] for p in several]), *rest[dim:]]


def stack(call: Call) -> Found:
    several = [axes for axes in map(call.axes, call.get(0, "tensors")) if axes is not None]
    dim = call.get(1, "dim", 0) % (len(several[0]) + 1)
    common = broadcast(*several)
    return [*common[:dim], *fresh([len(several)]), *common[dim:]]


def pieces(call: Call) -> Found:
    """chunk, split: the axis is a sum."""
    x = call.first()
    dim = call.get(2, "dim", 0) % len(x)
    parts = x[dim].cut([piece.shape[dim] for piece in call.result])
    return [[*x[:dim], part, *x[dim + 1 :]] for part in parts]


def unbind(call: Call) -> Found:
    x, dim = call.first(), call.get(1, "dim", 0)
    return [selected(x, dim % len(x), i) for i in range(len(call.result))]


def select(call: Call) -> Found:
    x = call.first()
    dim, index = call.get(1, "dim") % len(x), call.get(2, "index")
    return selected(x, dim, index % x[dim].size)


def narrow(call: Call) -> Found:
    x = call.first()
    dim, start = call.get(1, "dim") % len(x), call.get(2, "start")
    return _cut(x, dim, start % x[dim].size, call.result.shape[dim])


def selected(x: Axes, dim: int, index: int) -> Axes:
    """One unit of an axis, whose order then matters; what depends on it is what it is there."""
    chosen = x[dim].root
    rest = [e.at(chosen, index) for i, e in enumerate(x) if i != dim]
    chosen.pin()
    return rest


def _part(extent: Extent, start: int, length: int) -> Extent:
    if length == extent.size:
        return extent
    sizes = [size for size in (start, length, extent.size - start - length) if size]
    return extent.cut(sizes)[1 if start else 0]


def item(call: Call) -> Found:
    """x[...], or one of several results."""
    source, index = call.node.args[0], call.node.args[1]
    if isinstance(source, fx.Node) and not isinstance(call.value(source), Tensor):
        return cast(Axes, call.several(source)[cast(int, index)])
    x, entries = list(call.first()), list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(e, fx.Node | list) for e in entries):
        return by_tensors(call, x, entries)
    named = sum(e is not None and e is not Ellipsis for e in entries)
    if Ellipsis not in entries:
        entries.append(Ellipsis)
    place = entries.index(Ellipsis)
    entries[place : place + 1] = [slice(None)] * (len(x) - named)
    for entry in entries:
        if isinstance(entry, slice) and any(isinstance(e, fx.Node) for e in (entry.start, entry.stop, entry.step)):
            return None
        if isinstance(entry, slice) and entry.step not in (None, 1):
            return _strided(call, x, entries)
    return _indexed(x, entries)


def _indexed(x: Axes, entries: list[Any]) -> Axes:
    dim = 0
    for entry in entries:
        if entry is None:
            x = [*x[:dim], *fresh([1]), *x[dim:]]
            dim += 1
        elif isinstance(entry, int):
            x = selected(x, dim, entry % x[dim].size)
        else:
            start, stop, _ = entry.indices(x[dim].size)
            x = _cut(x, dim, start, max(stop - start, 0))
            dim += 1
    return x


def _cut(x: Axes, dim: int, start: int, length: int) -> Axes:
    """A slice of an axis; what is something else in each of its units (the states of layers) is so in those left."""
    whole = x[dim].root
    apart = [e.root.over is not None and e.root.over.root is whole and length < whole.size for e in x]
    part = _part(whole, start, length)
    found = [*x[:dim], part, *x[dim + 1 :]]
    for place in (i for i, is_apart in enumerate(apart) if is_apart):
        own = x[place].root
        found[place] = Extent(own.size, own.pinned, outer=[part]) if length > 1 else own.slots[start].root
        if length > 1:
            found[place].over, found[place].slots = part, own.slots[start : start + length]
    return found


def _strided(call: Call, x: Axes, entries: list[Any]) -> Found:
    """Every second pixel: the axis keeps its order, the others are as they were."""
    if not all(isinstance(entry, slice) for entry in entries):
        return None
    found = []
    for extent, entry, size in zip(x, entries, call.result.shape, strict=True):
        if entry == slice(None):
            found.append(extent)
        else:
            extent.pin()
            found += fresh([size])
    return found


def pad(call: Call) -> Found:
    x, widths = list(call.first()), list(call.get(1, "pad"))
    constant = call.get(2, "mode", "constant") == "constant"
    for position, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        dim = len(x) - 1 - position
        if not before and not after:
            continue
        if not constant or before < 0 or after < 0:
            x[dim].pin()
        if x[dim].root.pinned:
            x[dim] = fresh([call.result.shape[dim]])[0]
            continue
        # Added entries are all the same number, so they may change places among themselves.
        around = [Extent(n, n == 1) for n in (before, after)]
        x[dim] = joined([e for e in (around[0], x[dim], around[1]) if e.size])
    return x
