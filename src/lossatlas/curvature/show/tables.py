"""Tables of results on curvature: eigenvalues, numbers of the whole spectrum, the Gauss-Newton part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.curvature.show import captions
from lossatlas.curvature.show.numbers import largest_gap, share_below_0
from lossatlas.results.blocks import Table
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import DASH, number, percent
from lossatlas.results.values import scalar, value

if TYPE_CHECKING:
    import xarray as xr

Row = tuple[str, Callable[["xr.Dataset"], str]]

SCALARS: tuple[tuple[str, Row], ...] = (
    ("trace", ("trace", lambda d: value(d, "trace"))),
    ("frobenius_norm", ("Frobenius norm", lambda d: value(d, "frobenius_norm"))),
    ("density_error", ("error of the density, as a share of the width", lambda d: percent(scalar(d, "density_error")))),
    ("negative_mass", ("share of the eigenvalues below 0", share_below_0)),
    ("undecided_mass", ("share of the eigenvalues not told from 0", lambda d: percent(scalar(d, "undecided_mass")))),
    ("negative_share", ("share of |λ| below 0", lambda d: value(d, "negative_share"))),
    ("effective_rank", ("effective rank", lambda d: value(d, "effective_rank"))),
    ("largest_gap", ("largest gap between leading eigenvalues", largest_gap)),
)
COSTS = {
    "eigenpairs": "products for the eigenpairs",
    "density": "products for the density",
    "trace": "products for the trace",
    "trend": "products for the subsets",
    "layers": "products for the layers",
}
ENDS = {"top": "from the largest", "bottom": "from the smallest"}
PARTS = {"hessian": "H", "gauss_newton": "G", "residual": "R"}


def scalar_tables(datasets: Sequence[xr.Dataset]) -> Iterator[Table]:
    """The numbers of the whole spectrum and what they cost, a table for each two Datasets."""
    for k in range(0, len(datasets), 2):
        yield _scalar_table(datasets[k : k + 2])


def _scalar_table(datasets: Sequence[xr.Dataset]) -> Table:
    rows = [row for name, row in SCALARS if any(name in dataset for dataset in datasets)]
    rows += [_cost(f"products_{part}", spelt) for part, spelt in COSTS.items()]
    rows += [_cost("products", "matrix-vector products in all"), ("seconds", _seconds)]
    body = [(name, *(cell(dataset) for dataset in datasets)) for name, cell in rows]
    known = tuple(row for row in body if any(cell != DASH for cell in row[1:]))
    return Table(captions.scalars(datasets), _header("quantity", datasets), known)


def _cost(name: str, spelt: str) -> Row:
    return spelt, lambda dataset: f"{int(dataset.attrs[name]):,}" if name in dataset.attrs else DASH


def _seconds(dataset: xr.Dataset) -> str:
    return number(float(dataset.attrs.get("seconds", np.nan)), 3)


def _header(first: str, datasets: Sequence[xr.Dataset]) -> tuple[str, ...]:
    return first, *(Provenance.of(dataset).who for dataset in datasets)


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


def split_table(datasets: Sequence[xr.Dataset]) -> Table:
    """Traces and norms of H, G and R, and the cosine of H and G."""
    rows = [
        (f"{quantity} of {symbol}", *(value(dataset, f"{prefix}_{part}") for dataset in datasets))
        for prefix, quantity in (("trace", "trace"), ("frobenius", "Frobenius norm"))
        for part, symbol in PARTS.items()
    ]
    rows.append(("cosine of H and G", *(value(dataset, "cosine") for dataset in datasets)))
    return Table(captions.gauss_newton_table(datasets), _header("quantity", datasets), tuple(rows))
