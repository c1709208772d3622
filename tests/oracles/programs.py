"""Networks made at random of operations that cut, turn, mix and join eight units."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracles.architectures import parameter


class Operation(NamedTuple):
    """An operation, the shape in which it sees the eight units, and a number that settles its details."""

    operation: str
    shape: tuple[int, ...]
    number: int


class Seen(NamedTuple):
    """What an operation works on: the units, as a grid, earlier ones; its own layer or parameter; its details."""

    h: Tensor
    grid: Tensor
    other: Tensor
    own: Any
    dim: int  # of the grid
    cut: int  # a place among the units, 1 to 7
    number: int
    shared: nn.Linear

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        left, right = self.h.chunk(2, 1)
        return left, right


def _outer(s: Seen) -> Tensor:
    left, right = s.halves
    return torch.cat([torch.einsum("bi,bj->bij", left, right).mean(2), right], 1)


OPERATIONS: dict[str, Callable[[Seen], Tensor]] = {
    "linear": lambda s: s.own(s.h),
    "tanh": lambda s: torch.tanh(s.h),
    "turn": lambda s: s.grid.transpose(1, -1).reshape(-1, 8),
    "chunks": lambda s: torch.cat([s.halves[0] * s.halves[1].sigmoid(), s.halves[1]], 1),
    "cat_halves": lambda s: torch.cat([s.h[:, 4:], s.other[:, :4]], 1),
    "group_norm": lambda s: F.group_norm(s.h, [2, 4][s.number % 2]),
    "grouped": lambda s: s.own(s.h[:, :, None])[:, :, 0],
    "depthwise": lambda s: s.own(s.h[:, :, None])[:, :, 0],
    "residual": lambda s: s.h + s.other,
    "product": lambda s: s.h * s.other.sigmoid(),
    "softmax": lambda s: s.grid.softmax(s.dim).flatten(1),
    "mean": lambda s: (s.grid - s.grid.mean(s.dim, keepdim=True)).flatten(1),
    "slice": lambda s: torch.cat([s.h[:, : s.cut], s.h[:, s.cut :].tanh()], 1),
    "cumsum": lambda s: s.grid.cumsum(s.dim).flatten(1),
    "layer_norm": lambda s: F.layer_norm(s.grid, s.grid.shape[-1:]).flatten(1),
    "matmul": lambda s: (s.grid @ s.own).flatten(1),
    "scale": lambda s: s.h * s.own,
    "subscale": lambda s: (s.grid * s.own).flatten(1),
    "swap": lambda s: torch.cat([s.h[:, s.cut :], s.h[:, : s.cut]], 1),
    "select": lambda s: (s.grid * s.grid.select(s.dim, s.number % s.grid.shape[s.dim]).unsqueeze(s.dim)).flatten(1),
    "heads": lambda s: F.scaled_dot_product_attention(s.grid, s.grid, s.other.view_as(s.grid)).flatten(1),
    "reverse": lambda s: torch.cat(s.grid.flip(s.dim).unbind(s.dim), -1).reshape(-1, 8),
    "shared": lambda s: torch.tanh(s.shared(s.h)),
    "stack": lambda s: torch.stack(s.grid.unbind(s.dim), 1).reshape(-1, 8),
    "sum_of_halves": lambda s: torch.cat([s.halves[0] + s.halves[1], s.halves[0] * s.halves[1]], 1),
    "pad_and_cut": lambda s: F.pad(s.h, (s.number % 3, 0))[:, :8],
    "outer": _outer,
}


def program(seed: int) -> list[Operation]:
    """One to six steps."""
    rng = random.Random(seed)
    names, shapes = list(OPERATIONS), [(2, 4), (4, 2), (2, 2, 2)]
    return [Operation(rng.choice(names), rng.choice(shapes), rng.randrange(1 << 30)) for _ in range(1 + seed % 6)]


def _own(step: Operation) -> nn.Module | nn.Parameter | None:
    """The layer or the parameter that a step has to itself."""
    match step.operation:
        case "linear":
            return nn.Linear(8, 8)
        case "grouped":
            return nn.Conv1d(8, 8, 1, groups=[2, 4][step.number % 2])
        case "depthwise":
            return nn.Conv1d(8, 8, 1, groups=8)
        case "scale":
            return parameter(8)
        case "subscale":
            return parameter(*[size if step.number >> axis & 1 else 1 for axis, size in enumerate(step.shape)])
        case "matmul":
            return parameter(step.shape[-1], step.shape[-1])
    return None


class Programmed(nn.Module):
    """Three inputs, eight units through the steps of a program, two outputs."""

    def __init__(self, steps: list[Operation]) -> None:
        super().__init__()
        self.steps = steps
        self.first, self.last, self.shared = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 8)
        for i, step in enumerate(steps):
            setattr(self, f"own{i}", _own(step))

    def forward(self, x: Tensor) -> Tensor:
        past = [torch.tanh(self.first(x))]
        for i, (operation, shape, number) in enumerate(self.steps):
            h, own = past[-1], getattr(self, f"own{i}")
            dim, cut = 1 + number % len(shape), 1 + number % 7
            seen = Seen(h, h.view(-1, *shape), past[number % len(past)], own, dim, cut, number, self.shared)
            past.append(torch.tanh(OPERATIONS[operation](seen)))
        return self.last(past[-1])
