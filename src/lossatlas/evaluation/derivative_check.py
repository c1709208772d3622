"""Whether gradient and Hessian are those of the value: checked by differences, once, when one is first asked for."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from lossatlas.errors import DerivativeWarning, InputError
from lossatlas.model.batches import Batches, copied, preserved_rng, refill, tensors_in
from lossatlas.model.functional import FunctionalModel

_SEEDS = (1_000_003, 1_000_033)  # of the directions: none that an estimate of curvature begins with
_STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
Gradient = Callable[[FunctionalModel, Tensor, Any], tuple[Tensor, Tensor]]
Product = Callable[[FunctionalModel, Tensor, Any, Tensor], Tensor]


class DerivativeCheck:
    """(L(theta + h v) - L(theta - h v)) / 2h against g'v, and the gradient's difference against H v, on one batch.

    Differences that do not agree with each other at any h (kinks, rounding) decide nothing. A failure is raised at
    every use, or warned of once (``warn``).
    """

    def __init__(self, batches: Batches, warn: bool, told: list[str]) -> None:
        self._batches, self._warn, self._told = batches, warn, told
        self._found: dict[str, str | None] = {}
        self._running = False

    def slope(self, function: FunctionalModel, gradient: Gradient) -> None:
        """``InputError`` where the gradient is not that of the value."""
        self._once("gradient", lambda: self._slope(*self._problem(function), gradient))

    def curvature(self, function: FunctionalModel, gradient: Gradient, product: Product) -> None:
        """``InputError`` where H v is not the gradient's derivative."""
        self._once("curvature", lambda: self._curvature(*self._problem(function), gradient, product))

    def _once(self, what: str, look: Callable[[], str | None]) -> None:
        if self._running:
            return
        if what not in self._found:
            self._running = True
            try:
                self._found[what] = look()
            except (RuntimeError, NotImplementedError) as error:  # what is asked for tells it with its remedy
                self._found[what] = None
                self._told.append(f"self-check of the {what}: not tried, {' '.join(str(error).split())}")
            finally:
                self._running = False
            if self._warn and (message := self._found[what]):
                warnings.warn(message, DerivativeWarning, stacklevel=4)
                self._told.append(message)
        if (message := self._found[what]) and not self._warn:
            raise InputError(message)

    def _problem(self, function: FunctionalModel) -> tuple[FunctionalModel, Any]:
        batch = next(iter(self._batches))
        try:
            double = _in_double(function)
            cast = refill(batch, iter([t.double() if t.is_floating_point() else t for t in tensors_in(batch)]))
            _value(double, double.point, cast)
        except Exception:  # a model that cannot be cast is compared in its own type, which needs wider tolerances
            return function, batch
        return double, cast

    def _slope(self, function: FunctionalModel, batch: Any, gradient: Gradient) -> str | None:
        theta, v, steps = _line(function, _SEEDS[0])
        g = gradient(function, theta, copied(batch))[1].double()
        found = [
            torch.tensor([(_value(function, theta + h * v, batch) - _value(function, theta - h * v, batch)) / (2 * h)])
            for h in steps
        ]
        slope = (g @ v.double()).cpu().reshape(1)
        verdict = _verdict(slope.double(), found, float(g.norm()) / len(g) ** 0.5, theta.dtype)
        self._tell("gradient", verdict, 2 * len(steps) + 1)
        if verdict != "differs":
            return None
        return (
            f"The gradient is not that of the loss: along one direction {slope.item():.6g} by backpropagation and "
            f"{found[2].item():.6g} by differences{_functions(function, theta, batch)}. {_WAY_OUT}"
        )

    def _curvature(self, function: FunctionalModel, batch: Any, gradient: Gradient, product: Product) -> str | None:
        theta, v, steps = _line(function, _SEEDS[1])
        bent = product(function, theta, copied(batch), v).double().cpu()
        found = []
        for h in steps:
            up, down = (gradient(function, theta + s * h * v, copied(batch))[1].double() for s in (1, -1))
            found.append(((up - down) / (2 * h)).cpu())
        noise = 1e-6 * float(gradient(function, theta, copied(batch))[1].norm())
        verdict = _verdict(bent, found, noise, theta.dtype)
        self._tell("curvature", verdict, 2 * len(steps) + 2)
        if verdict != "differs":
            return None
        return (
            f"The curvature is not that of the loss: H v has norm {float(bent.norm()):.6g} by backpropagation and "
            f"{float(found[2].norm()):.6g} by differences of the gradient, {float((bent - found[2]).norm()):.3g} apart"
            f"{_functions(function, theta, batch)}. {_WAY_OUT}"
        )

    def _tell(self, what: str, verdict: str, passes: int) -> None:
        self._told.append(f"self-check of the {what}: {verdict}, {passes} passes over one batch")


_WAY_OUT = (
    "Write backward with differentiable operations on what it saved as inputs, and no detach(); check='warn' goes on "
    "regardless; surfaces, barriers and noise need values only."
)


def _verdict(
    given: Tensor, found: list[Tensor], scale: float, dtype: torch.dtype
) -> Literal["agrees", "differs", "undecided"]:
    """``differs`` only where neighbouring steps agree with each other far better than any does with ``given``."""
    tolerance = 1e-4 if dtype == torch.float64 else 2e-2
    size = max(float(given.norm()), scale)
    apart = [float((one - given).norm()) for one in found]
    if any(a <= tolerance * max(size, float(one.norm())) for a, one in zip(apart, found, strict=True)):
        return "agrees"
    among = [float((a - b).norm()) for a, b in itertools.pairwise(found)]
    steady = [a <= 0.05 * min(apart) for a in among]
    return "differs" if any(a and b for a, b in itertools.pairwise(steady)) else "undecided"


def _line(function: FunctionalModel, seed: int) -> tuple[Tensor, Tensor, list[float]]:
    """theta, a fixed random unit vector, and steps along it that suit theta's norm and dtype."""
    theta = function.point.detach().clone()
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(theta.shape, generator=generator, dtype=torch.float64).to(theta)
    steps = _STEPS if theta.dtype == torch.float64 else (3e-2, 1e-2, 3e-3, 1e-3)
    size = max(float(theta.norm()), 1e-3)
    return theta, v / v.norm(), [h * size for h in steps]


def _value(function: FunctionalModel, theta: Tensor, batch: Any) -> float:
    with torch.no_grad(), preserved_rng(theta.device):
        return float(function.measure(function.tensors(theta), copied(batch), 0)["loss"].double().mean())


def _in_double(function: FunctionalModel) -> FunctionalModel:
    """The same function on a module and a loss module of its own in float64."""
    if function.point.dtype == torch.float64:
        return function
    return function.cast(torch.float64)


def _functions(function: FunctionalModel, theta: Tensor, batch: Any) -> str:
    """The custom autograd functions that the loss is made of, in words."""
    with torch.enable_grad(), preserved_rng(theta.device):
        loss = function.measure(function.tensors(theta.clone().requires_grad_()), copied(batch), 0)["loss"]
    names, seen, stack = set[str](), set[Any](), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if custom := getattr(type(node), "_forward_cls", None):
            names.add(custom.__name__)
        stack.extend(following for following, _ in node.next_functions)
    return f" (custom functions: {', '.join(sorted(names))})" if names else ""
