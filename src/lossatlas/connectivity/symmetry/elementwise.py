"""Rules for functions that work place by place, or along one axis."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from lossatlas.connectivity.symmetry.calls import Axes, Call, Found, Rule, broadcast, constant, fresh, together
from lossatlas.connectivity.symmetry.extents import Extent, unify


def elementwise(call: Call) -> Found:
    return broadcast(*call.tensors())


def same(call: Call) -> Found:
    """Each axis as it was."""
    return call.first()


def normalised(place: int, default: int | None = None) -> Rule:
    """Softmax and the like: the entries along the axis that the argument at ``place`` names are compared."""

    def rule(call: Call) -> Found:
        dim = call.get(place, "dim", default)
        return together(call.first(), [dim]) if isinstance(dim, int) else None

    return rule


def reduction(place: int = 1) -> Rule:
    """Sums, means and the like over the axes that the argument at ``place`` names, or over all."""

    def rule(call: Call) -> Found:
        x, dims = call.first(), call.get(place, "dim", call.node.kwargs.get("axis"))
        if isinstance(dims, int) and not isinstance(dims, bool):
            dims = [dims]
        if not isinstance(dims, list | tuple) or not dims:
            dims = range(len(x))
        gone = {d % len(x) for d in dims}
        keep = call.result.ndim == len(x)
        return [Extent(1, pinned=True) if d in gone else e for d, e in enumerate(x) if keep or d not in gone]

    return rule


def ordered(place: int = 1, default: int | None = None) -> Rule:
    """Functions that look at the order along one axis (cumulative sums, ranks): the others are as they were."""

    def rule(call: Call) -> Found:
        x, dim = call.first(), call.get(place, "dim", default)
        if not isinstance(dim, int) or isinstance(dim, bool):
            return None
        dim %= len(x)
        x[dim].pin()

        def axes(result: Tensor) -> Axes:
            instead = fresh(result.shape[dim : dim + 1]) if result.ndim == len(x) else []
            return [*x[:dim], *instead, *x[dim + 1 :]]

        return axes(call.result) if isinstance(call.result, Tensor) else [axes(result) for result in call.result]

    return rule


def turned(place: int) -> Rule:
    """Flips and rolls along the axes that the arguments from ``place`` on name: of pixels or examples, not of units."""

    def rule(call: Call) -> Found:
        x, dims = call.first(), cast(Any, call.get(place, "dims"))
        dims = dims if isinstance(dims, list | tuple) else [dims, *call.node.args[place + 1 :]]
        if any(e.outer for e in x) or not all(x[dim].root.pinned for dim in dims):
            for extent in x:
                extent.pin()
        gone = {dim % len(x) for dim in dims}
        return [fresh([e.size])[0] if d in gone or e.root.pinned else e for d, e in enumerate(x)]

    return rule


def dropped(place: int) -> Rule:
    """Dropout and its kin: nothing in evaluation, else a mask by place. ``place``: of the argument ``training``."""
    return lambda call: None if call.get(place, "training", True) else call.first()


def gated(call: Call) -> Found:
    """glu: the first half times the sigmoid of the other."""
    x = call.first()
    dim = call.get(1, "dim", -1) % len(x)
    halves = x[dim].cut([x[dim].size // 2] * 2)
    unify(*halves)
    return [*x[:dim], halves[0], *x[dim + 1 :]]


def pointwise_loss(call: Call) -> Found:
    """A loss place by place, or the sum or mean of all of them."""
    return broadcast(*call.tensors())[: call.result.ndim]


def by_place(call: Call) -> Found:
    """Losses by class: every axis is in its order."""
    for extent in (e for axes in call.tensors() for e in axes):
        extent.pin()
    return fresh(call.result.shape)


def factory(call: Call) -> Found:
    """A tensor made of no more than numbers: along an axis where all is the same, entries may change places."""
    return None if any(call.tensors()) else constant(call.result)


def made_like(call: Call) -> Found:
    """One that takes no more than the form of another."""
    return constant(call.result) if len(call.tensors()) == 1 else None


def converted(call: Call) -> Found:
    """torch.as_tensor, torch.tensor."""
    return call.first() if call.tensors() else constant(call.result)
