"""The table of eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lossatlas.curvature.show import captions
from lossatlas.results.blocks import Table
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number
from lossatlas.results.values import value

if TYPE_CHECKING:
    import xarray as xr

ENDS = {"top": "from the largest", "bottom": "from the smallest"}


def eigenvalue_table(dataset: xr.Dataset) -> Table:
    """The eigenvalues of both ends by rank, with their errors and residuals."""
    ends = [end for end in ENDS if end in dataset["end"].to_numpy()]
    header = ("rank", *(cell for end in ends for cell in (ENDS[end], "residual")))
    rows = tuple(_eigenvalue_row(dataset.isel(rank=k), ends, k + 1) for k in range(dataset.sizes["rank"]))
    return Table(
        f"Eigenvalues of the Hessian{captions.restricted(dataset)} of {Provenance.of(dataset).who} ± one data-sampling "
        "standard error with the solver's residuals.",
        header,
        rows,
    )


def _eigenvalue_row(at_rank: xr.Dataset, ends: Sequence[str], rank: int) -> tuple[str, ...]:
    at = [at_rank.sel(end=end) for end in ends]
    cells = [cell for each in at for cell in (value(each, "eigenvalue"), number(float(each["residual"]), 2))]
    return str(rank), *cells
