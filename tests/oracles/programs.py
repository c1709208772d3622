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


def _numbers(s: Seen, size: int) -> Tensor:
    """Places in a given order, with repetitions."""
    return torch.arange(size) * s.number // 7 % size


def _far(s: Seen) -> Tensor:
    """Numbers of places along an axis of the grid, the same for all others."""
    shape = [1] * s.grid.ndim
    shape[s.dim] = s.grid.shape[s.dim]
    return _numbers(s, shape[s.dim]).view(shape).expand_as(s.grid)


# Recurrent layers, look-ups and messages; apart, so that each seed of the others stays the network that it was.
FURTHER: dict[str, Callable[[Seen], Tensor]] = {
    "lstm": lambda s: s.own(s.h.view(-1, 2, 4))[0].flatten(1),
    "started": lambda s: s.own(s.h.view(-1, 2, 4), s.other[None, :, 4:].contiguous())[0].flatten(1),
    "both_ways": lambda s: s.own(s.h.view(-1, 2, 4).mT.contiguous().view(-1, 2, 4))[0].flatten(1),
    "states": lambda s: s.own(s.h.view(-1, 2, 4))[1].transpose(0, 1).flatten(1),
    "states_by_direction": lambda s: s.own(s.h.view(-1, 2, 4))[1].view(2, 2, -1, 4)[s.number % 2]
        .transpose(0, 1).flatten(1),
    "later_states": lambda s: torch.cat(s.own(s.h.view(-1, 2, 4))[1][1:3].unbind(0), 1),
    "cell": lambda s: s.own(s.h, s.other),
    "index_select": lambda s: s.grid.index_select(s.dim, _numbers(s, s.grid.shape[s.dim])).flatten(1),
    "by_numbers": lambda s: s.grid[:, _numbers(s, s.grid.shape[1])].flatten(1),
    "gather": lambda s: s.grid.gather(s.dim, _far(s)).flatten(1),
    "scatter_add": lambda s: s.grid.scatter_add(s.dim, _far(s), s.other.view_as(s.grid)).flatten(1),
    "index_add": lambda s: s.grid.index_add(s.dim, _numbers(s, s.grid.shape[s.dim]), s.other.view_as(s.grid))
        .flatten(1),
    "rolled": lambda s: s.grid.roll(s.number, s.dim).flatten(1) + s.grid.flip(s.dim).flatten(1),
    "messages": lambda s: torch.zeros_like(s.h).index_add_(0, _numbers(s, len(s.h)), s.other[_numbers(s, len(s.h))]),
}  # fmt: skip


RECURRENT: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTM(4, 4, batch_first=True),
    "started": lambda: nn.GRU(4, 4, batch_first=True),
    "both_ways": lambda: nn.LSTM(4, 4, bidirectional=True, batch_first=True, proj_size=2),
    "states": lambda: nn.RNN(4, 4, num_layers=2, batch_first=True),
    "states_by_direction": lambda: nn.GRU(4, 4, num_layers=2, bidirectional=True, batch_first=True),
    "later_states": lambda: nn.GRU(4, 4, num_layers=2, bidirectional=True, batch_first=True),
    "cell": lambda: nn.GRUCell(8, 8),
}


def program(seed: int, further: bool = False) -> list[Operation]:
    """One to six steps; every second one of ``further`` operations, where they are asked for."""
    rng = random.Random(seed)
    if further:
        steps = program(seed)
        names = [rng.choice(list(FURTHER)) if i % 2 == 0 else step.operation for i, step in enumerate(steps)]
        return [step._replace(operation=name) for name, step in zip(names, steps, strict=True)]
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
    return RECURRENT[step.operation]() if step.operation in RECURRENT else None


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
            past.append(torch.tanh((OPERATIONS | FURTHER)[operation](seen)))
        return self.last(past[-1])
