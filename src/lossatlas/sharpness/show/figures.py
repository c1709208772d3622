"""The figures of the measures of sharpness, their captions, tables and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lossatlas.results.blocks import FigureGroup, Number

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    yield from ()


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    yield from ()
