"""An objective with a closed form: l_i(w) = (w - c_i)' A (w - c_i) / 2, so H = A and grad L = A (w - mean c)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lossatlas.objective import Objective


class Point(nn.Module):
    """Its output for c is w - c."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w.clone())

    def forward(self, c: Tensor) -> Tensor:
        return self.w - c


def symmetric(eigenvalues: list[float] | Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(A, Q) in float64 with these eigenvalues and eigenvectors, the columns of a random orthogonal Q."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    draw = torch.randn(len(values), len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    q = torch.linalg.qr(draw).Q
    matrix = (q * values) @ q.T
    return (matrix + matrix.T) / 2, q


def quadratic(matrix: Tensor, centers: Tensor, w: Tensor, *, batch_size: int = 512) -> Objective:
    def loss(outputs: Tensor, _: Tensor) -> Tensor:
        return 0.5 * ((outputs @ matrix) * outputs).sum(1)

    return Objective(Point(w), loss, (centers, torch.zeros(len(centers))), batch_size=batch_size, metrics=None)
