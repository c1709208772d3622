"""The same quantities by plain PyTorch: the model itself in eval mode, and no code of the package."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Loss = Callable[[Any, Any], Tensor]


def normal(*shape: int, seed: int = 1) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative_error(found: Tensor, truth: Tensor) -> float:
    """|found - truth| / |truth|."""
    return float((found.double() - truth).norm() / truth.norm())


def columns(operator: Any) -> Tensor:
    """The dense matrix of an operator, from its products with all unit vectors."""
    return operator @ torch.eye(operator.n, dtype=operator.dtype)


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def flat(model: nn.Module) -> Tensor:
    """The trainable parameters one after the other, a complex number as its real and imaginary part."""
    return torch.cat([real(parameter).reshape(-1) for _, parameter in trainable(model)]).detach()


def real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def tensors_at(model: nn.Module, theta: Tensor) -> dict[str, Tensor]:
    """The trainable parameters of which ``flat`` is ``theta``, differentiable."""
    named = trainable(model)
    parts = theta.split([real(p).numel() for _, p in named])
    pairs = [(name, p, part.clone().view(real(p).shape)) for (name, p), part in zip(named, parts, strict=True)]
    return {name: part[..., 0] + 1j * part[..., 1] if p.is_complex() else part for name, p, part in pairs}


def in_type(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model itself with its real numbers in ``dtype``, and complex ones in the complex type of that width."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            tensor.data = tensor.data.to(dtype.to_complex() if tensor.is_complex() else dtype)
    return model


def at(model: nn.Module, theta: Tensor) -> nn.Module:
    """A copy of the model, in eval mode, whose trainable parameters are ``theta``."""
    moved = copy.deepcopy(model).eval()
    for name, tensor in tensors_at(moved, theta).items():
        moved.get_parameter(name).data = tensor
    return moved


def loss_of(model: nn.Module, loss: Loss, data: tuple[Tensor, Tensor]) -> float:
    inputs, targets = data
    with torch.no_grad():
        return float(loss(copy.deepcopy(model).eval()(inputs), targets))


def loss_at(model: nn.Module, loss: Loss, data: tuple[Tensor, Tensor], theta: Tensor) -> float:
    return loss_of(at(model, theta), loss, data)


def outputs(model: nn.Module, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """theta -> f_theta(x) on all the inputs at once, differentiable, in eval mode."""
    own = copy.deepcopy(model).eval()

    def evaluate(theta: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(own, tensors_at(own, theta), (inputs,))

    return evaluate


def function(model: nn.Module, loss: Loss, data: tuple[Tensor, Tensor]) -> Callable[[Tensor], Tensor]:
    """L(theta) on all the data at once, differentiable, in float64 and in eval mode."""
    inputs, targets = (t.double() if t.is_floating_point() else t for t in data)
    evaluate = outputs(in_type(copy.deepcopy(model), torch.float64), inputs)
    return lambda theta: loss(evaluate(theta), targets)


def gradient(model: nn.Module, loss: Loss, data: tuple[Tensor, Tensor]) -> Tensor:
    theta = flat(model).double().requires_grad_()
    return torch.autograd.grad(function(model, loss, data)(theta), theta)[0]


def hessian(model: nn.Module, loss: Loss, data: tuple[Tensor, Tensor]) -> Tensor:
    """The dense n x n Hessian in float64."""
    return dense_hessian(function(model, loss, data), flat(model).double())


def product(model: nn.Module, loss: Loss, data: tuple[Tensor, Tensor], v: Tensor) -> Tensor:
    """H v in float64, by differentiating the gradient along v."""
    theta = flat(model).double().requires_grad_()
    (slope,) = torch.autograd.grad(function(model, loss, data)(theta), theta, create_graph=True)
    return torch.autograd.grad(slope @ v.double(), theta)[0]


def dense_hessian(evaluate: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    theta = theta.detach().requires_grad_()
    (slope,) = torch.autograd.grad(evaluate(theta), theta, create_graph=True)
    rows = [torch.autograd.grad(entry, theta, retain_graph=True, materialize_grads=True)[0] for entry in slope]
    return torch.stack(rows)


def central_difference(evaluate: Callable[[Tensor], float], theta: Tensor, direction: Tensor, step: float) -> float:
    return (evaluate(theta + step * direction) - evaluate(theta - step * direction)) / (2 * step)


def state_of(model: nn.Module) -> list[tuple[str, Any]]:
    """All that a user could find changed: tensors bit for bit, gradients, flags, hooks, in order."""
    found: list[tuple[str, Any]] = []
    named: Iterable[tuple[str, Tensor]] = itertools.chain(model.named_parameters(), model.named_buffers())
    for name, tensor in named:
        found.append((f"{name} is", id(tensor)))
        found.append((f"{name} holds", tensor.detach().clone()))
        found.append((f"{name} takes a gradient", tensor.requires_grad))
        found.append((f"{name} has the gradient", None if tensor.grad is None else tensor.grad.clone()))
    for name, module in model.named_modules():
        found.append((f"{name} trains", module.training))
        found.append((f"{name} has the hooks", (dict(module._forward_hooks), dict(module._forward_pre_hooks))))
        momentum = getattr(module, "momentum", None)
        found.append((f"{name} has the momentum", momentum))
    return found


def differences(before: list[tuple[str, Any]], after: list[tuple[str, Any]]) -> list[str]:
    def same(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b or a == b

    assert [name for name, _ in before] == [name for name, _ in after]
    return [name for (name, a), (_, b) in zip(before, after, strict=True) if not same(a, b)]
