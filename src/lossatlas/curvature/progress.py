"""A bar that counts products with matrices, and names what they are for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

from torch import Tensor
from tqdm.auto import tqdm

from lossatlas.curvature.operators import Operator

Bar: TypeAlias = "tqdm[Any]"


def product_bar(desc: str, shown: bool, total: int | None = None) -> Bar:
    """A bar of products, of ``total`` where it is known how many there will be."""
    return tqdm(total=total, desc=desc, unit=" products", disable=not shown, leave=False)


def counted(operator: Operator, bar: Bar) -> Operator:
    """The same operator, with its products shown on the bar."""

    def rows(vectors: Tensor) -> Tensor:
        found = operator.rows(vectors)
        bar.update(len(vectors))
        return found

    return replace(operator, rows=rows)
