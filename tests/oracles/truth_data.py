"""Small data and networks for the problems: fixed draws, targets of every kind, an MLP and its endings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from oracles.architectures import Written
from oracles.truth import N

POSITIONS, CLASSES = 5, 3
WEIGHTS = torch.tensor([0.2, 1.0, 3.5])


def drawn(*shape: int, seed: int = 1) -> Tensor:
    """Normal numbers in float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 2) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def whole(below: int, *shape: int, seed: int = 4) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def ignored(targets: Tensor, number: int, many: int = 5) -> Tensor:
    """Some targets replaced, in the first half more than in the second."""
    order = torch.randperm(targets.numel(), generator=torch.Generator().manual_seed(6))
    order = order[order < targets.numel() * 2 // 3][:many]
    return targets.flatten().index_fill(0, order, number).view_as(targets)


def mlp(outputs: int = CLASSES, inputs: int = 4) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs))


def ending(last: Callable[[Tensor], Any], outputs: int = CLASSES, inputs: int = 4) -> Callable[[], nn.Module]:
    """An MLP and what is made of its outputs."""
    return lambda: Written(lambda m, x: last(m.body(x)), body=mlp(outputs, inputs)())


def pairs(targets: Tensor, *shape: int) -> Callable[[], Any]:
    return lambda: (drawn(*(shape or (N, 4))), targets)


X = (N, 4)
LABELS, SIGNS = whole(CLASSES, N), 2.0 * whole(2, N) - 1
SOFT, REAL, COUNTS, BITS = drawn(N, 3).softmax(1), drawn(N, 3, seed=5), whole(4, N, 1).float(), whole(2, N, 3).float()
SKEWED = torch.cat([torch.full((4,), -100), LABELS[4:]])  # a batch of nothing but ignored targets
TOKENS, PIXELS = whole(CLASSES, N, POSITIONS), whole(CLASSES, N, 3, 2)
Z = (N, POSITIONS, 4)
HOLES = ignored(TOKENS, -100, 17)
