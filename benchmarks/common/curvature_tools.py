"""What a tool of curvature is asked in the benchmark, and the results of lossatlas, scipy and a plain product."""

from __future__ import annotations

import copy
import gc
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

import lossatlas as la
from common.problems import Problem

Values = NDArray[np.float64]
Multiply = Callable[[Tensor], Tensor]
TOLERANCES = (1e-2, 1e-3, 1e-6)  # relative residuals that are asked of whoever takes one
DENSITY = {"steps": 80, "probes": 4}
RESTARTS = 20  # of eigsh, which never ends where rounding keeps it from its tolerance


@dataclass(frozen=True)
class Found:
    """Eigenvalues, or a trace, or what a density says: its mass and n times its mean; and what that took."""

    values: Values
    products: int
    reported: str
    """What the tool says of its own result."""


@dataclass(frozen=True)
class Task:
    setting: str
    run: Callable[[], Found]
    expected: int = 0
    """About how many products it takes: where that is too long it is not run."""


class Tool(ABC):
    """A tool at work on one problem; a peer is given its batch size."""

    name: str
    distribution: str = ""
    """What it is installed as; empty for what is no package."""
    caveat: str = ""
    """What is to be known about how it was run, and of its results."""
    sizes: tuple[int, ...] = (0,)
    """Batch sizes to choose the fastest of; 0 where the tool has its own."""
    essential: bool = False
    """Whether it is run however long that takes."""

    def __init__(self, problem: Problem, batch_size: int) -> None:
        self.problem = problem
        self.batch_size = batch_size
        self.a_product = 0.0  # seconds, about
        self._n = len(problem.center)
        self._seeds = itertools.count()
        self._products = 0

    @abstractmethod
    def multiplier(self) -> Multiply:
        """v -> H v, flat, with all that is prepared once before the first product."""

    def largest(self, k: int) -> list[Task]:
        """Methods for the k largest eigenvalues."""
        return []

    def both(self, k: int) -> list[Task]:
        """Methods for the k largest and the k smallest."""
        return []

    def traces(self) -> list[Task]:
        return []

    def densities(self) -> list[Task]:
        return []

    def _task(self, setting: str, work: Callable[[int], tuple[Any, str]], expected: int = 0) -> Task:
        """``work`` takes a seed and returns values and what the tool says; products are those that were counted."""

        def run() -> Found:
            gc.collect()  # graphs of the run before, where they are part of a cycle
            seed = next(self._seeds)
            torch.manual_seed(seed)
            self._products = 0
            values, reported = work(seed)
            return Found(np.atleast_1d(np.asarray(values, dtype=np.float64)), self._products, reported)

        return Task(setting, run, expected)

    def _counted(self, function: Callable[..., Any], columns: Callable[..., int] = lambda *_: 1) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._products += columns(*arguments)
            return function(*arguments)

        return call

    def _pieces(self, vector: Tensor) -> list[Tensor]:
        return list(self.problem.named(vector).values())


class Lossatlas(Tool):
    name = "lossatlas"
    essential = True

    def operator(self) -> la.Operator:
        """By a new Objective, which prepares everything again."""
        return la.hessian(self.problem.objective())

    def multiplier(self) -> Multiply:
        return self.operator().__matmul__

    def largest(self, k: int) -> list[Task]:
        return [self._task(f"tol={tol:g}", partial(self._pairs, k, "largest", tol)) for tol in TOLERANCES]

    def both(self, k: int) -> list[Task]:
        return [self._task(f"tol={tol:g}", partial(self._pairs, k, "both", tol)) for tol in TOLERANCES]

    def traces(self) -> list[Task]:
        return [self._task("trace()", self._trace)]

    def densities(self) -> list[Task]:
        return [self._task("{steps} steps x {probes}".format(**DENSITY), self._density)]

    def spectrum(self, k: int) -> Task:
        return self._task(f"spectrum(k={k})", partial(self._spectrum, k))

    def _pairs(self, k: int, which: Any, tol: float, seed: int) -> tuple[Any, str]:
        pairs = la.top_eigenpairs(self.operator(), k, which=which, tol=tol, seed=seed)
        self._products = pairs.products
        relative = float((pairs.residuals / pairs.values.abs()).max())
        return pairs.values, f"{int(pairs.converged.sum())} of {len(pairs.values)} to {relative:.0e}"

    def _trace(self, seed: int) -> tuple[Any, str]:
        found = la.trace(self.operator(), seed=seed)
        self._products = found.products
        return found.value, f"+- {found.stderr / abs(found.value):.1e}; {found.method}"

    def _density(self, seed: int) -> tuple[Any, str]:
        found = la.spectral_density(self.operator(), **DENSITY, seed=seed, progress=False)
        self._products = found.attrs["products"]
        weights = found["weight"].to_numpy()
        mean = np.sum(found["node"].to_numpy() * weights) / DENSITY["probes"]
        return (weights.sum() / DENSITY["probes"], self._n * mean), "error band over probes"

    def _spectrum(self, k: int, seed: int) -> tuple[Any, str]:
        found = la.spectrum(self.problem.objective(), k=k, seed=seed, progress=False)
        self._products = found.attrs["products"]
        ends = found["eigenvalue"].sel(end=["top", "bottom"]).to_numpy().ravel()
        split = ", ".join(
            f"{name.removeprefix('products_')} {count}"
            for name, count in found.attrs.items()
            if name.startswith("products_")
        )
        return [*ends, float(found["trace"])], f"products: {split}; trace {found.attrs['trace_method']}"


class ScipyOnLossatlas(Lossatlas):
    name = "eigsh, lossatlas's H v"

    def largest(self, k: int) -> list[Task]:
        return [self._task(f"tol={tol:g}", partial(self._pairs, k, "LA", tol)) for tol in TOLERANCES]

    def both(self, k: int) -> list[Task]:
        return [self._task('tol=0.001, "BE"', partial(self._pairs, 2 * k, "BE", 1e-3))]

    def traces(self) -> list[Task]:
        return []

    def densities(self) -> list[Task]:
        return []

    def _pairs(self, k: int, which: Any, tol: float, seed: int) -> tuple[Any, str]:
        operator = la.hessian(self.problem.objective()).to_scipy()
        return arpack(self._counted(operator.matvec), self._n, operator.dtype, k, which, tol, seed)


class HvpOfObjective(Tool):
    name = "lossatlas objective.hvp"

    def multiplier(self) -> Multiply:
        return self.problem.objective().hvp


class PlainProduct(Tool):
    """What one writes without a library: the gradient's graph, its product with v, its gradient."""

    name = "plain double backward"
    sizes = (50, 125, 500)

    def multiplier(self) -> Multiply:
        model = copy.deepcopy(self.problem.model).eval()
        batches, parameters = self.problem.batches(self.batch_size), list(model.parameters())

        def multiply(vector: Tensor) -> Tensor:
            pieces, total = self._pieces(vector), torch.zeros_like(vector)
            for inputs, targets in batches:
                loss = F.cross_entropy(model(inputs), targets)
                gradient = torch.autograd.grad(loss, parameters, create_graph=True)
                slope = sum((g * piece).sum() for g, piece in zip(gradient, pieces, strict=True))
                product = torch.autograd.grad(slope, parameters)
                total += len(targets) / len(self.problem.targets) * torch.cat([piece.flatten() for piece in product])
            return total

        return multiply


def arpack(
    multiply: Callable[[Values], Values], n: int, dtype: Any, k: int, which: str, tol: float, seed: int
) -> tuple[Values, str]:
    """scipy's eigsh: the eigenvalues, descending (of both ends: k / 2 descending, then k / 2 ascending)."""
    start = np.random.default_rng(seed).standard_normal(n).astype(dtype)
    operator = LinearOperator((n, n), matvec=multiply, dtype=dtype)
    try:
        values, reported = eigsh(operator, k, which=which, tol=tol, v0=start, maxiter=RESTARTS)[0], f"{k} of {k}"
    except ArpackNoConvergence as error:
        values, reported = error.eigenvalues, f"{len(error.eigenvalues)} of {k} in {RESTARTS} restarts"
    values = np.sort(values.astype(np.float64))
    return (np.concatenate([values[: k // 2 - 1 : -1], values[: k // 2]]) if which == "BE" else values[::-1]), reported


def suited(kind: type[Tool], problem: Problem, part: Problem) -> Tool:
    """The tool with the batch size that is fastest on ``part`` of the problem's examples."""
    if len(kind.sizes) == 1:
        return kind(problem, kind.sizes[0])
    seconds = {size: _a_product(kind(part, size)) for size in kind.sizes if len(problem.targets) % size == 0}
    best = min(seconds, key=seconds.__getitem__)
    tool = kind(problem, best)
    tool.a_product = seconds[best] * len(problem.targets) / len(part.targets)
    return tool


def _a_product(tool: Tool) -> float:
    multiply, vector = tool.multiplier(), torch.randn_like(tool.problem.center)
    multiply(vector)
    started = time.perf_counter()
    multiply(vector)
    return time.perf_counter() - started
