"""Axes as sums of products of groups, and how they are written as text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from lossatlas.errors import InputError

Factor = str | int  # the name of a group, or the size of something that keeps its order
Segment = tuple[Factor, ...]  # a product: the last factor varies fastest
Axis = tuple[Segment, ...]  # a sum: one segment after another

_NAME = re.compile(r"([^\s+@=]+(?:@[^\s+@=]+)*)(?:=([1-9][0-9]*))?")


def names_in(axis: Axis) -> list[str]:
    """The groups along an axis, each once."""
    return list(dict.fromkeys(factor for segment in axis for factor in segment if isinstance(factor, str)))


def outer_of(name: str) -> str | None:
    return name.partition("@")[2] or None


def written(axis: Axis, sizes: Mapping[str, int] | None = None) -> str | None:
    """The axis as text, with ``sizes``, if known, where several groups share it; None where its order is kept."""
    if not names_in(axis):
        return None
    several = sum(isinstance(factor, str) for segment in axis for factor in segment) > 1
    given_sizes = {name: f"={sizes[name]}" for name in names_in(axis)} if sizes is not None and several else {}
    return " + ".join(" ".join(f"{f}{given_sizes.get(str(f), '')}" for f in segment) for segment in axis)


def parsed(
    name: str, entries: Sequence[str | None], shapes: Mapping[str, Sequence[int]], given_sizes: dict[str, int]
) -> tuple[Axis, ...]:
    if name not in shapes:
        raise InputError(f"The symmetries name a tensor {name!r} that the model does not have: see its state_dict().")
    shape = shapes[name]
    if isinstance(entries, str) or not isinstance(entries, Sequence) or len(entries) != len(shape):
        raise InputError(
            f"The symmetries give {name!r} the axes {entries!r}: give {len(shape)} entries, one an axis of its shape "
            f"{tuple(shape)}, each a text or None."
        )
    given = zip(entries, shape, strict=True)
    return tuple(((size,),) if entry is None else _parsed_axis(name, entry, given_sizes) for entry, size in given)


def _parsed_axis(name: str, entry: str, given_sizes: dict[str, int]) -> Axis:
    if not isinstance(entry, str) or not all(part.split() for part in entry.split("+")):
        raise InputError(f"The symmetries give {name!r} the axis {entry!r}: write 'group', 'group 49' or 'one + two'.")
    return tuple(tuple(_factor(name, word, given_sizes) for word in part.split()) for part in entry.split("+"))


def _factor(name: str, word: str, given_sizes: dict[str, int]) -> Factor:
    found = _NAME.fullmatch(word)
    if word.isdigit() and int(word):
        return int(word)
    if found is None or word.isdigit():
        raise InputError(f"The symmetries give {name!r} the factor {word!r}: write a group's name or a size.")
    group, size = found[1], found[2]
    if size is not None and given_sizes.setdefault(group, int(size)) != int(size):
        raise InputError(
            f"The symmetries give the group {group!r} of {name!r} two sizes, {given_sizes[group]} and {size}."
        )
    return group


def solved_sizes(
    axes: Mapping[str, tuple[Axis, ...]], shapes: Mapping[str, Sequence[int]], given_sizes: Mapping[str, int]
) -> dict[str, int]:
    """The size of each group, as it was given, or from axes where it is the one unknown."""
    known = dict(given_sizes)
    equations = [(name, *pair) for name, own in axes.items() for pair in zip(own, shapes[name], strict=True)]
    for _ in range(len(equations) + 1):
        for name, axis, size in equations:
            unknown = [f for segment in axis for f in segment if isinstance(f, str) and f not in known]
            if len(unknown) == 1:
                known[unknown[0]] = _one_unknown(name, axis, size, unknown[0], known)
    for name, axis, size in equations:
        if missing := set(names_in(axis)) - known.keys():
            raise InputError(
                f"The size of {min(missing)!r} in {name!r} cannot be told from the shapes: write {min(missing)}=SIZE."
            )
        total = sum(math.prod(known[f] if isinstance(f, str) else f for f in segment) for segment in axis)
        if total != size:
            raise InputError(f"The symmetries make an axis of {name!r} {total} long ({written(axis)}); it is {size}.")
    return known


def _one_unknown(name: str, axis: Axis, size: int, unknown: str, known: Mapping[str, int]) -> int:
    rest, factor = size, 1
    for segment in axis:
        product = math.prod(known[f] if isinstance(f, str) else f for f in segment if f != unknown)
        if unknown in segment:
            factor = product
        else:
            rest -= product
    if rest <= 0 or rest % factor:
        raise InputError(f"The symmetries do not fit an axis of {name!r} with {size} entries: {written(axis)}.")
    return rest // factor
