"""Power iteration, the baseline of the seeds: kept to be compared with, not to be trusted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
import xarray as xr

from lossatlas.curvature.operators import Operator


def power_iteration(operators: Operator | Iterable[Operator], *, steps: int = 15, seed: int = 0) -> xr.Dataset:
    """v <- A v / |A v|, lambda = v' A v, ``steps`` times.

    Converges, slowly, to the eigenvalue of largest magnitude, without a stopping rule and without an error bound;
    use ``top_eigenpairs`` to know a number. Given several operators, each product takes the next one: so it goes when
    every product draws another batch, and then it converges to nothing.

    Returns a Dataset over ``("iteration",)`` with ``eigenvalue``, the Rayleigh quotient v' A v before each update.
    """
    changing = not isinstance(operators, Operator)
    source = iter(operators) if not isinstance(operators, Operator) else itertools.repeat(operators)
    vector, values = torch.empty(0), list[float]()
    for operator in itertools.islice(source, steps):
        if not values:
            vector = torch.randn(operator.n, generator=torch.Generator().manual_seed(seed)).to(
                operator.device, operator.dtype
            )
            vector /= torch.linalg.vector_norm(vector)
        product = operator @ vector
        values.append(float(vector @ product))
        vector = product / torch.linalg.vector_norm(product).clamp(min=torch.finfo(product.dtype).tiny)
    attrs = {"kind": "power_iteration", "batches": "changing" if changing else "fixed", "seed": seed}
    return xr.Dataset(
        {"eigenvalue": ("iteration", values)}, coords={"iteration": range(1, len(values) + 1)}, attrs=attrs
    )
