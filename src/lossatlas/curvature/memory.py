"""How a limit on memory is divided between the vectors of a measurement and its products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from lossatlas.curvature.operators import Operator, hessian
from lossatlas.curvature.workspace import Workspace
from lossatlas.errors import InputError
from lossatlas.evaluation.products.allocated import Allocated, Use
from lossatlas.evaluation.products.diagonal import ExactDiagonal
from lossatlas.evaluation.products.products import Products

if TYPE_CHECKING:
    from lossatlas.curvature.krylov import KrylovSpace
    from lossatlas.objective import Objective

ASIDE = 3  # vectors beside the basis: theta in the products, and two that wait to be multiplied
ENOUGH = 100  # vectors for the density's probes, beside a whole space of a search
WORK = 5  # vectors that a step without a product takes for the moment


class Memory:
    """What a measurement of a Hessian, all of it together, may take beside model, data and theta: ``limit`` bytes.

    The vectors get half of it, or what is left beside a product with one example, and what the products leave, from
    ``least`` to ``most``; the products get the rest, with batches cut into pieces that it holds. ``other`` bytes are
    for what is neither. ``note`` tells where a batch that cannot be cut takes more.
    """

    def __init__(self, limit: int, least: int, most: int, other: int = 0) -> None:
        if limit < 0:
            raise InputError(f"max_memory={limit}: give a number of bytes, or None for no limit.")
        self._limit, self._least, self._most, self._other = limit, least, most, other
        self.note = ""
        self._first: Operator | None = None
        self._use = Use(0, 0)
        self._rows: int | None = None  # of a piece
        self._kept = self._most_kept = self._exact = 0
        self._before = 0

    def hessian(self, objective: Objective) -> Operator:
        """A Hessian within the limit, which the first one divides; its products keep nothing once there is another."""
        if objective.function.derivatives is not None:
            objective.function.derivatives.room = self._limit
        operator = hessian(objective, max_memory=self._kept)
        assert operator.products is not None
        if self._first is None:
            self._begin(objective, operator)
        else:
            self._release()
            if self._rows is not None:
                operator.products.cut(self._rows)
            operator.products.keep(self._kept)
        exact = partial(self._exact_diagonal, operator.exact_diagonal)
        return replace(operator, workspace=self._workspace, exact_diagonal=exact)

    def hold(self, space: KrylovSpace, count: int, probes: bool) -> None:
        """Of the space of a search, its ``count`` pairs at least; all of it where that leaves enough for ``probes``."""
        left = space.widest - space.size
        if probes and left < min(ENOUGH, space.dimension - count):
            space.keep(np.arange(count))
        self._workspace.hold(space.size, space.dimension)

    def let_go(self, count: int) -> None:
        """Only the first so many vectors are needed from now on."""
        assert self._first is not None
        self._workspace.hold(count, self._first.n)

    @property
    def peak(self) -> int:
        """Bytes used at once: by the allocator of a GPU, else of the vectors and products as they are counted."""
        assert self._first is not None
        if self._first.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._first.device)) - self._before
        self._release()
        beside = max(self._most_kept + self._use.beside, self._exact)
        return self._workspace.bytes + ASIDE * self._vector + beside + self._other

    # Inside

    def _begin(self, objective: Objective, operator: Operator) -> None:
        if operator.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(operator.device)
            self._before = torch.cuda.memory_allocated(operator.device)
        self._first, self._vector = operator, operator.n * operator.dtype.itemsize
        assert operator.products is not None
        self._workspace = Workspace(self._divide(operator.products), operator.n, operator.dtype, operator.device)

    def _divide(self, products: Products) -> int:
        """How many vectors there are; the products are told what is theirs."""
        work = WORK * self._vector
        smallest = products.least_use(work).whole
        self._require(smallest if products.divisible else 0)
        half = (self._limit // 2 - self._fixed) // self._vector
        beside = (self._limit - self._fixed - smallest) // self._vector
        count = min(self._most, max(self._least, min(half, beside)))
        room = self._limit - self._fixed - count * self._vector
        self._use, self._rows = products.fit(room, work)
        self._kept = max(room - self._use.beside, 0)
        if self._use.whole > room:
            self.note = (
                f"max_memory={self._limit:,} leaves {room:,} bytes for a product, and one with a batch takes "
                f"{self._use.whole:,}, whose examples cannot be taken apart: give smaller batches."
            )
        taken = min(self._kept, self._use.kept * products.pieces)
        count = max(count, min(self._most, (self._limit - self._fixed - self._use.beside - taken) // self._vector))
        self._kept = max(self._limit - self._fixed - self._use.beside - count * self._vector, 0)
        products.keep(self._kept)
        return count

    @property
    def _fixed(self) -> int:
        return ASIDE * self._vector + self._other

    def _require(self, product: int) -> None:
        needed = self._fixed + self._least * self._vector + max(product, WORK * self._vector)
        if self._limit < needed:
            raise InputError(
                f"max_memory={self._limit:,} is too little for {self._least} vectors of {self._vector:,} bytes and "
                f"what a product takes beside them: give at least {needed:,} bytes."
            )

    def _release(self) -> None:
        assert self._first is not None
        assert self._first.products is not None
        self._most_kept = max(self._most_kept, self._first.products.release())

    def _exact_diagonal(self, exact: Callable[[], ExactDiagonal]) -> ExactDiagonal:
        if self._rows is not None:
            return ExactDiagonal(None, f"max_memory={self._limit:,} has no room for backward passes of whole batches.")
        self._release()
        with Allocated() as allocated:
            found = exact()
        self._exact = max(self._exact, allocated.peak)
        return found
