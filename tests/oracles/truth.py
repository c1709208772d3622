"""A problem (model, loss, data) beside its own oracle: L over all the data at once, in float64, and what came of it.

The oracle is the criterion on all examples, differentiated by autograd; batches, weights and reductions of the package
have no part in it.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

import lossatlas as la
from lossatlas.errors import LossAtlasError, ReductionWarning
from oracles import plain
from oracles.plain import normal, relative_error

N = 12  # examples
SIZES = (12, 4, 5)  # all of them, a divisor, and batches of 5, 5 and 2
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}

Expected = Literal["right", "refused", "told", "told of batches", "either"]
Truth = Callable[[Callable[..., Any], Any], Tensor]


def rows(data: Any, size: int) -> list[Any]:
    """Batches of ``size``: the same rows of every tensor."""
    n = len(pytree.tree_leaves(data)[-1])
    return [pytree.tree_map(lambda t, i=i: t[i : i + size], data) for i in range(0, n, size)]


def cast(data: Any, dtype: torch.dtype) -> Any:
    return pytree.tree_map(lambda t: t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t, data)


@dataclass(frozen=True, eq=False)
class Problem:
    """``loss(outputs, targets)`` on a batch ``(inputs, targets)``, or with ``step`` ``loss(model, batch)``.

    ``data()`` is all of it as one batch, which ``split`` cuts. ``truth(f, data)`` is L for the function f of the model,
    by default the loss itself over all data, divided by ``divisor``; where ``whole`` is false the loss depends on the
    batch, and L is the mean over batches. ``expected`` says what must come of it: right, refused, told (the package
    warns and names the remedy), told where there are several batches, or either of the three.
    """

    name: str
    model: Callable[[], nn.Module]
    loss: Any
    data: Callable[[], Any]
    truth: Truth | None = None
    expected: Expected = "right"
    step: bool = False
    divisor: int = 1
    whole: bool = True
    split: Callable[[Any, int], list[Any]] = rows
    options: Mapping[str, Any] = field(default_factory=dict)

    def expected_at(self, size: int) -> Expected:
        """What must come of it in batches of ``size``: one batch leaves nothing open that depends on their number."""
        if self.expected != "told of batches":
            return self.expected
        return "right" if size == N else "told"

    def made(self, dtype: torch.dtype) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return plain.in_type(self.model().float(), dtype)  # the same numbers in both

    def objective(self, dtype: torch.dtype, size: int) -> la.Objective:
        loss = copy.deepcopy(self.loss).to(dtype) if isinstance(self.loss, nn.Module) else self.loss
        batches = self.split(cast(self.data(), dtype), size)
        make = la.Objective.from_step if self.step else la.Objective
        return make(self.made(dtype), loss, batches, **self.options)

    def oracle(self, size: int) -> Callable[[Tensor], Tensor]:
        """theta -> L in float64."""
        model = plain.in_type(self.made(torch.float32), torch.float64).eval()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.train(self.options.get("batch_norm") == "batch")
        data = cast(self.data(), torch.float64)
        batches = [data] if self.whole else self.split(data, size)
        counts = [len(pytree.tree_leaves(batch)[-1]) for batch in batches]

        def evaluate(theta: Tensor) -> Tensor:
            f = Function(model, plain.tensors_at(model, theta))
            with sdpa_kernel(SDPBackend.MATH):
                means = [self._criterion(f, batch) / self.divisor for batch in batches]
            return sum(n * mean for n, mean in zip(counts, means, strict=True)) / sum(counts)

        return evaluate

    def _criterion(self, f: Callable[..., Any], batch: Any) -> Tensor:
        if self.truth is not None:
            return self.truth(f, batch)
        loss = copy.deepcopy(self.loss).double() if isinstance(self.loss, nn.Module) else self.loss
        return (loss(f, batch) if self.step else loss(applied(f, batch[0]), batch[1])).mean()


@dataclass(frozen=True)
class Function:
    """What the model is at these parameters, for steps that call it or look at its parameters."""

    model: nn.Module
    tensors: dict[str, Tensor]

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return functional_call(self.model, self.tensors, inputs, named)

    def parameters(self) -> Iterable[Tensor]:
        return self.tensors.values()


def applied(f: Callable[..., Any], inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return f(**inputs)
    return f(*inputs) if isinstance(inputs, tuple | list) else f(inputs)


@dataclass
class Outcome:
    """Of each quantity: ``right``, ``refused``, ``wrong`` or ``crashed``, with what there is to say."""

    found: dict[str, tuple[str, str]]
    warned: list[warnings.WarningMessage]

    def says(self, word: str) -> list[str]:
        return [f"{name} {word}: {text}" for name, (what, text) in self.found.items() if what == word]

    def faults(self, expected: Expected) -> list[str]:
        """What is not as expected."""
        crashed, wrong, refused = map(self.says, ("crashed", "wrong", "refused"))
        told = [str(w.message) for w in self.warned if issubclass(w.category, ReductionWarning)]
        noise = [f"warned: {w.message}" for w in self.warned if not issubclass(w.category, ReductionWarning)]
        if expected == "right":
            return [*crashed, *noise, *wrong, *refused, *(f"warned: {text}" for text in told)]
        if expected == "told":
            return [*crashed, *([] if told or refused else ["not told"])]
        if expected == "refused":
            return [*crashed, *noise, *wrong, *([] if refused else ["not refused"])]
        return [*crashed, *([] if told else wrong)]


def outcome(problem: Problem, dtype: torch.dtype, size: int) -> Outcome:
    """Value, gradient and H v at a point that is not the model's own, beside the oracle."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "LSTM with projections")  # PyTorch's own, once a process, of its speed
        found = _found(problem, dtype, size)
    return Outcome(found, caught)


def _found(problem: Problem, dtype: torch.dtype, size: int) -> dict[str, tuple[str, str]]:
    try:
        o = problem.objective(dtype, size)
    except Exception as error:
        return {"objective": failure(error)}
    theta, v = moved(o), normal(o.n_parameters, seed=9).to(dtype)
    value, gradient, product = _truths(problem, dtype, None if problem.whole else size)
    tolerance = TOLERANCES[dtype]
    return {
        "value": compared(lambda: torch.tensor([o.value(theta)], dtype=torch.float64), value, tolerance),
        "gradient": compared(lambda: o.gradient(theta), gradient, tolerance),
        "H v": compared(lambda: o.with_route("exact").hvp(v, theta), product, tolerance),
    }


@functools.lru_cache(maxsize=8)
def _truths(problem: Problem, dtype: torch.dtype, size: Any) -> tuple[Tensor, ...]:
    """L, its gradient and H v at the point and along the vector of ``_found``, in float64."""
    theta = plain.flat(problem.made(dtype))
    theta = theta + 0.1 * normal(len(theta), seed=8).to(theta)
    return derivatives(problem.oracle(size), theta.double(), normal(len(theta), seed=9).to(theta).double())


def moved(o: la.Objective) -> Tensor:
    return o.point + 0.1 * normal(o.n_parameters, seed=8).to(o.point)


def derivatives(evaluate: Callable[[Tensor], Tensor], theta: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """L ``(1,)``, grad L and H v by autograd; empty where PyTorch itself has no such derivative."""
    theta = theta.detach().requires_grad_()
    value = evaluate(theta)
    gradient = _derivative(value, theta, create_graph=True)
    product = _derivative(gradient @ v, theta) if gradient.requires_grad else torch.zeros_like(gradient)
    return value.detach()[None], gradient.detach(), product


def _derivative(value: Tensor, theta: Tensor, **options: Any) -> Tensor:
    try:
        return torch.autograd.grad(value, theta, allow_unused=True, materialize_grads=True, **options)[0]
    except RuntimeError:
        return torch.empty(0)


def compared(ask: Callable[[], Tensor], truth: Tensor, tolerance: float) -> tuple[str, str]:
    try:
        found = ask()
    except Exception as error:
        kind, text = failure(error)
        return ("right" if not len(truth) and kind == "refused" else kind), text
    if not len(truth):
        return "wrong", f"|it| is {float(found.norm()):.6g}, and there is none"
    near = float((found.double() - truth).norm()) <= tolerance * max(float(truth.norm()), 1e-3)
    size = float if len(truth) == 1 else lambda t: float(t.norm())
    return (
        ("right", "")
        if near
        else ("wrong", f"{size(found):.6g} for {size(truth):.6g}, {relative_error(found, truth):.1e} off")
    )


def failure(error: Exception) -> tuple[str, str]:
    kind = "refused" if isinstance(error, LossAtlasError) and "\n" not in str(error) else "crashed"
    return kind, f"{type(error).__name__}: {error}"
