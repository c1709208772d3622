"""The filters of a model, by where its parameters meet the data in one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lossatlas.model.data.batches import copied, preserved_rng
from lossatlas.model.filters import Filters, along
from lossatlas.model.parameters import Entry, ParameterSpace
from lossatlas.model.uses import Parts, Uses


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
    found = {entry.name: _filters(entry, uses.of(entry.name), uses.entered) for entry in function.space}
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
            return replace(filters, reason=f"{reason}: as others of its kind")
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
            inside = entry.is_complex and axis == len(entry.shape) - 1  # both parts of a number are of one filter
            own = [(1, size, inside or any(summed for *_, summed in own))]
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
