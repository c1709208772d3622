"""Extreme eigenpairs of a symmetric operator, each with a bound on its error."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.curvature.certificates import certificates
from lossatlas.curvature.krylov import Floats, KrylovSpace, norms
from lossatlas.curvature.operators import Operator, require_operator
from lossatlas.curvature.progress import Budget
from lossatlas.errors import ConvergenceWarning, DirectionError, InputError
from lossatlas.evaluation.memory import free_bytes

Which = Literal["largest", "smallest", "magnitude", "both"]
RESTARTED = 10  # times the products, at most, where the vectors that memory holds are given
SECOND_LOOK = 8  # products from a fresh vector, at most, that look for what the first ones cannot see
_BY_DIFFERENCES = "the products are differences of the gradient, whose estimated error is larger, and no more help"
FAINT = 0.004  # of a random vector's mean squared component along an eigenvector: it has less with a chance of 5 %

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
    """``values`` (k,) float64 = v' A v, unit ``vectors`` (k, n) as rows, ``residuals`` (k,) = |A v - lambda v|.

    Both are measured by a product with each v, and no residual is smaller than the ``asymmetry`` of the products,
    |u' A z - z' A u|, or than their estimated error (``Operator.errors``), which a residual may not show: some true
    eigenvalue lies within ``residuals[i]`` of ``values[i]``. ``stderrs`` (k,) are the data-sampling errors of v' A v,
    NaN where there are no batches. ``products`` counts matrix-vector products; ``converged`` says which residuals met
    the tolerance.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: Tensor
    stderrs: Tensor
    asymmetry: float


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
    never because two iterates agree. Values and residuals are then measured, by one product more with each vector: a
    matrix whose products are less symmetric than the tolerance (rounding in float32, a wrong derivative) gives a
    ``ConvergenceWarning`` with the remedy. From one vector a Krylov space shows one of several equal eigenvalues, so
    then a fresh random vector is followed until another pair that was asked for would show, for 8 products at most; if
    there is one, the search goes on.

    Parameters
    ----------
    floor : residuals of ``floor`` max |lambda| are small enough, whatever the eigenvalue: for ends that may be 0.
    block : how many random vectors to start from; p of them see an eigenvalue of multiplicity p at once.
    start : ``(n,)`` or ``(m, n)``, vectors near those asked for. A random vector is added: a warm start alone can stay
        at a direction that is no longer the top one.
    max_products : when to give up, with a ``ConvergenceWarning``; the residuals tell what was reached. By default
        max(300, 4 times the number of pairs), and not more than n, to find them, and one for each to measure it.
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
class Run:
    """Of the space that grew from one random vector: the tridiagonal matrix, its next off-diagonal entry, and which of
    its eigenvalues, in ascending order, are those of the pairs.
    """

    diagonal: Floats
    off_diagonal: Floats
    beyond: float
    chosen: NDArray[np.intp]


@dataclass(frozen=True)
class Found:
    """Eigenpairs, the space that they come from, and the run of its first vector.

    There is no ``run`` where the space did not grow from one random vector, or another one found more of the pairs.
    ``missing`` is about how many products more would reach the tolerance; 0 where it was reached.
    """

    pairs: Eigenpairs
    space: KrylovSpace
    run: Run | None
    missing: float


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
    budget: Budget | None = None,
    share: float = 1.0,
    seed: int = 0,
) -> Found:
    """``top_eigenpairs`` with the space; ``look=False`` leaves out the second look; ``share`` of a ``budget`` may end
    it sooner, when k pairs have been found.
    """
    require_operator(operator)
    if which not in _ORDERS:
        raise InputError(f"which={which!r}: choose {', '.join(map(repr, _ORDERS))}.")
    if not 1 <= k <= operator.n:
        raise InputError(f"k={k} eigenpairs of a matrix of size {operator.n}: give k between 1 and {operator.n}.")
    if not 1 <= block <= operator.n:
        raise InputError(f"block={block}: give a number of vectors between 1 and {operator.n}.")
    _check_tolerance(tol, operator)
    count = min(operator.n, 2 * k if which == "both" else k)
    measuring = 2 * k if which == "both" else k
    limit = min(operator.n, max(300, 4 * count)) if max_products is None else max_products - measuring
    if operator.workspace is not None and max_products is None:
        limit *= RESTARTED
    if limit < count:
        raise InputError(
            f"max_products={max_products} cannot give {count} eigenpairs and measure them: allow at least "
            f"{count + measuring}."
        )
    capacity = min(operator.n, limit, _vectors_in(operator, max_memory, count + block + 2))
    space = KrylovSpace(operator, capacity, torch.Generator().manual_seed(seed))
    for vector in _starts(operator, start, block, seed):
        space.start(vector)
    one = block == 1 and start is None
    wanted = _PairSearch(operator, space, which, k, count, (tol, floor), limit, look, budget, share, one)
    return wanted.run()


class _PairSearch:
    """Growing a Krylov space until the pairs asked for have converged, and a second look has found no more."""

    def __init__(
        self,
        operator: Operator,
        space: KrylovSpace,
        which: Which,
        k: int,
        count: int,
        tolerances: tuple[float, float],
        limit: int,
        look: bool,
        budget: Budget | None,
        share: float,
        one: bool,
    ) -> None:
        self.operator, self.space, self.which, self.k, self.count = operator, space, which, k, count
        self.select = _ORDERS[which]
        self.tol, self.floor = tolerances
        self.limit, self.look, self.budget, self.share = limit, look, budget, share
        self._one = one  # whether the space grows from one random vector
        self._largest = 0.0  # |Ritz value| of the space
        self._worst: list[tuple[int, float]] = []  # products, and the largest residual as a multiple of its tolerance

    def run(self) -> Found:
        seen: Floats | None = None  # their values when the last look began
        since = 0
        first: Run | None = None
        while True:
            self._grow(newest=seen is not None)
            if self.space.size < self.count or not self._due():
                continue
            values, weights, residuals = self.space.ritz()
            chosen, self._largest = self.select(values, self.k), float(np.abs(values).max())
            allowed = self._allowed(values[chosen])
            converged = residuals[chosen] <= allowed
            self._tell(float((residuals[chosen] / allowed.clip(np.finfo(float).tiny)).max()))
            if self._at_end() or (converged.all() and not self.look):
                break
            if not converged.all():
                continue
            if seen is None or (np.abs(values[chosen] - seen) > allowed).any():
                first = self._run(chosen) if seen is None else None
                seen, since = values[chosen], self.space.products
                self.space.start()
            elif self.space.exhausted or self._looked(self.space.products - since, values[chosen]):
                break
        if seen is None:
            first = self._run(chosen)
        pairs = self._certified(weights, chosen, bool(converged.all()))
        return Found(pairs, self.space, first, self._missing())

    def _run(self, chosen: NDArray[np.intp]) -> Run | None:
        if not self._one or self.space.products > self.space.size:  # it was restarted
            return None
        return Run(*self.space.tridiagonal(), self.space.beyond, chosen)

    def _allowed(self, values: Floats) -> Floats:
        """The residuals that are small enough."""
        allowed = np.maximum(self.tol * np.abs(values), self.floor * self._largest)
        return np.maximum(allowed, 2 * self.space.rounding)

    def _certified(self, weights: Floats, chosen: NDArray[np.intp], expected: bool) -> Eigenpairs:
        """The pairs with what their own products say of them, and a warning where that misses the tolerance."""
        asymmetry = self.space.asymmetry
        within = self.operator.workspace is not None and len(np.unique(chosen)) == len(chosen)
        vectors = self.space.rotate(chosen) if within else self.space.combine(weights[:, chosen])
        measured = certificates(self.operator, vectors)
        if self.budget is not None:
            self.budget.add(len(vectors))
        order = self._order(measured.values.numpy())
        values = measured.values[order]
        vectors = self._ordered(vectors, order, within)
        residuals = (measured.residuals[order] + self.space.resolution).clamp(min=asymmetry)
        allowed = torch.from_numpy(self._allowed(values.numpy()))
        found = Eigenpairs(
            values,
            vectors,
            residuals,
            self.space.products + len(values),
            residuals <= allowed,
            measured.stderrs[order],
            asymmetry,
        )
        if not bool(found.converged.all()):
            self._warn(found, expected)
        return found

    def _ordered(self, vectors: Tensor, order: NDArray[np.intp], within: bool) -> Tensor:
        if (order == np.arange(len(order))).all():
            return vectors
        if within:  # they are the first vectors of the basis
            self.space.keep(np.concatenate([order, np.arange(len(order), self.space.size)]))
            return vectors
        return vectors[torch.from_numpy(order).to(vectors.device)]

    def _order(self, values: Floats) -> NDArray[np.intp]:
        """Of measured values, which may differ in their last digits from those that they were sorted by."""
        top, bottom = (values, values[:0]) if self.which != "both" else (values[: self.k], values[self.k :])
        key = {"smallest": top, "magnitude": -np.abs(top)}.get(self.which, -top)
        return np.concatenate([key.argsort(kind="stable"), len(top) + bottom.argsort(kind="stable")])

    def _looked(self, products: int, values: Floats) -> bool:
        """Whether the look has lasted long enough for an eigenvector at the innermost value that is wanted to show.

        A vector followed for m products has grown by T_(m - 1)(x), Chebyshev's polynomial, along it, with x its
        distance from the middle of what the look sees else, over half of the width of that (Parlett 1998, 12.4).
        """
        if products >= SECOND_LOOK:
            return True
        low, high = self.space.extent_of_last(min(products, self.space.size))
        middle, half = (low + high) / 2, max((high - low) / 2, self.space.rounding)
        above, below = values[: self.k].min() - middle, middle - values[-self.k :].max()
        apart = {"largest": above, "smallest": below, "magnitude": np.abs(values).min() - abs(middle)}
        x = apart.get(self.which, min(above, below)) / half
        grown = np.cosh(min((products - 1) * np.arccosh(max(x, 1.0)), 300.0))
        return bool(FAINT * grown**2 >= self.space.dimension)

    def _tell(self, worst: float) -> None:
        """The bar about how many products are to come."""
        self._worst.append((self.space.products, worst))
        if self.budget is not None and worst > 1:
            self.budget.expect(min(self._missing(), self.limit - self.space.products) + self.count)

    def _missing(self) -> float:
        """How many products more reach the tolerance, if the residuals go on falling as they did."""
        products, worst = self._worst[-1]
        before, then = self._worst[len(self._worst) // 2]
        if worst <= 1:
            return 0.0
        fallen = np.log(then / worst) / max(products - before, 1)
        return float(np.log(worst) / fallen) if fallen > 0 else math.inf

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
        spent = self.budget is not None and self.budget.left(self.share) < self.count + 1
        return spent or self.space.products >= self.limit or self.space.size == self.space.dimension

    def _warn(self, found: Eigenpairs, expected: bool) -> None:
        worst = float((found.residuals / found.values.abs().clamp(min=np.finfo(float).tiny)).max())
        missed = (
            f"{int((~found.converged).sum())} of {len(found.values)} eigenpairs have not reached tol={self.tol:g} "
            f"after {found.products} products (largest relative residual {worst:.1e})"
        )
        remedy = "allow more with max_products, or ask for less"
        if expected and self.operator.errors.norm > found.asymmetry:
            remedy = _BY_DIFFERENCES
        elif expected:
            kind = str(self.operator.dtype).removeprefix("torch.")
            remedy = (
                f"in {kind} the products are symmetric to {found.asymmetry:.1e} only, and no more of them help"
                f": {'check the derivatives' if self.operator.dtype == torch.float64 else 'use dtype=torch.float64'}"
            )
        warnings.warn(f"{missed}: {remedy}.", ConvergenceWarning, stacklevel=5)


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
    if operator.workspace is not None:
        return len(operator.workspace.free(operator.n))
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
    mixed = torch.randn(operator.n, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    mixed /= mixed.norm()
    for row in rows.cpu():
        mixed.add_(row, alpha=1 / float(norms(row)))
    return [mixed, *[None] * (block - 1)]
