"""KFAC by curvlinops, as an operator like the others."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.curvature.operators import Operator
from lossatlas.errors import InputError, MissingToolError
from lossatlas.evaluation.products.linearised import require_differentiable
from lossatlas.objective import Objective


def kfac(
    objective: Objective,
    *,
    fisher: Literal["type-2", "mc", "empirical"] = "type-2",
    draws: int = 1,
    seed: int = 0,
) -> Operator:
    """K = the block diagonal of A_l (x) B_l: the Kronecker-factored approximation of the Gauss-Newton matrix.

    A_l is the mean of the outer products of layer l's inputs, B_l that of what flows back to its outputs.
    Computed by ``curvlinops.KFACLinearOperator``: ``"type-2"`` with the exact Hessian of the loss in the
    outputs, ``"mc"`` with ``draws`` targets drawn from the model, ``"empirical"`` with the data's.

    Linear and 2-d convolution layers only.

    Raises
    ------
    MissingToolError : curvlinops is absent (``pip install 'lossatlas[kfac]'``).
    InputError : a loss that is not cross-entropy, mean squared error or binary cross-entropy with logits, or a layer
        that curvlinops does not know.

    Source: Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate
    Curvature", section 3.

    Examples
    --------
    >>> import torch
    >>> data = torch.eye(2), torch.zeros(2, 1)
    >>> objective = Objective(nn.Linear(2, 1, bias=False), nn.MSELoss(), data)
    >>> kfac(objective) @ torch.eye(2)  # doctest: +SKIP
    tensor([[1., 0.],
            [0., 1.]])
    """
    try:
        from curvlinops import KFACLinearOperator
    except ImportError as error:
        raise MissingToolError(f"KFAC needs curvlinops ({error}): pip install 'lossatlas[kfac]'.") from error
    require_differentiable(objective.function)
    model, loss = objective.function.parts(objective.point)
    names = {entry.name for entry in objective.space}
    parameters = [parameter.requires_grad_(True) for name, parameter in model.named_parameters() if name in names]
    try:
        inner = KFACLinearOperator(
            model,
            _criterion(loss),
            parameters,
            list(objective.batches),
            check_deterministic=False,
            fisher_type=fisher,
            mc_samples=draws,
            seed=seed,
        )
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"curvlinops cannot approximate this model by KFAC: {error}") from error

    def rows(vectors: Tensor) -> Tensor:
        products: Tensor = inner @ vectors.T
        return products.T

    return Operator(objective.n_parameters, rows, objective.dtype, objective.device)


def _criterion(loss: Any) -> nn.Module:
    """The loss as the module that curvlinops knows."""
    known: dict[Any, type[nn.Module]] = {
        F.cross_entropy: nn.CrossEntropyLoss,
        F.mse_loss: nn.MSELoss,
        F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
    }
    kinds = (nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss)
    if isinstance(loss, kinds):
        return loss
    if not isinstance(loss, functools.partial) and loss in known:
        return known[loss]()
    raise InputError(
        "KFAC is defined here for cross-entropy, mean squared error and binary cross-entropy with logits, given as "
        f"torch.nn modules or their functions; this loss is {loss!r}."
    )
