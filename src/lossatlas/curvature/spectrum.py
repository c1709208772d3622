"""Both ends of the Hessian's spectrum from one Krylov space."""

from __future__ import annotations

import time

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.curvature.lanczos import Eigenpairs, check_count, krylov_eigenpairs
from lossatlas.curvature.operators import hessian
from lossatlas.objective import Objective


def spectrum(
    objective: Objective,
    k: int = 10,
    *,
    point: Tensor | None = None,
    tol: float = 1e-3,
    max_products: int | None = None,
    seed: int = 0,
    vectors: bool = False,
) -> xr.Dataset:
    """The k largest and the k smallest eigenvalues of H, each with two errors: the solver's and the data's.

    Returns
    -------
    Dataset over ``("end", "rank")``, ``end`` in ``"top"`` (descending) and ``"bottom"`` (ascending): ``eigenvalue``;
    ``residual`` = |H v - lambda v|, within which a true eigenvalue of *this data's* H lies; ``eigenvalue_stderr``, the
    data-sampling error of v' H v at the converged v, from its values on the batches (NaN with a single batch). A
    subset's largest eigenvalue is biased upward against the population's: compare at equal numbers of examples.

    ``vectors=True`` keeps, for ``eigen_plane``, the unit ``eigenvector`` of each, in float32 over
    ``("end", "rank", "parameter")``, ``slope`` = v' grad L, the ``point`` ``("parameter",)`` that all are taken at, and
    ``attrs["loss"]``, the loss there: (2 k + 1) n numbers, and one pass for the loss and one for the gradient.

    Raises as ``top_eigenpairs``; pairs that miss ``tol`` are returned with a ``ConvergenceWarning``.
    """
    objective.require_finite()
    operator = hessian(objective, point)
    check_count(k, operator)
    started = time.perf_counter()

    def both_ends(values: NDArray[np.float64]) -> NDArray[np.intp]:
        order = np.arange(len(values))
        return np.concatenate([order[::-1][:k], order[:k]])

    # Where the ends meet (2k > n) the pairs in the middle are in both.
    pairs = krylov_eigenpairs(
        operator, both_ends, min(2 * k, operator.n), tol=tol, max_products=max_products, seed=seed
    )
    dataset = _dataset(objective, pairs, k, point)
    if vectors:
        dataset = dataset.assign(_vectors(objective, pairs, k, point))
    dataset.attrs = (
        {"kind": "spectrum"}
        | objective.provenance()
        | {
            "tol": tol,
            "products": pairs.products,
            "converged": int(pairs.converged.all()),
            "seed": seed,
            "stderr_over": "batches",
            "seconds": time.perf_counter() - started,
        }
        | ({"loss": objective.value(point)} if vectors else {})
    )
    return dataset


def _dataset(objective: Objective, pairs: Eigenpairs, k: int, point: Tensor | None) -> xr.Dataset:
    samples = objective.batch_curvatures(pairs.vectors, point)
    assert isinstance(samples, list)
    columns = {
        "eigenvalue": pairs.values,
        "residual": pairs.residuals,
        "eigenvalue_stderr": torch.tensor([sample.stderr for sample in samples]),
    }
    return xr.Dataset(
        {name: (("end", "rank"), column.reshape(2, k).numpy()) for name, column in columns.items()},
        coords={"end": ["top", "bottom"], "rank": np.arange(1, k + 1)},
    )


def _vectors(objective: Objective, pairs: Eigenpairs, k: int, point: Tensor | None) -> dict[str, xr.Variable]:
    theta = (objective.point if point is None else point).to(objective.point).detach().cpu()
    slopes = pairs.vectors.double() @ objective.gradient(point).double()
    rows = pairs.vectors.float().cpu().reshape(2, k, -1)
    return {
        "eigenvector": xr.Variable(("end", "rank", "parameter"), rows.numpy()),
        "slope": xr.Variable(("end", "rank"), slopes.cpu().reshape(2, k).numpy()),
        "point": xr.Variable("parameter", (theta if theta.dtype == torch.float64 else theta.float()).numpy().copy()),
    }
