"""The spectrum of the Hessian from one set of Krylov runs, each number with its error."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lossatlas.curvature.density import LONGEST, Beyond, density_dataset, density_to_tolerance, moments, numbers
from lossatlas.curvature.lanczos import Eigenpairs, Found, search
from lossatlas.curvature.layers import layer_variables
from lossatlas.curvature.memory import Memory
from lossatlas.curvature.operators import Operator
from lossatlas.curvature.progress import Budget, product_bar
from lossatlas.curvature.trace import COLUMNS, Known, NormEstimate, Probes, TraceEstimate, exact_trace
from lossatlas.curvature.trend import trend_variables
from lossatlas.errors import ConvergenceWarning, InputError
from lossatlas.model.functional import Route
from lossatlas.objective import Objective
from lossatlas.results.making import result

TRACE_PRODUCTS = 1000  # at most
PAIRS = 0.5  # of a budget, at most, for the pairs where trace or density are to follow


def spectrum(
    objective: Objective,
    k: int = 10,
    *,
    tol: float = 1e-3,
    trace: bool = True,
    trace_tol: float = 0.01,
    density: bool = True,
    density_tol: float = 0.01,
    steps: int = 10,
    probes: int = 1,
    trend: bool = True,
    layers: bool = False,
    vectors: bool = False,
    parameters: str | None = None,
    max_products: int | None = None,
    max_seconds: float | None = None,
    max_memory: int | None = None,
    route: Route | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """H v_i = lambda_i v_i for the k largest and k smallest lambda_i; H's trace, norm and density, each with its error.

    Returns
    -------
    Dataset. Over ``("end", "rank")``, ``end`` in ``"top"`` (descending) and ``"bottom"`` (ascending): ``eigenvalue`` =
    v' H v; ``residual`` = |H v - lambda v|, measured, within which a true eigenvalue of *this data's* H lies, and not
    below ``attrs["asymmetry"]``, that of the products; the solver stops at ``tol`` |lambda|, or at ``tol`` max
    |lambda| / 100 where lambda may be 0;
    ``eigenvalue_stderr``, the data-sampling error of v' H v at the converged v, from its values on the batches (NaN
    with a single batch). ``largest_gap``, the largest lambda_i - lambda_(i+1) at the top, and ``largest_gap_rank``, i.

    ``trace=True``: ``trace`` with ``trace_stderr`` and its 95 % interval, ``trace_low`` to ``trace_high``: exact (0)
    where that is cheap (see ``la.trace``), else to ``trace_tol``, from random directions orthogonal to the space that
    the pairs were found in; ``attrs["trace_method"]`` says which, ``attrs["trace_reason"]`` why it is not exact,
    ``attrs["trace_probes"]`` how many directions it took. ``frobenius_norm`` with ``_stderr``, ``_low`` and ``_high``,
    from the same.

    ``density=True``: all else that ``spectral_density`` gives, with the pairs as atoms, to a ``density_error``
    of ``density_tol``: the Wasserstein-1 distance of the cumulative spectrum as a share of the spectrum's width. The
    space of the pairs is its first probe; ``steps`` and ``probes`` are how many there are at least.

    ``trend=True``: over ``("n_examples", "replicate")``, ``trend_eigenvalue``, the largest eigenvalue on random
    subsets of n/2, n/4, n/8 and n/16 examples, with ``trend_eigenvalue_stderr``: E lambda_max of a subset is larger
    than lambda_max, so compare at equal numbers of examples. Needs data that can be cut anew; a note tells otherwise.

    ``layers=True``: ``layer_eigenvalue`` and ``layer_residual`` over ``("layer", "end", "rank")``, of the block of H
    that belongs to the parameters of one module, the others fixed; ``layer_trace``,
    ``layer_trace_reason`` (why it is not exact), ``layer_size``.

    ``vectors=True`` keeps, for ``eigen_plane``, the unit ``eigenvector`` of each, in float32 over
    ``("end", "rank", "parameter")``, ``slope`` = v' grad L, the ``point`` ``("parameter",)`` that all are taken at, and
    ``attrs["loss"]``, the loss there.

    ``route="differences"`` takes products by differences of the gradient, as None does where the loss has no second
    derivative (``Objective.with_route``): ``attrs["route"]`` tells which were taken and why, ``attrs["product_error"]``
    how far one with a unit vector is off at most, by estimate. It is part of every residual and of the intervals.

    ``parameters``, a glob such as ``"layer4.*"``: of the Hessian of ``objective.restricted(parameters)``.

    ``max_products``, with all of the data, and ``max_seconds`` limit the whole; half is kept for trace and density.
    What misses its tolerance is there with its wider error and a ``ConvergenceWarning``, and ``attrs["note"]`` tells
    about how many products more it would take. ``attrs`` count the products by what they served.

    ``max_memory`` bounds the bytes that all of it takes at once, beside model, data and theta: vectors get about half
    of it, products the rest. Searches restart where it is full, a probe of the density is as short as it must be,
    products are not traced, and batches are cut into pieces of examples that fit. ``attrs["memory"]`` is what was used,
    as CUDA's allocator counts it, and on a CPU the tensors, counted. The self-check of the derivatives, which comes
    before, is in float64 where the limit is enough for that, else as the model is, or left out, which
    ``objective.explain()`` tells. Forward passes and first derivatives of a whole batch are not counted, nor is the
    copy in float64 that differences of the gradient are computed with.

    Raises
    ------
    InputError : as ``hessian`` and ``top_eigenpairs``, a tolerance or a limit that is not positive, fewer than 2
        ``steps`` or 1 of ``probes``; ``max_memory`` below what the fewest vectors and a product take, with that number.
    NonFiniteLoss : the loss at the objective's point is NaN or infinite.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Ghorbani, Krishnan & Xiao 2019, "An Investigation into Neural Net Optimization via Hessian Eigenvalue
    Density"; Papyan 2020, "Traces of Class/Cross-Class Structure Pervade Deep Learning Spectra"; Chen, Trogdon & Ubaru
    2021, "Analysis of Stochastic Lanczos Quadrature for Spectrum Approximation".

    Examples
    --------
    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.diag(torch.tensor([1.0, 2.0])), torch.zeros(2, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
    >>> found = spectrum(objective, k=1, trend=False, progress=False)
    >>> found["eigenvalue"].values.round(4).tolist(), round(float(found["trace"]), 4)
    ([[4.0], [1.0]], 5.0)
    """
    _check({"trace_tol": trace_tol, "density_tol": density_tol}, steps, probes)
    objective = objective if route is None else objective.with_route(route)
    objective = objective if parameters is None else objective.restricted(parameters)
    objective.require_finite()
    started = time.perf_counter()
    memory = None if max_memory is None else _memory(objective, k, max_memory, vectors)
    with Budget(product_bar("spectrum", progress), max_products, max_seconds, memory) as budget:
        _check_limit(k, objective.n_parameters, budget)
        gradient = objective.gradient() if vectors else None  # while memory holds nothing else
        operator = budget.hessian(objective)
        share = PAIRS if trace or density else 1.0
        run = search(operator, k, which="both", tol=tol, floor=tol / 100, budget=budget, share=share, seed=seed)
        gathered = _Gathered(budget, [_unfinished(run, budget)])
        gathered.add("eigenpairs", _eigenvalues(run.pairs, k))
        if gradient is not None:
            gathered.dataset = gathered.dataset.assign(_vectors(objective, run.pairs, k, gradient))
        if memory:
            gathered.notes.append(memory.note)
            memory.hold(run.space, min(2 * k, operator.n), probes=density)
        if density:
            budget.about("density")
            beyond = density_to_tolerance(operator, run, density_tol, (steps, probes), budget, seed)
            beyond = replace(beyond, off=operator.errors)
            gathered.add("density", *_density(beyond, density_tol, budget))
        if trace:
            budget.about("trace")
            gathered.add("trace", *_trace_and_norm(operator, run, trace_tol, budget, seed))
        explained, off = operator.explain(), operator.errors
        if memory:
            memory.let_go(1)
        if trend:
            budget.about("subsets of the data")
            gathered.add("trend", *trend_variables(objective, run.pairs, seed, budget))
        if layers:
            if memory:
                memory.let_go(0)
            budget.about("layers")
            gathered.add("layers", *layer_variables(objective, k, tol, seed, budget))
    return result(
        "spectrum",
        gathered.dataset,
        objective.provenance(),
        gathered.products,
        parameters=parameters,
        tol=tol,
        density_tol=density_tol if density else None,
        products=sum(gathered.products.values()),
        converged=int(run.pairs.converged.all()),
        asymmetry=run.pairs.asymmetry,
        product_error=off.norm or None,
        route=explained,
        max_memory=max_memory,
        memory=memory.peak if memory else None,
        loss=objective.value() if vectors else None,
        seed=seed,
        stderr_over="batches",
        note=" ".join(filter(None, gathered.notes)) or None,
        seconds=time.perf_counter() - started,
    )


@dataclass
class _Gathered:
    """The parts of a spectrum as they are measured: variables and attributes, notes, and the products of each."""

    budget: Budget
    notes: list[str]
    dataset: xr.Dataset = field(default_factory=xr.Dataset)
    products: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, part: xr.Dataset, note: str = "") -> None:
        attrs = self.dataset.attrs | part.attrs
        self.dataset = self.dataset.merge(part, overwrite_vars=list(part.variables)).assign_attrs(attrs)
        self.notes.append(note)
        self.products[f"products_{name}"] = self.budget.whole - sum(self.products.values())


def _check(tolerances: dict[str, float], steps: int, probes: int) -> None:
    for name, tol in tolerances.items():
        if not tol > 0:
            raise InputError(f"{name}={tol}: give a positive relative error, such as 0.01.")
    if steps < 2 or probes < 1:
        raise InputError(f"steps={steps}, probes={probes}: give at least 2 steps and 1 probe.")


def _memory(objective: Objective, k: int, limit: int, vectors: bool) -> Memory:
    """For the search that restarts and for the density's longest probe; ``vectors`` are kept in float32 beside."""
    n, count = objective.n_parameters, 2 * k
    least = max(min(count, n) + 3, 5) + count * (count > n)
    gradient = n * objective.dtype.itemsize
    other = (count + 1) * n * 4 + gradient if vectors else 0
    return Memory(limit, least, min(n, max(300, 4 * count)) + min(n, LONGEST), other)


def _check_limit(k: int, n: int, budget: Budget) -> None:
    least = min(2 * k, n) + 2 * k
    if budget.max_products is not None and budget.max_products < least:
        raise InputError(
            f"max_products={budget.max_products} cannot give {2 * k} eigenpairs and measure them: "
            f"allow at least {least}."
        )


def _eigenvalues(pairs: Eigenpairs, k: int) -> xr.Dataset:
    columns = {"eigenvalue": pairs.values, "residual": pairs.residuals, "eigenvalue_stderr": pairs.stderrs}
    dataset = xr.Dataset(
        {name: (("end", "rank"), column.reshape(2, k).numpy()) for name, column in columns.items()},
        coords={"end": ["top", "bottom"], "rank": np.arange(1, k + 1)},
    )
    top = pairs.values[:k].numpy()
    if k > 1:
        gaps = top[:-1] - top[1:]
        dataset = dataset.assign(largest_gap=float(gaps.max()), largest_gap_rank=int(gaps.argmax()) + 1)
    return dataset


def _unfinished(run: Found, budget: Budget) -> str:
    """What more the pairs would take, where a limit ended their search."""
    if not (budget.limited or budget.memory) or bool(run.pairs.converged.all()):
        return ""
    more = f"about {run.missing:,.0f} products more" if np.isfinite(run.missing) else "many products more"
    limits = " and ".join(filter(None, (budget.describe(), "max_memory" if budget.memory else "")))
    return f"The pairs did not reach tol within {limits}: that would take {more}."


def _density(found: Beyond, tol: float, budget: Budget) -> tuple[xr.Dataset, str]:
    if not found.rules and found.rest:
        return xr.Dataset(), f"No density: {budget.describe()} left no products for it."
    every = moments(found)
    dataset = density_dataset(found).assign({name: every[name] for name in every if not name.startswith("trace")})
    if found.error <= tol:
        return dataset, ""
    note = f"The density's error is {found.error:.2g} of the spectrum's width, not density_tol={tol:g}"
    if not budget.limited:
        longest = max(len(rule.diagonal) for rule in found.rules)
        remedy = "which is what max_memory holds" if budget.memory and longest < LONGEST else "so ask for less"
        note = f"{note}: a probe takes {min(longest, LONGEST)} steps at most, {remedy}."
        warnings.warn(note, ConvergenceWarning, stacklevel=3)
        return dataset, note
    warnings.warn(f"{note}: allow more products.", ConvergenceWarning, stacklevel=3)
    steps = max(len(rule.nodes) for rule in found.rules)
    more = max(found.probes_for(tol) - len(found.rules), 1) * steps
    return dataset, f"{note}: that would take about {more:,.0f} products more."


def _trace_and_norm(operator: Operator, run: Found, tol: float, budget: Budget, seed: int) -> tuple[xr.Dataset, str]:
    """Both from random directions beyond the whole space of the search, and a note where there is no product left for
    them; exact where all eigenvalues are known.
    """
    if run.space.size == operator.n:
        values = run.space.ritz()[0]
        norm = float(np.linalg.norm(values))
        found = exact_trace(torch.from_numpy(values), COLUMNS).of(operator)
        return _trace_dataset(found).assign(_norm_variables(NormEstimate(norm, 0.0, norm, norm).of(operator))), ""
    exact = operator.exact_diagonal()
    probes = Probes(operator, Known.of(run.space), seed + 2)
    if budget.left() < 2:
        known = None if exact.values is None else exact_trace(exact.values)
        note = f"No {'Frobenius norm' if known else 'trace'}: {budget.describe()} left no products for it."
        return _trace_dataset(known) if known else xr.Dataset(), note
    if exact.values is not None:
        found = exact_trace(exact.values)
    else:
        found = probes.trace(tol, TRACE_PRODUCTS, budget).of(operator).because(exact.reason)
    return _trace_dataset(found).assign(_norm_variables(probes.norm(budget).of(operator))), _missed(found, tol)


def _missed(found: TraceEstimate, tol: float) -> str:
    """What more an estimate of the trace would take, where it misses its tolerance."""
    share = found.stderr / max(abs(found.value), 1e-300)
    if share <= tol:
        return ""
    more = found.probes * ((share / tol) ** 2 - 1)
    return f"The trace's standard error is {share:.2g} of it, not trace_tol={tol:g}: about {more:,.0f} products more."


def _norm_variables(size: NormEstimate) -> dict[str, xr.Variable]:
    named = {"": size.value, "_stderr": size.stderr, "_low": size.low, "_high": size.high}
    return numbers(**{f"frobenius_norm{end}": value for end, value in named.items()})


def _trace_dataset(found: TraceEstimate) -> xr.Dataset:
    told = {"trace_method": found.method, "trace_probes": found.probes, "trace_reason": found.reason}
    values = numbers(trace=found.value, trace_stderr=found.stderr, trace_low=found.low, trace_high=found.high)
    return xr.Dataset(values, attrs={name: value for name, value in told.items() if value != ""})


def _vectors(objective: Objective, pairs: Eigenpairs, k: int, gradient: Tensor) -> dict[str, xr.Variable]:
    theta = objective.point.cpu()
    slopes = torch.stack([vector.double() @ gradient.double() for vector in pairs.vectors])
    rows = np.empty((2 * k, len(theta)), dtype=np.float32)
    for row, vector in zip(rows, pairs.vectors, strict=True):
        row[:] = vector.cpu().numpy()
    return {
        "eigenvector": xr.Variable(("end", "rank", "parameter"), rows.reshape(2, k, -1)),
        "slope": xr.Variable(("end", "rank"), slopes.cpu().reshape(2, k).numpy()),
        "point": xr.Variable("parameter", (theta if theta.dtype == torch.float64 else theta.float()).numpy().copy()),
    }
