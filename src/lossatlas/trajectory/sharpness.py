"""lambda_max of the Hessian at snapshots of a training."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from lossatlas.curvature.lanczos import top_eigenpairs
from lossatlas.curvature.operators import hessian
from lossatlas.curvature.progress import counted, product_bar
from lossatlas.objective import Objective

TOLERANCE = 5e-2  # relative residual: the value is surer by far, and the sharpness of a training changes by far more

Variables = dict[str, tuple[str, list[float]]]


def snapshot_sharpness(
    objective: Objective, points: Tensor, count: int, seed: int = 0, progress: bool = True
) -> tuple[Variables, int]:
    """lambda_max at ``count`` of the points ``(T, n)``, evenly from the first to the last, and the products it took.

    NaN at the other points. Some eigenvalue lies within ``lambda_max_residual`` of each value. Each search starts at
    the eigenvector of the snapshot before, and at a random vector.
    """
    values, residuals = np.full((2, len(points)), math.nan)
    found, products = None, 0
    with product_bar("sharpness", progress) as bar:
        for k in np.linspace(0, len(points) - 1, min(count, len(points))).round().astype(int).tolist():
            operator = counted(hessian(objective.at(points[k].to(objective.point))), bar)
            start = None if found is None else found.vectors
            found = top_eigenpairs(operator, tol=TOLERANCE, start=start, seed=seed)
            values[k], residuals[k] = float(found.values), float(found.residuals)
            products += found.products
    names = {"lambda_max": values, "lambda_max_residual": residuals}
    return {name: ("snapshot", numbers.tolist()) for name, numbers in names.items()}, products
