"""Batches in pieces of examples, where a whole one keeps tensors that a CPU's memory is slow with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from lossatlas.evaluation.products.costs import Work
from lossatlas.model.data.batches import Batches, refill, tensors_in
from lossatlas.model.data.containers import leading_size
from lossatlas.model.functional import FunctionalModel

SUITED = 2**22  # bytes of the largest tensor of a piece: what caches hold
AHEAD = 8  # times theta's bytes are kept by a piece, at least: each of them adds to a product of theta's size


class Pieces:
    """``of(batch)`` and ``shares[index]``: the pieces of the batches, and the parts of the batch's mean that they are.

    A batch is whole until ``cut`` finds that its examples are apart, and their loss a mean over them.
    """

    def __init__(self, batches: Iterable[Any], count: int) -> None:
        self._batches = batches
        self.rows: int | None = None  # of a piece; 0 where batches are whole for good
        self.shares = [[1.0]] * count

    def cut(self, function: FunctionalModel, work: Work | None) -> bool:
        """Whether batches are cut from here on: where tensors with a row an example are too large, on a CPU."""
        if work is None or work.device != "cpu" or self.rows is not None or not work.largest:
            return False
        rows = max(1, work.rows * SUITED // work.largest, work.rows * AHEAD * work.theta // work.size)
        return 3 * rows <= 2 * work.rows and self.apart(function) and self.cut_to(rows)

    def apart(self, function: FunctionalModel) -> bool:
        """Whether the loss of a batch may be taken as that of its examples."""
        mixed = function.draws or (function.policy == "batch" and function.norms)
        return not mixed and isinstance(self._batches, Batches) and not self._batches.uncut and self.rows != 0

    def cut_to(self, rows: int) -> bool:
        """Pieces of so many examples at most; False where the loss of one would be a mean over none."""
        assert isinstance(self._batches, Batches)
        self.rows = rows
        self.shares = [_shares(self._batches, self.of(batch)) for batch in self._batches]
        if not all(share > 0 for shares in self.shares for share in shares):  # a piece whose targets are all ignored
            self.join()
        return self.rows > 0

    def join(self) -> None:
        """Whole batches from here on."""
        self.rows, self.shares = 0, [[1.0]] * len(self.shares)

    def parts(self, batch: Any, rows: int) -> list[tuple[float, Any]]:
        """Some examples of a batch, one by one, with their parts of the mean over them."""
        assert isinstance(self._batches, Batches)
        pieces = [examples(batch, i, i + 1) for i in range(rows)]
        return list(zip(_shares(self._batches, pieces), pieces, strict=True))

    def of(self, batch: Any) -> list[Any]:
        """Of nearly equal size, so that few of them have a form of their own."""
        size = leading_size(batch) if self.rows else 0
        if not self.rows or size <= self.rows:
            return [batch]
        even = math.ceil(size / math.ceil(size / self.rows))
        parts = zip(*(tensor.split(even) for tensor in tensors_in(batch)), strict=True)
        return [refill(batch, iter(tensors)) for tensors in parts]


def examples(batch: Any, first: int, last: int) -> Any:
    """Some examples of a batch."""
    return refill(batch, iter([tensor[first:last] for tensor in tensors_in(batch)]))


def _shares(batches: Batches, pieces: list[Any]) -> list[float]:
    weights = [float(batches.weigh(piece)) for piece in pieces]
    return [weight / max(sum(weights), 1e-300) for weight in weights] if len(pieces) > 1 else [1.0]
