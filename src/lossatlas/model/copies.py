"""A deep copy of a model that ``copy.deepcopy`` refuses: what it refuses is shared, and all else copied."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

_TREE = ("_parameters", "_buffers", "_modules")
_OWN_WAYS = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__")


def copied_in_parts(model: nn.Module, memo: dict[int, Any]) -> tuple[nn.Module, list[str]]:
    """The copy, and in words what it shares with ``model``: parts of attributes that are no tensor and no module.

    A module whose own ``__deepcopy__`` fails is copied attribute by attribute. Raises what ``deepcopy`` does where
    that does not help.
    """
    shared = []
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            for part in () if attribute in _TREE else _refused(value, memo, set()):
                memo[id(part)] = part
                shared.append(f"{attribute!r} of {name or 'the model itself'} (a {type(part).__name__})")
    for module in reversed(list(model.modules())):  # parts first
        if id(module) not in memo and _in_its_own_way(module) and not _copies(module, memo):
            _copy_attributes(module, memo)
    return copy.deepcopy(model, memo), shared


def _refused(value: object, memo: dict[int, Any], seen: set[int]) -> Iterator[object]:
    """The innermost parts of a value that cannot be copied, but for what is, or holds, tensors and modules."""
    if id(value) in seen or isinstance(value, Tensor | nn.Module) or _copies(value, memo):
        return
    seen.add(id(value))
    parts = _parts(value)
    refusing = [one for one in parts if id(one) not in seen and not _copies(one, memo)]
    for one in refusing:
        yield from _refused(one, memo, seen)
    if not refusing and not any(isinstance(one, Tensor | nn.Module) for one in parts):
        yield value


def _parts(value: Any) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return list(getattr(value, "__dict__", {}).values())


def _copies(value: object, memo: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:  # whatever refuses
        return False
    return True


def _in_its_own_way(module: nn.Module) -> bool:
    return any(getattr(type(module), way, None) is not getattr(nn.Module, way, None) for way in _OWN_WAYS)


def _copy_attributes(module: nn.Module, memo: dict[int, Any]) -> None:
    other = memo[id(module)] = object.__new__(type(module))
    attributes: Iterable[tuple[str, Any]] = vars(module).items()
    other.__dict__.update({name: copy.deepcopy(value, memo) for name, value in attributes})
