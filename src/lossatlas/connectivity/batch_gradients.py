"""The loss and its gradient on one batch, at a point of a path."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lossatlas.evaluation.products.linearised import loss_and_gradient
from lossatlas.objective import Objective


def batch_gradient(objective: Objective, point: Tensor, batch: Any, index: int) -> tuple[float, Tensor]:
    """L_b and grad L_b ``(n,)`` on one batch of the data; ``index`` seeds what the model draws.

    Raises ``DirectionError`` for a point that is not finite.
    """
    loss, gradient = loss_and_gradient(objective.function, objective.point_of(point), batch, index)
    return loss.item(), gradient
