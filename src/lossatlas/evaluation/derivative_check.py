"""Whether gradient and Hessian are those of the value: checked by differences, once, when one is first asked for."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lossatlas.errors import DerivativeWarning, InputError
from lossatlas.model.batches import Batches, copied, preserved_rng, refill, tensors_in
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.selfcheck import moved

_SEEDS = (1_000_003, 1_000_033)  # of the directions: none that an estimate of curvature begins with
_OFF = 1e-2  # of theta's norm
_MOST = 200  # parameters that are looked at one by one
_STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
Gradient = Callable[[FunctionalModel, Tensor, Any], tuple[Tensor, Tensor]]
Product = Callable[[FunctionalModel, Tensor, Any, Tensor], Tensor]


class DerivativeCheck:
    """(L(theta + h v) - L(theta - h v)) / 2h against g'v, and the gradient's difference against H v, on one batch.

    Both at a theta a little off the model's own, where kinks at zero weights are none, and what is computed with the
    model's own parameters shows. Differences that do not agree with each other at any h (kinks, rounding) decide
    nothing. A failure is raised at every use, or warned of once (``warn``).
    """

    def __init__(self, batches: Batches, warn: bool, told: list[str]) -> None:
        self._batches, self._warn, self._told = batches, warn, told
        self._found: WeakKeyDictionary[nn.Module, dict[str, str | None]] = WeakKeyDictionary()
        self._running = False

    def failures(self, function: FunctionalModel) -> list[str]:
        """What was found of the derivatives that differ, in words."""
        return [message for message in self._found.get(function.module, {}).values() if message]

    def slope(self, function: FunctionalModel, gradient: Gradient) -> None:
        """``InputError`` where the gradient is not that of the value."""
        self._once("gradient", function, lambda one, batch: self._slope(one, batch, gradient))

    def curvature(self, function: FunctionalModel, gradient: Gradient, product: Product) -> None:
        """``InputError`` where H v is not the gradient's derivative."""
        self._once("curvature", function, lambda one, batch: self._curvature(one, batch, gradient, product))

    def _once(self, what: str, function: FunctionalModel, look: Callable[[FunctionalModel, Any], str | None]) -> None:
        if self._running:
            return
        found = self._found.setdefault(function.module, {})  # another selection of parameters has a module of its own
        if what not in found:
            found[what] = self._looked(what, function, look)
            if self._warn and (message := found[what]):
                warnings.warn(message, DerivativeWarning, stacklevel=4)
                self._told.append(message)
        if (message := found[what]) and not self._warn:
            raise InputError(message)

    def _looked(
        self, what: str, function: FunctionalModel, look: Callable[[FunctionalModel, Any], str | None]
    ) -> str | None:
        self._running = True
        try:
            return look(*self._problem(function))
        except (RuntimeError, NotImplementedError) as error:  # what is asked for tells it with its remedy
            self._told.append(f"self-check of the {what}: not tried, {' '.join(str(error).split())}")
            return None
        finally:
            self._running = False

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
        found = [torch.tensor([_difference(function, theta, v, h, batch)]) for h in steps]
        slope = (g @ v.double()).cpu().reshape(1)
        verdict = _verdict(slope.double(), found, float(g.norm()) / len(g) ** 0.5, theta.dtype)
        self._tell("gradient", verdict, 2 * len(steps) + 1, theta.dtype)
        if verdict != "differs":
            return None
        return (
            f"The gradient is not that of the loss: along one direction {slope.item():.6g} by backpropagation and "
            f"{found[2].item():.6g} by differences{_functions(function, theta, batch)}"
            f"{_where(function, theta, g, batch)}. {_WAY_OUT}"
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
        self._tell("curvature", verdict, 2 * len(steps) + 2, theta.dtype)
        if verdict != "differs":
            return None
        return (
            f"The curvature is not that of the loss: H v has norm {float(bent.norm()):.6g} by backpropagation and "
            f"{float(found[2].norm()):.6g} by differences of the gradient, {float((bent - found[2]).norm()):.3g} apart"
            f"{_functions(function, theta, batch)}. {_WAY_OUT}"
        )

    def _tell(self, what: str, verdict: str, passes: int, dtype: torch.dtype) -> None:
        number = str(dtype).removeprefix("torch.")
        self._told.append(f"self-check of the {what}: {verdict}, {passes} passes over one batch in {number}")


_WAY_OUT = (
    "Leave those parameters out with parameters=, or compute without detach(), .data, .item() and no_grad(), and write "
    "backward with differentiable operations on what it saved as inputs; check='warn' goes on regardless; surfaces, "
    "barriers and noise need values only."
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
    """A theta near the model's own, a fixed random unit vector, and steps along it that suit theta's norm and dtype."""
    theta = moved(function.point, _OFF)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(theta.shape, generator=generator, dtype=torch.float64).to(theta)
    steps = _STEPS if theta.dtype == torch.float64 else (3e-2, 1e-2, 3e-3, 1e-3)
    size = max(float(theta.norm()), 1e-3)
    return theta, v / v.norm(), [h * size for h in steps]


def _difference(function: FunctionalModel, theta: Tensor, v: Tensor, h: float, batch: Any) -> float:
    """(L(theta + h v) - L(theta - h v)) / 2h."""
    return (_value(function, theta + h * v, batch) - _value(function, theta - h * v, batch)) / (2 * h)


def _value(function: FunctionalModel, theta: Tensor, batch: Any) -> float:
    with torch.no_grad(), preserved_rng(theta.device):
        return float(function.measure(function.tensors(theta), copied(batch), 0)["loss"].double().mean())


def _in_double(function: FunctionalModel) -> FunctionalModel:
    """The same function on a module and a loss module of its own in float64."""
    if function.point.dtype == torch.float64:
        return function
    return function.cast(torch.float64)


def _where(function: FunctionalModel, theta: Tensor, g: Tensor, batch: Any) -> str:
    """The parameters along which the gradient is another one, and what their modules are known for, in words."""
    entries = list(function.space)
    if len(entries) > _MOST:
        return ""
    *_, v, steps = _line(function, _SEEDS[0])
    scale, names = 1e-3 * float(g.norm()), []
    for entry in entries:
        along = torch.zeros_like(v)
        along[entry.start : entry.stop] = v[entry.start : entry.stop]
        apart = abs(_difference(function, theta, along, steps[2], batch) - float(g @ along.double()))
        if apart > scale * float(along.norm()):
            names.append(entry.name)
    known = next(filter(None, (_known_for(function.module, name) for name in names)), "")
    return f"; it differs for {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}{known}" if names else ""


def _known_for(module: nn.Module, name: str) -> str:
    owner: Any = module.get_submodule(name.rpartition(".")[0])
    if getattr(owner, "padding_idx", None) is not None:
        return (
            f" (an embedding's row padding_idx={owner.padding_idx} gets no gradient, and the loss depends on it: mask "
            "padding out of the loss, or give a copy of the model with padding_idx=None)"
        )
    if getattr(owner, "max_norm", None) is not None:
        return f" (max_norm={owner.max_norm} rescales rows, which has no gradient: give a copy with max_norm=None)"
    return ""


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
