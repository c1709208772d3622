"""The lengths of axes as unknowns: which of them are the same units in the same order, found by union and find."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence


class Extent:
    """The units along an axis of one or more tensors, which may change places together.

    An extent is free, pinned (its order matters), a product (``factors``, of which the last varies fastest and each
    may be in another order in every unit of the ones before it, its ``outer``), or a sum (``parts``, one after the
    other).
    ``slots``: one extent for each unit of the outer extent ``over``, where those are told apart (query, key, value).
    """

    def __init__(self, size: int, pinned: bool = False, outer: Iterable[Extent] = ()) -> None:
        self.size, self.pinned = size, pinned
        self.factors: list[Extent] = []
        self.parts: list[Extent] = []
        self.slots: list[Extent] = []
        self.over: Extent | None = None
        self._outer = list(outer)
        self._link: Extent | None = None

    @property
    def root(self) -> Extent:
        """The extent that stands for all that were found to be this one."""
        return self if self._link is None else self._link.root

    @property
    def outer(self) -> list[Extent]:
        """The leaves in each unit of which it may be in another order, the outermost first."""
        root = self.root
        inner = {leaf for factor in root.factors for leaf in factor.leaves()}
        own = [leaf for s in root._outer for leaf in s.leaves()]
        own += [s for piece in (*root.factors, *root.parts) for s in piece.outer if s not in inner]
        return list(dict.fromkeys(own))

    def leaves(self) -> list[Extent]:
        """The roots of its factors, to the last; of a sum the sum itself."""
        root = self.root
        return [leaf for factor in root.factors for leaf in factor.leaves()] or [root]

    def pin(self) -> None:
        """Its order matters."""
        root = self.root
        if not root.pinned:
            root.pinned = True
            for inner in (*root.factors, *root.parts, *root.slots):
                inner.pin()

    def vary_within(self, outer: Extent) -> None:
        """Units that no rule has related to others: they may be in another order in every unit of ``outer``."""
        self.root._outer = [*outer.outer, *outer.leaves()]

    def split(self, sizes: Sequence[int]) -> list[Extent]:
        """Factors of these sizes, whose product is this extent's."""
        root = self.root
        if len(sizes) == 1:
            return [root]
        if root.factors:
            return root._refined(sizes)
        if root.parts:
            return root._stacked(sizes)
        for size in sizes:
            root.factors.append(Extent(size, root.pinned, [*root.outer, *root.factors]))
        root._tell_apart(root.factors, [slot.split(sizes) for slot in root.slots])
        return list(root.factors)

    def cut(self, sizes: Sequence[int]) -> list[Extent]:
        """Parts of these sizes, whose sum is this extent's."""
        root = self.root
        if len(sizes) == 1:
            return [root]
        if root.factors:
            return root._unstacked(sizes)
        if root.parts:
            return root._recut(sizes)
        root.parts = [Extent(size, root.pinned, root.outer) for size in sizes]
        root._tell_apart(root.parts, [slot.cut(sizes) for slot in root.slots])
        return list(root.parts)

    def at(self, outer: Extent, index: int) -> Extent:
        """What it is in one unit of an outer extent; itself where it is the same in all of them."""
        root, outer = self.root, outer.root
        if outer not in root.outer or (root.pinned and not (root.factors or root.parts or root.slots)):
            return root
        if root.factors:
            return merged([factor.at(outer, index) for factor in root.factors])
        if root.parts:
            return joined([part.at(outer, index) for part in root.parts])
        if root.over is None:
            rest = [s for s in root.outer if s is not outer]
            root.over, root.slots = (
                outer,
                [Extent(root.size, root.pinned, [s.at(outer, i) for s in rest]) for i in range(outer.size)],
            )
        return root.slots[index].root if root.over.root is outer else root._in_part(outer, index)

    def _in_part(self, outer: Extent, index: int) -> Extent:
        """``at`` for a factor of the extent in whose units it is told apart: (layer, direction) in one layer."""
        over = self.over.leaves() if self.over is not None else []
        if outer not in over:  # told apart by two outer extents at once: not worth a rule
            self.pin()
            return Extent(self.size, pinned=True)
        place = over.index(outer)
        inner = math.prod(leaf.size for leaf in over[place + 1 :])
        found = Extent(self.size, self.pinned, [s for s in self.outer if s is not outer])
        found.over = merged([leaf for leaf in over if leaf is not outer])
        found.slots = [slot for i, slot in enumerate(self.slots) if i // inner % outer.size == index]
        return found

    def collapse(self, outer: Extent) -> None:
        """It is in the same order in every unit of ``outer``: they were added up, or it stands without them."""
        root, outer = self.root, outer.root
        if outer not in root.outer:
            return
        for piece in (*root.factors, *root.parts):
            piece.collapse(outer)
        root._outer = [s for s in (leaf for own in root._outer for leaf in own.leaves()) if s is not outer]
        if root.over is not None and root.over.root is outer:
            slots, root.slots, root.over = root.slots, [], None
            for slot in slots:
                unify(root, slot)
        elif root.over is not None:
            for index, slot in enumerate(root.slots):
                for own in outer.at(root.over, index).leaves():
                    slot.collapse(own)

    def _tell_apart(self, pieces: Sequence[Extent], slots: Sequence[Sequence[Extent]]) -> None:
        """The pieces of an extent whose slots are known: theirs are the pieces of its slots."""
        if slots:
            for piece, *own in zip(pieces, *slots, strict=True):
                piece.slots, piece.over = own, self.over
            self.slots, self.over = [], None

    def _refined(self, sizes: Sequence[int]) -> list[Extent]:
        """Products of the factors, which are split where a cut goes through them."""
        mine, given = _products([f.size for f in self.factors]), _products(sizes)
        cuts = sorted({*mine, *given})
        if any(high % low for low, high in itertools.pairwise(cuts)):
            return self._lost(sizes)
        fine: list[Extent] = []
        for factor, low, high in zip(self.factors, [1, *mine], mine, strict=False):
            inside = [low, *(c for c in cuts if low < c <= high)]
            fine += factor.split([b // a for a, b in itertools.pairwise(inside)]) if high > low else []
        return _regrouped(fine, sizes, merged, math.prod)

    def _recut(self, sizes: Sequence[int]) -> list[Extent]:
        """Sums of the parts, which are cut where a boundary goes through them."""
        mine = list(itertools.accumulate(p.size for p in self.parts))
        ends = sorted({*mine, *itertools.accumulate(sizes)})
        fine: list[Extent] = []
        for part, low, high in zip(self.parts, [0, *mine], mine, strict=False):
            inside = [low, *(e for e in ends if low < e <= high)]
            fine += part.cut([b - a for a, b in itertools.pairwise(inside)])
        return _regrouped(fine, sizes, joined, sum)

    def _stacked(self, sizes: Sequence[int]) -> list[Extent]:
        """A sum of equal parts as a product: which part, and the unit in it."""
        count, rest = sizes[0], math.prod(sizes[1:])
        if any(part.size != rest for part in self.parts) or len(self.parts) != count:
            return self._lost(sizes)
        which = Extent(count, pinned=True)
        unit = Extent(rest, self.pinned, [*self.outer, which])
        unit.slots, unit.over = list(self.parts), which
        return [which, *unit.split(sizes[1:])]

    def _unstacked(self, sizes: Sequence[int]) -> list[Extent]:
        """A product as a sum over its outermost factor, whose units are told apart where others depend on them."""
        outermost, rest = self.factors[0].root, self.factors[1:]
        inner = self.size // outermost.size
        if any(size % inner for size in sizes):
            return self._lost(sizes)
        if not any(outermost in factor.outer for factor in rest):
            return [merged([piece, *rest]) for piece in outermost.cut([size // inner for size in sizes])]
        if len(sizes) != outermost.size or outermost.factors:
            return self._lost(sizes)
        outermost.pin()
        return [merged([factor.at(outermost, i) for factor in rest]) for i in range(len(sizes))]

    def _lost(self, sizes: Sequence[int]) -> list[Extent]:
        """Pieces of something for which there is no rule: the order of all of it matters."""
        self.pin()
        return [Extent(size, pinned=True) for size in sizes]


def unify(one: Extent, other: Extent) -> None:
    """The two are the same units in the same order."""
    one, other = one.root, other.root
    if one is other:
        return
    if one.size != other.size:
        one.pin()
        other.pin()
        return
    for first, second in ((one, other), (other, one)):
        for outer in first.outer:
            if outer not in second.outer:
                first.collapse(outer)
    one, other = one.root, other.root
    if one is other:
        return
    if one.pinned or other.pinned:
        one.pin()
        other.pin()
    if one.factors or one.parts:
        one, other = other, one
    _same_pieces(one, other)
    if one.root is not other.root:
        one.root._link = other.root


def merged(extents: Sequence[Extent]) -> Extent:
    """The product of extents: several axes written as one."""
    return _composed(extents, 1, math.prod, "factors")


def joined(extents: Sequence[Extent]) -> Extent:
    """The sum of extents: one after another along an axis."""
    return _composed(extents, 0, sum, "parts")


def _composed(extents: Sequence[Extent], neutral: int, total: Callable[[list[int]], int], pieces: str) -> Extent:
    several = [e.root for e in extents if e.size != neutral]
    if len(several) == 1:
        return several[0]
    if not several:
        return Extent(neutral, pinned=True)
    whole = Extent(total([e.size for e in several]), all(e.pinned for e in several))
    setattr(whole, pieces, several)
    return whole


def _same_pieces(one: Extent, other: Extent) -> None:
    """Unify what the two are made of; ``one`` is free where only one of them has pieces."""
    if one.slots:
        over = one.over
        assert over is not None
        if other.slots or other.factors or other.parts:
            for index, slot in enumerate(one.slots):
                unify(slot, other.at(over, index))
        else:
            other.slots, other.over = one.slots, over
        one.slots, one.over = [], None
    if one.factors and other.factors:
        steps = sorted({*_products([f.size for f in one.factors]), *_products([f.size for f in other.factors])})
        if any(high % low for low, high in itertools.pairwise(steps)):
            one.pin()
            other.pin()
            return
        sizes = [high // low for low, high in itertools.pairwise([1, *steps])]
        _unify_all(one.split(sizes), other.split(sizes))
    elif one.factors or one.parts:
        sizes = [p.size for p in (one.parts or other.parts)]
        _unify_all(one.cut(sizes), other.cut(sizes))


def _unify_all(ones: Sequence[Extent], others: Sequence[Extent]) -> None:
    for one, other in zip(ones, others, strict=True):
        unify(one, other)


def _products(sizes: Sequence[int]) -> list[int]:
    return list(itertools.accumulate(sizes, lambda a, b: a * b))


def _regrouped(
    fine: list[Extent], sizes: Sequence[int], join: Callable[[Sequence[Extent]], Extent], total: Callable[..., int]
) -> list[Extent]:
    """Consecutive pieces joined so that they have these sizes."""
    pieces, found = iter(fine), []
    for size in sizes:
        group = [next(pieces)]
        while total(e.size for e in group) < size:
            group.append(next(pieces))
        found.append(join(group))
    return found
