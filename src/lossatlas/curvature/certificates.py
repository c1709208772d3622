"""What products of their own say of eigenpairs that were found: values, residuals, errors of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lossatlas.curvature.krylov import norms
from lossatlas.curvature.operators import Operator
from lossatlas.errors import NumericalError

PIECE = 2**20  # numbers that are taken to float64 at once


@dataclass(frozen=True)
class Certificates:
    """``values`` = v' A v, ``residuals`` = |A v - (v' A v) v| and ``stderrs``, all ``(k,)`` float64.

    ``stderrs`` are the data-sampling errors of v' A v, from its values on the batches; NaN where these are not known.
    """

    values: Tensor
    residuals: Tensor
    stderrs: Tensor


@torch.inference_mode(False)  # a caller's own would leave no graph
def certificates(operator: Operator, vectors: Tensor) -> Certificates:
    """Of unit ``vectors`` ``(k, n)``, from one product with each.

    Raises ``NumericalError`` where a product is not finite.
    """
    if operator.workspace is not None and len(vectors) > 1:
        each = [certificates(operator, vector[None]) for vector in vectors]
        columns = zip(*((one.values, one.residuals, one.stderrs) for one in each), strict=True)
        return Certificates(*map(torch.cat, columns))
    products, stderrs = _products(operator, vectors)
    if not bool(torch.isfinite(products).all()):
        raise NumericalError("The product with the operator holds NaN or infinite numbers: check the matrix.")
    values = torch.empty(len(vectors), dtype=torch.float64)
    residuals = torch.empty_like(values)
    for i, (product, vector) in enumerate(zip(products, vectors, strict=True)):  # some numbers at a time in float64
        parts = list(zip(product.split(PIECE), vector.split(PIECE), strict=True))
        values[i] = sum(float(a.double() @ v.double()) for a, v in parts)
        residuals[i] = math.hypot(*(float(norms(a.double() - float(values[i]) * v.double())) for a, v in parts))
    return Certificates(values, residuals, stderrs)


def _products(operator: Operator, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """A v ``(k, n)`` of each, and the standard errors of v' A v."""
    if operator.products is None:
        return operator.rows(vectors), torch.full((len(vectors),), torch.nan, dtype=torch.float64)
    total, forms = torch.zeros_like(vectors), []
    for weight, products in operator.products.by_batch(vectors):
        total.add_(products, alpha=weight)
        forms.append((products * vectors).sum(1, dtype=torch.float64).cpu())
    samples = operator.products.samples(forms)
    return total.div_(sum(operator.products.weights)), torch.tensor([sample.stderr for sample in samples]).double()
