"""A trained network, 2,000 test images and a plane through its weights; and the truth about it, in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import lossatlas as la

DATA = "fashion-mnist"
N_TEST = 2_000
N_TRAIN = 20_000
# Options of the network, and how it is trained: well enough that its surface is that of a trained network.
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mlp": ({"widths": (256, 128)}, {"epochs": 5, "learning_rate": 0.05}),
    "simple_cnn": ({}, {"epochs": 3, "learning_rate": 0.05}),
    "resnet20": ({}, {"epochs": 3, "learning_rate": 0.1, "weight_decay": 1e-4, "channels_last": True}),
    "vit": ({}, {"epochs": 5, "optimizer": "adamw", "learning_rate": 1e-3}),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """L(center + alpha d_1 + beta d_2), the mean cross-entropy of ``model`` over ``inputs`` and ``targets``."""

    name: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor
    center: Tensor
    directions: Tensor
    flops: float
    """Floating-point operations of one pass of the network as it is written over all inputs."""

    def objective(self, kind: type[la.Objective] = la.Objective) -> la.Objective:
        return kind(self.model, F.cross_entropy, (self.inputs, self.targets), name=DATA)

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.inputs.split(size), self.targets.split(size), strict=True))

    def point(self, alpha: float, beta: float) -> Tensor:
        """theta in float64."""
        return self.center.double() + alpha * self.directions[0].double() + beta * self.directions[1].double()

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """A flat vector as copies of named tensors, in the order of the model's parameters."""
        shapes = {name: parameter.shape for name, parameter in self.model.named_parameters()}
        pieces = vector.split([shape.numel() for shape in shapes.values()])
        return {name: piece.clone().view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}


def problem(name: str, data: la.zoo.LabelledData, cache: Path) -> Problem:
    """The network of that name, trained, or read from ``cache``; its plane has two filter-normalised directions."""
    options, training = RECIPES[name]
    model = la.zoo.network(name, shape=data.shape, seed=0, **options)
    train = la.zoo.subset(data.train, N_TRAIN, seed=0)
    la.zoo.fit(model, train, seed=0, folder=cache / name, progress=False, **training)
    model.eval()
    inputs, targets = la.zoo.subset(data.test, N_TEST, seed=0)
    objective = la.Objective(model, F.cross_entropy, (inputs, targets))
    directions = la.random_directions(objective, 2, seed=0)
    return Problem(name, model, inputs, targets, objective.point, directions, _flops(model, inputs))


def truth(problem: Problem, points: Iterable[Tensor]) -> NDArray[np.float64]:
    """L at each of the points by a plain float64 evaluation that shares no code with any contender."""
    model = copy.deepcopy(problem.model).double().eval()
    return np.array([_loss(model, problem, point) for point in points])


def _loss(model: nn.Module, problem: Problem, point: Tensor) -> float:
    model.load_state_dict(problem.named(point), strict=False)  # the buffers stay
    total = 0.0
    with torch.no_grad():
        for inputs, targets in problem.batches(500):
            total += F.cross_entropy(model(inputs.double()), targets, reduction="sum").item()
    return total / len(problem.targets)


def _flops(model: nn.Module, inputs: Tensor, sample: int = 100) -> float:
    counter = FlopCounterMode(display=False)
    # The formula of attention, since not every fused kernel is counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(inputs[:sample])
    return counter.get_total_flops() * len(inputs) / sample
