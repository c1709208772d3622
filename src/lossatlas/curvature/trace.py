"""The trace and the diagonal of a symmetric operator: exact where that is cheap, else with a standard error."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from lossatlas.curvature.krylov import Floats, KrylovSpace, unit
from lossatlas.curvature.operators import Operator
from lossatlas.errors import ConvergenceWarning, InputError, NumericalError

SMALL = 64  # up to this size all columns are multiplied
ROUND = 10  # probes at a time, and at least in the first stage
SHORT, LONG = 20, 60  # vectors of the Krylov space; the long one where many probes would be needed with the short
EXACT = "exact: "
BACKWARD, COLUMNS = f"{EXACT}a backward pass for each output", f"{EXACT}all columns"


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
    _check(tol, max_products)
    exact = operator.exact_diagonal()
    if exact.values is not None:
        return exact_trace(exact.values)
    return _trace_of_products(operator, tol, max_products, seed).because(exact.reason)


def exact_trace(diagonal: Tensor) -> TraceEstimate:
    """The sum of the diagonal that backward passes gave."""
    return _exact(float(diagonal.sum()), 0, BACKWARD)


def _trace_of_products(operator: Operator, tol: float, max_products: int, seed: int) -> TraceEstimate:
    if operator.n <= SMALL:
        return _exact(float(_columns(operator).sum()), operator.n, COLUMNS)
    generator = torch.Generator().manual_seed(seed)
    short = _space(operator, min(SHORT, operator.n - 2), generator)
    samples = rest_samples(operator, short.basis, ROUND, generator)
    if _needed(short.trace, samples, tol) <= 3 * LONG:
        return estimated(operator, short.basis, short.trace, samples, short.products + ROUND, tol, max_products, seed)
    space = _space(operator, min(LONG, operator.n - 2), generator)
    samples = rest_samples(operator, space.basis, ROUND, generator)
    spent = short.products + space.products + 2 * ROUND
    return estimated(operator, space.basis, space.trace, samples, spent, tol, max_products, seed)


def estimated(
    operator: Operator,
    basis: Tensor,
    base: float,
    samples: Floats,
    spent: int,
    tol: float,
    max_products: int,
    seed: int,
) -> TraceEstimate:
    """tr A = ``base`` on the span of ``basis`` + the mean of samples for the rest, with as many more as ``tol`` takes.

    Where that would be as many as there are columns, from all of them.
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
    if (missing := ROUND - len(samples)) > 0:  # a few that agree by chance would end it
        samples = np.concatenate([samples, rest_samples(operator, basis, missing, generator)])
        spent += missing
    first = samples
    while (needed := math.ceil(_needed(base, samples, tol)) - len(samples)) > 0:
        if operator.n <= min(needed, max_products - spent):
            return _exact(float(_columns(operator).sum()), spent + operator.n, COLUMNS)
        rounds = min(-(-needed // ROUND), (max_products - spent) // ROUND)
        if not rounds:
            break
        more = [rest_samples(operator, basis, ROUND, generator) for _ in range(rounds)]
        samples, spent = np.concatenate([samples, *more]), spent + rounds * ROUND
    value, stderr = base + float(samples.mean()), float(samples.std(ddof=1)) / math.sqrt(len(samples))
    half = max(_half_width(first, len(samples)), _half_width(samples, len(samples)))
    if stderr > tol * abs(value):
        _warn(f"The trace is {value:.4g} with a standard error of {stderr:.2g}", tol, spent, stacklevel=4)
    method = f"estimate: {len(samples)} probes orthogonal to {len(basis)} vectors"
    return TraceEstimate(value, stderr, value - half, value + half, spent, method, probes=len(samples))


def _half_width(known: Floats, count: int) -> float:
    """Of the 95 % interval of a mean of ``count``, by the spread of those that decided on their number."""
    return float(t.ppf(0.975, len(known) - 1) * known.std(ddof=1)) / math.sqrt(count)


def _needed(base: float, samples: Floats, tol: float) -> float:
    """How many samples reach a standard error of ``tol`` |trace|, by the spread of these."""
    value = base + float(samples.mean())
    return float(samples.var(ddof=1)) / max(tol * abs(value), 1e-150) ** 2


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
    _check(tol, max_products)
    exact = operator.exact_diagonal()
    if exact.values is not None:
        return DiagonalEstimate(exact.values, torch.zeros_like(exact.values), 0, BACKWARD)
    if operator.n <= SMALL:
        columns = _columns(operator)
        return DiagonalEstimate(columns, torch.zeros_like(columns), operator.n, COLUMNS)
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
    return DiagonalEstimate(mean, stderr, spent, f"estimate: {spent} probes", reason)


def rest_samples(operator: Operator, basis: Tensor, count: int, generator: torch.Generator) -> Floats:
    """z' A z for ``count`` random z orthogonal to the rows of ``basis``, |z|^2 = n - m: unbiased for that trace."""
    probes = torch.randn(count, operator.n, generator=generator, dtype=torch.float64).to(
        operator.device, operator.dtype
    )
    for _ in range(2):
        probes = probes - (probes @ basis.T) @ basis
    probes = unit(probes)
    forms = _finite((probes.double() * operator.rows(probes).double()).sum(1))
    samples: Floats = (operator.n - len(basis)) * forms.cpu().numpy()
    return samples


def _columns(operator: Operator) -> Tensor:
    """``(n,)``: the diagonal from products with all unit vectors, some at a time."""
    columns = torch.eye(operator.n, dtype=operator.dtype, device=operator.device)
    return _finite(torch.cat([(operator.rows(part).double() * part).sum(1) for part in columns.split(ROUND)]))


def _finite(numbers: Tensor) -> Tensor:
    if not bool(torch.isfinite(numbers).all()):
        raise NumericalError("The product with the operator holds NaN or infinite numbers: check the matrix.")
    return numbers


def _exact(value: float, products: int, method: str) -> TraceEstimate:
    return TraceEstimate(value, 0.0, value, value, products, method)


def _space(operator: Operator, size: int, generator: torch.Generator) -> KrylovSpace:
    space = KrylovSpace(operator, size, generator)
    space.start()
    while space.size < size and not space.exhausted:
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
