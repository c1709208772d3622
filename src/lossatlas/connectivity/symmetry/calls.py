"""A function of PyTorch as it was called, and the units along the axes of what it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx

from lossatlas.connectivity.symmetry.extents import Extent, unify

Axes = list[Extent]
Found = Axes | list[Any] | None  # of one result, of each of several, or no rule


class Call:
    """One function as it was called: its arguments, with the extents of those that are tensors."""

    def __init__(self, node: fx.Node, name: str, extents: dict[fx.Node, Any], values: dict[fx.Node, Any]) -> None:
        self.node, self.name = node, name
        self._extents, self._values = extents, values

    @property
    def result(self) -> Any:
        return self._values[self.node]

    def get(self, place: int, keyword: str, default: Any = None) -> Any:
        """An argument as it stands in the graph."""
        if place < len(self.node.args):
            return self.node.args[place]
        return self.node.kwargs.get(keyword, default)

    def axes(self, argument: Any) -> Axes | None:
        """The extents of an argument that is a tensor."""
        if not isinstance(argument, fx.Node):
            return None
        found = self._extents[argument]
        return found if isinstance(self._values[argument], Tensor) else None

    def tensor(self, place: int, *keywords: str) -> Axes:
        """The extents of an argument that must be a tensor, under one of these names."""
        given = (self.get(place, keyword) for keyword in keywords)
        found = self.axes(next((argument for argument in given if argument is not None), None))
        if found is None:
            raise TypeError(f"{self.name} was called without a tensor {keywords[0]}")
        return found

    def first(self) -> Axes:
        """The extents of the first argument; of a function without one, of none."""
        return self.axes(self.get(0, "input")) or []

    def tensors(self) -> list[Axes]:
        """The extents of all arguments that are tensors."""
        return [self._extents[n] for n in self.node.all_input_nodes if isinstance(self._values[n], Tensor)]

    def several(self, argument: fx.Node) -> list[Any]:
        """The extents of each of several results of one function."""
        found: list[Any] = self._extents[argument]
        return found

    def value(self, argument: fx.Node) -> Any:
        return self._values[argument]


Rule = Callable[[Call], Found]


def fresh(shape: Sequence[int]) -> Axes:
    """Extents of something whose order matters."""
    return [Extent(size, pinned=True) for size in shape]


def constant(value: Tensor) -> Axes:
    """The extents of a tensor that is always the same."""
    found = []
    for dim, size in enumerate(value.shape):
        alike = size > 1 and bool((value == value.narrow(dim, 0, 1)).all())
        found.append(Extent(size, not alike))
    return found


def broadcast(*several: Axes) -> Axes:
    """Axes aligned from the last; those longer than 1 are the same."""
    length = max(map(len, several))
    padded = [[None] * (length - len(axes)) + list(axes) for axes in several]
    found: Axes = []
    for column in zip(*padded, strict=True):
        there = [e for e in column if e is not None]
        found.append(next((e for e in there if e.size > 1), there[0]))
    # What depends on nothing comes first: an inner axis is compared when the outer ones are known to agree.
    pairs = [(e, one) for column, one in zip(zip(*padded, strict=True), found, strict=True) for e in column if e]
    for extent, one in sorted(pairs, key=lambda pair: len(pair[0].outer)):
        if extent.size > 1:
            unify(extent, one)
    agree([dict(enumerate(axes, start=length - len(axes))) for axes in several])
    return [e.root for e in found]


def agree(terms: Sequence[Mapping[Any, Extent]]) -> None:
    """What varies within the units of another label does so in every term of a product (and in its result).

    ``terms`` map labels to extents. In x x' the dimensions of one row meet those of another: one order in all rows.
    """
    for label in {label: None for term in terms for label in term}:
        holding = [term for term in terms if label in term]
        for leaf in [leaf for term in holding for leaf in term[label].leaves()]:
            for outer in leaf.outer:
                places = [{at for at, e in term.items() if outer in e.leaves()} for term in holding]
                if len(places[0]) != 1 or any(place != places[0] for place in places):
                    leaf.collapse(outer)


def together(x: Axes, dims: Iterable[int]) -> Axes:
    """x, whose entries along these axes are compared: no other axis may be in another order in each of their units."""
    compared = {d % len(x) for d in dims}
    units = {leaf for d in compared for leaf in x[d].leaves()}
    for extent in (e for d, e in enumerate(x) if d not in compared):
        own = extent.leaves()
        for leaf in own:
            for outer in leaf.outer:
                if outer in units and outer not in own:
                    leaf.collapse(outer)
    return [e.root for e in x]


def factors(*sizes: int) -> list[int]:
    return [size for size in sizes if size > 1] or [1]
