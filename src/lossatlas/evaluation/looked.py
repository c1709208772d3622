"""A few examples of the data as a function of theta, whose derivatives are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
ROWS, FEWEST, TWO = 16, 4, 2  # examples that are looked at, at most and at least, and of those that cost much
SHARE = 32  # of the data's examples, at most
LITTLE, MUCH = 2**24, 2**34  # numbers of an example times parameters: a bound on the operations of its forward pass
EXACT = 2**22  # parameters: the numbers of more of them stay in their own type, in which they take less memory


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

    def gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The loss in its own type, and its gradient."""
        found = [self.of_batch(self.function, theta, copied(b), i) for i, b in enumerate(self.batches)]
        return torch.stack([loss for loss, _ in found]).mean(), _mean([gradient for _, gradient in found])

    def product(self, theta: Tensor, v: Tensor) -> Tensor:
        assert self.product_of_batch is not None
        found = [self.product_of_batch(self.function, theta, copied(b), i, v) for i, b in enumerate(self.batches)]
        return _mean(found).cpu()

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


class Line:
    """Differences of loss and gradient at theta + h v and theta - h v; ``passes`` counts the passes over the batches.

    Where products are looked at, gradients are needed as well, and the losses come from their passes.
    """

    def __init__(
        self, looked: Looked, theta: Tensor, v: Tensor, steps: Sequence[float], fine: Sequence[float] = ()
    ) -> None:
        self.looked, self.theta, self.v, self.steps, self.fine = looked, theta, v, steps, fine
        self._bends = looked.product_of_batch is not None
        self._slopes: dict[float, Tensor] = {}
        self._last: tuple[float, Tensor] | None = None
        self._first: tuple[float, float] | None = None
        self.passes = 0

    def gradient(self) -> Tensor:
        """The gradient at theta; it is not kept, since it is as long as theta."""
        self.passes += 1
        return self.looked.gradient(self.theta)[1]

    @property
    def first(self) -> tuple[float, float]:
        """g'v and the norm of g, at theta."""
        if self._first is None:
            g = self.gradient()
            self._first = float(g @ self.v.to(g)), float(g.norm())
        return self._first

    def product(self) -> Tensor:
        """H v at theta."""
        self.passes += 1
        return self.looked.product(self.theta, self.v)

    def slope(self, h: float, v: Tensor | None = None) -> float:
        """(L(theta + h v) - L(theta - h v)) / 2h, for another v too."""
        if self._bends and v is None:
            self.bent(h)
            # A mean loss in float32 is too coarse for a difference, and that of its values in float64 is not.
            if self._slopes[h].dtype == torch.float64:
                return float(self._slopes[h])
        self.passes += 2
        high, low = (self.looked.value(at) for at in self._ends(h, self.v if v is None else v))
        return (high - low) / (2 * h)

    def bent(self, h: float) -> Tensor:
        """The gradient's difference, as the loss's above; the last one is kept."""
        if self._last is None or self._last[0] != h:
            self._last = None
            self.passes += 2
            (high, bent), (low, below) = (self.looked.gradient(at) for at in self._ends(h, self.v))
            self._slopes[h], self._last = (high - low) / (2 * h), (h, bent.sub_(below).div_(2 * h).cpu())
        return self._last[1]

    def _ends(self, h: float, v: Tensor) -> Iterator[Tensor]:
        return (torch.add(self.theta, v, alpha=sign * h) for sign in (1, -1))


def few_of(batches: Batches, n: int) -> list[Any]:
    """Examples of the first and the last batch, in one where these are apart; ``n`` is the number of parameters.

    ``ROWS`` where these cost little, alone or next to one pass over the data; else fewer, down to ``FEWEST`` or
    ``TWO``: all examples take the same operations, and float64 is slow.
    """
    some = some_of(batches)
    if batches.uncut is not None:
        return some
    size = sum(tensor[0].numel() for tensor in tensors_in(some[0]))
    fewest = FEWEST if n * size <= MUCH else TWO
    rows = ROWS if n * size <= LITTLE else min(max(batches.n_examples // SHARE, fewest), ROWS)
    each = [mapped(batch, lambda t: t[:: -(-len(t) * len(some) // rows)]) for batch in some]
    columns = zip(*map(tensors_in, each), strict=True)
    return [refill(each[0], iter([torch.cat(column) for column in columns]))]


def _mean(tensors: list[Tensor]) -> Tensor:
    if len(tensors[0]) > EXACT:
        return sum(tensors[1:], tensors[0]) / len(tensors) if len(tensors) > 1 else tensors[0]
    return tensors[0].double() if len(tensors) == 1 else torch.stack(tensors).double().mean(0)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _in_double(function: FunctionalModel) -> FunctionalModel:
    """The same function on a module and a loss module of its own in float64."""
    if function.point.dtype == torch.float64:
        return function
    return function.cast(torch.float64)
