"""Points of a flat piece of parameter space: a center and so much of each direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = Sequence[float]


@dataclass(frozen=True)
class Points:
    """theta(w) = center + sum_j w_j d_j for directions ``(d, n)``.

    >>> Points(torch.zeros(2), torch.eye(2)).at([3.0, 4.0])
    tensor([3., 4.])
    """

    center: Tensor
    directions: Tensor

    def at(self, weights: Weights) -> Tensor:
        """theta ``(n,)``; the center itself, bit for bit, where all weights are 0."""
        if not any(weights):
            return self.center
        return self.center + torch.tensor(weights, dtype=self.center.dtype, device=self.center.device) @ self.directions
