"""How much of the Hessian is its Gauss-Newton part."""

from __future__ import annotations

import time

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lossatlas.curvature.krylov import Floats, unit
from lossatlas.curvature.lanczos import top_eigenpairs
from lossatlas.curvature.operators import Operator, gauss_newton, hessian
from lossatlas.curvature.progress import counted, product_bar
from lossatlas.curvature.trace import trace
from lossatlas.errors import InputError
from lossatlas.objective import Objective
from lossatlas.results.making import result


def gauss_newton_split(
    objective: Objective,
    k: int = 5,
    *,
    probes: int = 16,
    tol: float = 1e-2,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """H = G + R: the Gauss-Newton part J' H_f J and the rest, sum_i sum_c (dl_i / df_c) grad grad' f_c / N.

    Returns
    -------
    Dataset of numbers, each with ``_stderr``: ``frobenius_hessian``, ``_gauss_newton`` and ``_residual``, the norms of
    the three; ``cosine`` = <H, G> / (|H| |G|) in the Frobenius product; ``trace_hessian``, ``_gauss_newton``,
    ``_residual`` (see ``trace``). Over ``("rank",)``: ``curvature_hessian`` = v' H v and ``curvature_gauss_newton`` =
    v' G v along the k leading eigenvectors v of H.

    |A|^2 is exact on these eigenvectors, and n - k times the mean of |A z|^2 beyond them, over ``probes`` random unit
    vectors z that H and G share; the errors of norms and cosine are the jackknife's. ``tol`` is that of the eigenpairs
    and of the traces.

    Raises
    ------
    InputError : fewer than 2 probes, or an objective made of one step (``from_step``), as in ``gauss_newton``.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Schraudolph 2002, "Fast Curvature Matrix-Vector Products"; Sagun et al. 2017, "Empirical Analysis of the
    Hessian of Over-Parametrized Neural Networks", section 2 (H = G + R).

    Examples
    --------
    >>> model = torch.nn.Linear(3, 2, bias=False)  # linear in its parameters: the rest R is 0
    >>> objective = Objective(model, torch.nn.functional.mse_loss, (torch.eye(3), torch.zeros(3, 2)))
    >>> found = gauss_newton_split(objective, k=1, progress=False)
    >>> round(float(found["cosine"]), 4), round(abs(float(found["frobenius_residual"])), 4)
    (1.0, 0.0)
    """
    if probes < 2:
        raise InputError(f"probes={probes}: give at least 2, the error is taken over them.")
    started = time.perf_counter()
    bar = product_bar("Gauss-Newton split", progress)
    both = counted(hessian(objective), bar), counted(gauss_newton(objective), bar)
    pairs = top_eigenpairs(both[0], k, tol=tol, seed=seed)
    known = _products(both, pairs.vectors)
    beyond = _products(both, _unit_vectors(both[0], pairs.vectors, probes, seed))
    rest = both[0].n - k
    # <H, H>, <G, G>, <R, R>, <H, G>: on the eigenvectors, and for each probe beyond them.
    inner = _inner(*known).sum(0) + rest * _inner(*beyond)
    traces = [trace(operator, tol=tol, seed=seed) for operator in both]
    found: dict[str, tuple[float, float]] = _jackknifed(inner)
    found["trace_hessian"], found["trace_gauss_newton"] = ((t.value, t.stderr) for t in traces)
    bar.close()
    difference = traces[0].value - traces[1].value
    found["trace_residual"] = difference, float(np.hypot(traces[0].stderr, traces[1].stderr))
    forms = [(products * pairs.vectors).double().sum(1).cpu().numpy() for products in known]
    dataset = xr.Dataset(
        {"curvature_hessian": ("rank", forms[0]), "curvature_gauss_newton": ("rank", forms[1])},
        coords={"rank": np.arange(1, k + 1)},
    ).assign({name: value for name, (value, _) in found.items()} | {f"{n}_stderr": e for n, (_, e) in found.items()})
    return result(
        "gauss_newton_split",
        dataset,
        objective.provenance(),
        probes=probes,
        products=pairs.products + 2 * (k + probes) + sum(t.products for t in traces),
        trace_method=traces[0].method,
        trace_reason=traces[0].reason or None,
        trace_method_gauss_newton=traces[1].method,
        trace_reason_gauss_newton=traces[1].reason or None,
        seed=seed,
        seconds=time.perf_counter() - started,
    )


def _products(both: tuple[Operator, Operator], vectors: Tensor) -> tuple[Tensor, Tensor]:
    return both[0].rows(vectors), both[1].rows(vectors)


def _unit_vectors(operator: Operator, known: Tensor, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    draws = torch.randn(count, operator.n, generator=generator, dtype=torch.float64).to(known)
    draws = draws - (draws @ known.T) @ known
    return unit(draws)


def _inner(of_h: Tensor, of_g: Tensor) -> Floats:
    """``(m, 4)``: for each vector <Hz, Hz>, <Gz, Gz>, <Rz, Rz> and <Hz, Gz>."""
    h, g = of_h.double(), of_g.double()
    columns = [(h * h).sum(1), (g * g).sum(1), ((h - g) ** 2).sum(1), (h * g).sum(1)]
    return torch.stack(columns, dim=1).cpu().numpy()


def _jackknifed(inner: Floats) -> dict[str, tuple[float, float]]:
    """Norms and cosine of the probes' mean, each with its jackknife standard error."""
    m = len(inner)
    whole = _norms(inner.mean(0))
    without = np.array([_norms(np.delete(inner, i, axis=0).mean(0)) for i in range(m)])
    stderr = np.sqrt((m - 1) * ((without - without.mean(0)) ** 2).mean(0))
    names = ("frobenius_hessian", "frobenius_gauss_newton", "frobenius_residual", "cosine")
    return {name: (float(v), float(e)) for name, v, e in zip(names, whole, stderr, strict=True)}


def _norms(inner: Floats) -> Floats:
    h, g, r, hg = inner
    return np.array([np.sqrt(h), np.sqrt(g), np.sqrt(r), hg / np.sqrt(h * g) if h * g > 0 else np.nan])
