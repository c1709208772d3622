"""lambda_max on ever fewer examples: how far a subset's largest eigenvalue is biased upward."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
import xarray as xr

from lossatlas.curvature.lanczos import Eigenpairs, search
from lossatlas.curvature.progress import Budget
from lossatlas.errors import ConvergenceWarning, InputError
from lossatlas.objective import Objective

HALVINGS = 4
REPLICATES = 4  # disjoint subsets of a size, where there are so many
PRODUCTS = 300  # with a subset's matrix, at most
TOLERANCE = 1e-2  # of the solver, far below the spread of the subsets


def trend_variables(objective: Objective, pairs: Eigenpairs, seed: int, budget: Budget) -> tuple[xr.Dataset, str]:
    """Variables over ``("n_examples", "replicate")``, and a note or ``""``.

    E lambda_max(H_S) >= lambda_max(E H_S), since lambda_max is convex (Jensen). Subsets of one size are disjoint, so
    that their spread is that of independent samples.
    """
    n = objective.n_examples
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    sizes = [n // 2**j for j in range(HALVINGS, 0, -1) if n // 2**j >= 2]
    values = np.full((len(sizes), REPLICATES), np.nan)
    stderrs = np.full_like(values, np.nan)
    for row, size in enumerate(sizes):
        for column in range(min(REPLICATES, n // size)):
            if budget.left() < 2:
                return xr.Dataset(), f"No trend over the number of examples: {budget.describe()} left none for it."
            try:
                part = objective.examples(order[column * size : (column + 1) * size])
            except InputError as reason:
                return xr.Dataset(), f"No trend over the number of examples: {reason}"
            operator = budget.hessian(part, size / n)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the residual is in the stderr
                limit = int(min(PRODUCTS, budget.left() * n / size))
                found = search(
                    operator, 1, tol=TOLERANCE, start=pairs.vectors[0], look=False, max_products=limit, seed=seed
                ).pairs
            budget.add(size / n)  # the pair's own, that measures it
            values[row, column] = float(found.values[0])
            stderrs[row, column] = math.hypot(float(found.stderrs[0]), float(found.residuals[0]))
    over = ("n_examples", "replicate")
    variables = {
        "trend_eigenvalue": xr.Variable(over, values),
        "trend_eigenvalue_stderr": xr.Variable(over, stderrs),
        "n_examples": xr.Variable("n_examples", sizes),
        "replicate": xr.Variable("replicate", np.arange(1, REPLICATES + 1)),
    }
    return xr.Dataset(variables), ""
