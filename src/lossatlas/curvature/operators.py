"""Curvature matrices as symmetric operators that are never formed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from lossatlas.errors import DirectionError, InputError
from lossatlas.objective import Matrix, Objective

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

    from lossatlas.evaluation.products.products import Products


@dataclass(frozen=True)
class Operator:
    """A symmetric n x n matrix A known by its products: ``A @ v`` for ``(n,)``, ``A @ V`` for columns ``(n, k)``.

    ``rows`` maps k vectors as rows ``(k, n)`` to their products ``(k, n)``; ``products``, where there is one, tells
    what each batch of the data contributes, and by which route; ``exact_diagonal`` gives A's diagonal ``(n,)`` where
    that is cheap, and the reason, as a string, where it is not.
    """

    n: int
    rows: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    device: torch.device
    products: Products | None = None
    exact_diagonal: Callable[[], Tensor | str] = lambda: "the matrix is known by its products only"

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

    def explain(self) -> str:
        """How products are computed: by which route, and what is kept between them."""
        return "products as given" if self.products is None else self.products.explain()


def hessian(objective: Objective, point: Tensor | None = None, *, max_memory: int | None = None) -> Operator:
    """H = grad grad' L(theta) at ``point`` (the model's own by default), by exact Hessian-vector products.

    What does not depend on the vector is computed at the first product and kept, as far as ``max_memory`` bytes reach
    (half of what is free by default): later products take about half the time of ``objective.hvp``.

    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.eye(2), torch.zeros(2, 1))
    >>> hessian(Objective(model, torch.nn.functional.mse_loss, data)) @ torch.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    return _operator(objective, "hessian", point, max_memory)


def gauss_newton(objective: Objective, point: Tensor | None = None, *, max_memory: int | None = None) -> Operator:
    """G = sum_i J_i' H_i J_i / N, the generalised Gauss-Newton matrix (Schraudolph 2002; Martens 2020, section 8).

    J_i is the Jacobian of the outputs of example i, H_i the Hessian of its loss in them. H = G + sum_i sum_c
    (dl_i / df_c) grad grad' f_c / N; G is positive semidefinite where the loss is convex in the outputs.

    Raises ``InputError`` for an objective made by ``from_step``, where outputs and loss are not apart.
    """
    return _operator(objective, "gauss_newton", point, max_memory)


def fisher(
    objective: Objective,
    point: Tensor | None = None,
    *,
    kind: Literal["sampled", "empirical"] = "sampled",
    draws: int = 1,
    seed: int = 0,
    max_memory: int | None = None,
) -> Operator:
    """F = sum_i E g_i g_i' / N, with g_i the gradient of the loss of example i for targets drawn from the model.

    ``"sampled"`` draws ``draws`` targets for each input from p(y | x) = exp(-loss), once, from ``seed``: an unbiased
    estimate of the Fisher matrix, which is the Gauss-Newton matrix where the outputs are the natural parameters of the
    likelihood, as for logits (Martens 2020, section 9.2).
    ``"empirical"`` takes the targets of the data: another matrix (Kunstner et al. 2019).

    Raises ``InputError`` for a loss without a value for each example, and, where targets are to be drawn, for one that
    is not the negative log-likelihood of classes (cross-entropy), of 0 or 1 (binary cross-entropy), or of numbers with
    normal noise (squared error).
    """
    if kind == "empirical":
        return _operator(objective, "empirical_fisher", point, max_memory)
    if kind != "sampled":
        raise InputError(f"kind={kind!r}: choose 'sampled' or 'empirical'.")
    if draws < 1:
        raise InputError(f"draws={draws}: give at least one drawn target for each input.")
    data = objective.drawn(point, draws, seed)
    return _operator(objective, "empirical_fisher", point, max_memory, data)


def gradient_covariance(
    objective: Objective, point: Tensor | None = None, *, max_memory: int | None = None
) -> Operator:
    """C = sum_i (g_i - g) (g_i - g)' / N: the covariance of the examples' gradients g_i about their mean g.

    C / B is that of the mean over B examples drawn with replacement: the noise of SGD. C = empirical Fisher - g g'.
    """
    gradient = objective.gradient(point)
    uncentred = fisher(objective, point, kind="empirical", max_memory=max_memory)

    def rows(vectors: Tensor) -> Tensor:
        return uncentred.rows(vectors) - torch.outer(vectors @ gradient, gradient)

    return Operator(uncentred.n, rows, uncentred.dtype, uncentred.device)


def _operator(
    objective: Objective, matrix: Matrix, point: Tensor | None, max_memory: int | None, data: Any = None
) -> Operator:
    products = objective.products(matrix, point, data=data, max_memory=max_memory)

    def diagonal() -> Tensor | str:
        if matrix == "empirical_fisher":
            return "it is computed for the Hessian and the Gauss-Newton matrix only"
        return objective.exact_diagonal(matrix, point)

    return Operator(objective.n_parameters, products, objective.dtype, objective.device, products, diagonal)
