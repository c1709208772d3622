"""Losses that differentiate: value, gradient and H v against a dense float64 oracle on the model itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from lossatlas.curvature.operators import hessian
from lossatlas.evaluation.products import products, routes
from lossatlas.geometry.draws import random_directions
from lossatlas.geometry.regions import plane
from lossatlas.objective import Objective
from lossatlas.surfaces.surface import surface


class Net(nn.Module):
    def __init__(self, n):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(n, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, x):
        return self.net(x)


class Forces(Net):
    """Energies and their negative slopes."""

    def forward(self, x):
        x = x.clone().requires_grad_()
        energy = self.net(x)[:, 0]
        return energy, -torch.autograd.grad(energy.sum(), x, create_graph=True)[0]


def residual(model, batch):
    x = batch[0].requires_grad_()  # in place, as is often written: the batch that was given must not notice
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return (bend + torch.sin(x)).pow(2).mean()


def penalty(model, batch):
    """The squared gradient in the parameters themselves."""
    loss = model(batch[0]).pow(2).mean()
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    return loss + sum(slope.pow(2).sum() for slope in slopes)


def of_forces(outputs, targets):
    energy, force = outputs
    return (energy - targets[0]).pow(2).mean() + (force - targets[1]).pow(2).mean()


def pinn(dtype):
    x = torch.linspace(0, 3, 12)[:, None]
    return Objective.from_step(Net(1), residual, [(x,)], dtype=dtype), Net(1), lambda m: residual(m, (x.double(),))


def penalised(dtype):
    x = torch.linspace(0, 3, 12)[:, None]
    # The square of a mean's gradient is no mean over examples: the weight is stated.
    objective = Objective.from_step(Net(1), penalty, [(x,)], dtype=dtype, weight=lambda batch: len(batch[0]))
    return objective, Net(1), lambda m: penalty(m, (x.double(),))


def forces(dtype):
    x, energy = torch.randn(10, 2, generator=torch.Generator().manual_seed(1)), torch.linspace(-1, 1, 10)
    objective = Objective(Forces(2), of_forces, [(x, (energy, x.sin()))], dtype=dtype)
    return objective, Forces(2), lambda m: of_forces(m(x.double()), (energy.double(), x.sin().double()))


class Whole(nn.Module):
    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self):
        return self.loss(self.model)


def oracle(model, loss):
    whole, shapes = Whole(model.double(), loss), {n: p.shape for n, p in model.named_parameters()}

    def value(theta):
        pieces = theta.split([shape.numel() for shape in shapes.values()])
        named = {f"model.{name}": piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}
        return functional_call(whole, named, ())

    return value


@pytest.mark.parametrize("make", [pinn, penalised, forces])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_that_differentiates_has_value_and_derivatives(make, dtype):
    objective, model, loss = make(dtype)
    value, theta = oracle(model, loss), objective.point.double().requires_grad_()
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-11}
    assert objective.value() == pytest.approx(value(theta).item(), rel=close["rtol"])
    (slope,) = torch.autograd.grad(value(theta), theta)
    torch.testing.assert_close(objective.gradient().double(), slope, **close)
    dense = torch.autograd.functional.hessian(value, theta.detach())
    v = torch.linspace(-1, 1, len(theta), dtype=dtype)
    torch.testing.assert_close(objective.hvp(v).double(), dense @ v.double(), **close)
    torch.testing.assert_close((hessian(objective) @ v).double(), dense @ v.double(), **close)
    assert not any(t.requires_grad for batch in objective.batches for t in batch if isinstance(t, torch.Tensor))


@pytest.mark.parametrize("make", [pinn, penalised, forces])
def test_products_that_are_traced_agree_or_fall_back_with_the_reason(make, monkeypatch):
    monkeypatch.setattr(products, "repaid_after", lambda *_: 0)
    monkeypatch.setattr(routes, "_require_faster", lambda *_: None)
    objective, model, loss = make(torch.float64)
    dense = torch.autograd.functional.hessian(oracle(model, loss), objective.point)
    operator, v = hessian(objective), torch.linspace(-1, 1, objective.n_parameters, dtype=torch.float64)
    torch.testing.assert_close(operator @ v, dense @ v, rtol=1e-9, atol=1e-11)
    assert operator.explain().startswith(("traced, ", "graphs of autograd, since it cannot be traced: "))


def test_a_surface_of_such_a_loss_is_the_plain_loop_s_and_says_why():
    objective, model, loss = pinn(torch.float64)
    value, directions = oracle(model, loss), random_directions(objective, 2, seed=0)
    found = surface(objective, plane(objective.point, *directions, span=0.5, steps=(3, 5)), progress=False)
    theta = objective.point + found["alpha"].values[2] * directions[0] + found["beta"].values[0] * directions[1]
    assert float(found["loss"][2, 0]) == pytest.approx(value(theta).item(), rel=1e-10)
    assert "differentiate while they are evaluated" in objective.explain()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_derivatives_do_not_depend_on_the_mode_of_the_caller(mode):
    objective = forces(torch.float64)[0]
    plain = objective.value(), objective.gradient(), objective.hvp(torch.ones(objective.n_parameters).double())
    with mode():
        inside = objective.value(), objective.gradient(), objective.hvp(torch.ones(objective.n_parameters).double())
    assert inside[0] == plain[0]
    assert torch.equal(inside[1], plain[1])
    assert torch.equal(inside[2], plain[2])
