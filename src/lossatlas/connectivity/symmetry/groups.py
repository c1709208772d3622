"""From extents to groups: every free extent gets a name, and every axis is written as a sum of products of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

from lossatlas.connectivity.symmetry.extents import Extent
from lossatlas.connectivity.symmetry.notation import Axis, Factor, Segment
from lossatlas.connectivity.symmetry.symmetries import Group, Symmetries

Product = list[Extent]


def symmetries_of(
    tensors: Mapping[str, list[Extent]],
) -> tuple[Symmetries, Callable[[list[Extent]], tuple[Axis, ...]]]:
    """The groups of what is still free along the axes of these tensors, and how other axes are written in them."""
    axes = [extent for extents in tensors.values() for extent in extents]
    _until_stable(axes)
    names = _names(tensors)
    groups = {name: Group(name, leaf.size, _within(leaf, names)) for leaf, name in names.items()}
    written = {tensor: tuple(_axis(e, names) for e in extents) for tensor, extents in tensors.items()}
    moved = {tensor: found for tensor, found in written.items() if moves(found)}
    return Symmetries(groups, moved), lambda extents: tuple(_axis(e, names) for e in extents)


def _until_stable(axes: list[Extent]) -> None:
    """What cannot be written as a sum of products of nested groups keeps its order, or is the same in every unit."""
    before = -1
    while True:
        for extent in axes:
            for product in products(extent):
                _normalise(product)
        after = sum(leaf.root.pinned * 1000 - len(leaf.outer) for e in axes for p in products(e) for leaf in p)
        if after == before:
            return
        before = after


def _normalise(product: Product) -> None:
    for leaf in product:
        for outer in leaf.outer:
            if outer.pinned and outer not in product[: product.index(leaf)]:
                leaf.collapse(outer)
        chain = leaf.outer
        for parent in chain[-1:]:
            for outer in {*chain[:-1]} ^ {*parent.outer}:
                leaf.collapse(outer if outer in chain else parent)


def products(extent: Extent) -> list[Product]:
    """The products whose sum is this extent, each as its leaves; an outer leaf in order is a sum over its units."""
    root = extent.root
    if root.parts:
        return [product for part in root.parts for product in products(part)]
    return _multiplied(root.leaves())


def _multiplied(leaves: list[Extent]) -> list[Product]:
    head, rest = leaves[0].root, leaves[1:]
    if not rest:
        return products(head) if head.parts else [[head]]
    if head.pinned and any(head in leaf.outer and not leaf.root.pinned for leaf in rest):
        told_apart = [[leaf.at(head, i) for leaf in rest] for i in range(head.size)]
        return [product for leaves in told_apart for product in _multiplied(_flat(leaves))]
    tails = _multiplied(rest)
    if len(tails) > 1:  # a sum inside of a product: not worth a notation
        for leaf in rest:
            leaf.pin()
        tails = [[Extent(math.prod(leaf.size for leaf in rest), pinned=True)]]
    heads = products(head) if head.parts else [[head]]
    return [[*one, *tails[0]] for one in heads]


def _flat(leaves: list[Extent]) -> list[Extent]:
    return [inner for leaf in leaves for inner in leaf.leaves()]


def _names(tensors: Mapping[str, list[Extent]]) -> dict[Extent, str]:
    """A name for each free leaf, after the layer that makes the units."""
    names: dict[Extent, str] = {}
    # First axes first: they are the units that a layer makes.
    for place in range(max(map(len, tensors.values()), default=0)):
        for tensor, extents in tensors.items():
            for leaf in (leaf for e in extents[place : place + 1] for product in products(e) for leaf in product):
                if leaf.size > 1 and not leaf.pinned and leaf not in names:
                    names[leaf] = _name(leaf, layer_of(tensor), names)
    return names


def layer_of(tensor: str) -> str:
    """The layer that a tensor belongs to; a number, as nn.Sequential gives, is no name."""
    layer = tensor.rpartition(".")[0] or tensor
    return f"layer{layer}" if layer.isdigit() else layer


def _name(leaf: Extent, base: str, names: Mapping[Extent, str]) -> str:
    taken = {name.partition("@")[0] for name in names.values()}
    own = next(n for n in itertools.chain([base], (f"{base}/{i}" for i in itertools.count(2))) if n not in taken)
    parent = leaf.outer[-1:]
    return f"{own}@{names[parent[0]]}" if parent and parent[0] in names else own


def _within(leaf: Extent, names: Mapping[Extent, str]) -> str | None:
    return names.get(leaf.outer[-1]) if leaf.outer else None


def _axis(extent: Extent, names: Mapping[Extent, str]) -> Axis:
    return tuple(_segment(product, names) for product in products(extent))


def _segment(product: Product, names: Mapping[Extent, str]) -> Segment:
    factors: list[Factor] = [names.get(leaf, leaf.size) for leaf in product if leaf.size > 1]
    return tuple(_joined(factors)) or (1,)


def _joined(factors: list[Factor]) -> Iterator[Factor]:
    """Neighbouring sizes as one."""
    for is_size, run in itertools.groupby(factors, key=lambda f: isinstance(f, int)):
        if is_size:
            yield math.prod(f for f in run if isinstance(f, int))
        else:
            yield from run


def moves(axes: tuple[Axis, ...]) -> bool:
    """Whether a group is along one of these axes."""
    return any(isinstance(factor, str) for axis in axes for segment in axis for factor in segment)
