"""Curvature in float64, computed by itself and kept on disk: a product, extreme eigenvalues with a bound, the trace."""

from __future__ import annotations

import copy
import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.problems import Problem

Values = NDArray[np.float64]
Kept = dict[str, NDArray[np.float64]]
PIECEWISE_LINEAR = ("mlp", "simple_cnn", "resnet20")  # in each single weight: the Hessian's trace is Gauss-Newton's
BATCH = 25  # the fastest for float64 products on a CPU
ROUGH = 1e-6  # relative residual at which eigenvectors in float32 are good enough to be refined
SPARE = 2  # eigenvalues beyond those asked for, which give the gap below the last
PROBES = 100  # of the trace, where it has to be estimated


class Truth:
    """What is true of the Hessian H of a problem, as exactly as can be had. Each part is computed once."""

    def __init__(self, problem: Problem, folder: Path) -> None:
        self._problem = problem
        self._n = len(problem.center)
        parts = (problem.center, problem.inputs, problem.targets)
        digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()[:10]
        self._stem = folder / f"curvature-{problem.name}-{len(problem.targets)}-{digest}"

    def product(self) -> tuple[Tensor, Tensor]:
        """A random v and H v in float64; v has float32's digits, so that all are asked the same."""
        v = torch.randn(self._n, generator=torch.Generator().manual_seed(0)).double()
        return v, torch.from_numpy(self._kept("product", lambda: {"product": self._multiply(v).numpy()})["product"])

    def eigenvalues(self, k: int, which: str) -> tuple[Values, float]:
        """The k largest (``"LA"``, descending) or smallest (``"SA"``, ascending), and a bound on their relative error.

        eigsh on a product in float32 finds the vectors; Rayleigh-Ritz on them in float64 gives values whose error is
        at most r^2 / gap, r being the residual in float64.
        """
        kept = self._kept(f"{which}{k}", lambda: self._extreme(k, which))
        return kept["values"], float((kept["bounds"] / np.abs(kept["values"])).max())

    def trace(self, k: int) -> tuple[float, float]:
        """tr H and its standard error: 0 where H's diagonal is that of the Gauss-Newton matrix."""
        exact = self._problem.name in PIECEWISE_LINEAR
        kept = self._kept("trace", self._exact_trace if exact else lambda: self._estimated_trace(k))
        return float(kept["trace"]), float(kept["stderr"])

    def _kept(self, what: str, compute: Callable[[], Kept]) -> Kept:
        path = self._stem.with_name(f"{self._stem.name}-{what}.npz")
        if not path.is_file():
            started = time.perf_counter()
            print(f"computing the reference {path.name} ...", file=sys.stderr, flush=True)
            found = compute()
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **found)
            print(f"... {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        with np.load(path) as file:
            return dict(file)

    def _multiply(self, vector: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """H v by plain double backward in ``dtype``, summed over the batches in float64."""
        model = copy.deepcopy(self._problem.model).to(dtype).eval()
        parameters = list(model.parameters())
        pieces = [piece.to(dtype) for piece in self._problem.named(vector).values()]
        total = torch.zeros(self._n, dtype=torch.float64)
        with sdpa_kernel(SDPBackend.MATH):
            for inputs, targets in self._problem.batches(BATCH):
                loss = F.cross_entropy(model(inputs.to(dtype)), targets, reduction="sum")
                gradient = torch.autograd.grad(loss, parameters, create_graph=True)
                product = torch.autograd.grad(gradient, parameters, pieces)
                total += torch.cat([piece.flatten() for piece in product])
        return total / len(self._problem.targets)

    def _rough(self, vector: Values) -> Values:
        product: Values = self._multiply(torch.from_numpy(vector.ravel()), torch.float32).numpy()
        return product

    def _extreme(self, k: int, which: str) -> Kept:
        operator = LinearOperator((self._n, self._n), matvec=self._rough, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(self._n)
        values, vectors = eigsh(operator, k + SPARE, which=which, tol=ROUGH, ncv=60, v0=start)
        order = np.argsort(values if which == "SA" else -values)
        values, basis = values[order], np.linalg.qr(vectors[:, order[:k]]).Q
        images = np.stack([self._multiply(torch.from_numpy(column.copy())).numpy() for column in basis.T], axis=1)
        ritz, weights = np.linalg.eigh(basis.T @ images)
        order = np.argsort(ritz if which == "SA" else -ritz)
        ritz, weights = ritz[order], weights[:, order]
        residuals = np.linalg.norm(images @ weights - basis @ weights * ritz, axis=0)
        apart = np.abs(ritz[:, None] - values[None, :])
        apart[np.arange(k), np.arange(k)] = np.inf
        bounds = np.minimum(residuals, residuals**2 / apart.min(1))
        return {"values": ritz, "bounds": bounds, "vectors": (basis @ weights).T.astype(np.float32)}

    def _exact_trace(self) -> Kept:
        """tr H = tr G = mean over examples of sum_c p_c |grad f_c|^2 - |sum_c p_c grad f_c|^2."""
        model = copy.deepcopy(self._problem.model).double().eval()
        theta = {name: parameter.detach() for name, parameter in model.named_parameters()}

        def outputs(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
            out: Tensor = functional_call(model, parameters, (image[None],))[0]
            return out

        def of_one(image: Tensor) -> Tensor:
            p = outputs(theta, image).softmax(0)
            gradients = [g.flatten(1) for g in jacrev(outputs)(theta, image).values()]
            return sum(p @ g.square().sum(1) - (p @ g).square().sum() for g in gradients)

        traces = vmap(of_one, chunk_size=5)(self._problem.inputs.double())
        return {"trace": traces.mean().numpy(), "stderr": np.array(0.0)}

    def _estimated_trace(self, k: int) -> Kept:
        """The eigenvalues found, and Hutchinson's estimate of the rest, with products in float32."""
        kept = self._kept(f"LA{k}", lambda: self._extreme(k, "LA"))
        basis = np.linalg.qr(kept["vectors"].T.astype(np.float64)).Q
        draw = np.random.default_rng(1)
        forms = []
        for _ in range(PROBES):
            probe = draw.choice([-1.0, 1.0], self._n)
            probe -= basis @ (basis.T @ probe)
            forms.append(probe @ self._rough(probe))
        trace = kept["values"].sum() + np.mean(forms)
        return {"trace": np.array(trace), "stderr": np.array(np.std(forms, ddof=1) / PROBES**0.5)}
