"""A few examples of the data as a function of theta, whose derivatives are looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lossatlas.model.data.batches import Batches, copied, preserved_rng, refill, tensors_in
from lossatlas.model.data.containers import mapped
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.selfcheck import some_of

Gradient = Callable[[FunctionalModel, Tensor, Any, int], tuple[Tensor, Tensor]]
Product = Callable[[FunctionalModel, Tensor, Any, int, Tensor], Tensor]
ROWS = 16


@dataclass(frozen=True)
class Looked:
    """The mean loss over a few batches as a function of theta, with the gradient and products that are looked at."""

    function: FunctionalModel
    batches: list[Any]
    of_batch: Gradient
    product_of_batch: Product | None = None

    def value(self, theta: Tensor) -> float:
        with torch.no_grad(), preserved_rng(theta.device):
            tensors = self.function.tensors(theta)
            found = [self.function.measure(tensors, copied(b), i)["loss"] for i, b in enumerate(self.batches)]
        return sum(float(one.double().mean()) for one in found) / len(found)

    def slope(self, theta: Tensor, v: Tensor, h: float) -> float:
        """(L(theta + h v) - L(theta - h v)) / 2h."""
        return (self.value(theta + h * v) - self.value(theta - h * v)) / (2 * h)

    def gradient(self, theta: Tensor) -> Tensor:
        found = [self.of_batch(self.function, theta, copied(b), i)[1] for i, b in enumerate(self.batches)]
        return torch.stack(found).double().mean(0)

    def bent(self, theta: Tensor, v: Tensor, h: float) -> Tensor:
        """The gradient's difference, as the loss's above."""
        return (self.gradient(theta + h * v) - self.gradient(theta - h * v)).cpu() / (2 * h)

    def product(self, theta: Tensor, v: Tensor) -> Tensor:
        assert self.product_of_batch is not None
        found = [self.product_of_batch(self.function, theta, copied(b), i, v) for i, b in enumerate(self.batches)]
        return torch.stack(found).double().mean(0).cpu()

    def in_double(self) -> Looked:
        """The same in float64, or as it is where the model, the loss or their data cannot be cast."""
        try:
            function = _in_double(self.function)
            cast = [refill(b, iter([_double(t) for t in tensors_in(b)])) for b in self.batches]
            double = replace(self, function=function, batches=cast)
            double.value(function.point)
        except Exception:  # told by the type that is compared in, whose tolerances are wider
            return self
        return double


def few_of(batches: Batches) -> list[Any]:
    """The first and the last batch, of each at most ``ROWS`` examples where these are apart: float64 is slow."""
    if batches.uncut is not None:
        return some_of(batches)
    return [mapped(batch, lambda t: t[:: -(-len(t) // ROWS)]) for batch in some_of(batches)]


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _in_double(function: FunctionalModel) -> FunctionalModel:
    """The same function on a module and a loss module of its own in float64."""
    if function.point.dtype == torch.float64:
        return function
    return function.cast(torch.float64)
