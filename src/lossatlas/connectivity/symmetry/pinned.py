"""Which units of a network stay in order, and the function at which that was seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lossatlas.connectivity.symmetry.extents import Extent


@dataclass
class _Watched:
    """The units that a layer makes, and those in order, by the reason."""

    layer: str
    units: Extent
    ordered: dict[str | None, set[Extent]] = field(default_factory=dict)

    def note(self, reason: str | None) -> None:
        known = {leaf for several in self.ordered.values() for one in several for leaf in _leaves(one)}
        found = {leaf for leaf in _leaves(self.units) if leaf.pinned} - _told_apart(self.units)
        self.ordered.setdefault(reason, set()).update(found - known)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Each reason, and how many of the units it holds that none before it does."""
        total, left = self.units.size, _leaves(self.units)
        for reason, several in self.ordered.items():
            own = left & {leaf.root for leaf in several}
            size = total if own == _leaves(self.units) else sum(leaf.size for leaf in own)
            share = "" if size == total else f"{size} {'places within' if self.units.root.factors else 'of'} "
            if own and reason is not None:
                yield reason, f"{self.layer} ({share}{total} units)"
            left -= own


class Pinned:
    """Units that stay in order: the layers that make them, by the reason."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []

    def watch(self, layer: str, units: Extent, reason: str | None = None) -> None:
        """Look after the units of a layer; ``reason``: why those that are in order already are, where that is known."""
        if units.size > 1 and not any(w.layer == layer and w.units.root is units.root for w in self._watched):
            self._watched.append(_Watched(layer, units))
            self._watched[-1].note(reason)

    def look(self, reason: str | None) -> None:
        """Those found to stay since the last look do so for this reason; None: as they must (outputs)."""
        for one in self._watched:
            one.note(reason)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line a reason: the layers and how many of their units, and why."""
        texts: dict[str, dict[str, None]] = {}
        for reason, text in (pair for one in self._watched for pair in one.texts()):
            texts.setdefault(reason, {})[text] = None
        return tuple(f"{', '.join(layers)}: {reason}" for reason, layers in texts.items())


def _leaves(extent: Extent) -> set[Extent]:
    """All that it is made of, and what it is in the units in which it is told apart."""
    found, seen, left = set[Extent](), set[Extent](), [extent.root]
    while left:
        root = left.pop().root
        pieces = [*root.factors, *root.parts, *root.slots]
        if root not in seen and not pieces and root.size > 1:
            found.add(root)
        left += [] if root in seen else pieces
        seen.add(root)
    return found


def _told_apart(extent: Extent) -> set[Extent]:
    """Factors in each of which others are something else (query, key, value): these keep their places by nature."""
    return {outer for leaf in extent.leaves() if not leaf.pinned for outer in leaf.outer}
