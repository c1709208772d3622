"""Batches in pieces of examples, where a whole one keeps tensors that a CPU's memory is slow with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from lossatlas.evaluation.products.costs import Work
from lossatlas.model.data.batches import Batches, refill, tensors_in
from lossatlas.model.data.containers import leading_size
from lossatlas.model.functional import FunctionalModel

# Memory of more than 32 MB goes back to the system at each use, on Linux, and comes anew page by page.
LARGEST, SUITED = 2**25, 2**24


class Pieces:
    """``of(batch)`` and ``shares[index]``: the pieces of the batches, and the parts of the batch's mean that they are.

    A batch is whole until ``cut`` finds that its examples are apart, and their loss a mean over them.
    """

    def __init__(self, batches: Iterable[Any], count: int) -> None:
        self._batches = batches
        self.rows: int | None = None
        self.shares = [[1.0]] * count

    def cut(self, function: FunctionalModel, work: Work | None) -> bool:
        """Whether batches are cut from here on: where tensors of an example a row are too large, on a CPU."""
        if work is None or work.device != "cpu" or work.largest <= LARGEST or self.rows is not None:
            return False
        mixed = function.draws or (function.policy == "batch" and function.norms)
        if mixed or not isinstance(self._batches, Batches) or self._batches.uncut is not None:
            return False
        self.rows = max(1, work.rows * SUITED // work.largest)
        self.shares = [_shares(self._batches, self.of(batch)) for batch in self._batches]
        return True

    def join(self) -> None:
        """Whole batches again."""
        self.rows, self.shares = None, [[1.0]] * len(self.shares)

    def of(self, batch: Any) -> list[Any]:
        """Of nearly equal size, so that few of them have a form of their own."""
        size = leading_size(batch) if self.rows else 0
        if not self.rows or size <= self.rows:
            return [batch]
        even = math.ceil(size / math.ceil(size / self.rows))
        parts = zip(*(tensor.split(even) for tensor in tensors_in(batch)), strict=True)
        return [refill(batch, iter(tensors)) for tensors in parts]


def _shares(batches: Batches, pieces: list[Any]) -> list[float]:
    weights = [float(batches.weigh(piece)) for piece in pieces]
    return [weight / sum(weights) for weight in weights] if len(pieces) > 1 else [1.0]
