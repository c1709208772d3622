"""Curvature matrices as symmetric operators that are never formed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lossatlas.errors import DirectionError
from lossatlas.objective import Objective

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


@dataclass(frozen=True)
class Operator:
    """A symmetric n x n matrix A known by its products: ``A @ v`` for ``(n,)``, ``A @ V`` for columns ``(n, k)``.

    ``rows`` maps k vectors as rows ``(k, n)`` to their products ``(k, n)``.
    """

    n: int
    rows: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        return (self.n, self.n)

    def __matmul__(self, other: Tensor) -> Tensor:
        if other.ndim not in (1, 2) or other.shape[0] != self.n:
            raise DirectionError(
                f"A {self.n} x {self.n} operator cannot multiply a tensor of shape {tuple(other.shape)}."
            )
        other = other.to(self.device, self.dtype)
        return self.rows(other[None])[0] if other.ndim == 1 else self.rows(other.T.contiguous()).T

    def to_scipy(self) -> LinearOperator:
        """For ``scipy.sparse.linalg``: numpy vectors in and out, in this operator's type."""
        from scipy.sparse.linalg import LinearOperator

        def multiply(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            product = self @ torch.as_tensor(np.ascontiguousarray(x))
            return product.cpu().numpy()

        kind = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(self.shape, matvec=multiply, rmatvec=multiply, matmat=multiply, dtype=kind)


def hessian(objective: Objective, point: Tensor | None = None) -> Operator:
    """H = grad grad' L(theta) at ``point`` (the model's own by default), by exact Hessian-vector products.

    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.eye(2), torch.zeros(2, 1))
    >>> hessian(Objective(model, torch.nn.functional.mse_loss, data)) @ torch.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    return Operator(objective.n_parameters, lambda rows: objective.hvp(rows, point), objective.dtype, objective.device)
