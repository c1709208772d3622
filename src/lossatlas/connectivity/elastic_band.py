"""A nudged elastic band: every bend of a chain slides down across the chain, and never along it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas.connectivity.batch_gradients import batch_gradient
from lossatlas.geometry.curves import ParametricCurve
from lossatlas.objective import Objective


def elastic_band(
    objective: Objective, curve: ParametricCurve, batch: Any, index: int, _: float
) -> tuple[float, float, Tensor]:
    """g_k - (g_k' u_k) u_k, ``(bends, n)``, with g_k = grad L_batch(p_k) and u_k the chain's direction at the bend p_k.

    Draxler et al. (2018): the loss acts across the chain alone, and springs of infinite stiffness act along it: the
    bends are first put back at equal distances along the chain, in place. u_k points from or to the neighbour of the
    higher loss. Also returns the highest loss of a bend on this batch, and the t of that bend.
    """
    points = curve.points
    assert points is not None, "connect gives the curve its points"
    points[1:-1] = _equally_spaced(curve, points)
    losses, gradients = zip(*(batch_gradient(objective, p, batch, index) for p in points[1:-1]), strict=True)
    # The ends are minima: each bend's other neighbour is taken to be higher.
    losses = (-math.inf, *losses, -math.inf)
    across = [_across(g, _direction(points, losses, k)) for k, g in enumerate(gradients, start=1)]
    top = int(np.argmax(losses))
    return losses[top], top / (len(points) - 1), torch.stack(across)


def _equally_spaced(curve: ParametricCurve, points: Tensor) -> Tensor:
    pieces = [float((q.double() - p.double()).norm()) for p, q in pairwise(points)]
    reached = np.concatenate([[0.0], np.cumsum(pieces)])
    if not math.isfinite(reached[-1]):  # thrown out of range: their losses will tell
        return points[1:-1]
    t = np.linspace(0.0, 1.0, len(points))
    places = np.interp(reached[-1] * t, reached, t)
    return torch.stack([curve.point(float(place)) for place in places[1:-1]])


def _direction(points: Tensor, losses: tuple[float, ...], k: int) -> Tensor:
    higher_after = losses[k + 1] > losses[k - 1]
    step = points[k + 1] - points[k] if higher_after else points[k] - points[k - 1]
    direction: Tensor = step / step.norm()
    return direction


def _across(gradient: Tensor, direction: Tensor) -> Tensor:
    return gradient - (gradient @ direction) * direction
