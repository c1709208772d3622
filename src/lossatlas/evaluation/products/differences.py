"""H_b v as a central difference of the gradient, for what has no second derivative, with an estimate of its error."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossatlas.evaluation.products.kept import Prepared
from lossatlas.evaluation.products.linearised import Hessian
from lossatlas.evaluation.products.precision import cast
from lossatlas.model.data.batches import copied, tensors_in
from lossatlas.model.failures import shortened

# Of theta's norm, sqrt(eps) of a type: there, what rounding and truncation add to a one-sided difference is the same.
STEPS = [math.sqrt(torch.finfo(kind).eps) for kind in (torch.float64, torch.float32, torch.bfloat16)]
LEAST = 1e-3  # of an entry of theta, at least: a theta of zeros has steps too
COVER = 2.0  # times what the one-sided differences are apart is the error, at least
POOR = 30.0  # times a step, as a share of the largest product: a larger error is worth other steps
AROUND = 1 / 32, 32  # times the step are these: nearer, where a kink lies between, and further, for less rounding
FURTHER = 2  # times the step is the one that the first difference is compared with
COARSER = 1 / 4  # of the error, at most, justifies a step that suits a coarser type


class Errors(NamedTuple):
    """|e|, and |v' e|, of a product A v + e with a unit vector v, by estimate; 0 for exact products."""

    norm: float = 0.0
    form: float = 0.0


NONE = Errors()


class Difference(NamedTuple):
    """(g(theta + h v) - g(theta - h v)) / 2h for a unit vector v, and how far the one-sided differences are apart."""

    product: Tensor
    apart: Errors
    step: float  # h, as a share of theta's norm

    @property
    def size(self) -> float:
        return _norm(self.product)


Along = Callable[[float], Difference]


class Differences:
    """v -> |v| (g_b(theta + h u) - g_b(theta - h u)) / 2h, u = v / |v|, in float64 where model and loss allow it.

    The error is told from g_b(theta), which is computed once: the two one-sided differences are apart by h grad^3 L(u,
    u), while the central one's error is of the second order in h; rounding, and kinks between the points, show in both
    alike. The first product is compared with one of another step too, which sets how many times that is the estimate
    (``COVER`` at least). Where it is large against the products so far, other steps are tried: two gradients more each.

    ``errors`` are the largest of all passes over the data, which ``begin_pass`` and ``end_pass`` tell apart. Products
    are in theta's own type, whose rounding is part of their error.
    """

    def __init__(self, form: Hessian, theta: Tensor, batch: Any, index: int) -> None:
        self._form, self._note = _in_double(form, theta, batch, index)
        self._theta = theta.to(self._form.function.point.dtype)
        self._unit = float(torch.finfo(theta.dtype).eps)
        finest = 0.9 * math.sqrt(torch.finfo(self._theta.dtype).eps)
        self._steps = [step for step in STEPS if step >= finest]
        self._length = max(_norm(theta), LEAST * math.sqrt(len(theta)))
        self._step: float | None = None
        self._cover, self._largest = COVER, 0.0
        self._pass: list[Errors] = []
        self.errors = NONE

    @property
    def dtype(self) -> torch.dtype:
        """That gradients are computed in."""
        return self._theta.dtype

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"central differences of the gradient in {name}{self._note}"

    def prepared(self, batch: Any, index: int) -> Prepared:
        """The map of a batch, which keeps its gradient."""
        batch = cast(copied(batch), self.dtype)

        def gradient(at: Tensor) -> Tensor:
            return self._form.gradient(at, copied(batch), index)

        center = gradient(self._theta)

        def product(vector: Tensor, keep: bool = True) -> Tensor:
            return self._product(gradient, center, vector)

        return Prepared(product, center.nbytes + sum(tensor.nbytes for tensor in tensors_in(batch)), 0.0)

    def begin_pass(self) -> None:
        self._pass.clear()

    def end_pass(self, shares: Sequence[float], count: int) -> None:
        """Of ``count`` products with all the data, whose parts have these shares: the errors add up, at most."""
        weights = torch.tensor(shares, dtype=torch.float64)
        parts = torch.tensor(self._pass, dtype=torch.float64).view(len(shares), count, len(Errors._fields))
        found = torch.einsum("p,pke->ke", weights / weights.sum(), parts).amax(0).tolist()
        self.errors = Errors(*map(max, self.errors, found))

    # Inside

    def _product(self, gradient: Callable[[Tensor], Tensor], center: Tensor, vector: Tensor) -> Tensor:
        length = _norm(vector)
        if not length:
            self._pass.append(NONE)
            return torch.zeros_like(vector)
        unit = (vector.to(self.dtype) / length).to(self.dtype)
        along = partial(self._difference, gradient, center, unit)
        found = self._first(along) if self._step is None else self._near(along, self._step)
        self._largest = max(self._largest, found.size)
        rounding = self._unit * found.size
        self._pass.append(Errors(*(self._cover * apart + rounding for apart in found.apart)))
        return (length * found.product).to(vector.dtype)

    def _difference(
        self, gradient: Callable[[Tensor], Tensor], center: Tensor, unit: Tensor, step: float
    ) -> Difference:
        h = step * self._length
        above, below = (gradient(torch.add(self._theta, unit, alpha=sign * h)).double() for sign in (1, -1))
        product, apart = (above - below) / (2 * h), (above + below - 2 * center.double()) / (2 * h)
        rounding = float(torch.finfo(self.dtype).eps) * (_norm(center) / h + _norm(product))
        errors = Errors(_norm(apart) + rounding, abs(float(apart @ unit.double())) + rounding / math.sqrt(len(unit)))
        return Difference(product, errors, step)

    def _first(self, along: Along) -> Difference:
        """The step is that of the finest type which model and loss compute in all through."""
        best = self._near(along, self._steps[0])
        self._step = self._steps[0]
        for step in self._steps[1:]:
            if not self._is_poor(best, self._step):
                break
            if (other := along(step)).apart.norm < COARSER * best.apart.norm:
                best, self._step = other, step
        further = along(FURTHER * best.step)
        seen = _norm(further.product - best.product)
        self._cover = max(COVER, COVER * seen / best.apart.norm) if seen else COVER
        return best

    def _near(self, along: Along, step: float) -> Difference:
        """Of this step, or of one around it where that has a large error, as next to a kink, and the other less."""
        best = along(step)
        for factor in AROUND:
            if not self._is_poor(best, step):
                break
            best = min(best, along(factor * step), key=lambda found: found.apart.norm)
        return best

    def _is_poor(self, found: Difference, step: float) -> bool:
        return not found.apart.norm <= POOR * step * max(self._largest, found.size)


def _in_double(form: Hessian, theta: Tensor, batch: Any, index: int) -> tuple[Hessian, str]:
    """The same in float64, if model and loss have a gradient in it; else why not, in words to end a sentence with."""
    if theta.dtype == torch.float64:
        return form, ""
    double = copy.copy(form)
    try:
        double.function = form.function.cast(torch.float64)
        double.function.derivatives = None  # those of the function itself have been looked at
        double.gradient(theta.double(), cast(copied(batch), torch.float64), index)
    except Exception as error:  # a model for one type alone, or no room for two
        return form, f", since float64 fails ({shortened(error)})"
    return double, ""


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
