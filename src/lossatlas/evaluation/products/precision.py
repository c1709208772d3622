"""The same model and batch in float64, so that rounding decides no comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.model.data.batches import copied
from lossatlas.model.data.containers import cast_floats
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.private import converted


@dataclass(frozen=True)
class InPrecision:
    """A function, a point and a batch of one type; ``cast`` tells whether they are copies in another than the model's.

    ``note`` says, in words to end a sentence with, why they are not in float64; empty where they are.
    """

    function: FunctionalModel
    theta: Tensor
    batch: Any
    cast: bool = False
    note: str = ""

    @property
    def dtype(self) -> torch.dtype:
        return self.theta.dtype


def in_float64(function: FunctionalModel, theta: Tensor, batch: Any) -> InPrecision:
    """All three in float64; as they are where they have it, or where model, loss or device do not work in it."""
    if theta.dtype == torch.float64:
        return InPrecision(function, theta, batch)
    try:
        precise = InPrecision(_doubled(function), theta.double(), cast(batch, torch.float64), cast=True)
        _try(precise)
    except (InputError, RuntimeError, TypeError) as error:
        name, text = str(theta.dtype).removeprefix("torch."), " ".join(str(error).split())[:200].rstrip(".")
        return InPrecision(function, theta, batch, note=f", in {name}, since float64 fails ({text})")
    return precise


def cast(batch: Any, dtype: torch.dtype) -> Any:
    """The batch with its floating-point tensors in ``dtype``, and complex ones in the complex type of that width."""
    return cast_floats(batch, dtype)


def _doubled(function: FunctionalModel) -> FunctionalModel:
    other = function.duplicate()
    other.set_batch_norm(function.policy, function.norm_count, function.norm_data)
    converted(other.module, None, torch.float64)
    other.point = function.point.double()
    return other


def _try(precise: InPrecision) -> None:
    """Model and loss on the batch, for the exceptions that they raise."""
    function, batch = precise.function, copied(precise.batch)
    with torch.no_grad():
        outputs = function.outputs(function.tensors(precise.theta), batch, 0)
        function.losses(outputs, function.targets(precise.batch))
