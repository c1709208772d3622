"""Law: gradients and Hessian-vector products are those of plain autograd and of finite differences.

That the Hessian is the dense one, column by column, is in test_operators.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from oracles import plain
from oracles.members import BATCH, BY_NAME, MEMBERS
from oracles.plain import normal, relative_error
from torch import nn

import lossatlas as la
from lossatlas.objective import Objective

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)


def vectors(n: int, k: int) -> torch.Tensor:
    return normal(k, n, seed=5)


def assert_finite_differences(o: Objective, v: torch.Tensor, step: float = 1e-5) -> None:
    """The gradient and the Hessian along v are the central differences of the values and of the gradients."""
    slope = (o.value(o.point + step * v) - o.value(o.point - step * v)) / (2 * step)
    bend = (o.gradient(o.point + step * v) - o.gradient(o.point - step * v)) / (2 * step)
    assert float(o.gradient() @ v) == pytest.approx(slope, rel=1e-6)
    assert relative_error(o.hvp(v), bend) < 1e-6


@every_member
def test_the_gradient_is_that_of_the_full_batch(member):
    model, o = member.make(torch.float64), member.objective(torch.float64)
    assert relative_error(o.gradient(), plain.gradient(model, member.loss, member.data(torch.float64))) < 1e-12


@every_member
def test_in_float32_both_agree_to_single_precision(member):
    single = member.objective(torch.float32)
    model = member.make(torch.float64)
    data = member.data(torch.float32)
    model.load_state_dict({name: tensor.double() for name, tensor in member.make().state_dict().items()})
    v = vectors(single.n_parameters, 1)[0].float()
    assert relative_error(single.gradient(), plain.gradient(model, member.loss, data)) < 1e-5
    assert relative_error(single.hvp(v), plain.product(model, member.loss, data, v)) < 1e-5


@pytest.mark.parametrize("member", [m for m in MEMBERS if m.smooth], ids=lambda m: m.name)
def test_smooth_networks_agree_with_finite_differences_of_the_plain_loss(member):
    model, o = member.make(torch.float64), member.objective(torch.float64)
    data, theta = member.data(torch.float64), plain.flat(member.make(torch.float64))
    (v,) = vectors(o.n_parameters, 1)
    slope = plain.central_difference(lambda p: plain.loss_at(model, member.loss, data, p), theta, v, 1e-5)
    assert float(o.gradient() @ v) == pytest.approx(slope, rel=1e-6, abs=1e-8)
    step = 1e-5
    bend = (o.gradient(theta + step * v) - o.gradient(theta - step * v)) / (2 * step)
    assert relative_error(o.hvp(v), bend) < 1e-6


@every_member
def test_the_hessian_is_symmetric_and_linear(member):
    o = member.objective(torch.float64)
    u, v = vectors(o.n_parameters, 2)
    hu, hv = o.hvp(u), o.hvp(v)
    assert float(u @ hv) == pytest.approx(float(v @ hu), rel=1e-9, abs=1e-12)
    torch.testing.assert_close(o.hvp(2 * u - 3 * v), 2 * hu - 3 * hv, rtol=1e-9, atol=1e-12)


@every_member
def test_a_block_of_vectors_equals_its_vectors_one_by_one(member):
    o = member.objective(torch.float64)
    block = vectors(o.n_parameters, 3)
    torch.testing.assert_close(o.hvp(block), torch.stack([o.hvp(v) for v in block]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(la.hessian(o) @ block.T, o.hvp(block).T, rtol=1e-12, atol=1e-14)


@every_member
def test_another_point_is_taken_where_it_is_given(member):
    model, o = member.make(torch.float64), member.objective(torch.float64)
    theta = o.point + 0.05 * vectors(o.n_parameters, 1)[0]
    moved, data = plain.at(model, theta), member.data(torch.float64)
    assert relative_error(o.gradient(theta), plain.gradient(moved, member.loss, data)) < 1e-12
    v = vectors(o.n_parameters, 1)[0]
    assert relative_error(o.hvp(v, theta), plain.product(moved, member.loss, data, v)) < 1e-11


def test_the_batch_policy_differentiates_through_the_batch_statistics():
    member = BY_NAME["batch-norm"]
    model, (inputs, targets) = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, (inputs, targets), batch_norm="batch")
    (v,) = vectors(o.n_parameters, 1)
    assert_finite_differences(o, v)


def test_the_curvature_of_every_batch_averages_to_the_whole():
    member = BY_NAME["mlp-tanh"]
    model, o = member.make(torch.float64), member.objective(torch.float64)
    block = vectors(o.n_parameters, 2)
    samples = la.hessian(o).products.forms(block)
    for sample, v in zip(samples, block, strict=True):
        forms = [float(v @ plain.hessian(model, member.loss, batch) @ v) for batch in member.batches(torch.float64)]
        assert sample.values.tolist() == pytest.approx(forms, rel=1e-10)
        assert sample.mean == pytest.approx(float(v @ o.hvp(v)), rel=1e-10)
        weights = [9 / 23, 9 / 23, 5 / 23]
        squares = sum((w * (x - sample.mean)) ** 2 for w, x in zip(weights, forms, strict=True))
        assert sample.stderr == pytest.approx(math.sqrt(1.5 * squares), rel=1e-10)


class Noisy(nn.Module):
    """Draws random numbers in eval mode too: dropout that is never off, and noise from three generators."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import random

        import numpy as np

        shift = random.gauss(0.0, 1.0) + np.random.standard_normal()  # noqa: NPY002
        hidden = nn.functional.dropout(torch.tanh(self.first(x)), 0.5, training=True)
        return self.second(hidden) * (1 + 0.1 * shift) + 0.1 * torch.randn(len(x), 1, dtype=x.dtype) * hidden[:, :3]


def test_a_model_that_draws_random_numbers_is_still_a_function_with_that_functions_derivatives():
    import random

    import numpy as np

    member = BY_NAME["mlp-tanh"]
    o = Objective(Noisy().double(), member.loss, member.data(torch.float64), batch_size=BATCH)
    value = o.value()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    assert o.value() == value
    (v,) = vectors(o.n_parameters, 1)
    assert_finite_differences(o, v)


def test_a_table_that_the_model_keeps_from_an_evaluation_serves_the_derivatives():
    class Positions(nn.Module):
        """Builds a table when it first meets a length, as rotary embeddings do."""

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.table = nn.Linear(6, 3), None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.table is None or len(self.table) < len(x):
                self.table = 1 + torch.arange(len(x), dtype=x.dtype)[:, None] / 10
            return self.linear(x) * self.table[: len(x)]

    inputs, targets = BY_NAME["mlp-tanh"].data()
    o = Objective(Positions(), nn.functional.cross_entropy, [(inputs[:5], targets[:5]), (inputs[5:], targets[5:])])
    o.value()
    assert float(o.gradient().norm()) > 0
    assert float(o.hvp(o.point).norm()) > 0
