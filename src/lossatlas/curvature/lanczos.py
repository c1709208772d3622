"""Extreme eigenpairs of a symmetric operator, each with a bound on its error."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.curvature.krylov import Floats, KrylovSpace
from lossatlas.curvature.operators import Operator
from lossatlas.errors import ConvergenceWarning, DirectionError, InputError
from lossatlas.evaluation.products.products import free_bytes

Which = Literal["largest", "smallest", "magnitude", "both"]
SECOND_LOOK = 8  # products from a fresh vector, after convergence, that look for what the first ones cannot see

# Of ascending values, the indices of the k (of each end) that are asked for, the outermost first.
_ORDERS: dict[Which, Callable[[Floats, int], NDArray[np.intp]]] = {
    "largest": lambda values, k: np.arange(len(values))[::-1][:k],
    "smallest": lambda values, k: np.arange(len(values))[:k],
    "magnitude": lambda values, k: np.argsort(-np.abs(values), kind="stable")[:k],
    # Where the ends meet (2k > n) the pairs in the middle are in both.
    "both": lambda values, k: np.concatenate([np.arange(len(values))[::-1][:k], np.arange(len(values))[:k]]),
}


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
    floor: float = 0.0,
    block: int = 1,
    start: Tensor | None = None,
    max_products: int | None = None,
    max_memory: int | None = None,
    seed: int = 0,
) -> Eigenpairs:
    """A v_i = lambda_i v_i for the k ``"largest"`` (descending), the k ``"smallest"`` (ascending), ``"both"``, one
    after the other, or, by ``"magnitude"``, the k largest |lambda|.

    Lanczos with full reorthogonalisation, so that no eigenvalue shows twice. Stops when
    |A v - lambda v| <= tol |lambda| for all pairs, or when rounding in the operator's type allows no smaller residual;
    never because two iterates agree. From one vector a Krylov space shows one of several equal eigenvalues, so then a
    fresh random vector is followed for 8 products; if it brings another pair that was asked for, the search goes on.

    Parameters
    ----------
    floor : residuals of ``floor`` max |lambda| are small enough, whatever the eigenvalue: for ends that may be 0.
    block : how many random vectors to start from; p of them see an eigenvalue of multiplicity p at once.
    start : ``(n,)`` or ``(m, n)``, vectors near those asked for. A random vector is added: a warm start alone can stay
        at a direction that is no longer the top one.
    max_products : when to give up, with a ``ConvergenceWarning``; the residuals tell what was reached. By default
        max(300, 4 times the number of pairs), and not more than n.
    max_memory : bytes for the basis; when it is full, the search restarts from the best Ritz vectors (thick restart).
        Half of the free memory by default.

    Returns
    -------
    ``Eigenpairs``: values ``(k,)``, in the units of A's entries, unit vectors ``(k, n)``, residuals ``(k,)``; twice as
    many under ``"both"``.

    Raises
    ------
    InputError : k below 1 or above n, a tolerance that is not positive, or memory for too few vectors.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Parlett 1998, "The Symmetric Eigenvalue Problem", chapters 11 and 13 (section 12.2: equal eigenvalues); Wu &
    Simon 2000, "Thick-restart Lanczos method".

    Examples
    --------
    >>> values = torch.linspace(0, 4, 50, dtype=torch.float64)
    >>> operator = Operator(50, lambda rows: rows * values, torch.float64, torch.device("cpu"))
    >>> found = top_eigenpairs(operator, 2, tol=1e-6)
    >>> [round(value, 4) for value in found.values.tolist()], bool(found.converged.all())
    ([4.0, 3.9184], True)
    """
    return search(
        operator,
        k,
        which=which,
        tol=tol,
        floor=floor,
        block=block,
        start=start,
        max_products=max_products,
        max_memory=max_memory,
        seed=seed,
    ).pairs


@dataclass(frozen=True)
class Found:
    """Eigenpairs, the space that they come from, and which of its Ritz pairs they are."""

    pairs: Eigenpairs
    space: KrylovSpace
    chosen: NDArray[np.intp]


def search(
    operator: Operator,
    k: int,
    *,
    which: Which = "largest",
    tol: float = 1e-3,
    floor: float = 0.0,
    block: int = 1,
    start: Tensor | None = None,
    look: bool = True,
    max_products: int | None = None,
    max_memory: int | None = None,
    seed: int = 0,
) -> Found:
    """``top_eigenpairs`` with the space; ``look=False`` leaves out the second look."""
    if which not in _ORDERS:
        raise InputError(f"which={which!r}: choose {', '.join(map(repr, _ORDERS))}.")
    if not 1 <= k <= operator.n:
        raise InputError(f"k={k} eigenpairs of a matrix of size {operator.n}: give k between 1 and {operator.n}.")
    if not 1 <= block <= operator.n:
        raise InputError(f"block={block}: give a number of vectors between 1 and {operator.n}.")
    _check_tolerance(tol, operator)
    count = min(operator.n, 2 * k if which == "both" else k)
    limit = min(operator.n, max(300, 4 * count)) if max_products is None else max_products
    if limit < count:
        raise InputError(f"max_products={max_products} cannot give {count} eigenpairs: allow at least {count}.")
    capacity = min(operator.n, limit, _vectors_in(operator, max_memory, count + block + 2))
    space = KrylovSpace(operator, capacity, torch.Generator().manual_seed(seed))
    for vector in _starts(operator, start, block, seed):
        space.start(vector)
    return _PairSearch(space, _ORDERS[which], k, count, (tol, floor), limit, look).run()


class _PairSearch:
    """Growing a Krylov space until the pairs asked for have converged, and a second look has found no more."""

    def __init__(
        self,
        space: KrylovSpace,
        select: Callable[[Floats, int], NDArray[np.intp]],
        k: int,
        count: int,
        tolerances: tuple[float, float],
        limit: int,
        look: bool,
    ) -> None:
        self.space, self.select, self.k, self.count, self.limit, self.look = space, select, k, count, limit, look
        self.tol, self.floor = tolerances

    def run(self) -> Found:
        seen: Floats | None = None  # their values when the last look began
        since = 0
        while True:
            self._grow(newest=seen is not None)
            if self.space.size < self.count or not self._due():
                continue
            values, weights, residuals = self.space.ritz()
            chosen = self.select(values, self.k)
            allowed = np.maximum(self.tol * np.abs(values[chosen]), self.floor * np.abs(values).max())
            allowed = np.maximum(allowed, 2 * self.space.rounding)
            converged = residuals[chosen] <= allowed
            if self._at_end() or (converged.all() and not self.look):
                break
            if not converged.all():
                continue
            if seen is None or (np.abs(values[chosen] - seen) > allowed).any():
                seen, since = values[chosen], self.space.products
                self.space.start()
            elif self.space.products - since >= SECOND_LOOK or self.space.exhausted:
                break
        if not converged.all():
            self._warn(values[chosen], residuals[chosen], converged)
        pairs = Eigenpairs(
            torch.from_numpy(values[chosen].copy()),
            self.space.combine(weights[:, chosen]),
            torch.from_numpy(residuals[chosen]),
            self.space.products,
            torch.from_numpy(converged),
        )
        return Found(pairs, self.space, chosen)

    def _grow(self, *, newest: bool) -> None:
        if self.space.exhausted:
            self.space.start()
        if not self.space.free:
            values, weights, _ = self.space.ritz()
            # Half of the memory that is left for their neighbours, which may yet be among them.
            ends = 2 if self.count > self.k else 1
            kept = np.unique(self.select(values, self.k + (self.space.capacity - self.count) // 2 // ends))
            self.space.restart(values[kept], weights[:, kept])
        self.space.extend(-1 if newest else 0)

    def _due(self) -> bool:
        """Not every step of a large space is worth its eigenvalue problem."""
        return self._at_end() or self.space.products % (1 + self.space.size // 100) == 0

    def _at_end(self) -> bool:
        return self.space.products >= self.limit or self.space.size == self.space.dimension

    def _warn(self, values: Floats, residuals: Floats, converged: NDArray[np.bool_]) -> None:
        worst = float((residuals / np.maximum(np.abs(values), np.finfo(float).tiny)).max())
        warnings.warn(
            f"{int((~converged).sum())} of {len(values)} eigenpairs have not reached tol={self.tol:g} after "
            f"{self.space.products} products (largest relative residual {worst:.1e}): allow more with max_products, "
            "or ask for less.",
            ConvergenceWarning,
            stacklevel=4,
        )


def _check_tolerance(tol: float, operator: Operator) -> None:
    if not tol > 0:
        raise InputError(f"tol={tol}: give a positive relative tolerance, such as 1e-3.")
    finest = 16 * torch.finfo(operator.dtype).eps
    if tol < finest:
        kind = str(operator.dtype).removeprefix("torch.")
        warnings.warn(
            f"tol={tol:g} is below the resolution of {kind}: residuals of about {finest:.0e} of the largest eigenvalue "
            "are taken as converged. Use dtype=torch.float64 for smaller ones.",
            ConvergenceWarning,
            stacklevel=3,
        )


def _vectors_in(operator: Operator, max_memory: int | None, least: int) -> int:
    least = min(least, operator.n)
    size = operator.n * torch.finfo(operator.dtype).bits // 8
    if max_memory is None:
        return max(least, free_bytes(operator.device) // 2 // size)
    if max_memory // size < least:
        raise InputError(
            f"max_memory={max_memory} holds {max_memory // size} vectors of {operator.n} numbers: "
            f"allow at least {least * size} bytes, for {least}."
        )
    return max_memory // size


def _starts(operator: Operator, start: Tensor | None, block: int, seed: int) -> list[Tensor | None]:
    if start is None:
        return [None] * block
    shaped = start.ndim in (1, 2) and start.shape[-1] == operator.n
    rows = start.reshape(-1, operator.n) if shaped else start
    if not shaped or not bool(torch.isfinite(rows).all()) or not bool(rows.any(dim=1).all()):
        raise DirectionError(
            f"start has the shape {tuple(start.shape)}: give finite vectors, ({operator.n},) or (m, {operator.n}), "
            "none of them zero."
        )
    rows = rows.double().cpu()
    random = torch.randn(operator.n, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    mixed = (rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)).sum(0) + random / random.norm()
    return [mixed, *[None] * (block - 1)]
