"""How a tensor of theta is cut in filters: the slices that each feed one unit of what it computes."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lossatlas.errors import InputError
from lossatlas.model.parameters import ParameterSpace

Axes = int | tuple[int, ...] | None  # of a tensor's filters; None: the whole tensor is one

_NUMBER = re.compile(r"\d+")
_MOST = 8  # names of tensors of which something is to be known besides their axes


@dataclass(frozen=True)
class Filters:
    """The filters of one tensor: the slices of its view ``shape`` at each index along ``axes``.

    ``shape`` is the tensor's own, or has one of its axes as two (the groups of a transposed convolution's inputs).
    Without axes the whole tensor is one filter. ``label`` says so in the tensor's own axes; ``reason``, why it was
    assumed where it was not seen.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    label: str
    reason: str = ""


def along(shape: tuple[int, ...], axes: Sequence[int], reason: str = "") -> Filters:
    """The filters that whole axes of a tensor count."""
    label = " and ".join(f"axis {axis}" for axis in axes) or "whole tensor"
    return Filters(shape, tuple(axes), label, reason)


def overridden(space: ParameterSpace, found: Mapping[str, Filters], given: Mapping[str, Axes]) -> dict[str, Filters]:
    """``found``, with what is given by name or glob; of several that match a name the last counts."""
    names = [entry.name for entry in space]
    for pattern in given:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise InputError(f"filters= names {pattern!r}, and no parameter that varies matches it: {names[:5]}, ..")
    chosen = {entry.name: found[entry.name] for entry in space}
    for pattern, axes in given.items():
        for entry in space:
            if fnmatch.fnmatchcase(entry.name, pattern):
                chosen[entry.name] = along(entry.shape, _checked(entry.name, entry.own_shape, axes))
    return chosen


def _checked(name: str, shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    several = () if axes is None else axes if isinstance(axes, tuple) else (axes,)
    if not all(isinstance(axis, int) and -len(shape) <= axis < len(shape) for axis in several):
        raise InputError(
            f"filters={{{name!r}: {axes!r}}}: the tensor has the shape {shape}; give one of its axes, a tuple of them, "
            "or None for one filter."
        )
    return tuple(sorted({axis % len(shape) for axis in several}))


def described(filters: Mapping[str, Filters]) -> dict[str, str]:
    """For ``attrs``: ``filters``, the axes of tensors that have more than one; ``filters_assumed``, by the reason.

    >>> described({"fc.weight": along((3, 2), (0,)), "fc.bias": along((3,), ()), "head.weight": along((3, 2), (1,))})
    {'filters': 'axis 0: fc.weight; axis 1: head.weight'}
    """
    weights = {name: one for name, one in filters.items() if len(one.shape) > 1}
    seen = by_text({name: one.label for name, one in weights.items()})
    reasons = {name: one.reason and f"{one.label} ({one.reason})" for name, one in weights.items()}
    unseen = by_text(reasons, most=_MOST)
    return {key: text for key, text in (("filters", seen), ("filters_assumed", unseen)) if text}


def by_text(said: Mapping[str, str], most: int | None = None) -> str:
    """Names by what is said of them, where anything is; at most so many for each.

    A star stands for numbers where the same is said of all names that differ in them.

    >>> by_text({"h.0.w": "axis 1", "h.1.w": "axis 1", "e": "axis 0", "h.0.b": "", "h.1.b": "zero"})
    'axis 1: h.*.w; axis 0: e; zero: h.1.b'
    """
    starred = {name: _NUMBER.sub("*", name) for name in said}
    texts: dict[str, set[str]] = defaultdict(set)
    for name, text in said.items():
        texts[starred[name]].add(text)
    of_each = Counter(starred.values())
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for name, text in said.items():
        short = starred[name]
        groups[text][short if of_each[short] > 1 and len(texts[short]) == 1 else name] = None
    return "; ".join(f"{text}: {_first(list(names), most)}" for text, names in groups.items() if text)


def _first(names: Sequence[str], most: int | None) -> str:
    more = f" and {len(names) - most} more" if most is not None and len(names) > most else ""
    return ", ".join(names[:most]) + more
