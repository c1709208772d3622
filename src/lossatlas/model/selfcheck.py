"""Whether a loss is a function of theta and of nothing else: looked at once, when an objective is made."""

from __future__ import annotations

import functools
import itertools
import warnings
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lossatlas.errors import InputError
from lossatlas.model.data.batches import Batches, copied, preserved_rng
from lossatlas.model.data.randomness import has_drawn

_STEP = "hand the model in instead: Objective.from_step(model, lambda model, batch: ..., batches)"
_MOVED = 0.1  # the relative length of the move at which the model is compared with one that really has the parameters
_TOLERANCE = {"repeated": 16, "alike": 64, "kernels": 200}  # machine epsilons
_FAR = (0.3, 1.0, 3.0, 10.0)  # and of those at which a loss that does not depend on theta is still the same


class Function(Protocol):
    """What the check needs of a ``FunctionalModel``."""

    module: nn.Module
    point: Tensor
    draws: bool
    written: frozenset[str]

    def tensors(self, theta: Tensor) -> dict[str, Tensor]: ...
    def measure(self, tensors: dict[str, Tensor], batch: Any, index: int) -> dict[str, Tensor]: ...
    def given(self, tensors: dict[str, Tensor], batch: Any, index: int) -> Tensor: ...
    def module_from(self, model: nn.Module, theta: Tensor) -> nn.Module: ...
    def measured_by(self, module: nn.Module, batch: Any, index: int) -> dict[str, Tensor]: ...


def some_of(batches: Batches) -> list[Any]:
    """The first batch, and the last where they are held in memory, else the second."""
    kept = batches.kept()
    return [kept[0], *kept[1:][-1:]] if kept is not None else list(itertools.islice(batches, 2))


def check_values(function: Function, model: nn.Module, batches: Batches) -> str:
    """What was checked, in words; ``InputError`` where the value is no function of theta, or not the model's.

    ``model`` is the one that was given, which is read and never called.
    """
    looked, before = some_of(batches), _attributes(function.module)
    values = [_value(function, batch) for batch in looked]
    _require_repeated(function, looked, values, before)
    told = _with_gradients(function, model, looked[0], values[0])
    _as_the_model(function, model, looked[-1])
    _require_repeated(function, looked, values, before)  # small changes at each call have added up
    passes = f"7 passes over {'the first and the last batch' if len(looked) > 1 else 'one batch'}"
    return (
        f"self-check of values: {passes}, equal when repeated, {told}, and those of a fresh copy of the model at a "
        f"moved point{_besides(function)}"
    )


def _besides(function: Function) -> str:
    """What else is to be known of the function, in words."""
    drawn = "; random numbers are those of fixed seeds, one for each batch" if function.draws else ""
    names = ", ".join(sorted(name.removeprefix("model.") for name in function.written)[:4])
    return drawn + (f"; a call writes into {names}, which each batch finds as they were" if names else "")


def _require_repeated(function: Function, batches: list[Any], values: list[float], before: dict[str, str]) -> None:
    for batch, value in zip(batches, values, strict=True):
        again = _value(function, batch)
        if not _same(value, again, function.point.dtype, like="repeated"):
            changed = _changed(before, _attributes(function.module))
            where = f" ({', '.join(changed[:3])} changed)" if changed else ""
            raise InputError(
                f"The loss is {value} and then {again} at the same parameters and batch{where}: remove what the model, "
                "loss or data keep between calls (counters, caches, own generators, inputs changed in place)."
            )


def _with_gradients(function: Function, model: nn.Module, batch: Any, value: float) -> str:
    """That value and the loss's own are the same with gradients on, and of theta alone; what was found, in words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is asked for a derivative warns
            traced = _value(function, batch, gradients=True)
            loss, watch = _watched(function, model, batch)
    except InputError:  # there are values only: it goes through NumPy, say
        traced, (loss, watch) = value, _watched(function, model, batch, gradients=False)
    if not _same(value, traced, function.point.dtype):
        _require_repeated(function, [batch], [value], {})
        raise InputError(
            f"The loss is {value} with gradients off and {traced} with gradients on: make the model compute the same "
            "in both, without asking torch.is_grad_enabled() or requires_grad."
        )
    watch.refuse_others(loss)
    if not loss.requires_grad:
        _require_dependence(function, batch, value)
        return "not with gradients, which it has none of"
    return "with gradients"


def _watched(function: Function, model: nn.Module, batch: Any, *, gradients: bool = True) -> tuple[Tensor, Outside]:
    theta = function.point.detach().clone().requires_grad_(gradients)
    with preserved_rng(theta.device), torch.set_grad_enabled(gradients), Outside(model, function.module) as watch:
        loss = function.given(function.tensors(theta), copied(batch), 0)
        function.draws = has_drawn(theta.device)
    return loss, watch


class Outside(TorchFunctionMode):
    """Sees what is computed with that theta does not move: tensors of the model that was given, other parameters."""

    def __init__(self, model: nn.Module, private: nn.Module) -> None:
        super().__init__()
        named = itertools.chain(model.named_parameters(), model.named_buffers())
        self._given = {place: name for name, tensor in named if (place := _place(tensor))}
        self._model = model
        self._own = {id(parameter) for parameter in private.parameters()}
        self.of_given: str | None = None
        self.parameters: dict[int, nn.Parameter] = {}

    def __enter__(self) -> Outside:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.backward:
            raise InputError("The loss or step calls backward(): leave that out and return the loss alone.")
        for one in tree_leaves((args, kwargs or {})):
            if isinstance(one, Tensor):
                self._look(one)
        return func(*args, **(kwargs or {}))

    def _look(self, tensor: Tensor) -> None:
        with torch._C.DisableTorchFunction():
            self.of_given = self.of_given or self._given.get(_place(tensor))
            if isinstance(tensor, nn.Parameter) and tensor.requires_grad and id(tensor) not in self._own:
                self.parameters[id(tensor)] = tensor

    def refuse_others(self, loss: Tensor) -> None:
        """``InputError`` where the loss is made of the given model's own tensors, or has parameters besides theta."""
        if self.of_given is not None:
            if closure := _function_in(self._model):
                raise InputError(
                    f"The model's {closure} is a function that refers to the model that was given, as a copy of it "
                    "still does: make it a method, or a submodule, of the model's class."
                )
            raise InputError(
                f"The loss or step computes with {self.of_given!r} of the model that was given, which stays as it "
                f"is while theta moves: {_STEP}; for a fixed reference use copy.deepcopy(model).requires_grad_(False)."
            )
        others = list(self.parameters.values())
        if not others or not loss.requires_grad:
            return
        found = torch.autograd.grad(loss.sum(), others, allow_unused=True)
        if shapes := [tuple(p.shape) for p, one in zip(others, found, strict=True) if one is not None]:
            raise InputError(
                f"The loss or step has trainable parameters of its own, of shape {', '.join(map(str, shapes[:3]))}, "
                "which are not part of theta: put them into the model and use Objective.from_step, or fix them with "
                "requires_grad_(False)."
            )


def _function_in(model: nn.Module) -> str:
    """The first attribute or hook of the model that is a function with variables of its own, in words."""
    for where, module in model.named_modules():
        for name, value in vars(module).items():
            found = list(value.values()) if isinstance(value, dict) else [value]
            if any(isinstance(one, functools.partial) or getattr(one, "__closure__", None) for one in found):
                return f"{name!r} of {where or 'the model itself'}"
    return ""


def _place(tensor: Tensor) -> int:
    """Where a tensor's numbers are; 0 for one that has none of its own (sparse, nested, or inside vmap)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


def _require_dependence(function: Function, batch: Any, value: float) -> None:
    moves = itertools.product(_FAR, (0, 1))
    if all(_value(function, batch, moved(function.point, far, seed)) == value for far, seed in moves):
        raise InputError(
            f"The loss is {value} whatever the parameters are, on the first batch: compute it with the model that is "
            f"handed over; {_STEP}."
        )


def _as_the_model(function: Function, model: nn.Module, batch: Any) -> None:
    """The value at a moved theta is that of a model that was never called before and really has these parameters."""
    theta = moved(function.point, _MOVED)
    found, real = _value(function, batch, theta), _fresh(function, model, batch, theta)
    if _same(found, real, theta.dtype, like="alike"):
        return
    at_rest, fresh = _value(function, batch), _fresh(function, model, batch, function.point)
    if not _same(at_rest, fresh, theta.dtype):
        raise InputError(
            f"The loss is {fresh} for a fresh copy of the model and {at_rest} for one that was called before: the "
            "model keeps something of its first calls; make it compute the same every time."
        )
    raise InputError(
        f"At moved parameters the loss is {found}, and {real} for the model that really has them: parameters are "
        f"kept elsewhere as well (a copy, a cache, a list of tensors); keep them as nn.Parameter only, or {_STEP}."
    )


def _fresh(function: Function, model: nn.Module, batch: Any, theta: Tensor) -> float:
    with torch.no_grad(), preserved_rng(theta.device):
        return _mean(function.measured_by(function.module_from(model, theta), copied(batch), 0))


def moved(point: Tensor, length: float, seed: int = 0) -> Tensor:
    """``point`` moved at random by this share of its norm, and where that is 0 of one."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(point.shape, generator=generator).to(point)
    size = float(point.double().norm()) or 1.0
    return torch.add(point.detach(), noise, alpha=length * size / max(float(noise.norm()), 1e-30))


def _value(function: Function, batch: Any, theta: Tensor | None = None, *, gradients: bool = False) -> float:
    at = (function.point if theta is None else theta).detach().clone().requires_grad_(gradients)
    with preserved_rng(at.device), torch.set_grad_enabled(gradients):
        return _mean(function.measure(function.tensors(at), copied(batch), 0))


def _mean(measured: dict[str, Tensor]) -> float:
    return float(measured["loss"].detach().double().mean())


def _same(a: float, b: float, dtype: torch.dtype, *, like: Literal["repeated", "alike", "kernels"] = "kernels") -> bool:
    """Equal up to rounding: of the same computation, of one alike on tensors elsewhere, of one by other kernels."""
    eps = torch.finfo(dtype).eps
    tolerance = min(max(_TOLERANCE[like] * eps, 1e-10 * (like == "kernels")), 0.05)
    return a == b or (a != a and b != b) or abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-2)


def _attributes(model: nn.Module) -> dict[str, str]:
    plain, everywhere = (int, float, str, bool, list, tuple, dict, Tensor), vars(nn.Module()).keys()
    return {
        f"{name or 'the model'}.{key}": repr(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, plain) and key not in everywhere
    }


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name, value in after.items() if before.get(name) != value]
