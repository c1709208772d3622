"""Networks made at random of operations that cut, turn, mix and join eight units in every way."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from oracles.architectures import parameter
from torch import Tensor, nn

OPERATIONS = (
    "linear tanh turn chunks cat_halves group_norm grouped depthwise residual product softmax mean slice cumsum "
    "layer_norm matmul scale subscale swap select heads reverse_some shared stack sumhalves padcut outer"
).split()


class Step(NamedTuple):
    """An operation, the shape in which it sees the eight units, and a number that settles its details."""

    operation: str
    shape: tuple[int, ...]
    number: int


def program(seed: int) -> list[Step]:
    """One to six steps."""
    rng = random.Random(seed)
    shapes = [(2, 4), (4, 2), (2, 2, 2)]
    return [Step(rng.choice(OPERATIONS), rng.choice(shapes), rng.randrange(1 << 30)) for _ in range(1 + seed % 6)]


class Programmed(nn.Module):
    """Three inputs, eight units through the steps of a program, two outputs."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.first, self.last, self.shared = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 8)
        self.own = nn.ParameterDict()
        self.layers = nn.ModuleDict()
        for i, (operation, shape, number) in enumerate(steps):
            if operation == "linear":
                self.layers[str(i)] = nn.Linear(8, 8)
            elif operation in ("grouped", "depthwise"):
                self.layers[str(i)] = nn.Conv1d(8, 8, 1, groups=8 if operation == "depthwise" else [2, 4][number % 2])
            elif operation == "scale":
                self.own[str(i)] = parameter(8)
            elif operation == "subscale":
                self.own[str(i)] = parameter(*[size if number >> axis & 1 else 1 for axis, size in enumerate(shape)])
            elif operation == "matmul":
                self.own[str(i)] = parameter(shape[-1], shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        seen = [torch.tanh(self.first(x))]
        for i, step in enumerate(self.steps):
            seen.append(torch.tanh(self._apply_step(str(i), step, seen)))
        return self.last(seen[-1])

    def _apply_step(self, name: str, step: Step, seen: list[Tensor]) -> Tensor:
        h, other, (operation, shape, number) = seen[-1], seen[step.number % len(seen)], step
        view, dim, cut = h.view(-1, *shape), 1 + number % len(shape), 1 + number % 7
        match operation:
            case "linear":
                return self.layers[name](h)
            case "grouped" | "depthwise":
                return self.layers[name](h[:, :, None])[:, :, 0]
            case "shared":
                return torch.tanh(self.shared(h))
            case "scale":
                return h * self.own[name]
            case "subscale":
                return (view * self.own[name]).flatten(1)
            case "matmul":
                return (view @ self.own[name]).flatten(1)
            case "residual":
                return h + other
            case "product":
                return h * other.sigmoid()
            case "heads":
                return F.scaled_dot_product_attention(view, view, other.view(-1, *shape)).flatten(1)
            case "cat_halves":
                return torch.cat([h[:, 4:], other[:, :4]], 1)
            case "slice":
                return torch.cat([h[:, :cut], h[:, cut:].tanh()], 1)
            case "swap":
                return torch.cat([h[:, cut:], h[:, :cut]], 1)
            case _:
                return _reordered(operation, h, view, dim, number)


def _reordered(operation: str, h: Tensor, view: Tensor, dim: int, number: int) -> Tensor:
    left, right = h.chunk(2, 1)
    match operation:
        case "tanh":
            return torch.tanh(h)
        case "turn":
            return view.transpose(1, -1).reshape(-1, 8)
        case "chunks":
            return torch.cat([left * right.sigmoid(), right], 1)
        case "sumhalves":
            return torch.cat([left + right, left * right], 1)
        case "outer":
            return torch.cat([torch.einsum("bi,bj->bij", left, right).mean(2), right], 1)
        case "group_norm":
            return F.group_norm(h, [2, 4][number % 2])
        case "layer_norm":
            return F.layer_norm(view, view.shape[-1:]).flatten(1)
        case "softmax":
            return view.softmax(dim).flatten(1)
        case "mean":
            return (view - view.mean(dim, keepdim=True)).flatten(1)
        case "cumsum":
            return view.cumsum(dim).flatten(1)
        case "select":
            return (view * view.select(dim, number % view.shape[dim]).unsqueeze(dim)).flatten(1)
        case "reverse_some":
            return torch.cat(view.flip(dim).unbind(dim), -1).reshape(-1, 8)
        case "stack":
            return torch.stack(view.unbind(dim), 1).reshape(-1, 8)
        case "padcut":
            return F.pad(h, (number % 3, 0))[:, :8]
    raise ValueError(operation)
