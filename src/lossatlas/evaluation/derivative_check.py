"""Whether gradient and Hessian are those of the value: checked by differences, once, when one is first asked for."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lossatlas.errors import DerivativeWarning, InputError
from lossatlas.evaluation.looked import Gradient, Line, Looked, Product, few_of
from lossatlas.evaluation.memory import free_bytes
from lossatlas.model.data.batches import Batches, copied, preserved_rng
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.selfcheck import moved

_SEED = 1_000_003  # of the direction: none that an estimate of curvature begins with
_OFF = 1e-2  # of theta's norm
_MOST = 200  # parameters that are looked at one by one
_BYTES = 80, 60  # a parameter, in float64 and as it is: the most at once, on a transformer of 22 million parameters
_STEPS = {torch.float64: (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)}  # of theta's norm
_COARSE = (3e-2, 1e-2, 3e-3, 1e-3)
_FINE = {torch.float64: (1e-10, 1e-8)}  # tried first: they meet no kinks, but where they disagree it may be rounding

What = Literal["gradient", "curvature"]


class DerivativeCheck:
    """(L(theta + h v) - L(theta - h v)) / 2h against g'v, and the gradient's difference against H v.

    On the first and the last batch, at a theta a little off the model's own, where kinks at zero weights are none, and
    what is computed with the model's own parameters shows. Differences that do not agree with each other at any h
    (kinks, rounding) decide nothing. A failure is raised at every use, or warned of once (``warn``). ``room`` is how
    many bytes a check may take, None for half of what is free: in float64 if it is enough for that.
    """

    room: int | None = None

    def __init__(self, batches: Batches, warn: bool, told: list[str]) -> None:
        self._batches, self._warn, self._told = batches, warn, told
        self._found: WeakKeyDictionary[nn.Module, dict[What, str | None]] = WeakKeyDictionary()
        self._running = False
        self._why = ""  # not in float64, in words

    def failures(self, function: FunctionalModel) -> list[str]:
        """What was found of the derivatives that differ, in words."""
        return [message for message in self._found.get(function.module, {}).values() if message]

    def pass_on(self, module: nn.Module, part: nn.Module) -> None:
        """What agrees for all of a module's parameters agrees for a part of them, which has a module of its own."""
        known = self._found.get(module, {})
        self._found[part] = {what: None for what, message in known.items() if message is None}

    def slope(self, function: FunctionalModel, gradient: Gradient) -> None:
        """``InputError`` where the gradient is not that of the value."""
        self._once(("gradient",), function, gradient, None)

    def curvature(self, function: FunctionalModel, gradient: Gradient, product: Product) -> None:
        """``InputError`` where the gradient is not that of the value, or H v not the gradient's derivative."""
        self._once(("gradient", "curvature"), function, gradient, product)

    def _once(
        self, asked: Sequence[What], function: FunctionalModel, gradient: Gradient, product: Product | None
    ) -> None:
        if self._running:
            return
        found = self._found.setdefault(function.module, {})
        if missing := [what for what in asked if what not in found]:
            for what, message in self._outcomes(missing, function, gradient, product):
                found[what] = message
                if message and not self._warn:
                    break
                self._tell_of(message)
        if (message := next(filter(None, map(found.get, asked)), None)) and not self._warn:
            raise InputError(message)

    def _tell_of(self, message: str | None) -> None:
        if message:
            warnings.warn(message, DerivativeWarning, stacklevel=5)
            self._told.append(message)

    def _outcomes(
        self, missing: Sequence[What], function: FunctionalModel, gradient: Gradient, product: Product | None
    ) -> Iterator[tuple[What, str | None]]:
        """What is asked for and what was found of it, one after the other, on passes that serve both."""
        line: Line | None = None
        for what in missing:
            self._running = True
            try:
                line = line or self._line(function, gradient, product)
                found = self._slope(line) if what == "gradient" else self._curvature(line)
            except (RuntimeError, NotImplementedError, InputError) as error:
                if what == "gradient" and isinstance(error, InputError):
                    raise
                # What is asked for tells it with its remedy, or does without.
                self._told.append(f"self-check of the {what}: not tried, {' '.join(str(error).split())}")
                found = None
            finally:
                self._running = False
            yield what, found

    def _line(self, function: FunctionalModel, gradient: Gradient, product: Product | None) -> Line:
        """``RuntimeError`` where there is no room."""
        double, single = (each * len(function.point) for each in _BYTES)
        room = free_bytes(function.point.device) // 2 if self.room is None else self.room
        if room < single:
            raise RuntimeError(f"it takes about {single:,} bytes, and may take {room:,}: give more memory")
        looked = Looked(function, few_of(self._batches, len(function.point)), gradient, product)
        if room >= double:
            return _line(looked.in_double())
        if function.point.dtype != torch.float64:
            self._why = f", since float64 takes about {double:,} bytes, and may take {room:,}"
        return _line(looked)

    def _slope(self, line: Line) -> str | None:
        before = line.passes
        along, norm = line.first
        slope = torch.tensor([along], dtype=torch.float64)
        scale = norm / len(line.v) ** 0.5
        verdict, found = _compared(slope, lambda h: torch.tensor([line.slope(h)], dtype=torch.float64), line, scale)
        self._tell("gradient", verdict, line, before)
        if verdict != "differs":
            return None
        return (
            f"The gradient is not that of the loss: along one direction {slope.item():.6g} by backpropagation and "
            f"{found.item():.6g} by differences{_functions(line)}{_where(line)}. {_WAY_OUT}"
        )

    def _curvature(self, line: Line) -> str | None:
        before = line.passes
        noise = 1e-6 * line.first[1]
        bent = line.product()
        verdict, found = _compared(bent, line.bent, line, noise)
        self._tell("curvature", verdict, line, before)
        if verdict != "differs":
            return None
        return (
            f"The curvature is not that of the loss: H v has norm {float(bent.norm()):.6g} by backpropagation and "
            f"{float(found.norm()):.6g} by differences of the gradient, {float((bent - found).norm()):.3g} apart"
            f"{_functions(line)}. route='differences' takes differences of the gradient instead. {_WAY_OUT}"
        )

    def _tell(self, what: What, verdict: str, line: Line, before: int) -> None:
        looked, dtype = line.looked, str(line.theta.dtype).removeprefix("torch.")
        self._told.append(
            f"self-check of the {what}: {verdict}, {line.passes - before} passes over examples of "
            f"{len(looked.batches)} batch(es) in {dtype}{self._why}"
        )


_WAY_OUT = (
    "Leave those parameters out with parameters=, or compute without detach(), .data, .item() and no_grad(), and write "
    "backward with differentiable operations on what it saved as inputs; check='warn' goes on regardless; surfaces, "
    "barriers and noise need values only."
)


def _compared(
    given: Tensor, difference: Callable[[float], Tensor], line: Line, scale: float
) -> tuple[Literal["agrees", "differs", "undecided"], Tensor]:
    """A verdict on ``given`` by differences, and one of these: there are no more once one agrees.

    ``differs`` only where neighbouring steps, of which none is fine, agree with each other far better than any does
    with ``given``. Neither does, where kinks or rounding decide.
    """
    tolerance = 1e-4 if line.theta.dtype == torch.float64 else 2e-2
    apart = math.inf

    def agrees(found: Tensor) -> bool:
        nonlocal apart
        off = float((found - given).norm())
        apart = min(apart, off)
        return off <= tolerance * max(float(given.norm()), scale, float(found.norm()))

    for h in (*line.fine, middle := line.steps[len(line.steps) // 2]):
        if agrees(found := difference(h)):
            return "agrees", found
    among, last = list[float](), None
    for h in line.steps:
        if agrees(found := difference(h)):
            return "agrees", found
        if last is not None:
            among.append(float((found - last).norm()))
        last = found
    steady = [each <= 0.05 * apart for each in among]
    verdict: Literal["differs", "undecided"] = "differs" if any(map(all, itertools.pairwise(steady))) else "undecided"
    return verdict, difference(middle)


def _line(looked: Looked) -> Line:
    """A theta near the model's own, a fixed random unit vector, and steps along it that suit theta's norm and dtype."""
    looked = replace(looked, function=looked.function.at(moved(looked.function.point, _OFF)))
    theta = looked.function.point
    v = torch.randn(theta.shape, generator=torch.Generator().manual_seed(_SEED)).to(theta)
    steps, fine = _STEPS.get(theta.dtype, _COARSE), _FINE.get(theta.dtype, ())
    size = max(float(theta.norm()), 1e-3)
    return Line(looked, theta, v.div_(v.norm()), [h * size for h in steps], [h * size for h in fine])


def _where(line: Line) -> str:
    """The parameters along which the gradient is another one, and what their modules are known for, in words."""
    function = line.looked.function
    entries = list(function.space)
    if len(entries) > _MOST:
        return ""
    g = line.gradient()
    scale, names = 1e-3 * float(g.norm()), []
    for entry in entries:
        along = torch.zeros_like(line.v)
        along[entry.start : entry.stop] = line.v[entry.start : entry.stop]
        apart = abs(line.slope(line.steps[2], along) - float(g @ along.double()))
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


def _functions(line: Line) -> str:
    """The custom autograd functions that the loss is made of, in words."""
    function, theta = line.looked.function, line.theta
    with torch.enable_grad(), preserved_rng(theta.device):
        tensors = function.tensors(theta.clone().requires_grad_())
        losses = [function.measure(tensors, copied(batch), 0)["loss"] for batch in line.looked.batches]
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
