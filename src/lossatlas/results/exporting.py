"""A result as one table of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

Dims = tuple[str, ...]


def csv_text(dataset: xr.Dataset, digits: int | None = None) -> str:
    """A Dataset as one table: a column for each dimension and each variable, a row for each cell.

    Variables over the same dimensions share their rows; those over others stand below, and the cells of columns that do
    not apply are blank. Numbers are written in the shortest form that reads back as the same number, or with so many
    significant ``digits``; one that is not known is ``nan``.

    Examples
    --------
    >>> import xarray as xr
    >>> print(csv_text(xr.Dataset({"loss": ("t", [0.5, 2.0]), "barrier": 1.5}, {"t": [0, 1]})))
    t,loss,barrier
    0,0.5,
    1,2.0,
    ,,1.5
    """
    blocks = _by_dimensions(dataset)
    written = [name for names in blocks.values() for name in names]
    text = io.StringIO()
    table = csv.DictWriter(text, [*map(str, dataset.sizes), *written], restval="", lineterminator="\n")
    table.writeheader()
    for dims, names in blocks.items():
        table.writerows(_rows(dataset, dims, names, digits))
    return text.getvalue()


def _by_dimensions(dataset: xr.Dataset) -> dict[Dims, list[str]]:
    """The variables that are no axis, by their dimensions; an axis that none of them has stands by itself."""
    blocks: dict[Dims, list[str]] = {}
    for name, variable in dataset.variables.items():
        if name not in dataset.sizes:
            blocks.setdefault(_in_order(dataset, variable.dims), []).append(str(name))
    for dim in dataset.sizes:
        if not any(dim in dims for dims in blocks):
            blocks[(str(dim),)] = []
    return blocks


def _in_order(dataset: xr.Dataset, dims: tuple[object, ...]) -> Dims:
    return tuple(str(dim) for dim in dataset.sizes if dim in dims)


def _rows(dataset: xr.Dataset, dims: Dims, names: list[str], digits: int | None) -> Iterator[dict[str, str]]:
    """The cells over these dimensions, the last dimension the fastest; a dimension without coordinates is counted."""
    axes = np.meshgrid(*(dataset[dim].to_numpy() for dim in dims), indexing="ij")
    every = [*axes, *(dataset[name].transpose(*dims).to_numpy() for name in names)]
    for cells in zip(*(_texts(np.asarray(each), digits) for each in every), strict=True):
        yield dict(zip([*dims, *names], map(str, cells), strict=True))


def _texts(numbers: NDArray[Any], digits: int | None) -> NDArray[Any]:
    if digits is None or numbers.dtype.kind != "f":
        return numbers.astype(str).ravel()
    return np.array([f"{number:.{digits}g}" for number in numbers.ravel().tolist()])
