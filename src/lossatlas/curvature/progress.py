"""What a measurement may spend on products with matrices, and the bar that shows how far it has come."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeAlias

from torch import Tensor
from tqdm.auto import tqdm

from lossatlas.curvature.memory import Memory
from lossatlas.curvature.operators import Operator, hessian
from lossatlas.errors import InputError
from lossatlas.objective import Objective

Bar: TypeAlias = "tqdm[Any]"


def product_bar(desc: str, shown: bool, total: int | None = None) -> Bar:
    """A bar of products, of ``total`` where it is known how many there will be."""
    return tqdm(total=total, desc=desc, unit=" products", disable=not shown, leave=False)


def counted(operator: Operator, bar: Bar) -> Operator:
    """The same operator, with its products shown on the bar."""
    return Budget(bar).counted(operator)


class Budget:
    """Products with all of the data, seconds and memory that may be spent; ``None`` is no limit.

    Used as a context it closes its bar. Seconds become products by the time that the products so far have taken.
    """

    def __init__(
        self,
        bar: Bar,
        max_products: int | None = None,
        max_seconds: float | None = None,
        memory: Memory | None = None,
    ) -> None:
        if max_products is not None and max_products < 1:
            raise InputError(f"max_products={max_products}: allow at least 1, or None for no limit.")
        if max_seconds is not None and not max_seconds > 0:
            raise InputError(f"max_seconds={max_seconds}: give a positive number of seconds, or None for no limit.")
        self.memory = memory
        self.bar, self.max_products, self.max_seconds = bar, max_products, max_seconds
        self.spent = 0.0
        self._started = time.perf_counter()

    def __enter__(self) -> Budget:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()

    @property
    def limited(self) -> bool:
        return self.max_products is not None or self.max_seconds is not None

    @property
    def whole(self) -> int:
        """The products taken, as a whole number."""
        return round(self.spent)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def left(self, share: float = 1.0) -> float:
        """How many products there may still be, of this share of all."""
        products = math.inf if self.max_products is None else share * self.max_products - self.spent
        if self.max_seconds is None:
            return products
        seconds = share * self.max_seconds - self.seconds
        by_time = seconds * self.spent / self.seconds if self.spent else math.inf
        return min(products, by_time if seconds > 0 else 0.0)

    def add(self, products: float) -> None:
        """So many more have been taken."""
        self.spent += products
        if self.bar.total is not None and self.spent > self.bar.total:
            self.bar.total = None  # the estimate was too low: no time left is better than a wrong one
        self.bar.update(self.whole - self.bar.n)

    def expect(self, more: float) -> None:
        """About so many more are to come: the bar then tells the time left."""
        if math.isfinite(more):
            self.bar.total = round(self.spent + min(more, max(self.left(), 0)))
            self.bar.refresh()

    def about(self, what: str) -> None:
        """What the products are for now."""
        self.bar.set_postfix_str(what)

    def counted(self, operator: Operator, weight: float = 1.0) -> Operator:
        """The same operator; each of its products is ``weight`` of one with all of the data."""

        def rows(vectors: Tensor) -> Tensor:
            found = operator.rows(vectors)
            self.add(weight * len(vectors))
            return found

        return replace(operator, rows=rows)

    def hessian(self, objective: Objective, weight: float = 1.0) -> Operator:
        """A Hessian within the memory, counted."""
        made = hessian(objective) if self.memory is None else self.memory.hessian(objective)
        return self.counted(made, weight)

    def describe(self) -> str:
        """The limits: "max_products=100 and max_seconds=10"."""
        limits = {"max_products": self.max_products, "max_seconds": self.max_seconds}
        return " and ".join(f"{name}={limit:g}" for name, limit in limits.items() if limit is not None)
