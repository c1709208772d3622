"""Whether gradient and Hessian are those of the value: checked by differences, once, when one is first asked for."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lossatlas.errors import DerivativeWarning, InputError
from lossatlas.evaluation.looked import Gradient, Looked, Product, few_of
from lossatlas.model.data.batches import Batches, copied, preserved_rng
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.selfcheck import moved

_SEEDS = (1_000_003, 1_000_033)  # of the directions: none that an estimate of curvature begins with
_OFF = 1e-2  # of theta's norm
_MOST = 200  # parameters that are looked at one by one
_STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)


class DerivativeCheck:
    """(L(theta + h v) - L(theta - h v)) / 2h against g'v, and the gradient's difference against H v.

    On the first and the last batch, at a theta a little off the model's own, where kinks at zero weights are none, and
    what is computed with the model's own parameters shows. Differences that do not agree with each other at any h
    (kinks, rounding) decide nothing. A failure is raised at every use, or warned of once (``warn``).
    """

    def __init__(self, batches: Batches, warn: bool, told: list[str]) -> None:
        self._batches, self._warn, self._told = batches, warn, told
        self._found: WeakKeyDictionary[nn.Module, dict[str, str | None]] = WeakKeyDictionary()
        self._running = False

    def failures(self, function: FunctionalModel) -> list[str]:
        """What was found of the derivatives that differ, in words."""
        return [message for message in self._found.get(function.module, {}).values() if message]

    def pass_on(self, module: nn.Module, part: nn.Module) -> None:
        """What agrees for all of a module's parameters agrees for a part of them, which has a module of its own."""
        known = self._found.get(module, {})
        self._found[part] = {what: None for what, message in known.items() if message is None}

    def slope(self, function: FunctionalModel, gradient: Gradient) -> None:
        """``InputError`` where the gradient is not that of the value."""
        self._once("gradient", Looked(function, few_of(self._batches), gradient), self._slope)

    def curvature(self, function: FunctionalModel, gradient: Gradient, product: Product) -> None:
        """``InputError`` where H v is not the gradient's derivative."""
        self._once("curvature", Looked(function, few_of(self._batches), gradient, product), self._curvature)

    def _once(self, what: str, looked: Looked, compare: Callable[[Looked], str | None]) -> None:
        if self._running:
            return
        found = self._found.setdefault(looked.function.module, {})
        if what not in found:
            found[what] = self._outcome(what, looked, compare)
            if self._warn and (message := found[what]):
                warnings.warn(message, DerivativeWarning, stacklevel=4)
                self._told.append(message)
        if (message := found[what]) and not self._warn:
            raise InputError(message)

    def _outcome(self, what: str, looked: Looked, compare: Callable[[Looked], str | None]) -> str | None:
        self._running = True
        try:
            return compare(looked.in_double())
        except (RuntimeError, NotImplementedError) as error:  # what is asked for tells it with its remedy
            self._told.append(f"self-check of the {what}: not tried, {' '.join(str(error).split())}")
            return None
        finally:
            self._running = False

    def _slope(self, looked: Looked) -> str | None:
        theta, v, steps = _line(looked.function, _SEEDS[0])
        g = looked.gradient(theta)
        slope = (g @ v.double()).cpu().reshape(1)
        verdict, found, tried = _compared(
            slope,
            lambda h: torch.tensor([looked.slope(theta, v, h)], dtype=torch.float64),
            steps,
            float(g.norm()) / len(g) ** 0.5,
            theta.dtype,
        )
        self._tell("gradient", verdict, 2 * tried + 1, looked)
        if verdict != "differs":
            return None
        return (
            f"The gradient is not that of the loss: along one direction {slope.item():.6g} by backpropagation and "
            f"{found.item():.6g} by differences{_functions(looked, theta)}{_where(looked, theta, g)}. {_WAY_OUT}"
        )

    def _curvature(self, looked: Looked) -> str | None:
        theta, v, steps = _line(looked.function, _SEEDS[1])
        bent = looked.product(theta, v)
        noise = 1e-6 * float(looked.gradient(theta).norm())
        verdict, found, tried = _compared(bent, lambda h: looked.bent(theta, v, h), steps, noise, theta.dtype)
        self._tell("curvature", verdict, 2 * tried + 2, looked)
        if verdict != "differs":
            return None
        return (
            f"The curvature is not that of the loss: H v has norm {float(bent.norm()):.6g} by backpropagation and "
            f"{float(found.norm()):.6g} by differences of the gradient, {float((bent - found).norm()):.3g} apart"
            f"{_functions(looked, theta)}. {_WAY_OUT}"
        )

    def _tell(self, what: str, verdict: str, passes: int, looked: Looked) -> None:
        dtype, count = str(looked.function.point.dtype).removeprefix("torch."), len(looked.batches)
        self._told.append(
            f"self-check of the {what}: {verdict}, {passes} passes over examples of {count} batch(es) in {dtype}"
        )


_WAY_OUT = (
    "Leave those parameters out with parameters=, or compute without detach(), .data, .item() and no_grad(), and write "
    "backward with differentiable operations on what it saved as inputs; check='warn' goes on regardless; surfaces, "
    "barriers and noise need values only."
)


def _compared(
    given: Tensor, difference: Callable[[float], Tensor], steps: Sequence[float], scale: float, dtype: torch.dtype
) -> tuple[Literal["agrees", "differs", "undecided"], Tensor, int]:
    """A verdict on ``given`` by differences, one of these, and how many there were: no more once one agrees.

    ``differs`` only where neighbouring steps agree with each other far better than any does with ``given``. Neither
    does, where kinks or rounding decide.
    """
    tolerance = 1e-4 if dtype == torch.float64 else 2e-2
    found: dict[float, Tensor] = {}
    for h in (steps[len(steps) // 2], *steps):
        found[h] = difference(h) if h not in found else found[h]
        size = max(float(given.norm()), scale, float(found[h].norm()))
        if float((found[h] - given).norm()) <= tolerance * size:
            return "agrees", found[h], len(found)
    apart = min(float((one - given).norm()) for one in found.values())
    among = [float((found[a] - found[b]).norm()) for a, b in itertools.pairwise(steps)]
    steady = [a <= 0.05 * apart for a in among]
    verdict: Literal["differs", "undecided"] = "differs" if any(map(all, itertools.pairwise(steady))) else "undecided"
    return verdict, found[steps[len(steps) // 2]], len(found)


def _line(function: FunctionalModel, seed: int) -> tuple[Tensor, Tensor, list[float]]:
    """A theta near the model's own, a fixed random unit vector, and steps along it that suit theta's norm and dtype."""
    theta = moved(function.point, _OFF)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(theta.shape, generator=generator, dtype=torch.float64).to(theta)
    steps = _STEPS if theta.dtype == torch.float64 else (3e-2, 1e-2, 3e-3, 1e-3)
    size = max(float(theta.norm()), 1e-3)
    return theta, v / v.norm(), [h * size for h in steps]


def _where(looked: Looked, theta: Tensor, g: Tensor) -> str:
    """The parameters along which the gradient is another one, and what their modules are known for, in words."""
    entries = list(looked.function.space)
    if len(entries) > _MOST:
        return ""
    _, v, steps = _line(looked.function, _SEEDS[0])
    scale, names = 1e-3 * float(g.norm()), []
    for entry in entries:
        along = torch.zeros_like(v)
        along[entry.start : entry.stop] = v[entry.start : entry.stop]
        apart = abs(looked.slope(theta, along, steps[2]) - float(g @ along.double()))
        if apart > scale * float(along.norm()):
            names.append(entry.name)
    known = next(filter(None, (_known_for(looked.function.module, name) for name in names)), "")
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


def _functions(looked: Looked, theta: Tensor) -> str:
    """The custom autograd functions that the loss is made of, in words."""
    function = looked.function
    with torch.enable_grad(), preserved_rng(theta.device):
        tensors = function.tensors(theta.clone().requires_grad_())
        losses = [function.measure(tensors, copied(batch), 0)["loss"] for batch in looked.batches]
    names, seen, stack = set[str](), set[Any](), [loss.grad_fn for loss in losses]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if custom := getattr(type(node), "_forward_cls", None):
            names.add(custom.__name__)
        stack.extend(following for following, _ in node.next_functions)
    return f" (custom functions: {', '.join(sorted(names))})" if names else ""
