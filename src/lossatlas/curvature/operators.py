"""Curvature matrices as symmetric operators that are never formed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from lossatlas.errors import DirectionError, InputError
from lossatlas.evaluation.products.diagonal import ExactDiagonal, exact_diagonal
from lossatlas.evaluation.products.differences import Errors
from lossatlas.evaluation.products.likelihood import Sampled, SampledFisher, draw
from lossatlas.evaluation.products.linearised import (
    EmpiricalFisher,
    GaussNewton,
    Hessian,
    Linearised,
    require_differentiable,
)
from lossatlas.evaluation.products.products import Products
from lossatlas.model.data.batches import copied, preserved_rng
from lossatlas.model.functional import Route
from lossatlas.objective import Objective

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

    from lossatlas.curvature.workspace import Workspace

Matrix = Literal["hessian", "gauss_newton", "sampled_fisher", "empirical_fisher"]
FORMS: dict[Matrix, type[Linearised]] = {
    "hessian": Hessian,
    "gauss_newton": GaussNewton,
    "sampled_fisher": SampledFisher,
    "empirical_fisher": EmpiricalFisher,
}
NAMES: dict[Matrix, str] = {
    "hessian": "Hessian",
    "gauss_newton": "Gauss-Newton matrix",
    "sampled_fisher": "Fisher matrix",
    "empirical_fisher": "empirical Fisher matrix",
}


@dataclass(frozen=True)
class Operator:
    """A symmetric n x n matrix A known by its products: ``A @ v`` for ``(n,)``, ``A @ V`` for columns ``(n, k)``.

    ``rows`` maps k vectors as rows ``(k, n)`` to their products ``(k, n)``; ``products``, where there is one, tells
    what each batch of the data contributes, and by which route; ``exact_diagonal`` gives A's diagonal ``(n,)`` where
    that is cheap, and the reason where it is not; ``provenance`` says which matrix of which objective it is. Vectors
    of whoever uses a ``workspace`` are there, where there is one, and are multiplied one at a time.

    Raises ``DirectionError`` for a product with something of another size.

    Examples
    --------
    >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> A = Operator(2, lambda rows: rows @ matrix, torch.float32, torch.device("cpu"))
    >>> A @ torch.tensor([1.0, -1.0]), A.shape
    (tensor([ 1., -1.]), (2, 2))
    """

    n: int
    rows: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    device: torch.device
    products: Products | None = None
    exact_diagonal: Callable[[], ExactDiagonal] = lambda: ExactDiagonal(
        None, "The matrix is known by its products only."
    )
    provenance: Callable[[], Mapping[str, object]] = dict
    workspace: Workspace | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return (self.n, self.n)

    def __matmul__(self, other: Tensor) -> Tensor:
        if not isinstance(other, Tensor) or other.ndim not in (1, 2) or other.shape[0] != self.n:
            given = (
                f"of shape {tuple(other.shape)}" if isinstance(other, Tensor) else f"that is a {type(other).__name__}"
            )
            raise DirectionError(
                f"A {self.n} x {self.n} operator cannot multiply something {given}: give a tensor ({self.n},) or "
                f"({self.n}, k)."
            )
        other = other.to(self.device, self.dtype)
        return self.rows(other[None])[0] if other.ndim == 1 else self.rows(other.T.contiguous()).T

    def to_scipy(self) -> LinearOperator:
        """For ``scipy.sparse.linalg``: numpy vectors in and out, in this operator's type."""
        from scipy.sparse.linalg import LinearOperator

        def multiply(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            product = self @ torch.from_numpy(np.array(x))
            return product.cpu().numpy()

        kind = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(self.shape, matvec=multiply, rmatvec=multiply, matmat=multiply, dtype=kind)

    @property
    def errors(self) -> Errors:
        """|e| and |v' e| of the products A v + e with unit vectors so far, by estimate; 0 where they are exact."""
        return Errors() if self.products is None else self.products.errors

    def explain(self) -> str:
        """How products are computed: by which route, and what is kept between them."""
        return "products as given" if self.products is None else self.products.explain()


def require_operator(given: object) -> None:
    """``InputError`` for what is no ``Operator``, such as an ``Objective``."""
    if not isinstance(given, Operator):
        raise InputError(
            f"An operator is needed, and this is of the type {type(given).__name__}: "
            "give la.hessian(objective), la.gauss_newton(objective), la.fisher(objective), or another la.Operator."
        )


def hessian(objective: Objective, *, route: Route | None = None, max_memory: int | None = None) -> Operator:
    """H = grad grad' L(theta) at ``objective.point``, by exact Hessian-vector products.

    Where the loss has no second derivative (CTC, functions that are differentiable once, activation checkpointing), or
    by ``route="differences"``, they are central differences of the gradient, two of them each
    (``Objective.with_route``), whose estimated ``errors`` are part of every residual and interval that is made of them.

    What does not depend on the vector is computed once and kept, as far as ``max_memory`` bytes reach (half of what is
    free by default): later products take about half the time of ``objective.hvp``. They are traced once the products so
    far, or the 20 that a search makes at least, repay that, and if it is faster; ``explain()`` tells.

    Returns
    -------
    ``Operator`` ``(n, n)``, in the units of the loss a squared unit of theta.

    Raises
    ------
    InputError : a model under ``batch_norm="recompute"``, or negative ``max_memory``; at a product, a model that
        cannot be differentiated, or by ``route="exact"`` not twice.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Pearlmutter 1994, "Fast Exact Multiplication by the Hessian".

    Examples
    --------
    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.diag(torch.tensor([1.0, 2.0])), torch.zeros(2, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
    >>> hessian(objective) @ torch.eye(2)
    tensor([[1., 0.],
            [0., 4.]])
    """
    return _operator(objective if route is None else objective.with_route(route), "hessian", max_memory)


def gauss_newton(objective: Objective, *, max_memory: int | None = None) -> Operator:
    """G = sum_i J_i' H_i J_i / N, the generalised Gauss-Newton matrix, ``(n, n)``.

    J_i is the Jacobian of the outputs of example i, H_i the Hessian of its loss in them. H = G + sum_i sum_c
    (dl_i / df_c) grad grad' f_c / N; G is positive semidefinite where the loss is convex in the outputs.

    Raises
    ------
    InputError : an objective made by ``from_step`` of one step, where outputs and loss are not apart; and as
        ``hessian``.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Schraudolph 2002, "Fast Curvature Matrix-Vector Products"; Martens 2020, "New Insights and Perspectives on
    the Natural Gradient Method", section 8.

    Examples
    --------
    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.diag(torch.tensor([1.0, 2.0])), torch.zeros(2, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
    >>> gauss_newton(objective) @ torch.eye(2)  # the Hessian itself, of a linear model
    tensor([[1., 0.],
            [0., 4.]])
    """
    return _operator(objective, "gauss_newton", max_memory)


def fisher(
    objective: Objective,
    *,
    kind: Literal["sampled", "empirical"] = "sampled",
    draws: int = 1,
    seed: int = 0,
    max_memory: int | None = None,
) -> Operator:
    """F = sum_t w_t E s_t s_t', s_t = grad log p(y_t | f), y_t ~ p: of a loss that is L = sum_t w_t (-log p(y_t | f)).

    The terms t are the examples, or their outputs and positions, each drawn independently; w_t is what the loss itself
    gives them: 1 / N for a mean over N examples, 1 / (N C) for one over C outputs of each too, 0 for an ignored
    target. So F is the Gauss-Newton matrix wherever the outputs are the natural parameters of p, as logits are.
    ``"sampled"`` draws ``draws`` targets for each input, once, from ``seed``: an unbiased estimate of F. They have the
    form of the data's: class indices, one-hot for class probabilities, 0 and 1 for a binary cross-entropy.
    ``"empirical"`` is sum_i g_i g_i' / N, with g_i the gradient of the loss of example i for the targets of the data:
    another matrix.

    Raises
    ------
    InputError : a loss without a value for each example; where targets are to be drawn, one that is not the negative
        log-likelihood of classes (cross-entropy), of 0 or 1 (binary cross-entropy), or of numbers with normal noise
        (squared error), with one weight for all terms of an example; and as ``hessian``.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Martens 2020, "New Insights and Perspectives on the Natural Gradient Method", section 9.2; Kunstner, Hennig
    & Balles 2019, "Limitations of the Empirical Fisher Approximation".

    Examples
    --------
    >>> model, data = torch.nn.Linear(1, 1, bias=False), (torch.ones(2, 1), torch.tensor([[1.0], [3.0]]))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data).at(torch.tensor([0.0]))
    >>> fisher(objective, kind="empirical") @ torch.ones(1)  # the gradients are -2 and -6
    tensor([20.])
    """
    if kind == "empirical":
        return _operator(objective, "empirical_fisher", max_memory)
    if kind != "sampled":
        raise InputError(f"kind={kind!r}: choose 'sampled' or 'empirical'.")
    if draws < 1:
        raise InputError(f"draws={draws}: give at least one drawn target for each input.")
    data = drawn_batches(objective, draws, seed)
    return _operator(objective, "sampled_fisher", max_memory, data)


def gradient_covariance(objective: Objective, *, max_memory: int | None = None) -> Operator:
    """C = sum_i (g_i - g) (g_i - g)' / N: the covariance of the examples' gradients g_i about their mean g.

    C / B is that of the mean over B examples drawn with replacement: the noise of SGD. C = empirical Fisher - g g'.

    Raises
    ------
    InputError : a loss without a value for each example; and as ``hessian``.
    NumericalError : a gradient or a product holds NaN or infinite numbers.

    Source: Jastrzebski et al. 2018, "Three Factors Influencing Minima in SGD", section 2.

    Examples
    --------
    >>> model, data = torch.nn.Linear(1, 1, bias=False), (torch.ones(2, 1), torch.tensor([[1.0], [3.0]]))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data).at(torch.tensor([0.0]))
    >>> gradient_covariance(objective) @ torch.ones(1)  # the gradients are -2 and -6
    tensor([4.])
    """
    gradient = objective.gradient()
    moment = fisher(objective, kind="empirical", max_memory=max_memory)

    def rows(vectors: Tensor) -> Tensor:
        return moment.rows(vectors) - torch.outer(vectors @ gradient, gradient)

    made = {"matrix": "covariance matrix of the gradients", **objective.provenance()}
    return Operator(moment.n, rows, moment.dtype, moment.device, provenance=lambda: made)


def matrix_products(
    objective: Objective,
    matrix: Matrix,
    *,
    data: Sequence[Any] | None = None,
    max_memory: int | None = None,
    stage: bool = True,
) -> Products:
    """V -> A V for one of the curvature matrices: what the operators are made of.

    ``data`` are other batches in place of the objective's own: these, once or several times over, with the same
    weights. ``stage=False`` never traces.
    """
    batches, period = objective.batches, len(objective.batches)
    weights = batches.weights if data is None else batches.weights * (len(data) // period)
    source = batches if data is None else data
    form = FORMS[matrix](objective.function)
    return Products(form, source, weights, objective.function.point, max_memory, stage=stage, period=period)


def drawn_batches(objective: Objective, draws: int = 1, seed: int = 0) -> list[Sampled]:
    """The batches, ``draws`` times over, with targets drawn from the model in place of the data's.

    Raises ``InputError`` for a loss that is no negative log-likelihood from which could be drawn.
    """
    function, generator = objective.function, torch.Generator().manual_seed(seed)
    form = EmpiricalFisher(function)
    with torch.no_grad(), preserved_rng(objective.device):
        tensors = function.tensors(objective.point)

        def sampled(batch: Any, index: int) -> Sampled:
            outputs = function.outputs(tensors, copied(batch), index)
            drawn = draw(function.losses, outputs, function.targets(batch), generator)
            scales = form.scales(function.measure(tensors, copied(batch), index), batch)
            return Sampled(function.with_targets(batch, drawn.targets), 1 / (drawn.coefficients * scales**2))

        again = range(draws)
        return [sampled(batch, index) for _ in again for index, batch in enumerate(objective.batches)]


def matrix_diagonal(objective: Objective, matrix: Matrix) -> ExactDiagonal:
    """The diagonal of H or G by one backward pass for each output; or why that is not possible.

    For H the network must be piecewise linear in each single weight (ReLU, pooling, linear, convolution, frozen
    BatchNorm), where it is that of G almost everywhere. Found by tracing, and verified on entries at random.
    """
    if matrix in ("sampled_fisher", "empirical_fisher"):
        return ExactDiagonal(None, "Backward passes give the diagonal of the Hessian and the Gauss-Newton matrix only.")
    require_differentiable(objective.function)
    of_hessian = matrix == "hessian"
    return exact_diagonal(objective.function, objective.batches, objective.point, of_hessian=of_hessian)


def _operator(objective: Objective, matrix: Matrix, max_memory: int | None, data: Any = None) -> Operator:
    products = matrix_products(objective, matrix, data=data, max_memory=max_memory)
    diagonal = partial(matrix_diagonal, objective, matrix)

    def provenance() -> dict[str, object]:
        return {"matrix": NAMES[matrix], **objective.provenance()}

    return Operator(objective.n_parameters, products, objective.dtype, objective.device, products, diagonal, provenance)
