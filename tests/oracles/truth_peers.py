"""The problems on which other Hessian libraries test themselves, rebuilt: networks x criteria x reductions x shapes.

After the lists of problems of curvlinops (7 examples in two unequal batches, weights shared over positions, outputs
flattened over positions, convolutions, dict-like inputs) and of pytorch-hessian-eigenthings (linear, logistic and
softmax regression, a tanh network).
"""

from __future__ import annotations

import itertools
import warnings
from collections import UserDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import lossatlas as la
from oracles import plain
from oracles.architectures import Written
from oracles.plain import normal
from oracles.truth import Function, Outcome, Problem, applied, cast, compared, failure, moved
from oracles.truth_data import drawn, uniform, whole

TOTAL = 7  # examples
CUTS = ((3, 4), (7,), (1, 6), (2, 2, 3))
REDUCTIONS = ("mean", "sum", "none")


def cut(data: Any, sizes: Sequence[int]) -> list[Any]:
    """Batches of these sizes; a tensor with k rows an example is cut k rows an example."""
    ends = list(itertools.accumulate(sizes, initial=0))
    return [tuple(t[a * (len(t) // TOTAL) : b * (len(t) // TOTAL)] for t in data) for a, b in itertools.pairwise(ends)]


def _body(hidden: Callable[[], nn.Module] | None, outputs: int) -> nn.Module:
    """Two linear layers, with something between them; one where ``hidden`` is None."""
    return nn.Linear(4, outputs) if hidden is None else nn.Sequential(nn.Linear(4, 3), hidden(), nn.Linear(3, outputs))


def _network(hidden: Callable[[], nn.Module] | None, outputs: int, last: Callable[[Tensor], Tensor]) -> nn.Module:
    return Written(lambda m, x: last(m.body(x)), body=_body(hidden, outputs))


def _convolution(hidden: Callable[[], nn.Module] | None, outputs: int, last: Callable[[Tensor], Tensor]) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(2, 2, 2), (hidden or nn.Identity)(), nn.Conv2d(2, outputs, 1))
    return Written(lambda m, x: last(m.body(x).movedim(1, -1)), body=body)


HIDDEN: dict[str, Callable[[], nn.Module] | None] = {
    "linear": None,
    "deep linear": nn.Identity,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
# The name of a shape: the inputs, the dimensions between examples and outputs that remain, and how outputs end.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[[Tensor], Tensor], Callable[..., nn.Module]]] = {
    "vectors": ((4,), (), lambda o: o, _network),
    "positions": ((5, 4), (5,), lambda o: o, _network),
    "positions averaged": ((5, 4), (), lambda o: o.mean(1), _network),
    "two positions": ((2, 3, 4), (2, 3), lambda o: o, _network),
    "positions flattened": ((5, 4), (5,), lambda o: o.flatten(0, -2), _network),
    "images": ((2, 3, 3), (2, 2), lambda o: o, _convolution),
    "images averaged": ((2, 3, 3), (), lambda o: o.mean((1, 2)), _convolution),
    "images flattened": ((2, 3, 3), (2, 2), lambda o: o.flatten(0, -2), _convolution),
}
CRITERIA: dict[str, tuple[type[nn.Module], int]] = {
    "ce": (nn.CrossEntropyLoss, 3),
    "bce of one": (nn.BCEWithLogitsLoss, 1),
    "bce": (nn.BCEWithLogitsLoss, 2),
    "mse": (nn.MSELoss, 3),
    "mse of one": (nn.MSELoss, 1),
}


def _targets(criterion: str, between: tuple[int, ...], outputs: int) -> Tensor:
    if criterion == "ce":
        return whole(outputs, TOTAL, *between)
    draw = uniform if criterion.startswith("bce") else drawn
    return draw(TOTAL, *between, outputs, seed=11)


def peer(hidden: str, shape: str, criterion: str, reduction: str) -> Problem:
    inputs, between, last, network = SHAPES[shape]
    loss, outputs = CRITERIA[criterion]
    targets, ending = _targets(criterion, between, outputs), last
    if shape.endswith("flattened"):
        targets = targets.flatten(0, len(between))
    elif criterion == "ce" and between:
        ending = lambda o: last(o).movedim(-1, 1)  # noqa: E731, classes on axis 1
    return Problem(
        f"{hidden}, {shape}, {criterion}, {reduction}",
        lambda: network(HIDDEN[hidden], outputs, ending),
        loss(reduction=reduction),
        lambda: (drawn(TOTAL, *inputs), targets),
        divisor=TOTAL if reduction == "sum" else 1,
        split=cut,
    )


PEERS = [
    peer(*names)
    for names in itertools.product(HIDDEN, SHAPES, CRITERIA, REDUCTIONS)
    if not (names[0] == "linear" and names[1].startswith("images"))
]


class DictLike(nn.Module):
    """Takes its inputs as one dict-like object."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _body(nn.ReLU, 3)

    def forward(self, data: Any) -> Tensor:
        return self.body(data["x"])


def dict_like(batch: Any) -> Any:
    return UserDict({"x": batch[0]}), batch[1]


def curvature(problem: Problem, dtype: torch.dtype, size: Any) -> Outcome:
    """G v and the trace of H beside dense float64 ones."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return Outcome(_curvature(problem, dtype, size), caught)


def _curvature(problem: Problem, dtype: torch.dtype, size: Any) -> dict[str, tuple[str, str]]:
    try:
        o = problem.objective(dtype, size)
    except Exception as error:
        return {"objective": failure(error)}
    o = o.at(moved(o))
    theta, v = o.point.double(), normal(o.n_parameters, seed=9)
    trace = plain.dense_hessian(problem.oracle(size), theta).trace()[None]
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    return {
        "G v": compared(lambda: la.gauss_newton(o) @ v.to(dtype), gauss_newton(problem, theta, v), tolerance),
        "trace": compared(lambda: torch.tensor([la.trace(la.hessian(o)).value]).double(), trace, 1e-4),
    }


def gauss_newton(problem: Problem, theta: Tensor, v: Tensor) -> Tensor:
    """J' H_f J v with J the Jacobian of all outputs and H_f the Hessian of the criterion over all data in them."""
    model = problem.made(torch.float32).double().eval()
    inputs, targets = cast(problem.data(), torch.float64)
    named, shapes = plain.trainable(model), [p.shape for p in model.parameters() if p.requires_grad]
    names = [name for name, _ in named]

    def outputs(point: Tensor) -> Tensor:
        parts = point.split([shape.numel() for shape in shapes])
        tensors = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        with sdpa_kernel(SDPBackend.MATH):
            found: Tensor = applied(Function(model, tensors), inputs)
        return found

    point = theta.clone().requires_grad_()
    out = outputs(point)
    u = torch.zeros_like(out, requires_grad=True)
    (pulled,) = torch.autograd.grad(out, point, u, create_graph=True)  # J'u, whose derivative in u along v is J v
    (moving,) = torch.autograd.grad(pulled, u, v)
    f = out.detach().requires_grad_()
    mean = problem.loss(f, targets).mean() / problem.divisor
    (slope,) = torch.autograd.grad(mean, f, create_graph=True)
    (bent,) = torch.autograd.grad(slope, f, moving.detach())
    return torch.autograd.grad(outputs(point), point, bent)[0]
