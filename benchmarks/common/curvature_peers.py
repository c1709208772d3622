"""PyHessian, hessian-eigenthings, curvlinops and landscaper, each called as its documentation says."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.contenders import _landscaper
from common.curvature_tools import (
    DENSITY,
    HvpOfObjective,
    Lossatlas,
    Multiply,
    PlainProduct,
    ScipyOnLossatlas,
    Task,
    Tool,
    Values,
    arpack,
)

SIZES = (50, 125, 500)  # all divide 2,000
BUDGETS = (30, 90)  # products of a trace estimated with as many as one likes
COLUMN_BATCH = 10  # of curvlinops with many columns, each of which holds a graph
POWER = 16  # products that a power iteration takes for an eigenvalue, about


class _PowerIteration(Tool):
    """PyHessian's interface, which landscaper's copy has too."""

    sizes = SIZES

    def largest(self, k: int) -> list[Task]:
        work = partial(self._eigenvalues, k)
        return [self._task(f"eigenvalues(top_n={k})", work, POWER * k)]

    def traces(self) -> list[Task]:
        return [self._task("trace()", self._trace, 100)]

    def densities(self) -> list[Task]:
        return [self._task("100 steps x 1", self._density, 100)]

    def counting(self) -> Any:
        """The tool's object, whose products are counted."""
        raise NotImplementedError

    def _eigenvalues(self, k: int, _: int) -> tuple[Any, str]:
        return by_size(self.counting().eigenvalues(top_n=k)[0])

    def _trace(self, _: int) -> tuple[Any, str]:
        return np.mean(self.counting().trace()), ""

    def _density(self, _: int) -> tuple[Any, str]:
        nodes, weights = (np.real(part) for part in self.counting().density(iter=100, n_v=1))
        return self.moments(nodes, weights), ""

    def moments(self, nodes: Values, weights: Values) -> tuple[float, float]:
        """The mass of a density, and n times its mean, which estimates the trace."""
        return float(weights.sum()), float(self._n * (nodes * weights).sum())


class PyHessian(_PowerIteration):
    name = distribution = "PyHessian"
    essential = True
    caveat = (
        "its density() calls torch.eig, which PyTorch no longer has: it is given one, by torch.linalg.eigh; it takes"
        " the eigenvalues of largest magnitude, and stops where two iterates agree to 1e-3"
    )

    def multiplier(self) -> Multiply:
        tool = self._tool()
        return lambda vector: flat(tool.dataloader_hv_product(self._pieces(vector))[1])

    def counting(self) -> Any:
        tool = self._tool()
        tool.dataloader_hv_product = self._counted(tool.dataloader_hv_product)
        return tool

    def _density(self, seed: int) -> tuple[Any, str]:
        with mock.patch.object(torch, "eig", _eig, create=True):
            return super()._density(seed)

    def _tool(self) -> Any:
        package, model = importlib.import_module("pyhessian"), copy.deepcopy(self.problem.model).eval()
        batches = self.problem.batches(self.batch_size)
        return package.hessian(model, nn.CrossEntropyLoss(), dataloader=batches, cuda=False)


class Landscaper(_PowerIteration):
    name = distribution = "landscaper"
    caveat = (
        "its PyHessian class is PyHessian's code; here it keeps the gradients' graphs (try_cache=True; up to 5 GB),"
        " which is faster; the weights of its density are a whole matrix, of which the first row is meant; its module"
        " landscaper.hessian is used, which needs none of the package's requirements"
    )

    def multiplier(self) -> Multiply:
        tool = self._tool()
        return lambda vector: flat(tool.hv_product(self._pieces(vector))[1])

    def counting(self) -> Any:
        tool = self._tool()
        tool.hv_product = self._counted(tool.hv_product)
        return tool

    def _tool(self) -> Any:
        _landscaper()
        module, model = importlib.import_module("landscaper.hessian"), copy.deepcopy(self.problem.model).eval()
        batches = self.problem.batches(self.batch_size)
        return module.PyHessian(model, nn.CrossEntropyLoss(), batches, "cpu", try_cache=True)

    def _task(self, setting: str, work: Callable[[int], tuple[Any, str]], expected: int = 0) -> Task:
        def quietly(seed: int) -> tuple[Any, str]:
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
                return work(seed)

        return super()._task(setting, quietly, expected)

    def moments(self, nodes: Values, weights: Values) -> tuple[float, float]:
        return super().moments(nodes, weights[:, 0, :])


class HessianEigenthings(Tool):
    name = distribution = "hessian-eigenthings"
    sizes = SIZES
    caveat = (
        "averages batches without weights, so it is given sizes that divide the data; lanczos() takes a fixed number of"
        " steps, 2 k by default: more are tried, reorthogonalised; its deflated power iteration is slower and left out"
    )

    def multiplier(self) -> Multiply:
        return self._tool().matvec  # type: ignore[no-any-return]

    def largest(self, k: int) -> list[Task]:
        return [self._lanczos(k, steps) for steps in (2 * k, 20 + 2 * k)]

    def both(self, k: int) -> list[Task]:
        def work(seed: int) -> tuple[Any, str]:
            ends = [self._pairs(k, which, steps, seed) for which, steps in (("LA", 20 + 2 * k), ("SA", 80))]
            return np.concatenate([values for values, _ in ends]), "; ".join(reported for _, reported in ends)

        return [self._task(f"{20 + 2 * k} steps, then 80", work, 100 + 2 * k)]

    def traces(self) -> list[Task]:
        return [self._task(f"Hutch++, {m}", partial(self._trace, m), m) for m in BUDGETS]

    def densities(self) -> list[Task]:
        return [self._task(f"{DENSITY['steps']} steps x 1", self._density, DENSITY["steps"])]

    def _tool(self) -> Any:
        package, model = importlib.import_module("hessian_eigenthings"), copy.deepcopy(self.problem.model).eval()
        batches = self.problem.batches(self.batch_size)
        tool = package.HessianOperator(model, batches, package.supervised_loss(F.cross_entropy))
        tool.matvec = self._counted(tool.matvec)
        return tool

    def _lanczos(self, k: int, steps: int) -> Task:
        return self._task(f"lanczos, {steps} steps", partial(self._pairs, k, "LA", steps), steps)

    def _pairs(self, k: int, which: str, steps: int, seed: int) -> tuple[Any, str]:
        package, tool = importlib.import_module("hessian_eigenthings"), self._tool()
        found = package.lanczos(tool, k=k, max_iter=steps, which=which, tol=1e-3, reorthogonalize=True, seed=seed)
        return found.eigenvalues, f"{int(found.converged.sum())} of {k}"

    def _trace(self, products: int, seed: int) -> tuple[Any, str]:
        package, tool = importlib.import_module("hessian_eigenthings"), self._tool()
        found = package.trace(tool, num_matvecs=products, seed=seed)
        return found.estimate, f"+- {found.stderr / abs(found.estimate):.1e}"

    def _density(self, seed: int) -> tuple[Any, str]:
        package, tool = importlib.import_module("hessian_eigenthings"), self._tool()
        found = package.spectral_density(tool, num_runs=1, lanczos_steps=DENSITY["steps"], seed=seed)
        weights = found.raw_weights
        return (weights.sum(), self._n * (found.raw_eigenvalues * weights).sum()), ""


class Curvlinops(Tool):
    name = "curvlinops"
    distribution = "curvlinops-for-pytorch"
    sizes = SIZES
    caveat = (
        "has no eigensolver: scipy's eigsh on its to_scipy(), in ARPACK's double precision; estimators that take many"
        f" columns at once run on batches of {COLUMN_BATCH}, since each column holds a graph; its operator's check of"
        " determinism counts in the column 'once' only; its density is without reorthogonalisation;"
        " through layer norm (vit) its products are wrong in float64 too, since PyTorch's jvp of jacrev is"
    )

    def multiplier(self) -> Multiply:
        return self._operator(self.batch_size).__matmul__  # type: ignore[no-any-return]

    def largest(self, k: int) -> list[Task]:
        return [self._eigsh(k, "LA", tol, f"eigsh, tol={tol:g}", 15 + 3 * k) for tol in (1e-3, 1e-6)]

    def both(self, k: int) -> list[Task]:
        return [self._eigsh(2 * k, "BE", 1e-3, 'eigsh, 0.001, "BE"', 90)]

    def traces(self) -> list[Task]:
        names = {"hutchinson_trace": "Hutchinson", "hutchpp_trace": "Hutch++", "xtrace": "XTrace"}
        settings = [(name, BUDGETS[0]) for name in names] + [("xtrace", BUDGETS[1])]
        return [self._task(f"{names[name]}, {m}", partial(self._trace, name, m), m) for name, m in settings]

    def densities(self) -> list[Task]:
        return [self._task("100 steps x 1", self._density, 120)]

    def _eigsh(self, k: int, which: str, tol: float, setting: str, expected: int) -> Task:
        def work(seed: int) -> tuple[Any, str]:
            operator = self._counting(self.batch_size).to_scipy()
            return arpack(operator.matvec, self._n, operator.dtype, k, which, tol, seed)

        return self._task(setting, work, expected)

    def _trace(self, name: str, products: int, _: int) -> tuple[Any, str]:
        estimate = getattr(importlib.import_module("curvlinops"), name)
        return float(estimate(self._counting(COLUMN_BATCH), products)), ""

    def _density(self, _: int) -> tuple[Any, str]:
        spectrum = importlib.import_module("curvlinops.papyan2020traces.spectrum")
        grid, density = spectrum.lanczos_approximate_spectrum(self._counting(self.batch_size), 100)
        return (torch.trapezoid(density, grid), self._n * torch.trapezoid(density * grid, grid)), "boundaries by eigsh"

    def _counting(self, size: int) -> Any:
        operator = self._operator(size, check_deterministic=False)
        operator._matmat = self._counted(operator._matmat, lambda pieces: pieces[0].shape[-1])
        return operator

    def _operator(self, size: int, **options: Any) -> Any:
        package, model = importlib.import_module("curvlinops"), copy.deepcopy(self.problem.model).eval()
        batches, parameters = self.problem.batches(size), list(model.parameters())
        return package.HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, batches, **options)


PACKAGES: dict[str, type[Tool]] = {
    "pyhessian": PyHessian,
    "hessian_eigenthings": HessianEigenthings,
    "curvlinops": Curvlinops,
    "landscaper": Landscaper,
}


def tools() -> tuple[list[type[Tool]], list[str]]:
    """lossatlas first, then what is built on it or needs no package, then peers; and the packages that are absent."""
    missing = [kind.name for package, kind in PACKAGES.items() if not importlib.util.find_spec(package)]
    present = [kind for kind in PACKAGES.values() if kind.name not in missing]
    return [Lossatlas, HvpOfObjective, ScipyOnLossatlas, PlainProduct, *present], missing


def title(kind: type[Tool]) -> str:
    return f"{kind.name} {version(kind.distribution)}" if kind.distribution else kind.name


def by_size(values: Any) -> tuple[Values, str]:
    """Eigenvalues of largest magnitude: the positive ones, descending, and how many are not."""
    found = np.asarray(values, dtype=np.float64)
    negative = int((found < 0).sum())
    return np.sort(found[found > 0])[::-1], f"{negative} of {len(found)} negative, left out" if negative else ""


def flat(pieces: Any) -> Tensor:
    return torch.cat([piece.detach().flatten() for piece in pieces])


def _eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
    """``torch.eig`` of a symmetric matrix, as it was: eigenvalues as pairs (real, imaginary)."""
    assert eigenvectors
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], dim=1), vectors
