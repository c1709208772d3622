"""Rules for entries that are looked up by number, and for what is added to entries by number: tables, graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from lossatlas.connectivity.symmetry.calls import Axes, Call, Found, Rule, broadcast, fresh, together
from lossatlas.connectivity.symmetry.extents import unify


def by_tensors(call: Call, x: Axes, entries: list[Any]) -> Found:
    """x[:, i, j] for neighbouring tensors of numbers, or for one mask."""
    if Ellipsis in entries:
        place = entries.index(Ellipsis)
        entries[place : place + 1] = [slice(None)] * (len(x) - sum(_width(call, e) for e in entries))
    first = next(i for i, entry in enumerate(entries) if isinstance(entry, fx.Node | list))
    indices = [entry for entry in entries if isinstance(entry, fx.Node)]
    whole = [*entries[:first], *entries[first + len(indices) :]]
    if not indices or any(entry != slice(None) for entry in whole):
        return None
    width = sum(_width(call, e) for e in indices)
    if any(_is_mask(call, e) for e in indices):
        return _looked_up(x, first, width, [fresh(call.result.shape[first : first + 1])]) if len(indices) == 1 else None
    return _looked_up(x, first, width, [call.axes(index) or [] for index in indices])


def _width(call: Call, entry: Any) -> int:
    """How many axes an entry of an index is for."""
    if entry is None or entry is Ellipsis:
        return 0
    return int(call.value(entry).ndim) if _is_mask(call, entry) else 1


def _is_mask(call: Call, entry: Any) -> bool:
    return isinstance(entry, fx.Node) and call.value(entry).dtype in (torch.bool, torch.uint8)


def _looked_up(x: Axes, dim: int, width: int, indices: Sequence[Axes]) -> Axes:
    """The axes of the numbers in place of those that they count along, whose order then matters."""
    places = range(dim, dim + width)
    x = together(x, places)
    for place in places:
        x[place].pin()
    return [*x[:dim], *broadcast(*indices), *x[dim + width :]]


def index_select(call: Call) -> Found:
    x, dim, numbers = call.first(), call.get(1, "dim"), call.tensor(2, "index")
    return _looked_up(x, dim % len(x), 1, [numbers])


def gather(call: Call) -> Found:
    """x[i, number[i, j]]: along the other axes, place by place."""
    x, dim = _along(call)
    numbers = call.tensor(2, "index")
    _unify_beside(dim, x, numbers)
    return numbers


def scatter(sums: bool) -> Rule:
    """x[i, number[i, j]] is set to source[i, j], or that is added; of sums (means, maxima) j has no order."""

    def rule(call: Call) -> Found:
        x, dim = _along(call)
        numbers = call.tensor(2, "index")
        _unify_beside(dim, x, numbers)
        if (source := call.axes(call.get(3, "src"))) is not None:
            _unify_beside(dim, x, source)
            unify(numbers[dim], source[dim])
        if not sums:
            numbers[dim].pin()
        return x

    return rule


def index_add(call: Call) -> Found:
    """x[number[j]] + source[j], for every j."""
    x, dim = _along(call)
    numbers, source = call.tensor(2, "index"), call.tensor(3, "source")
    _unify_beside(dim, x, source)
    unify(source[dim], numbers[0])
    return x


def _along(call: Call) -> tuple[Axes, int]:
    """x and the axis that numbers count along: its order matters, and the others have one order in all its places."""
    dim = call.get(1, "dim") % len(call.first())
    x = together(call.first(), [dim])
    x[dim].pin()
    return x, dim


def _unify_beside(dim: int, x: Axes, other: Axes) -> None:
    for place, (one, own) in enumerate(zip(x, together(other, [dim]), strict=True)):
        if place != dim:
            unify(one, own)
