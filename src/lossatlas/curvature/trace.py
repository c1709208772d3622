"""The trace and the diagonal of a symmetric operator: exact where that is cheap, else with a standard error."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from lossatlas.curvature.krylov import Floats, KrylovSpace, norms, unit
from lossatlas.curvature.operators import Operator, require_operator
from lossatlas.curvature.progress import Budget
from lossatlas.errors import ConvergenceWarning, InputError, NumericalError

SMALL = 64  # up to this size all columns are multiplied
ROUND = 10  # probes at a time, and at least in the first stage
SHORT, LONG = 20, 60  # vectors of the Krylov space; the long one where many probes would be needed with the short
EXACT = "exact: "
BACKWARD, COLUMNS = f"{EXACT}a backward pass for each output", f"{EXACT}all columns"
BY_DIFFERENCES = "all columns, by differences of the gradient"


@dataclass(frozen=True)
class TraceEstimate:
    """tr A with its standard error (0 where it is exact) and 95 % interval.

    ``products`` were used, and ``method`` tells how it was found, from how many ``probes`` (0 where it is exact).
    ``reason``, a sentence, tells why it is not exact; it is empty where it is.
    """

    value: float
    stderr: float
    low: float
    high: float
    products: int
    method: str
    reason: str = ""
    probes: int = 0

    def because(self, reason: str) -> TraceEstimate:
        """The same, with ``reason`` where it is not exact."""
        return self if self.method.startswith(EXACT) else replace(self, reason=reason)

    def of(self, operator: Operator) -> TraceEstimate:
        """The same, with the errors of the operator's products, of which each form is one of n in the trace."""
        if not (error := operator.n * operator.errors.form):
            return self
        method = BY_DIFFERENCES if self.method == COLUMNS else self.method
        stderr = math.hypot(self.stderr, error)
        return replace(self, stderr=stderr, low=self.low - error, high=self.high + error, method=method)


@dataclass(frozen=True)
class NormEstimate:
    """|A| in the Frobenius norm with its standard error (0 where it is exact) and 95 % interval."""

    value: float
    stderr: float
    low: float
    high: float

    def of(self, operator: Operator) -> NormEstimate:
        """The same, with the errors E of the operator's products, |E| <= sqrt(n) max |E v|."""
        error = math.sqrt(operator.n) * operator.errors.norm
        low, high = max(self.low - error, 0.0), self.high + error
        return NormEstimate(self.value, math.hypot(self.stderr, error), low, high)


@dataclass(frozen=True)
class Known:
    """What is known of A on the span of an orthonormal ``basis`` V ``(m, n)``: tr V A V' and tr V A A V'."""

    basis: Tensor
    trace: float
    square: float

    @staticmethod
    def of(space: KrylovSpace) -> Known:
        return Known(space.basis, space.trace, space.square)


@dataclass(frozen=True)
class DiagonalEstimate:
    """The diagonal ``values`` ``(n,)`` float64 with its standard errors ``stderr`` ``(n,)``, 0 where it is exact.

    ``products`` were used, and ``method`` tells how it was found. ``reason``, a sentence, tells why it is not exact;
    it is empty where it is.
    """

    values: Tensor
    stderr: Tensor
    products: int
    method: str
    reason: str = ""


def trace(operator: Operator, *, tol: float = 0.01, max_products: int = 1000, seed: int = 0) -> TraceEstimate:
    """tr A = sum_i A_ii, exactly where that is cheap, else to a standard error of ``tol`` |tr A|.

    Exact for a Gauss-Newton matrix with up to 128 outputs an example, and for the Hessian of a network that is
    piecewise linear in each single weight, from one backward pass for each output; and from all n columns, where an
    estimate would take as many products.

    Otherwise tr A = tr T + tr (I - V'V) A (I - V'V): V and T from a Krylov space of m vectors, which holds the large
    eigenvalues, and the rest by z' A z for random directions z orthogonal to it, of length sqrt(n - m). The spread s_0
    of the first N_0 >= 10 says how many are drawn in all, N, for the standard error; it goes on if that is missed. The
    95 % interval is +-t_(N_0 - 1) s_0 / sqrt(N), which holds although the number was chosen by the spread, and never
    smaller than Student's of all N.

    Parameters
    ----------
    operator : the symmetric matrix A, ``(n, n)``.
    tol : the standard error to reach, as a share of |tr A|.
    max_products : products A v at most. A trace that misses ``tol`` by then comes with a ``ConvergenceWarning``.
    seed : of the random directions.

    Returns
    -------
    ``TraceEstimate``, in the units of A's entries; its ``reason`` is a sentence that tells why it is not exact.

    Raises
    ------
    InputError : ``tol`` is not positive, or ``max_products`` is below 100.
    NumericalError : products, or the loss's derivatives, hold NaN or infinite numbers.

    Source: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix"; Meyer, Musco, Musco &
    Woodruff 2021, "Hutch++" (deflation); Stein 1945, "A two-sample test for a linear hypothesis whose power is
    independent of the variance" (the interval); Dangel et al. 2020, "BackPACK" (exact).

    Examples
    --------
    >>> import lossatlas as la
    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 1))
    >>> found = trace(la.hessian(la.Objective(model, torch.nn.functional.mse_loss, data)))
    >>> round(found.value, 5), found.stderr, found.method
    (5.0, 0.0, 'exact: a backward pass for each output')
    """
    require_operator(operator)
    _check(tol, max_products)
    exact = operator.exact_diagonal()
    if exact.values is not None:
        return exact_trace(exact.values)
    return _trace_of_products(operator, tol, max_products, seed).of(operator).because(exact.reason)


def exact_trace(numbers: Tensor, method: str = BACKWARD) -> TraceEstimate:
    """The sum of a diagonal, or of all eigenvalues, that took no product of its own."""
    return _exact(float(numbers.sum()), 0, method)


def _trace_of_products(operator: Operator, tol: float, max_products: int, seed: int) -> TraceEstimate:
    if operator.n <= SMALL:
        return _exact(float(_columns(operator).sum()), operator.n, COLUMNS)
    generator = torch.Generator().manual_seed(seed)
    short = _space(operator, min(SHORT, operator.n - 2), generator)
    probes = Probes(operator, Known.of(short), seed, short.products)
    probes.draw(ROUND)
    if probes.needed(tol) > 3 * LONG:
        spent = probes.products
        space = _space(operator, min(LONG, operator.n - 2), generator)
        probes = Probes(operator, Known.of(space), seed, spent + space.products)
    return probes.trace(tol, max_products)


class Probes:
    """Random vectors z orthogonal to what is known of A, |z|^2 = n - m, that tell tr A and |A|^2 of the rest.

    E z' A z and E |A z|^2 are the traces of A and of A A beyond the known space. ``products`` counts those spent, with
    ``spent`` before.
    """

    def __init__(self, operator: Operator, known: Known, seed: int, spent: int = 0) -> None:
        self._operator, self._known = operator, known
        self._generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        self._forms, self._squares = np.zeros(0), np.zeros(0)
        self.products = spent

    def __len__(self) -> int:
        return len(self._forms)

    def draw(self, count: int) -> None:
        """So many probes more, a product each."""
        if self._operator.workspace is not None and count > 1:
            for _ in range(count):
                self.draw(1)
            return
        basis, n = self._known.basis, self._operator.n
        z = basis.new_empty(count, n)
        for row in z:  # one at a time in float64, so that the type does not decide on them
            row.copy_(torch.randn(n, generator=self._generator, dtype=torch.float64))
        for _ in range(2):
            z = z - (z @ basis.T) @ basis
        z = unit(z)
        products = _finite(self._operator.rows(z))
        rest = n - len(basis)
        forms = (z * products).sum(1, dtype=torch.float64).cpu().numpy()
        self._forms = np.concatenate([self._forms, rest * forms])
        self._squares = np.concatenate([self._squares, rest * (norms(products) ** 2).cpu().numpy()])
        self.products += count

    def needed(self, tol: float) -> float:
        """How many probes reach a standard error of ``tol`` |tr A|, by the spread of these."""
        value = self._known.trace + float(self._forms.mean())
        return float(self._forms.var(ddof=1)) / max(tol * abs(value), 1e-150) ** 2

    def trace(self, tol: float, max_products: int, budget: Budget | None = None) -> TraceEstimate:
        """tr A, from as many probes as ``tol`` takes, or from all columns where that would be as many.

        ``budget``, where there is one, may end it sooner; it must allow 2 probes.
        """
        self.draw(min(ROUND - len(self), self._left(budget)))
        first = self._forms
        while (missing := math.ceil(self.needed(tol)) - len(self)) > 0:
            left = max_products - self.products
            if self._operator.n <= min(missing, left, self._left(budget)):
                columns = float(_columns(self._operator).sum())
                return _exact(columns, self.products + self._operator.n, COLUMNS)
            if not (more := min(ROUND, left // ROUND * ROUND, self._left(budget))):
                break
            if budget is not None:
                budget.expect(min(missing, left))
            self.draw(more)
        value = self._known.trace + float(self._forms.mean())
        stderr = float(self._forms.std(ddof=1)) / math.sqrt(len(self))
        half = max(_half_width(first, len(self)), _half_width(self._forms, len(self)))
        if stderr > tol * abs(value):
            _warn(f"The trace is {value:.4g} with a standard error of {stderr:.2g}", tol, self.products, stacklevel=4)
        method = f"estimate: {len(self)} probes orthogonal to {len(self._known.basis)} vectors"
        return TraceEstimate(value, stderr, value - half, value + half, self.products, method, probes=len(self))

    def norm(self, budget: Budget | None = None) -> NormEstimate:
        """|A|, from the probes that there are, and 10 of them if ``budget``, which must allow 2, has so many; the
        interval of |A|^2 is Student's.
        """
        self.draw(max(min(ROUND - len(self), self._left(budget)), 0))
        square, half = self._known.square + float(self._squares.mean()), _half_width(self._squares, len(self))
        stderr = float(self._squares.std(ddof=1)) / math.sqrt(len(self))
        value = math.sqrt(square)
        low, high = math.sqrt(max(square - half, self._known.square)), math.sqrt(square + half)
        return NormEstimate(value, stderr / (2 * value) if value else 0.0, low, high)

    @staticmethod
    def _left(budget: Budget | None) -> int:
        left = math.inf if budget is None else budget.left()
        return max(int(left), 0) if math.isfinite(left) else 2**60


def _half_width(known: Floats, count: int) -> float:
    """Of the 95 % interval of a mean of ``count``, by the spread of those that decided on their number."""
    return float(t.ppf(0.975, len(known) - 1) * known.std(ddof=1)) / math.sqrt(count)


def diagonal(operator: Operator, *, tol: float = 0.1, max_products: int = 300, seed: int = 0) -> DiagonalEstimate:
    """diag A, exactly where that is cheap (as for ``trace``), else the mean of z * A z over random signs z.

    The estimate is unbiased; the standard error of an entry is that over the probes. It stops when
    |stderr| <= ``tol`` |diag A| as vectors.

    Parameters
    ----------
    operator : the symmetric matrix A, ``(n, n)``.
    tol : the norm of the standard errors to reach, as a share of the diagonal's norm.
    max_products : products A v at most. A diagonal that misses ``tol`` by then comes with a ``ConvergenceWarning``.
    seed : of the random signs.

    Returns
    -------
    ``DiagonalEstimate``, in the units of A's entries; its ``reason`` is a sentence that tells why it is not exact.

    Raises
    ------
    InputError : ``tol`` is not positive, or ``max_products`` is below 100.
    NumericalError : products, or the loss's derivatives, hold NaN or infinite numbers.

    Source: Bekas, Kokiopoulou & Saad 2007, "An estimator for the diagonal of a matrix"; Dangel et al. 2020, "BackPACK"
    (exact).

    Examples
    --------
    >>> import lossatlas as la
    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 1))
    >>> diagonal(la.hessian(la.Objective(model, torch.nn.functional.mse_loss, data))).values
    tensor([4.0000, 1.0000], dtype=torch.float64)
    """
    require_operator(operator)
    _check(tol, max_products)
    exact = operator.exact_diagonal()
    if exact.values is not None:
        return DiagonalEstimate(exact.values, torch.zeros_like(exact.values), 0, BACKWARD)
    if operator.n <= SMALL:
        columns = _columns(operator)
        off = operator.errors.form
        return DiagonalEstimate(
            columns,
            torch.full_like(columns, off),
            operator.n,
            BY_DIFFERENCES if off else COLUMNS,
            exact.reason * (off > 0),
        )
    return _estimated_diagonal(operator, tol, max_products, seed, exact.reason)


def _estimated_diagonal(operator: Operator, tol: float, max_products: int, seed: int, reason: str) -> DiagonalEstimate:
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(operator.n, dtype=torch.float64, device=operator.device)
    squares = torch.zeros_like(total)
    spent = 0
    while True:
        signs = (
            torch.randint(0, 2, (ROUND, operator.n), generator=generator).to(operator.device, operator.dtype) * 2 - 1
        )
        each = _finite((signs * operator.rows(signs)).double())
        total, squares, spent = total + each.sum(0), squares + (each**2).sum(0), spent + ROUND
        mean = total / spent
        stderr = ((squares / spent - mean**2).clamp(min=0) / (spent - 1)).sqrt()
        share = float(torch.linalg.vector_norm(stderr) / torch.linalg.vector_norm(mean).clamp(min=1e-300))
        if share <= tol or spent + ROUND > max_products:
            break
    if share > tol:
        _warn(f"The diagonal's error is {share:.1%} of it", tol, spent, stacklevel=3)
    return DiagonalEstimate(mean, stderr.clamp(min=operator.errors.form), spent, f"estimate: {spent} probes", reason)


def _columns(operator: Operator) -> Tensor:
    """``(n,)``: the diagonal from products with all unit vectors, some at a time."""
    at_once = ROUND if operator.workspace is None else 1
    entries = []
    for first in range(0, operator.n, at_once):
        part = torch.zeros(min(at_once, operator.n - first), operator.n, dtype=operator.dtype, device=operator.device)
        part.diagonal(first).fill_(1)
        entries.append(operator.rows(part).diagonal(first))
    return _finite(torch.cat(entries).double())


def _finite(numbers: Tensor) -> Tensor:
    if not bool(torch.isfinite(numbers).all()):
        raise NumericalError("The product with the operator holds NaN or infinite numbers: check the matrix.")
    return numbers


def _exact(value: float, products: int, method: str) -> TraceEstimate:
    return TraceEstimate(value, 0.0, value, value, products, method)


def _space(operator: Operator, size: int, generator: torch.Generator) -> KrylovSpace:
    space = KrylovSpace(operator, size, generator)
    space.start()
    while space.free and not space.exhausted:
        space.extend()
    return space


def _check(tol: float, max_products: int) -> None:
    if not tol > 0:
        raise InputError(f"tol={tol}: give a positive relative error, such as 0.01.")
    if max_products < 2 * ROUND + LONG + SHORT:
        raise InputError(f"max_products={max_products}: allow at least {2 * ROUND + LONG + SHORT}.")


def _warn(found: str, tol: float, products: int, stacklevel: int) -> None:
    warnings.warn(
        f"{found} after {products} products, not the {tol:.1%} asked for: allow more with max_products.",
        ConvergenceWarning,
        stacklevel=stacklevel + 1,
    )
