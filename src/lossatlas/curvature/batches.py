"""The distribution over batches of the extreme eigenvalues of a batch's Hessian."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

from lossatlas.curvature.lanczos import Eigenpairs, search
from lossatlas.curvature.operators import Operator, hessian, matrix_products
from lossatlas.curvature.progress import Bar, counted, product_bar
from lossatlas.errors import ConvergenceWarning, InputError
from lossatlas.evaluation.products.linearised import Hessian
from lossatlas.evaluation.products.products import Products
from lossatlas.objective import Objective
from lossatlas.results.making import result

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def batch_eigenvalues(
    objective: Objective,
    k: int = 1,
    *,
    which: Literal["largest", "smallest"] = "largest",
    batch_size: int | None = None,
    batches: int | None = None,
    tol: float = 1e-2,
    max_products: int | None = None,
    max_memory: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """lambda_i(H_b) of the Hessian H_b of every batch b, and lambda_i(H) of all the data, i = 1, ..., k.

    E lambda_max(H_b) >= lambda_max(E H_b) = lambda_max(H), since lambda_max is convex (Jensen): SGD sees a sharper loss
    than the whole data's, the more so the smaller its batches.

    Parameters
    ----------
    which : the k ``"largest"`` eigenvalues, descending, or the k ``"smallest"``, ascending.
    batch_size : the data cut anew into disjoint batches of so many examples, at random; what is left over is left out.
        By default the objective's own batches.
    batches : how many of them at most, drawn at random. All by default.
    tol : relative residual of all eigenvalues; a batch's search starts at the whole data's eigenvectors.
    max_products : products with a matrix to spend on each search, ``max_memory``: bytes for each, as in
        ``top_eigenpairs`` and ``hessian``.

    Returns
    -------
    Dataset with ``eigenvalue`` and ``residual`` over ``("batch", "rank")``, ``batch_examples`` over ``("batch",)``;
    ``eigenvalue_all``, ``residual_all``, the unweighted mean over the batches ``eigenvalue_mean`` with its standard
    error ``eigenvalue_mean_stderr`` and its 95 % interval ``eigenvalue_mean_low``, ``eigenvalue_mean_high`` (Student's,
    widened by their mean residual) over ``("rank",)``; ``eigenvalue_quantile`` over ``("quantile", "rank")``. Some
    eigenvalue lies within a residual of each value. ``attrs["products"]`` counts a product with a batch's Hessian as
    its share of the data.

    Raises
    ------
    InputError : k, a batch size or a number of batches that is not possible, data that cannot be cut anew
        (``batch_size=``); and as ``hessian``.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Jastrzebski et al. 2019, "On the Relation Between the Sharpest Directions of DNN Loss and the SGD Step
    Length"; Andreyev & Beneventano 2024, "Edge of Stochastic Stability" (Hessians of batches).

    Examples
    --------
    >>> model, x = torch.nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    >>> objective = Objective(model, torch.nn.functional.mse_loss, (x, torch.zeros(4, 1)), batch_size=2)
    >>> found = batch_eigenvalues(objective, tol=1e-5, progress=False)
    >>> found["eigenvalue"][:, 0].values.round(3).tolist(), round(float(found["eigenvalue_all"][0]), 3)
    ([4.0, 9.0], 5.0)
    """
    if batches is not None and batches < 1:
        raise InputError(f"batches={batches}: give at least one batch, or None for all.")
    started = time.perf_counter()
    settings = _Settings(k, which, tol, max_products, max_memory, seed)
    parts, available = _parts(objective, batch_size, batches, settings)
    with product_bar("eigenvalues of batches", progress) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said once, of all
        whole = settings.pairs(hessian(objective, max_memory=max_memory), bar, look=True)
        found = [(size, settings.pairs(part, bar, start=whole.vectors)) for size, part in parts]
    every = [whole, *(pairs for _, pairs in found)]
    _warn_of_unconverged(every, tol)
    spent = whole.products + sum(size * pairs.products for size, pairs in found) / objective.n_examples
    return result(
        "batch_eigenvalues",
        _dataset(whole, [size for size, _ in found], [pairs for _, pairs in found]),
        objective.provenance(),
        which=which,
        batch_size=batch_size,
        batches=len(found),
        batches_available=available,
        tol=tol,
        converged=int(all(bool(pairs.converged.all()) for pairs in every)),
        products=round(spent),
        seed=seed,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Settings:
    """Of each search."""

    k: int
    which: Literal["largest", "smallest"]
    tol: float
    max_products: int | None
    max_memory: int | None
    seed: int

    def pairs(self, operator: Operator, bar: Bar, *, start: Tensor | None = None, look: bool = False) -> Eigenpairs:
        return search(
            counted(operator, bar),
            self.k,
            which=self.which,
            tol=self.tol,
            start=start,
            look=look,
            max_products=self.max_products,
            seed=self.seed,
        ).pairs


class _OfBatch(Hessian):
    """The Hessian of one batch by itself, with the random numbers that it has among the others."""

    def __init__(self, objective: Objective, index: int) -> None:
        super().__init__(objective.function)
        self._index = index

    def losses(self, theta: Tensor, batch: Any, index: int) -> Tensor:
        return super().losses(theta, batch, self._index)

    def gradient(self, theta: Tensor, batch: Any, index: int) -> Tensor:
        return super().gradient(theta, batch, self._index)


def _parts(
    objective: Objective, batch_size: int | None, batches: int | None, settings: _Settings
) -> tuple[Iterator[tuple[int, Operator]], int]:
    """The number of examples and the Hessian of each batch that is taken, and how many batches there are."""
    generator = torch.Generator().manual_seed(settings.seed)
    n = objective.n_examples
    if batch_size is None:
        count = len(objective.batches)
        chosen = set(torch.randperm(count, generator=generator)[:batches].tolist())
        return _own(objective, chosen, settings), count
    if not 1 <= batch_size <= n:
        raise InputError(
            f"batch_size={batch_size} of {n} examples: give between 1 and {n}, or None for the own batches."
        )
    cuts = torch.randperm(n, generator=generator)[: n // batch_size * batch_size].reshape(-1, batch_size)
    objective.examples(cuts[0])  # refuses what cannot be cut before anything is computed
    parts = (objective.examples(rows) for rows in cuts[:batches])
    # A few products do not repay tracing.
    made = (matrix_products(part, "hessian", max_memory=settings.max_memory, stage=False) for part in parts)
    return ((batch_size, _operator(objective, products)) for products in made), len(cuts)


def _own(objective: Objective, chosen: set[int], settings: _Settings) -> Iterator[tuple[int, Operator]]:
    for index, (size, batch) in enumerate(zip(objective.batches.sizes, objective.batches, strict=True)):
        if index in chosen:
            form, point = _OfBatch(objective, index), objective.point
            yield size, _operator(objective, Products(form, [batch], [1.0], point, settings.max_memory, stage=False))


def _operator(objective: Objective, products: Products) -> Operator:
    return Operator(objective.n_parameters, products, objective.dtype, objective.device, products)


def _dataset(whole: Eigenpairs, sizes: list[int], found: list[Eigenpairs]) -> xr.Dataset:
    values = np.stack([pairs.values.numpy() for pairs in found])
    residuals = np.stack([pairs.residuals.numpy() for pairs in found])
    mean, stderr = values.mean(0), np.full(values.shape[1], np.nan)
    half = np.full_like(stderr, np.nan)
    if len(values) > 1:
        stderr = values.std(0, ddof=1) / np.sqrt(len(values))
        half = stats.t.ppf(0.975, len(values) - 1) * stderr + residuals.mean(0)
    return xr.Dataset(
        {
            "eigenvalue": (("batch", "rank"), values),
            "residual": (("batch", "rank"), residuals),
            "batch_examples": ("batch", sizes),
            "eigenvalue_all": ("rank", whole.values.numpy()),
            "residual_all": ("rank", whole.residuals.numpy()),
            "eigenvalue_mean": ("rank", mean),
            "eigenvalue_mean_stderr": ("rank", stderr),
            "eigenvalue_mean_low": ("rank", mean - half),
            "eigenvalue_mean_high": ("rank", mean + half),
            "eigenvalue_quantile": (("quantile", "rank"), np.quantile(values, QUANTILES, axis=0)),
        },
        coords={
            "batch": np.arange(1, len(values) + 1),
            "rank": np.arange(1, values.shape[1] + 1),
            "quantile": list(QUANTILES),
        },
    )


def _warn_of_unconverged(every: list[Eigenpairs], tol: float) -> None:
    if missed := sum(int((~pairs.converged).sum()) for pairs in every):
        warnings.warn(
            f"{missed} of {sum(len(pairs.values) for pairs in every)} eigenvalues of batches and of all the data have "
            f"not reached tol={tol:g}; their residuals tell: allow more with max_products.",
            ConvergenceWarning,
            stacklevel=3,
        )
