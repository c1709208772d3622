"""Products with a curvature matrix over a whole data set, as fast as memory allows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lossatlas.errors import DirectionError, InputError, NumericalError
from lossatlas.evaluation.memory import free_bytes
from lossatlas.evaluation.products.allocated import Allocated, Use
from lossatlas.evaluation.products.costs import UNKNOWN, Work, repaid_after
from lossatlas.evaluation.products.differences import Errors
from lossatlas.evaluation.products.finite import is_finite, what_is_not_finite
from lossatlas.evaluation.products.hessian_routes import HessianRoutes
from lossatlas.evaluation.products.kept import Kept
from lossatlas.evaluation.products.linearised import Hessian, Linearised, Map, require_curvature, require_differentiable
from lossatlas.evaluation.products.pieces import Pieces, examples
from lossatlas.evaluation.products.routes import GRAPHS, Routes, guarded
from lossatlas.model.arithmetic import full_precision
from lossatlas.model.data.batches import describe
from lossatlas.model.data.containers import leading_size
from lossatlas.model.loss.samples import Sample

LARGE = 2**26  # bytes of theta: the graphs of such a model's batch may take more than there are


class Products:
    """V -> A V for vectors as rows ``(k, n)``, with A = sum_b w_b A_b / sum_b w_b over the batches b.

    What does not depend on the vectors is computed once and kept, as far as ``max_memory`` bytes reach (half of what is
    free by default), what is in use for the moment included; the other batches are prepared anew at each call. Batches
    of a large model whose graphs would take more are cut into pieces, where they can be. Products
    are traced once the trace is repaid by those expected (``Work``), and where they are faster then; never under
    ``stage=False``. Where the batches are the data several times over, ``period`` is the number of the data's own: the
    index of a batch seeds the numbers that a model draws. Those with a Hessian take the function's ``route``.
    """

    def __init__(
        self,
        form: Linearised,
        batches: Iterable[Any],
        weights: Sequence[float],
        theta: Tensor,
        max_memory: int | None = None,
        *,
        stage: bool = True,
        period: int | None = None,
    ) -> None:
        exact = isinstance(form, Hessian) and form.function.route != "differences"
        (require_curvature if exact else require_differentiable)(form.function)
        if max_memory is not None and max_memory < 0:
            raise InputError(f"max_memory={max_memory}: give a number of bytes, 0 to keep nothing, or None.")
        self.weights = weights
        self._batches = batches
        self._period = period or len(weights)
        with torch.inference_mode(False):
            theta = theta.clone() if theta.is_inference() else theta.detach()
        self._form, self._theta, self._stage = form, theta, stage
        self._routes = HessianRoutes(form, theta) if isinstance(form, Hessian) else Routes(form, theta)
        self._budget = free_bytes(theta.device) // 2 if max_memory is None else max_memory
        self._pieces = Pieces(batches, len(weights))
        self._kept = Kept(len(weights), self._budget)
        self._fitted = theta.nbytes < LARGE  # or batches are looked at before the first product
        self._work: Work | None = None  # of the first piece's graphs
        self._done = 0  # products so far
        self._share = sum(weights) / max(weights[0], 1e-300)  # of all data to the first batch
        self._repaid = repaid_after(None, self._share)  # after how many of them a trace is tried, under ``stage``

    @torch.inference_mode(False)  # a caller's own would leave no graph
    def __call__(self, rows: Tensor) -> Tensor:
        """A V ``(k, n)``; ``NumericalError`` where it is not finite."""
        n = len(self._theta)
        if rows.ndim != 2 or rows.shape[1] != n:
            raise DirectionError(f"The vectors are {describe(rows)}: give them as rows, (k, {n}).")
        if not is_finite(rows):
            raise DirectionError("A vector holds NaN or infinite numbers: give a finite one.")
        total = torch.zeros_like(rows)
        for weight, products in self.by_batch(rows):
            total.add_(products, alpha=weight)
        total /= sum(self.weights)
        if not is_finite(total):
            raise NumericalError("The product overflows: give a vector of a smaller norm, or dtype=torch.float64.")
        return total

    def by_batch(self, rows: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Each batch's weight and A_b V ``(k, n)``."""
        differences = self._routes.differences
        if not self._fitted and differences is None:
            self._fit_budget()
        cut = self._done > 0 and differences is None and self._pieces.cut(self._form.function, self._work)
        if cut:
            self._empty()
        if differences is not None:
            self._stage = False
            differences.begin_pass()
        trace, self._stage = self._stage and self._done >= self._repaid, self._stage and self._done < self._repaid
        unread = self._kept.complete and not trace
        data = itertools.repeat(None, len(self.weights)) if unread else self._batches
        for index, (weight, batch) in enumerate(zip(self.weights, data, strict=True)):
            if cut and index == 0:
                self._verify_pieces(batch)
            if trace and index == 0:
                self._trace(self._pieces.of(batch)[0])
            yield weight, self._of_batch(index, batch, rows)
        if self._routes.differences is not None and len(rows):
            shares = [w * s for w, own in zip(self.weights, self._pieces.shares, strict=True) for s in own]
            self._routes.differences.end_pass(shares, len(rows))
        self._done += len(rows)

    def _verify_pieces(self, batch: Any) -> None:
        """Batches stay whole where the first one's product is not that of its pieces."""
        row = self._routes.draw(0)[None]
        expected = _stacked(self._routes.prepared(batch, 0).product, row, keep=False)
        if not self._routes.agree(self._of_batch(0, batch, row), expected):
            self._pieces.join()
            self._empty()

    def _of_batch(self, index: int, batch: Any, rows: Tensor) -> Tensor:
        """A_b V ``(k, n)``, of the pieces of the batch."""
        shares = self._pieces.shares
        first, own = sum(map(len, shares[:index])), shares[index]
        parts = [None] * len(own) if batch is None else self._pieces.of(batch)
        total = self._product(first, index, parts[0], rows)
        if len(own) > 1:
            total *= own[0]
            for place in range(1, len(own)):
                total.add_(self._product(first + place, index, parts[place], rows), alpha=own[place])
        return total

    def _product(self, place: int, index: int, piece: Any, rows: Tensor) -> Tensor:
        """A V ``(k, n)`` of a piece of a batch, which has a place of its own among what is kept."""
        product = self._kept.product(place) or self._prepared(place, index, piece)
        found = _stacked(product, rows, keep=self._kept.product(place) is not None)
        if is_finite(found):
            return found
        number = index % self._period
        if piece is None:
            batch = next(itertools.islice(self._batches, index, None))
            piece = self._pieces.of(batch)[place - sum(map(len, self._pieces.shares[:index]))]
        self._kept.pop(place)
        found = self._routes.forward(piece, number, rows)
        if not is_finite(found):
            how = self._routes.tried
            raise NumericalError(what_is_not_finite(self._form, self._theta, piece, number, found.sum(0), how))
        return found

    def _prepared(self, place: int, index: int, piece: Any) -> Map:
        self._kept.pop(place)
        prepared = self._routes.prepared(piece, index % self._period)
        if place == 0:
            self._work = self._routes.work(piece)
            self._repaid = repaid_after(self._work, self._share * len(self._pieces.shares[0]))
        self._kept.offer(place, prepared)
        return prepared.product

    def _trace(self, piece: Any) -> None:
        """One trial of the traced route, on the first piece, of which there are never both forms at once."""
        if self._form.untraced:
            self._routes.chosen = f"{GRAPHS}, since {self._form.untraced}"
            return
        missing, prepared = self._kept.missing, self._kept.pop(0)
        if prepared is None or not prepared.lasting:
            prepared = self._routes.prepared(piece, 0)
        plain = self._routes.timed(prepared.product, 0)
        plain = plain._replace(seconds=plain.seconds + missing * prepared.seconds)
        self._kept.make_room(prepared.size)
        del prepared
        if self._routes.trace(piece, 0, plain, missing):
            self._kept.clear()

    # In a given amount of memory

    @property
    def divisible(self) -> bool:
        """Whether batches can be cut into pieces of examples."""
        return self._pieces.apart(self._form.function)

    def least_use(self, beside: int) -> Use:
        """Of a product with one example, or with a batch where it cannot be cut."""
        return self._use(next(iter(self._batches)), 1 if self.divisible else None, beside)

    def fit(self, memory: int, beside: int) -> tuple[Use, int | None]:
        """What a product takes once batches are cut, where they can be, to need ``memory`` at most; and the rows.

        ``beside`` bytes are needed beside graphs at any rate.
        """
        batch = max(self._batches, key=leading_size) if self.divisible else next(iter(self._batches))
        size = leading_size(batch) if self.divisible else 0
        whole, rows = None, min(size, 4 if self._theta.nbytes < LARGE else 2)
        if size < 2 or not self._is_sum(batch, rows):
            return self._use(batch, whole, beside), None
        one, some = self._use(batch, 1, beside), self._use(batch, rows, beside)
        each = max(2 * (some.kept - one.kept), some.whole - one.whole, 1) / (rows - 1)  # kept, and as much in passing
        use, rows = some, max(1, min(size, 1 + int((memory - one.whole) / each)))
        while (use := self._use(batch, rows, beside)).whole > memory and rows > 1:
            rows = max(1, int(0.9 * rows * memory / use.whole))
        return use, rows if rows < size and self.cut(rows) else None

    def _fit_budget(self) -> None:
        """Batches in pieces, where the graphs of a whole one would take more than the budget by those of an example."""
        self._fitted = True
        batch = max(self._batches, key=leading_size) if self.divisible else None
        size = 0 if batch is None else leading_size(batch)
        if batch is None or size < 2:
            return
        room = self._budget or free_bytes(self._theta.device) // 2
        rows = max(1, room // self._use(batch, 1, 0).whole)
        if rows < size and self._is_sum(batch, 2):
            self._stage = not self.cut(rows) and self._stage  # no trace, whose need is unknown

    def cut(self, rows: int) -> bool:
        """Batches in pieces of so many examples at most from here on, where they can be."""
        done = self.divisible and self._pieces.cut_to(rows)
        self._empty()
        return done

    def keep(self, memory: int) -> None:
        """So many bytes may be kept from here on, the graph in use included; no trace, whose need is unknown."""
        self._budget, self._stage, self._fitted = memory, False, True
        self._empty()

    @property
    def pieces(self) -> int:
        """How many there are in all; of batches that are not cut, these."""
        return sum(map(len, self._pieces.shares))

    def release(self) -> int:
        """Keep nothing of what has been kept; the bytes that it was at most."""
        self._kept.clear()
        return self._kept.peak

    def _empty(self) -> None:
        rows = self._pieces.rows
        what = f"pieces of {rows} examples" if rows else "batches"
        self._kept = Kept(self.pieces, self._budget, what)

    @torch.inference_mode(False)
    def _use(self, batch: Any, rows: int | None, beside: int) -> Use:
        """Measured on one product with the first ``rows`` examples of a batch."""
        row = self._routes.draw(0)[None]
        with Allocated() as allocated:
            prepared = self._routes.prepared(batch if rows is None else examples(batch, 0, rows), 0)
            _stacked(prepared.product, row, keep=True)
        kept = prepared.size if prepared.size < UNKNOWN else 0
        return Use(kept, max(allocated.peak + row.nbytes - kept, beside))  # the sum over batches too

    @torch.inference_mode(False)
    def _is_sum(self, batch: Any, rows: int) -> bool:
        """Whether the product of some examples is that of each of them."""
        row = self._routes.draw(0)[None]

        def product(piece: Any) -> Tensor:
            return _stacked(self._routes.prepared(piece, 0).product, row, keep=False)

        off = product(examples(batch, 0, rows))  # first: what takes most goes without another vector
        size = torch.linalg.vector_norm(off, dtype=torch.float64)
        for share, piece in self._pieces.parts(batch, rows):
            off.sub_(product(piece), alpha=share)
        return self._routes.is_rounding(off, size)

    @torch.inference_mode(False)
    def forms(self, rows: Tensor) -> list[Sample]:
        """v' A_b v of every batch b, for each row v: its mean is v' A v, its standard error that of the data."""
        return self.samples([(products * rows).sum(1).double().cpu() for _, products in self.by_batch(rows)])

    def samples(self, forms: Sequence[Tensor]) -> list[Sample]:
        """A ``Sample`` for each row from the values ``(k,)`` of the batches."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return [Sample(column, weights, "batches") for column in torch.stack(list(forms), dim=1)]

    @property
    def errors(self) -> Errors:
        """Of the products so far, by estimate; 0 for exact ones, whose rounding is no part of it."""
        return Errors() if self._routes.differences is None else self._routes.differences.errors

    def explain(self) -> str:
        """By which route products are computed, and what is kept; once the first has been."""
        if not self._done:
            return "no product has been computed yet"
        if self._routes.differences is not None:
            off = f"that with a unit vector is off by {self.errors.norm:.1e} at most, by estimate"
            return f"{self._routes.chosen.rstrip('.')}; {off}; {self._kept}"
        waits = self._stage and self._repaid < math.inf and self._routes.chosen == GRAPHS
        note = f" (a trace would pay from product {self._repaid + 1:,} on)" if waits else ""
        return f"{self._routes.chosen}{note}; {self._kept}"


def _stacked(product: Map, rows: Tensor, keep: bool) -> Tensor:
    """The products of all rows; ``keep``: there will be more of them."""
    with guarded(), full_precision(rows.device):
        # A clone: some operations ask that what they differentiate begins at an even place of its memory.
        found = [product(row.clone(), keep or index + 1 < len(rows)) for index, row in enumerate(rows.unbind())]
    if len(found) == 1:
        return found[0][None]
    return torch.stack(found) if found else rows
