"""Whether the values of a function of theta are its own: checked once, when an objective is made."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.batches import Batches, copied, preserved_rng

_STEP = "hand the model in instead: Objective.from_step(model, lambda model, batch: ..., batches)"


class Function(Protocol):
    """What the check needs of a ``FunctionalModel``."""

    module: nn.Module
    point: Tensor

    def tensors(self, theta: Tensor) -> dict[str, Tensor]: ...
    def measure(self, tensors: dict[str, Tensor], batch: Any, index: int) -> dict[str, Tensor]: ...
    def module_at(self, theta: Tensor) -> nn.Module: ...
    def measured_by(self, module: nn.Module, batch: Any, index: int) -> dict[str, Tensor]: ...


def references(call: Any) -> Iterator[tuple[str, Any]]:
    """Names and values that a loss or step refers to: closure, globals in use, defaults, bound objects, attributes."""
    if isinstance(call, functools.partial):
        yield from references(call.func)
        yield from ((f"argument {i}", value) for i, value in enumerate(call.args))
        yield from call.keywords.items()
    elif (bound := getattr(call, "__self__", None)) is not None:
        yield "self", bound
        yield from references(getattr(call, "__func__", None))
    elif (code := getattr(call, "__code__", None)) is not None:
        yield from _cells(call.__closure__, code.co_freevars)
        yield from ((name, call.__globals__[name]) for name in code.co_names if name in call.__globals__)
        yield from (getattr(call, "__kwdefaults__", None) or {}).items()
        yield from (("a default", value) for value in call.__defaults__ or ())
    elif call is not None and hasattr(call, "__dict__"):
        yield from vars(call).items()
        yield from vars(call).get("_modules", {}).items()


def _cells(cells: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(names, cells or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue


def refuse_references(model: nn.Module, call: Any) -> None:
    """``InputError`` where the loss or step uses the model that was given, or has trainable parameters of its own."""
    own = {id(thing) for thing in [*model.modules(), *model.parameters()]}
    for name, value in references(call):
        things = list(value) if isinstance(value, list | tuple) else [value]
        if any(id(thing) in own for thing in things):
            raise InputError(
                f"The loss or step refers to the model itself as {name!r}, which stays as it is while theta moves: "
                f"{_STEP}."
            )
    if isinstance(call, nn.Module) and any(p.requires_grad for p in call.parameters()):
        raise InputError(
            f"The loss {type(call).__name__} has trainable parameters of its own, which are not part of theta: put it "
            "into the model and use Objective.from_step, or fix them with requires_grad_(False)."
        )


def check_values(function: Function, batches: Batches) -> str:
    """What was checked, in words; ``InputError`` where the value is no function of theta, or not the model's."""
    batch = next(iter(batches))
    before = _attributes(function.module)
    first, second = _value(function, batch), _value(function, batch)
    if not _same(first, second):
        changed = _changed(before, _attributes(function.module))
        where = f" ({', '.join(changed[:3])} changed)" if changed else ""
        raise InputError(
            f"The loss is {first} and then {second} at the same parameters and batch{where}: remove what the model, "
            "loss or data keep between calls (counters, caches, own generators, inputs changed in place)."
        )
    traced = _with_gradients(function, batch)
    if traced is not None and not _same(first, traced):
        raise InputError(
            f"The loss is {first} with gradients off and {traced} with gradients on: make the model compute the same "
            "in both, without asking torch.is_grad_enabled() or requires_grad."
        )
    _check_moved(function, batch)
    gradients = "with gradients" if traced is not None else "not with gradients, which fails"
    return f"self-check of values: 5 passes over one batch, equal when repeated, {gradients}, and at a moved point"


def _with_gradients(function: Function, batch: Any) -> float | None:
    """The value with gradients on; None where the model or loss has values only (it goes through NumPy, say)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is asked for a derivative warns
            return _value(function, batch, gradients=True)
    except InputError:
        return None


def _check_moved(function: Function, batch: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(function.point.shape, generator=generator, dtype=torch.float64).to(function.point)
    theta = function.point + 1e-2 * function.point.norm() / max(float(noise.norm()), 1e-30) * noise
    with torch.no_grad(), preserved_rng(function.point.device):
        module = function.module_at(theta)
        real = _mean(function.measured_by(module, copied(batch), 0))
    found = _value(function, batch, theta)
    if not _same(found, real):
        raise InputError(
            f"At moved parameters the loss is {found}, and {real} for the model that really has them: parameters are "
            f"kept elsewhere as well (a copy, a cache, a list of tensors); keep them as nn.Parameter only, or {_STEP}."
        )


def _value(function: Function, batch: Any, theta: Tensor | None = None, *, gradients: bool = False) -> float:
    at = (function.point if theta is None else theta).detach().clone().requires_grad_(gradients)
    with preserved_rng(at.device), torch.set_grad_enabled(gradients):
        return _mean(function.measure(function.tensors(at), copied(batch), 0))


def _mean(measured: dict[str, Tensor]) -> float:
    return float(measured["loss"].detach().double().mean())


def _same(a: float, b: float) -> bool:
    return a == b or a != a or b != b or abs(a - b) <= 1e-4 * max(abs(a), abs(b), 1e-3)


def _attributes(model: nn.Module) -> dict[str, str]:
    plain = (int, float, str, bool, list, tuple, dict, Tensor)
    return {
        f"{name or 'the model'}.{key}": repr(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, plain) and not key.startswith("_")
    }


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name, value in after.items() if before.get(name) != value]
