"""Problems of losses that depend on their batch, or that compare several views of an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracles.truth import N, Problem
from oracles.truth_data import (
    BITS,
    LABELS,
    REAL,
    SIGNS,
    drawn,
    mlp,
    pairs,
)


def _info_nce(o: Any, t: Tensor) -> Tensor:
    scores = F.normalize(o, dim=1) @ F.normalize(t, dim=1).T / 0.3
    return F.cross_entropy(scores, torch.arange(len(o)))


def _batch_hard(e: Tensor, y: Tensor) -> Tensor:
    d, same = (e[:, None] - e[None]).square().sum(-1), y[:, None] == y[None]
    return F.relu(torch.where(same, d, 0 * d).amax(1) - torch.where(same, d + 1e6, d).amin(1) + 0.5).mean()


def _supervised(e: Tensor, y: Tensor) -> Tensor:
    scores = (F.normalize(e, dim=1) @ F.normalize(e, dim=1).T / 0.5).fill_diagonal_(-1e9)
    same = (y[:, None] == y[None]).to(e).fill_diagonal_(0)
    return -(scores.log_softmax(1) * same).sum(1).div(same.sum(1).clamp(min=1)).mean()


def _dice(o: Tensor, t: Tensor) -> Tensor:
    p = o.sigmoid()
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def _triple(m: Any, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return m.body(a), m.body(b), m.body(c)


class Views(nn.Module):
    """One network on several inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()()

    def forward(self, *views: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(self.body, views))


def views(count: int, targets: Tensor = LABELS) -> Callable[[], Any]:
    return lambda: (tuple(drawn(N, 4, seed=20 + i) for i in range(count)), targets)


OF_BATCHES = [
    Problem("in-batch negatives", mlp(), _info_nce, pairs(REAL), whole=False),
    Problem("batch-hard triplets", mlp(), _batch_hard, pairs(LABELS), whole=False),
    Problem("supervised contrast", mlp(), _supervised, pairs(LABELS), whole=False),
    Problem("dice of the batch", mlp(), _dice, pairs(BITS), whole=False, expected="either"),
    Problem(
        "dice of each", mlp(), lambda o, t: torch.stack([_dice(a, b) for a, b in zip(o, t, strict=True)]), pairs(BITS)
    ),
    Problem(
        "correlation of the batch",
        mlp(1),
        lambda o, t: 1 - F.cosine_similarity(o - o.mean(0), t - t.mean(0), dim=0).mean(),
        pairs(drawn(N, 1)),
        whole=False,
    ),
    Problem("triplets of three views", Views, lambda o, t: F.triplet_margin_loss(*o, margin=0.8), views(3)),
    Problem("cosine of two views", Views, lambda o, t: F.cosine_embedding_loss(*o, t), views(2, SIGNS)),
    Problem(
        "ranking of two views",
        Views,
        lambda o, t: F.margin_ranking_loss(o[0][:, 0], o[1][:, 0], t, 0.3),
        views(2, SIGNS),
    ),
    Problem(
        "distance of two views",
        Views,
        lambda o, t: F.hinge_embedding_loss((o[0] - o[1]).abs().sum(1), t),
        views(2, SIGNS),
    ),
]
