"""Prepared maps of batches, in a given amount of memory."""

from __future__ import annotations

from typing import NamedTuple

from lossatlas.evaluation.products.linearised import Map


class Prepared(NamedTuple):
    """The map of a batch, the bytes that it keeps, and the seconds that it took; ``lasting``: as fast as it can be."""

    product: Map
    size: int
    seconds: float
    lasting: bool = True


class Kept:
    """The maps of ``count`` batches, or pieces of them, as far as ``budget`` bytes reach, the one in use included."""

    def __init__(self, count: int, budget: int, what: str = "batches") -> None:
        self._what = what
        self._held: list[Prepared | None] = [None] * count
        self._sizes = [0] * count
        self._budget, self._peak = budget, 0

    def product(self, index: int) -> Map | None:
        """The map of a batch, unless it is worth to be prepared anew."""
        held = self._held[index]
        return held.product if held and held.lasting else None

    @property
    def complete(self) -> bool:
        return all(held and held.lasting for held in self._held)

    @property
    def missing(self) -> float:
        """The share of the batches that are prepared anew for each product."""
        return sum(held is None for held in self._held) / len(self._held)

    def offer(self, index: int, prepared: Prepared) -> None:
        """Keep it, if there is room: for the largest one too, unless it is the last one that is missing."""
        self._held[index] = None
        self._sizes[index] = prepared.size
        self._peak = max(self._peak, self._used + prepared.size)
        another = any(held is None for i, held in enumerate(self._held) if i != index)
        if self._used + prepared.size + another * max(self._sizes) <= self._budget:
            self._held[index] = prepared

    def pop(self, index: int) -> Prepared | None:
        held, self._held[index] = self._held[index], None
        return held

    def make_room(self, size: int) -> None:
        """Drop maps, the last ones first, until so many bytes are free."""
        for index in reversed(range(len(self._held))):
            if self._used + size > self._budget:
                self._held[index] = None

    @property
    def peak(self) -> int:
        """Bytes at once, the map in use included."""
        return self._peak

    def clear(self) -> None:
        self._held = [None] * len(self._held)

    def __str__(self) -> str:
        count = sum(held is not None for held in self._held)
        used, needed, peak = (f"{size / 1e6:,.0f}" for size in (self._used, sum(self._sizes), self._peak))
        return f"{count} of {len(self._held)} {self._what} kept ({used} of {needed} MB, at most {peak} MB at once)"

    @property
    def _used(self) -> int:
        return sum(held.size for held in self._held if held)
