"""Extreme eigenpairs of a symmetric operator, each with a bound on its error.

Lanczos (1950) with full reorthogonalisation (Parlett, The Symmetric Eigenvalue Problem, 1998, chapter 13).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from lossatlas.curvature.operators import Operator
from lossatlas.errors import ConvergenceWarning, InputError

Which = Literal["largest", "smallest", "magnitude"]
Wanted = Callable[[NDArray[np.float64]], NDArray[np.intp]]


@dataclass(frozen=True)
class Eigenpairs:
    """``values`` (k,) float64, unit ``vectors`` (k, n) as rows, ``residuals`` (k,) = |A v - lambda v|.

    For a symmetric A some true eigenvalue lies within ``residuals[i]`` of ``values[i]``. ``products`` counts
    matrix-vector products; ``converged`` says which residuals met the tolerance.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: Tensor


def top_eigenpairs(
    operator: Operator,
    k: int = 1,
    *,
    which: Which = "largest",
    tol: float = 1e-3,
    max_products: int | None = None,
    seed: int = 0,
) -> Eigenpairs:
    """A v_i = lambda_i v_i for the k ``"largest"`` (descending), ``"smallest"`` (ascending) or, by ``"magnitude"``,
    the k largest |lambda|.

    Stops when |A v - lambda v| <= tol |lambda| for all k, or when rounding in the operator's type allows no smaller
    residual; never because two iterates agree. Gives up after ``max_products`` (min(n, max(300, 4 k)) by default) with
    a ``ConvergenceWarning``; the residuals tell what was reached.

    Each pair that is returned is an eigenpair to within its residual. Whether another lies between two of them no
    residual can tell: of several equal eigenvalues (or equal to within ``tol``) one start vector shows only one,
    unless the Krylov space is exhausted, when fresh vectors look for the others.

    Raises ``InputError`` for k below 1 or above n, or a tolerance that is not positive.
    """
    order: dict[Which, Wanted] = {
        "largest": lambda values: np.arange(len(values))[::-1][:k],
        "smallest": lambda values: np.arange(len(values))[:k],
        "magnitude": lambda values: np.argsort(-np.abs(values), kind="stable")[:k],
    }
    if which not in order:
        raise InputError(f"which={which!r}: choose 'largest', 'smallest' or 'magnitude'.")
    check_count(k, operator)
    return krylov_eigenpairs(operator, order[which], k, tol=tol, max_products=max_products, seed=seed)


def check_count(k: int, operator: Operator) -> None:
    """Raises ``InputError`` unless 1 <= k <= n."""
    if not 1 <= k <= operator.n:
        raise InputError(f"k={k} eigenpairs of a matrix of size {operator.n}: give k between 1 and {operator.n}.")


def krylov_eigenpairs(
    operator: Operator, wanted: Wanted, count: int, *, tol: float, max_products: int | None, seed: int
) -> Eigenpairs:
    """The eigenpairs that ``wanted`` picks (``count`` indices of the ascending Ritz values) from one Krylov space."""
    if not tol > 0:
        raise InputError(f"tol={tol}: give a positive relative tolerance, such as 1e-3.")
    limit = min(operator.n, max(300, 4 * count) if max_products is None else max_products)
    if limit < min(count, operator.n):
        raise InputError(f"max_products={max_products} cannot give {count} eigenpairs: allow at least {count}.")
    krylov = _Krylov(operator, limit, seed)
    before: NDArray[np.float64] | None = None  # the wanted values when the space was last exhausted
    while True:
        krylov.extend()
        values, weights, residuals = krylov.ritz()
        chosen = wanted(values)
        allowed = np.maximum(tol * np.abs(values), 2 * krylov.rounding)[chosen]
        converged = (residuals[chosen] <= allowed) if krylov.size >= count else np.zeros(len(chosen), bool)
        if krylov.size == limit or (converged.all() and not krylov.ever_exhausted):
            break
        if converged.all() and krylov.just_exhausted:
            # A further copy of an equal eigenvalue would have shown in the part that has just ended.
            if before is not None and np.allclose(values[chosen], before, rtol=tol, atol=2 * krylov.rounding):
                break
            before = values[chosen]
    if not converged.all():
        worst = float((residuals[chosen] / np.maximum(np.abs(values[chosen]), np.finfo(float).tiny)).max())
        warnings.warn(
            f"{int((~converged).sum())} of {count} eigenpairs have not reached tol={tol:g} after {limit} products "
            f"(largest relative residual {worst:.1e}): allow more with max_products, or ask for less.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return Eigenpairs(
        torch.from_numpy(values[chosen].copy()),
        krylov.combine(weights[:, chosen]),
        torch.from_numpy(residuals[chosen]),
        krylov.size,
        torch.from_numpy(converged),
    )


class _Krylov:
    """An orthonormal basis V_m of a Krylov space and T = V' A V, tridiagonal."""

    def __init__(self, operator: Operator, limit: int, seed: int) -> None:
        self._operator = operator
        self._generator = torch.Generator().manual_seed(seed)
        self._basis = torch.empty(limit, operator.n, dtype=operator.dtype, device=operator.device)
        self._diagonal: list[float] = []
        self._off: list[float] = []  # beta_1 .. beta_m, the last one leading out of the space
        self._epsilon = float(torch.finfo(operator.dtype).eps)
        self.size = 0
        self._next = self._fresh()

    @property
    def just_exhausted(self) -> bool:
        """Whether the space has just been exhausted: A maps it into itself."""
        return self._off[-1] == 0

    @property
    def ever_exhausted(self) -> bool:
        """Whether that has ever been so."""
        return 0 in self._off

    @property
    def rounding(self) -> float:
        """The residual that rounding alone can leave: some units in the last place of the operator's norm."""
        norm = max(map(abs, self._diagonal)) + 2 * max(self._off[: self.size - 1], default=0.0)
        return 16 * self._epsilon * norm

    def extend(self) -> None:
        """One more vector, one more product."""
        vector = self._basis[self.size] = self._next
        product = self._operator @ vector
        self._diagonal.append(float(vector.double() @ product.double()))
        self.size += 1
        left = self._orthogonal(product)
        beta = float(torch.linalg.vector_norm(left.double()))
        if beta <= self.rounding and self.size < self._operator.n:
            # The space is exhausted: what is left is rounding. A fresh direction finds the rest of the spectrum.
            self._off.append(0.0)
            self._next = self._fresh()
        else:
            self._off.append(beta)
            self._next = left / beta if beta else left

    def ritz(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Ritz values (ascending), their coordinates in the basis (columns), residuals |beta_m s_mi| + rounding."""
        values, weights = (
            np.asarray(part, dtype=np.float64)
            for part in eigh_tridiagonal(np.array(self._diagonal), np.array(self._off[:-1]))
        )
        leading_out = 0.0 if self.size == self._operator.n else self._off[-1]
        residuals: NDArray[np.float64] = np.abs(leading_out * weights[-1]) + self.rounding
        return values, weights, residuals

    def combine(self, weights: NDArray[np.float64]) -> Tensor:
        """The unit vectors ``(k, n)`` with these coordinates in the basis."""
        vectors: Tensor = torch.from_numpy(weights.T.copy()).to(self._basis) @ self._basis[: self.size]
        unit: Tensor = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return unit

    def _orthogonal(self, vector: Tensor) -> Tensor:
        basis = self._basis[: self.size]
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            vector = vector - basis.T @ (basis @ vector)
        return vector

    def _fresh(self) -> Tensor:
        draw = torch.randn(self._operator.n, generator=self._generator, dtype=torch.float64)
        vector = self._orthogonal(draw.to(self._basis))
        unit: Tensor = vector / torch.linalg.vector_norm(vector)
        return unit
