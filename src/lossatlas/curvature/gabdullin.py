"""Criteria of negative curvature from stochastic Lanczos quadrature."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.linalg import eigh_tridiagonal

from lossatlas.curvature.krylov import Floats
from lossatlas.errors import InputError
from lossatlas.results.making import result
from lossatlas.results.provenance import OBJECTIVE

FEWEST = 2
KEPT = (*OBJECTIVE, "network", "matrix", "steps", "probes", "seed")


def gabdullin(density: xr.Dataset) -> xr.Dataset:
    """K_n = sum_{theta<0} |theta w|^n / sum_{theta>0} (theta w)^n over Lanczos nodes theta and weights w.

    ``density`` comes from ``spectral_density`` without deflated pairs, as the criteria are defined. For each number of
    steps up to its own, from the same runs, over ``("step",)``: ``k_h1`` (n = 1), ``k_h05`` (n = 0.5) and ``r_e`` =
    |theta_min / theta_max|, means over the probes, each with ``_stderr``.

    With n = 1 the criterion tends to sum |lambda| below 0 over that above 0, a property of the matrix. With n < 1 it
    depends on the number of steps, however many: compare at equal steps only. The source restricts the criteria to
    spectra that are mainly positive (arXiv 2504.17618).

    Raises
    ------
    InputError : another Dataset, or one with deflated pairs.

    Source: Gabdullin 2024, arXiv 2412.10146 (the criteria); arXiv 2504.17618 (where they apply).

    Examples
    --------
    >>> import torch
    >>> from lossatlas import spectral_density
    >>> from lossatlas.curvature.operators import Operator
    >>> values = torch.linspace(-1, 3, 100, dtype=torch.float64)  # those below 0 sum to 1 / 9 of those above
    >>> operator = Operator(100, lambda rows: rows * values, torch.float64, torch.device("cpu"))
    >>> found = gabdullin(spectral_density(operator, steps=40, progress=False)).isel(step=-1)
    >>> bool(abs(found["k_h1"] - 1 / 9) < 3 * found["k_h1_stderr"])
    True
    """
    if not isinstance(density, xr.Dataset) or "diagonal" not in density or density.attrs.get("atoms"):
        raise InputError(
            "The criteria need plain stochastic Lanczos quadrature: give spectral_density(operator), without deflate."
        )
    diagonals, off_diagonals = density["diagonal"].to_numpy(), density["off_diagonal"].to_numpy()
    steps = range(FEWEST, diagonals.shape[1] + 1)
    each = np.array(
        [[_criteria(d[:m], b[: m - 1]) for d, b in zip(diagonals, off_diagonals, strict=True)] for m in steps]
    )  # steps, probes, criteria
    count = np.sqrt(each.shape[1])
    columns: dict[str, tuple[str, Floats]] = {}
    for j, name in enumerate(("k_h1", "k_h05", "r_e")):
        columns[name] = ("step", each[:, :, j].mean(1))
        columns[f"{name}_stderr"] = ("step", each[:, :, j].std(1, ddof=1) / count)
    kept = {name: density.attrs[name] for name in KEPT if name in density.attrs}
    return result("gabdullin", xr.Dataset(columns, coords={"step": list(steps)}), kept)


def _criteria(diagonal: Floats, off_diagonal: Floats) -> tuple[float, float, float]:
    """K_1, K_0.5 and r_e of one probe after so many steps; NaN where its run ended before, or no node is above 0."""
    if not np.isfinite(diagonal).all():
        return np.nan, np.nan, np.nan
    nodes, vectors = eigh_tridiagonal(diagonal, off_diagonal)
    masses = nodes * vectors[0] ** 2
    below, above = -masses[masses < 0], masses[masses > 0]
    if not above.size:
        return np.nan, np.nan, np.nan
    ratio = abs(nodes[0] / nodes[-1]) if nodes[0] < 0 else 0.0
    return below.sum() / above.sum(), np.sqrt(below).sum() / np.sqrt(above).sum(), ratio
