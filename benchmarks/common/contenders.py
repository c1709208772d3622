"""The tools that compute a loss surface, each called as its documentation says, on one plane of one problem."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from common.problems import Problem

Grid = NDArray[np.float64]
INSTALL = ".venv/bin/python -m pip install --no-deps -r benchmarks/requirements.txt"


class Contender(ABC):
    """A tool at work on one problem; a peer is given its batch size, lossatlas chooses its own."""

    name: str
    caveat: str = ""
    """What is to be known about a picture that is not the one asked for."""

    def __init__(self, problem: Problem, batch_size: int) -> None:
        self.problem = problem
        self.batch_size = batch_size
        self.batches = problem.batches(batch_size)
        self.model = copy.deepcopy(problem.model).eval()

    @abstractmethod
    def losses(self, alphas: Grid, betas: Grid) -> Grid:
        """What it says the losses at ``alphas`` x ``betas`` are, ``(len(alphas), len(betas))``."""

    def visited(self, alphas: Grid, betas: Grid) -> Iterator[Tensor]:
        """The points at which it evaluates, in the order of ``losses``, in float64."""
        return (self.problem.point(alpha, beta) for alpha in alphas for beta in betas)

    def mean_loss(self, model: nn.Module) -> float:
        """The loss over all batches, each weighed by its size."""
        total = 0.0
        for inputs, targets in self.batches:
            total += F.cross_entropy(model(inputs), targets).item() * len(targets)
        return total / len(self.problem.targets)


class PlainLoop(Contender):
    """What one writes without a library: copy each point into the parameters, run the batches."""

    name = "plain in-place loop"

    def losses(self, alphas: Grid, betas: Grid) -> Grid:
        with torch.no_grad():
            return np.array([[self._loss(float(alpha), float(beta)) for beta in betas] for alpha in alphas])

    def _loss(self, alpha: float, beta: float) -> float:
        parameters = list(self.model.parameters())
        theta = self.problem.center + alpha * self.problem.directions[0] + beta * self.problem.directions[1]
        for parameter, piece in zip(parameters, theta.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(piece.view_as(parameter))
        return self.mean_loss(self.model)


class LossLandscapes(Contender):
    """``loss_landscapes.planar_interpolation`` with its ``Loss`` metric, on the plane through three models."""

    name = "loss-landscapes"
    caveat = (
        "every other row of its picture is shifted by one cell (it steps before it evaluates forwards and"
        " backwards); its random_plane, which draws its own directions, has the same loop"
    )

    def __init__(self, problem: Problem, batch_size: int) -> None:
        super().__init__(problem, batch_size)
        package = importlib.import_module("loss_landscapes")
        metrics = importlib.import_module("loss_landscapes.metrics")
        parts = [(metrics.Loss(F.cross_entropy, *batch), len(batch[1])) for batch in self.batches]

        class MeanLoss(metrics.Metric):
            """Its metric ``Loss`` takes one batch: the mean over batches of any size is this one."""

            def __call__(self, wrapper: Any) -> float:
                return sum(loss(wrapper) * size for loss, size in parts) / len(problem.targets)

        self._metric = MeanLoss()
        self._interpolate = package.planar_interpolation

    def losses(self, alphas: Grid, betas: Grid) -> Grid:
        steps = len(alphas)
        reach = steps * (alphas[1] - alphas[0]), steps * (betas[1] - betas[0])
        corners = [(0.0, 0.0), (reach[0], 0.0), (0.0, reach[1])]
        models = [self._at(alphas[0] + alpha, betas[0] + beta) for alpha, beta in corners]
        losses: Grid = self._interpolate(*models, self._metric, steps=steps)
        return losses

    def visited(self, alphas: Grid, betas: Grid) -> Iterator[Tensor]:
        step = betas[1] - betas[0]
        return (
            self.problem.point(alpha, beta + (step if row % 2 == 0 else 0))
            for row, alpha in enumerate(alphas)
            for beta in betas
        )

    def _at(self, alpha: float, beta: float) -> nn.Module:
        model = copy.deepcopy(self.problem.model).eval()
        model.load_state_dict(self.problem.named(self.problem.point(alpha, beta).float()), strict=False)
        return model


class Landscaper(Contender):
    """``landscaper.compute_loss_landscape`` along our directions, a symmetric grid around the center."""

    name = "landscaper"
    caveat = (
        "it rescales each tensor of a direction by its own rule, so it draws another plane than the one asked for,"
        " and adds noise to the largest value; it reaches a point by repeated addition, which the small grid here"
        " flatters; its module landscaper.compute is used, which needs none of the package's requirements"
    )

    def __init__(self, problem: Problem, batch_size: int) -> None:
        super().__init__(problem, batch_size)
        self._compute = _landscaper().compute_loss_landscape

    def losses(self, alphas: Grid, betas: Grid) -> Grid:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            losses, _ = self._compute(
                self.model,
                self.batches,
                [list(self.problem.named(direction).values()) for direction in self.problem.directions],
                lambda model, _: self.mean_loss(model),
                steps=len(alphas),
                distance=1.0,
                dim=2,
                device="cpu",
            )
        grid: Grid = losses
        return grid

    def visited(self, alphas: Grid, betas: Grid) -> Iterator[Tensor]:
        steps = len(alphas)
        reach = torch.linalg.vector_norm(self.problem.center.double()) / (steps / 2)
        first, second = (self._rescaled(direction) * reach for direction in self.problem.directions)
        middle, center = steps // 2, self.problem.center.double()
        return (center + (i - middle) * first + (j - middle) * second for i in range(steps) for j in range(steps))

    def _rescaled(self, direction: Tensor) -> Tensor:
        tensors = [t.double() for t in self.problem.named(direction).values()]
        joined = torch.cat([(t * t.numel() ** 0.5 / (t.norm() + 1e-10)).flatten() for t in tensors])
        return joined / joined.norm()


class LossLandscape3D(Contender):
    """``LossLandscapeCalculator.calculate`` with the directions as state dicts."""

    name = "loss-landscape-3d"

    def __init__(self, problem: Problem, batch_size: int) -> None:
        super().__init__(problem, batch_size)
        package = importlib.import_module("loss_landscape_3d")
        self._calculator = package.LossLandscapeCalculator(self.model, self.batches, F.cross_entropy)
        self._center = copy.deepcopy(problem.model.state_dict())
        self._directions = [problem.named(direction) for direction in problem.directions]

    def losses(self, alphas: Grid, betas: Grid) -> Grid:
        losses: Grid = self._calculator.calculate(alphas, betas, *self._directions, self._center)
        return losses


PACKAGES: dict[str, type[Contender]] = {
    "loss-landscapes": LossLandscapes,
    "landscaper": Landscaper,
    "loss-landscape-3d": LossLandscape3D,
}


def peers() -> tuple[list[type[Contender]], list[str]]:
    """The contenders whose packages are installed, the plain loop first, and the names of those that are not."""
    missing = [package for package in PACKAGES if not importlib.util.find_spec(package.replace("-", "_"))]
    return [PlainLoop, *(kind for package, kind in PACKAGES.items() if package not in missing)], missing


def title(kind: type[Contender]) -> str:
    return f"{kind.name} {version(kind.name)}" if kind.name in PACKAGES else kind.name


def _landscaper() -> ModuleType:
    """``landscaper.compute``; alone, where the package does not import, for want of gudhi, topopy or nglpy."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("landscaper.compute")
    spec = importlib.util.find_spec("landscaper")
    assert spec is not None
    sys.modules["landscaper"] = importlib.util.module_from_spec(spec)
    return importlib.import_module("landscaper.compute")
