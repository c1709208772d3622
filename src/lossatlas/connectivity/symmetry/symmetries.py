"""Which units of a network may change places without changing its function, and what that does to its tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor

from lossatlas.connectivity.symmetry.notation import Axis, Segment, names_in, outer_of, parsed, solved_sizes, written
from lossatlas.errors import InputError

Permutations = dict[str, Tensor]


@dataclass(frozen=True)
class Group:
    """Units that may change places: all permutations of ``size``.

    A group ``within`` another has a permutation of its own in each of that one's units: the dimensions of a head.
    """

    name: str
    size: int
    within: str | None = None


@dataclass(frozen=True)
class Symmetries:
    """The permutations of hidden units that leave f as it is: for each tensor, which group moves which axis.

    ``axes`` maps a tensor's name to one ``Axis`` a dimension; tensors that no group moves are absent. It is found by
    ``symmetries(objective)``, or written by hand with ``Symmetries.parse``. A permutation p of a group puts unit
    p[i] in place i; of a group within another it is a row ``p[j]`` for each unit j of the outer one, in its new order.
    ``pinned``: a line a reason, which layers' units stay in order and at which function of which module that was seen.
    Raises ``InputError`` where it is written by hand and does not fit (see ``parse``).

    Source: Ainsworth et al. 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries", section 3 and A.1.

    Examples
    --------
    >>> shapes = {"a.weight": (2, 3), "b.weight": (1, 2)}
    >>> of = Symmetries.parse({"a.weight": ("a", None), "b.weight": (None, "a")}, shapes)
    >>> moved = of.permuted({"b.weight": torch.tensor([[5.0, 7.0]])}, {"a": torch.tensor([1, 0])})
    >>> moved["b.weight"]
    tensor([[7., 5.]])
    """

    groups: dict[str, Group]
    axes: dict[str, tuple[Axis, ...]]
    pinned: tuple[str, ...] = field(default=())

    @classmethod
    def parse(
        cls, spec: Mapping[str, Sequence[str | None]], shapes: Mapping[str, Sequence[int]], pinned: tuple[str, ...] = ()
    ) -> Symmetries:
        """From text: tensor name -> one entry an axis, ``None`` where the order is fixed.

        An entry is a product of group names and sizes (``"conv2 49"``: each channel of conv2 is a block of 49), or a
        sum of them (``"left + right"``, a concatenation). ``"dim@heads"`` has another order in each of the heads. How
        many units a group has follows from the shapes, or is given where it does not (``"heads=4 dim@heads=16"``).

        Raises
        ------
        InputError : a tensor that is unknown, has another number of axes, or a size that does not fit; it is named.

        Examples
        --------
        >>> shapes = {"a.weight": (8, 3), "a.bias": (8,), "b.weight": (2, 32)}
        >>> found = Symmetries.parse({"a.weight": ("a", None), "a.bias": ("a",), "b.weight": (None, "a 4")}, shapes)
        >>> found.groups
        {'a': Group(name='a', size=8, within=None)}
        """
        given_sizes: dict[str, int] = {}
        axes = {name: parsed(name, entries, shapes, given_sizes) for name, entries in spec.items()}
        sizes = solved_sizes(axes, shapes, given_sizes)
        groups = {name: Group(name, size, outer_of(name)) for name, size in sizes.items()}
        for name, own in axes.items():
            for inner in (f for axis in own for f in names_in(axis) if outer_of(f)):
                if not any(outer_of(inner) in names_in(axis) for axis in own):
                    raise InputError(
                        f"The group {inner!r} lies within {outer_of(inner)!r}, which no axis of {name!r} has."
                    )
        return cls(groups, axes, pinned)

    @property
    def spec(self) -> dict[str, tuple[str | None, ...]]:
        """What ``parse`` would read: to be printed, changed, and given as ``symmetries=``."""
        sizes = {name: group.size for name, group in self.groups.items()}
        return {name: tuple(written(axis, sizes) for axis in axes) for name, axes in self.axes.items()}

    def __str__(self) -> str:
        width = max(map(len, self.axes), default=0)
        rows = {name: ", ".join(written(axis) or "." for axis in axes) for name, axes in self.axes.items()}
        lines = [f"{name:{width}}  {row}" for name, row in rows.items()]
        return "\n".join([*lines, *(f"kept in order: {reason}" for reason in self.pinned)])

    def among(self, names: Collection[str]) -> Symmetries:
        """The same groups, moving these tensors alone."""
        return replace(self, axes={name: axes for name, axes in self.axes.items() if name in names})

    def roots(self) -> list[Group]:
        """The groups that lie within no other."""
        return [group for group in self.groups.values() if group.within is None]

    def children(self, name: str) -> list[Group]:
        """The groups directly within this one."""
        return [group for group in self.groups.values() if group.within == name]

    def line(self, name: str) -> list[Group]:
        """The group and those that it lies within, the outermost first."""
        group = self.groups[name]
        return [*(self.line(group.within) if group.within else []), group]

    def family(self, name: str) -> list[str]:
        """The group, those within it, and those within them."""
        return [name, *(inner for child in self.children(name) for inner in self.family(child.name))]

    def holders(self, name: str) -> list[str]:
        """The tensors that a group, or one within it, moves."""
        family = self.family(name)
        return [tensor for tensor, axes in self.axes.items() if any(f in family for a in axes for f in names_in(a))]

    def identity(self) -> Permutations:
        """Every unit in its place."""
        return {name: torch.arange(g.size).expand(*self._shape(name)).clone() for name, g in self.groups.items()}

    def random(self, seed: int) -> Permutations:
        """A permutation of every group, uniformly at random."""
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.rand(self._shape(name), generator=generator).argsort(-1) for name in self.groups}

    def permuted(self, tensors: Mapping[str, Tensor], permutations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors with their axes permuted; those that no group moves are handed through."""
        return {
            name: permute(tensor, self.axes[name], self, permutations) if name in self.axes else tensor
            for name, tensor in tensors.items()
        }

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(group.size for group in self.line(name))


def permute(
    tensor: Tensor,
    axes: Sequence[Axis],
    of: Symmetries,
    permutations: Mapping[str, Tensor],
    instead: Mapping[int, Mapping[str, Tensor]] | None = None,
) -> Tensor:
    """One tensor with each axis permuted; ``instead`` holds other permutations for single axes."""
    by_axis = {dim: (instead or {}).get(dim, permutations) for dim, axis in enumerate(axes) if names_in(axis)}
    for dim, own in by_axis.items():
        if not foreign(axes[dim], of):
            tensor = tensor.index_select(dim, index_of(axes[dim], of, own).to(tensor.device))
    for dim, own in by_axis.items():
        if outers := foreign(axes[dim], of):
            # Another order for each unit of groups on another axis: the inputs of a grouped convolution.
            place = carrier(axes, outers[0])
            units = torch.stack([coordinate(axes[place], outer, of) for outer in outers], dim=1)
            each, which = units.unique(dim=0, return_inverse=True)
            rows = [index_of(axes[dim], of, own, dict(zip(outers, unit, strict=True))) for unit in each.tolist()]
            tensor = _taken(tensor, dim, place, torch.stack(rows)[which])
    return tensor


def _taken(tensor: Tensor, dim: int, by: int, index: Tensor) -> Tensor:
    """Along ``dim`` the entries of ``index``, a row of them for each entry along ``by``."""
    shape = [1] * tensor.ndim
    shape[by], shape[dim] = index.shape
    ordered = index if by < dim else index.T
    return torch.take_along_dim(tensor, ordered.reshape(shape).to(tensor.device), dim)


def index_of(
    axis: Axis, of: Symmetries, permutations: Mapping[str, Tensor], at: Mapping[str, int] | None = None
) -> Tensor:
    """``(n,)``: which entry of the old axis comes to each place; ``at`` fixes units of groups on other axes."""
    pieces, start = [], 0
    for segment in axis:
        sizes = sizes_of(segment, of)
        coordinates = dict(zip(segment, _coordinates(sizes), strict=True))
        given = {name: torch.full((math.prod(sizes),), j) for name, j in (at or {}).items()}
        old = torch.zeros(math.prod(sizes), dtype=torch.long)
        for factor, size, place in zip(segment, sizes, _coordinates(sizes), strict=True):
            if isinstance(factor, str):
                outer = [(coordinates | given)[group.name] for group in of.line(factor)[:-1]]
                place = permutations[factor][(*outer, place)]
            old = old * size + place
        pieces.append(old + start)
        start += len(old)
    return torch.cat(pieces)


def foreign(axis: Axis, of: Symmetries) -> list[str]:
    """Groups of other axes that this axis' order depends on."""
    named = [
        (group.name, segment)
        for segment in axis
        for factor in segment
        if isinstance(factor, str)
        for group in of.line(factor)[:-1]
    ]
    return list(dict.fromkeys(name for name, segment in named if name not in segment))


def carrier(axes: Sequence[Axis], name: str) -> int:
    """The axis that holds a group."""
    return next(dim for dim, axis in enumerate(axes) if any(name in segment for segment in axis))


def coordinate(axis: Axis, name: str, of: Symmetries) -> Tensor:
    """``(n,)``: the unit of a group that each entry of the axis belongs to."""
    pieces = []
    for segment in axis:
        sizes = sizes_of(segment, of)
        place = _coordinates(sizes)[segment.index(name)] if name in segment else torch.zeros(math.prod(sizes)).long()
        pieces.append(place)
    return torch.cat(pieces)


def sizes_of(segment: Segment, of: Symmetries) -> tuple[int, ...]:
    """The size of each factor."""
    return tuple(factor if isinstance(factor, int) else of.groups[factor].size for factor in segment)


def segments(axis: Axis, of: Symmetries) -> Iterator[tuple[int, int, Segment]]:
    """Start, length and factors of each segment."""
    start = 0
    for segment in axis:
        length = math.prod(sizes_of(segment, of))
        yield start, length, segment
        start += length


@cache
def _coordinates(sizes: tuple[int, ...]) -> list[Tensor]:
    return list(torch.unravel_index(torch.arange(math.prod(sizes)), sizes))
