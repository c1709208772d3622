"""What is not finite where a product is not."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lossatlas.evaluation.products.linearised import Linearised, loss_and_gradient


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite: as their sum is, which takes a thirtieth of the time, unless it overflows."""
    return math.isfinite(float(tensor.detach().sum())) or bool(torch.isfinite(tensor).all())


def what_is_not_finite(form: Linearised, theta: Tensor, batch: Any, index: int, product: Tensor, how: str) -> str:
    """A sentence on the loss, its gradient or ``product`` ``(n,)``, whichever comes first, with the remedy.

    ``how`` says by which routes the product was tried.
    """
    loss, gradient = loss_and_gradient(form.function, theta, form.plain(batch), index)
    if not bool(torch.isfinite(loss)):
        what = "NaN" if bool(torch.isnan(loss)) else "infinite"
        return f"The loss of batch {index} is {what} at this point: choose another point, or mend the data."
    if not bool(torch.isfinite(gradient).all()):
        return (
            f"The gradient holds NaN or infinite numbers on batch {index} at this point, for {_names(form, gradient)}, "
            "though the loss is finite: the loss cannot be differentiated there."
        )
    return (
        f"The product holds NaN or infinite numbers on batch {index} at this point, for {_names(form, product)}, by "
        f"{how}, though loss and gradient are finite: the loss cannot be "
        "differentiated twice there; leave those parameters out with parameters=, or choose another point."
    )


def _names(form: Linearised, vector: Tensor) -> str:
    bad = [e.name for e in form.function.space if not bool(torch.isfinite(vector[e.start : e.stop]).all())]
    return ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
