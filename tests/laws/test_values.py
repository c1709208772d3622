"""Law: L is the model's own mean loss, at every point, whatever the batches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracles import plain
from oracles.members import BATCH, BY_NAME, DTYPES, MEMBERS
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

import lossatlas as la
from lossatlas.errors import InputError
from lossatlas.objective import Objective

RELATIVE = {torch.float32: 1e-6, torch.float64: 1e-13}
every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def near(value, dtype):
    return pytest.approx(value, rel=RELATIVE[dtype])


@every_dtype
@every_member
def test_the_loss_at_the_centre_equals_the_plain_evaluation(member, dtype):
    model, data = member.make(dtype), member.data(dtype)
    o = Objective(model, member.loss, data)
    assert o.value() == near(plain.loss_of(model, member.loss, data), dtype)
    assert o.dtype == dtype
    assert torch.equal(o.point, plain.flat(model))


@every_dtype
@every_member
def test_ragged_batches_give_the_full_batch_answer(member, dtype):
    model, data = member.make(dtype), member.data(dtype)
    full = plain.loss_of(model, member.loss, data)
    for size in (1, BATCH, 22, 1000):
        assert Objective(model, member.loss, data, batch_size=size).value() == near(full, dtype)


@every_member
def test_a_list_of_unequal_batches_weighs_each_by_its_size(member):
    model, (inputs, targets) = member.make(torch.float64), member.data(torch.float64)
    cuts = [1, 15, 7]
    batches = list(zip(inputs.split(cuts), targets.split(cuts), strict=True))
    o = Objective(model, member.loss, batches)
    assert o.value() == pytest.approx(plain.loss_of(model, member.loss, (inputs, targets)), rel=1e-12)
    assert o.n_examples == 23


@every_member
def test_a_region_holds_the_loss_at_alpha_i_beta_j(member):
    model, data = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, data, batch_size=BATCH)
    first, second = la.random_directions(o, 2, seed=1)
    region = la.plane(o.point, first, second, span=((-0.5, 1.0), (-0.2, 0.1)), steps=(4, 3))
    surface = la.surface(o, region, progress=False)
    assert surface["loss"].dims == ("alpha", "beta")
    np.testing.assert_allclose(surface.alpha, [-0.5, 0.0, 0.5, 1.0], atol=1e-15)
    np.testing.assert_allclose(surface.beta, [-0.2, -0.05, 0.1], atol=1e-15)
    for alpha in surface.alpha.values:
        for beta in surface.beta.values:
            theta = plain.flat(model) + alpha * first + beta * second
            there = copy.deepcopy(model)
            there.load_state_dict(o.state_dict(theta))
            expected = plain.loss_at(model, member.loss, data, theta)
            assert plain.loss_of(there, member.loss, data) == pytest.approx(expected, rel=1e-12)
            assert float(surface["loss"].sel(alpha=alpha, beta=beta)) == pytest.approx(expected, rel=1e-12)


@every_member
def test_a_line_passes_through_the_model_itself(member):
    model, data = member.make(), member.data()
    o = Objective(model, member.loss, data)
    line = la.surface(o, la.line(o.point, la.random_directions(o, 1, seed=0)[0], steps=5), progress=False)
    assert float(line["loss"].sel(alpha=0.0)) == o.value()


@every_member
def test_a_state_dict_and_point_of_are_inverse(member):
    model = member.make()
    o = Objective(model, member.loss, member.data())
    theta = o.point + 1.0
    there = copy.deepcopy(model)
    there.load_state_dict(o.state_dict(theta))
    assert torch.equal(o.point_of(there), theta)
    assert torch.equal(o.point_of(o.state_dict(theta)), theta)


@every_member
def test_a_loader_equals_the_tensors(member):
    model, data = member.make(), member.data()
    whole = Objective(model, member.loss, data, batch_size=BATCH)
    loader = Objective(model, member.loss, DataLoader(TensorDataset(*data), batch_size=BATCH))
    assert loader.value() == whole.value()
    assert torch.equal(loader.gradient(), whole.gradient())


@every_member
def test_a_step_on_dict_batches_equals_the_supervised_form(member):
    model = member.make()
    batches = [{"x": inputs, "y": targets} for inputs, targets in member.batches()]
    o = Objective.from_step(model, lambda model, batch: member.loss(model(batch["x"]), batch["y"]), batches)
    supervised = Objective(model, member.loss, member.batches())
    assert o.value() == pytest.approx(supervised.value(), rel=1e-6)
    torch.testing.assert_close(o.gradient(), supervised.gradient())
    torch.testing.assert_close(o.hvp(o.point), supervised.hvp(o.point))


@every_member
def test_the_example_losses_are_those_of_every_example_alone(member):
    model, (inputs, targets) = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, (inputs, targets), batch_size=BATCH)
    alone = [plain.loss_of(model, member.loss, (x[None], y[None])) for x, y in zip(inputs, targets, strict=True)]
    np.testing.assert_allclose(o.example_losses(), alone, rtol=1e-11)
    assert o.evaluate().loss_stderr == pytest.approx(np.std(alone, ddof=1) / np.sqrt(len(alone)), rel=1e-10)


def test_frozen_statistics_are_those_that_were_trained():
    member = BY_NAME["batch-norm"]
    model, data = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, data, batch_norm="frozen", batch_size=BATCH)
    theta = o.point + 0.1
    assert o.value(theta) == pytest.approx(plain.loss_at(model, member.loss, data, theta), rel=1e-12)


@pytest.mark.parametrize("count", [None, 1, 2])
def test_recomputed_statistics_are_those_of_update_bn(count):
    member = BY_NAME["batch-norm"]
    model, batches = member.make(torch.float64), member.batches(torch.float64)
    o = Objective(model, member.loss, batches, batch_norm="recompute", batch_norm_batches=count)
    theta = o.point + 0.1
    there = plain.at(model, theta)
    update_bn(batches[:count], there)
    expected = plain.loss_of(there, member.loss, member.data(torch.float64))
    assert o.value(theta) == pytest.approx(expected, rel=1e-12)
    assert o.value(theta) == o.value(theta)


def test_recomputed_statistics_can_come_from_other_data_and_stay_with_it():
    member = BY_NAME["batch-norm"]
    model, data = member.make(torch.float64), member.data(torch.float64)
    others = (2 * data[0], data[1])
    o = Objective(model, member.loss, data, batch_norm="recompute", batch_norm_data=others)
    there = copy.deepcopy(model)
    update_bn([others], there)
    expected = plain.loss_of(there, member.loss, data)
    assert o.value() == pytest.approx(expected, rel=1e-12)
    assert o.with_batch_norm("frozen").with_batch_norm("recompute").value() == o.value()


def test_a_norm_that_is_called_twice_is_recomputed_as_update_bn_does():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 6)

        def forward(self, x):
            return self.norm(torch.tanh(self.linear(self.norm(x))))

    member = BY_NAME["mlp-tanh"]
    model, batches = Twice().double(), member.batches(torch.float64)
    there = copy.deepcopy(model)
    update_bn(batches, there)
    o = Objective(model, member.loss, batches, batch_norm="recompute")
    assert o.value() == pytest.approx(plain.loss_of(there, member.loss, member.data(torch.float64)), rel=1e-12)


def test_the_batch_policy_is_the_loss_in_train_mode():
    member = BY_NAME["batch-norm"]
    model, batches = member.make(torch.float64), member.batches(torch.float64)
    o = Objective(model, member.loss, batches, batch_norm="batch")
    training = copy.deepcopy(model).train()
    expected = sum(len(x) * float(member.loss(training(x), y).detach()) for x, y in batches) / o.n_examples
    assert o.value() == pytest.approx(expected, rel=1e-12)


def test_a_policy_can_be_changed_and_changed_back():
    member = BY_NAME["batch-norm"]
    model, data = member.make(torch.float64), member.data(torch.float64)
    frozen = plain.loss_of(model, member.loss, data)
    batch = Objective(model, member.loss, data, batch_norm="batch")
    assert batch.with_batch_norm("frozen").value() == pytest.approx(frozen, rel=1e-12)
    assert batch.value() != pytest.approx(frozen, rel=1e-3)


def test_derivatives_under_recomputed_statistics_are_refused():
    member = BY_NAME["batch-norm"]
    o = Objective(member.make(), member.loss, member.data(), batch_norm="recompute")
    for ask in (o.gradient, lambda: o.hvp(o.point), lambda: la.spectrum(o, 1)):
        with pytest.raises(InputError, match="frozen"):
            ask()


def test_a_cast_to_float64_is_the_model_in_float64():
    member = BY_NAME["cnn"]
    model, data = member.make(), member.data()
    o = Objective(model, member.loss, data, dtype=torch.float64)
    doubled = (data[0].double(), data[1])
    assert o.value() == pytest.approx(plain.loss_of(copy.deepcopy(model).double(), member.loss, doubled), rel=1e-13)
