"""The spectrum of the Hessian from one set of Krylov runs, each number with its error."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from lossatlas.curvature.density import check_probes, density_dataset, probe_rules, search_rule
from lossatlas.curvature.lanczos import Eigenpairs, Found, search
from lossatlas.curvature.layers import layer_variables
from lossatlas.curvature.operators import Operator, hessian
from lossatlas.curvature.progress import counted, product_bar
from lossatlas.curvature.trace import COLUMNS, TraceEstimate, estimated, exact_trace
from lossatlas.curvature.trend import trend_variables
from lossatlas.errors import InputError
from lossatlas.objective import Objective
from lossatlas.results.making import result

TRACE_PRODUCTS = 1000  # at most, without those of the density


def spectrum(
    objective: Objective,
    k: int = 10,
    *,
    tol: float = 1e-3,
    trace_tol: float = 0.01,
    steps: int = 80,
    probes: int = 4,
    trend: bool = True,
    layers: bool = False,
    vectors: bool = False,
    parameters: str | None = None,
    max_products: int | None = None,
    max_memory: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """H v_i = lambda_i v_i for the k largest and k smallest lambda_i; H's trace, norm and density, each with its error.

    Returns
    -------
    Dataset. Over ``("end", "rank")``, ``end`` in ``"top"`` (descending) and ``"bottom"`` (ascending): ``eigenvalue``;
    ``residual`` = |H v - lambda v|, measured, within which a true eigenvalue of *this data's* H lies; the solver stops
    at ``tol`` |lambda|, or at ``tol`` max |lambda| / 100 where lambda may be 0;
    ``eigenvalue_stderr``, the data-sampling error of v' H v at the converged v, from its values on the batches (NaN
    with a single batch). ``largest_gap``, the largest lambda_i - lambda_(i+1) at the top, and ``largest_gap_rank``, i.

    ``trace`` with ``trace_stderr`` and its 95 % interval, ``trace_low`` to ``trace_high``: exact (0) where that is
    cheap (see ``trace``), else to ``trace_tol``; ``attrs["trace_method"]`` says which, ``attrs["trace_reason"]`` why it
    is not exact, ``attrs["trace_probes"]`` how many probes it took. All that
    ``spectral_density`` gives, from ``probes`` directions orthogonal to the pairs, ``steps`` each; the pairs are atoms.

    ``trend=True``: over ``("n_examples", "replicate")``, ``trend_eigenvalue``, the largest eigenvalue on random
    subsets of n/2, n/4, n/8 and n/16 examples, with ``trend_eigenvalue_stderr``: E lambda_max of a subset is larger
    than lambda_max, so compare at equal numbers of examples. Needs data that can be cut anew; a note tells otherwise.

    ``layers=True``: ``layer_eigenvalue`` and ``layer_residual`` over ``("layer", "end", "rank")``, of the block of H
    that belongs to the parameters of one module, the others fixed; ``layer_trace``,
    ``layer_trace_reason`` (why it is not exact), ``layer_size``.

    ``vectors=True`` keeps, for ``eigen_plane``, the unit ``eigenvector`` of each, in float32 over
    ``("end", "rank", "parameter")``, ``slope`` = v' grad L, the ``point`` ``("parameter",)`` that all are taken at, and
    ``attrs["loss"]``, the loss there.

    ``parameters``, a glob such as ``"layer4.*"``: of the Hessian of ``objective.restricted(parameters)``.

    ``max_memory`` in bytes is what ``hessian`` may keep between products; ``max_products`` limits the search for pairs.
    ``attrs`` count the products by what they served. What misses its tolerance is returned with a
    ``ConvergenceWarning``.

    Raises
    ------
    InputError : as ``hessian``, ``top_eigenpairs`` and ``spectral_density``, or a ``trace_tol`` that is not positive.
    NonFiniteLoss : the loss at the objective's point is NaN or infinite.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Ghorbani, Krishnan & Xiao 2019, "An Investigation into Neural Net Optimization via Hessian Eigenvalue
    Density"; Papyan 2020, "Traces of Class/Cross-Class Structure Pervade Deep Learning Spectra".

    Examples
    --------
    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.diag(torch.tensor([1.0, 2.0])), torch.zeros(2, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
    >>> found = spectrum(objective, k=1, trend=False, progress=False)
    >>> found["eigenvalue"].values.round(4).tolist(), round(float(found["trace"]), 4)
    ([[4.0], [1.0]], 5.0)
    """
    check_probes(steps, probes)
    if not trace_tol > 0:
        raise InputError(f"trace_tol={trace_tol}: give a positive relative error, such as 0.01.")
    objective = objective if parameters is None else objective.restricted(parameters)
    objective.require_finite()
    started = time.perf_counter()
    with product_bar("spectrum", progress) as bar:
        operator = counted(hessian(objective, max_memory=max_memory), bar)
        run = search(operator, k, which="both", tol=tol, floor=tol / 100, max_products=max_products, seed=seed)
        pairs = run.pairs
        dataset = _eigenvalues(operator, pairs, k)
        dataset, found, added = _with_density(dataset, operator, run, trace_tol, steps, probes, seed)
        spent = {
            "products_eigenpairs": pairs.products,
            "products_errors": len(pairs.values),
            "products_density": added,
            "products_trace": found.products,
        }
        note = ""
        if trend:
            bar.set_postfix_str("subsets of the data")
            trends, spent["products_trend"], note = trend_variables(objective, pairs, seed, bar)
            dataset = dataset.assign(trends)
        if layers:
            bar.set_postfix_str("layers")
            blocks, spent["products_layers"] = layer_variables(objective, k, tol, seed, bar)
            dataset = dataset.assign(blocks)
        if vectors:
            dataset = dataset.assign(_vectors(objective, pairs, k))
    return result(
        "spectrum",
        dataset,
        objective.provenance(),
        spent,
        parameters=parameters,
        tol=tol,
        products=sum(spent.values()),
        converged=int(pairs.converged.all()),
        trace_method=found.method,
        trace_reason=found.reason or None,
        trace_probes=found.probes,
        route=operator.explain(),
        loss=objective.value() if vectors else None,
        seed=seed,
        stderr_over="batches",
        note=note or None,
        seconds=time.perf_counter() - started,
    )


def _eigenvalues(operator: Operator, pairs: Eigenpairs, k: int) -> xr.Dataset:
    """The pairs, with the residual that is measured: the products tell the data's error too."""
    assert operator.products is not None
    weights = operator.products.weights
    total, forms = torch.zeros_like(pairs.vectors, dtype=torch.float64), []
    for weight, products in operator.products.by_batch(pairs.vectors):
        total += weight * products.double()
        forms.append((products * pairs.vectors).double().sum(1).cpu())
    total /= sum(weights)
    samples = operator.products.samples(forms)
    unit = pairs.vectors.double()
    residuals = torch.linalg.vector_norm(total - pairs.values.to(unit)[:, None] * unit, dim=1).cpu()
    columns = {
        "eigenvalue": pairs.values,
        "residual": residuals,
        "eigenvalue_stderr": torch.tensor([sample.stderr for sample in samples]),
    }
    dataset = xr.Dataset(
        {name: (("end", "rank"), column.reshape(2, k).numpy()) for name, column in columns.items()},
        coords={"end": ["top", "bottom"], "rank": np.arange(1, k + 1)},
    )
    top = pairs.values[:k].numpy()
    if k > 1:
        gaps = top[:-1] - top[1:]
        dataset = dataset.assign(largest_gap=float(gaps.max()), largest_gap_rank=int(gaps.argmax()) + 1)
    return dataset


def _distinct(pairs: Eigenpairs) -> Eigenpairs:
    """Each pair once: where the ends meet, those in the middle are in both."""
    overlaps = (pairs.vectors @ pairs.vectors.T).abs().cpu() > 0.5
    first = torch.tensor([not bool(row[:i].any()) for i, row in enumerate(overlaps)])
    return replace(pairs, values=pairs.values[first], vectors=pairs.vectors[first.to(pairs.vectors.device)])


def _with_density(
    dataset: xr.Dataset, operator: Operator, run: Found, tol: float, steps: int, probes: int, seed: int
) -> tuple[xr.Dataset, TraceEstimate, int]:
    """All of ``spectral_density``, the trace, and the products that the probes took.

    The search for the pairs is one of the probes; the trace is exact, or from the probes and as many more as it takes.
    """
    known = _distinct(run.pairs)
    rest = operator.n - len(known.values)
    if rest < 2:
        return _all_known(dataset, known, operator)
    first = search_rule(run, steps)
    fresh = probe_rules(
        operator, steps, probes - (first is not None), known.vectors, seed + 1, float(known.values.abs().max())
    )
    density = density_dataset([first, *fresh] if first else fresh, known.values.numpy(), operator.n)
    exact = operator.exact_diagonal()
    if exact.values is not None:
        found = exact_trace(exact.values)
    else:
        # The probes' own first moments, and further probes until the standard error is met.
        moments = rest * (density["node"] * density["weight"]).sum("step").to_numpy()
        base = float(known.values.sum())
        found = estimated(operator, known.vectors, base, moments, 0, tol, TRACE_PRODUCTS, seed + 2)
        found = found.because(exact.reason)
    density = density.assign(_trace_variables(found))
    return dataset.merge(density).assign_attrs(density.attrs), found, sum(len(rule.nodes) for rule in fresh)


def _all_known(dataset: xr.Dataset, known: Eigenpairs, operator: Operator) -> tuple[xr.Dataset, TraceEstimate, int]:
    """Where at most one eigenvalue is left: what the pairs themselves tell."""
    trace = float(operator.rows(torch.eye(operator.n).to(operator.device, operator.dtype)).double().diagonal().sum())
    every = known.values.numpy()
    if len(every) < operator.n:
        every = np.append(every, trace - every.sum())
    rounding = 16 * torch.finfo(operator.dtype).eps * float(np.abs(every).max())
    below = float((every < -rounding).mean())
    found = TraceEstimate(trace, 0.0, trace, trace, operator.n, COLUMNS)
    added = _trace_variables(found) | {
        "frobenius_norm": float(np.linalg.norm(every)),
        "frobenius_norm_stderr": 0.0,
        "negative_mass": below,
        "negative_mass_low": below,
        "negative_mass_high": below,
    }
    return dataset.assign(added), found, 0


def _trace_variables(found: TraceEstimate) -> dict[str, float]:
    return {"trace": found.value, "trace_stderr": found.stderr, "trace_low": found.low, "trace_high": found.high}


def _vectors(objective: Objective, pairs: Eigenpairs, k: int) -> dict[str, xr.Variable]:
    theta = objective.point.cpu()
    slopes = pairs.vectors.double() @ objective.gradient().double()
    rows = pairs.vectors.float().cpu().reshape(2, k, -1)
    return {
        "eigenvector": xr.Variable(("end", "rank", "parameter"), rows.numpy()),
        "slope": xr.Variable(("end", "rank"), slopes.cpu().reshape(2, k).numpy()),
        "point": xr.Variable("parameter", (theta if theta.dtype == torch.float64 else theta.float()).numpy().copy()),
    }
