"""Law: whatever is measured, the user's model and the random numbers of the process come back bit for bit."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracles import plain
from oracles.members import BATCH, BY_NAME, MEMBERS, Member
from oracles.truth_wrapped import ForScripts, OddlyPlaced, OfTraining, quietly
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lossatlas as la
from lossatlas.errors import InputError, LossAtlasError
from lossatlas.objective import Objective


def in_use(member: Member) -> nn.Module:
    """The model as a user may have it: in train mode but for one part, with gradients and hooks."""
    model = member.make()
    model.train()
    next(model.children()).eval()
    next(model.children()).register_forward_hook(lambda *_: None)
    inputs, targets = member.data()
    member.loss(model(inputs), targets).backward()
    return model


def generators() -> list[Any]:
    return [torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002


def unchanged(before: list[Any], after: list[Any]) -> bool:
    return torch.equal(before[0], after[0]) and before[1:] == after[1:]


def objective(model: nn.Module, member: Member, **options: Any) -> Objective:
    return Objective(model, member.loss, member.data(), batch_size=BATCH, **options)


def other_point(o: Objective) -> torch.Tensor:
    return o.point + 0.1 * torch.randn(o.n_parameters, generator=torch.Generator().manual_seed(3))


def _record(model: nn.Module, o: Objective) -> None:
    record = la.Recorder(model, every=1)
    for step in range(4):
        record(step, loss=1.0)


VERBS: dict[str, Callable[[nn.Module, Objective], Any]] = {
    "construction": lambda model, o: None,
    "value": lambda model, o: o.value(),
    "evaluate": lambda model, o: o.evaluate(other_point(o)),
    "gradient": lambda model, o: o.gradient(),
    "hvp": lambda model, o: o.hvp(o.point),
    "point_of": lambda model, o: o.point_of(model),
    "state_dict": lambda model, o: [t.add_(1) for t in o.state_dict().values()],
    "surface": lambda model, o: la.surface(
        o, la.plane(o.point, *la.random_directions(o, 2, seed=0), steps=(2, 3)), progress=False
    ),
    "barrier": lambda model, o: la.barrier(o, la.Segment(o.point, other_point(o)), steps=3, progress=False),
    "robustness": lambda model, o: la.robustness(o, [0.0, 0.1], draws=2, progress=False),
    "eigenpairs": lambda model, o: la.top_eigenpairs(la.hessian(o), 1, tol=10.0),
    "recorder": _record,
    "recompute": lambda model, o: o.with_batch_norm("recompute").value(),
    "batch": lambda model, o: o.with_batch_norm("batch").gradient(),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_the_model_and_the_generators_come_back_bit_for_bit(member, verb):
    model = in_use(member)
    before, seeds = plain.state_of(model), generators()
    VERBS[verb](model, objective(model, member))
    assert plain.differences(before, plain.state_of(model)) == []
    assert unchanged(seeds, generators())


def _of_training() -> nn.Module:
    model = OfTraining()
    model(torch.randn(5, 4), torch.zeros(5, dtype=torch.long))["loss"].backward()
    return model


WRAPPED: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, Any]]] = {
    "a script": (
        lambda: quietly(torch.jit.script, ForScripts()),
        lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]),
        {},
    ),
    "complex weights": (OddlyPlaced, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), {"dtype": torch.float64}),
    "training mode": (_of_training, lambda m, b: m(*b)["loss"], {"mode": "dropout", "batch_norm": "batch"}),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_so_do_scripts_complex_models_and_those_in_training_mode(name):
    make, step, options = WRAPPED[name]
    model, batches = (
        make(),
        [(torch.randn(5, 4, generator=torch.Generator().manual_seed(i)), torch.arange(5) % 3) for i in (0, 1)],
    )
    before, seeds = plain.state_of(model), generators()
    o = Objective.from_step(model, step, batches, **options)
    for verb in ("evaluate", "gradient", "hvp", "point_of", "state_dict", "surface", "robustness", "eigenpairs"):
        VERBS[verb](model, o)
    assert plain.differences(before, plain.state_of(model)) == []
    assert unchanged(seeds, generators())


@pytest.mark.parametrize("policy", ["frozen", "recompute", "batch"])
def test_batch_norm_policies_leave_the_running_statistics_alone(policy):
    member = BY_NAME["batch-norm"]
    model = in_use(member)
    before = plain.state_of(model)
    o = objective(model, member, batch_norm=policy)
    o.value(other_point(o))
    assert plain.differences(before, plain.state_of(model)) == []
    own = {name: tensor for name, tensor in o.state_dict().items() if "running" in name}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in own.items())


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_an_exception_inside_a_verb_leaves_no_trace(member):
    model = in_use(member)
    before, seeds = plain.state_of(model), generators()
    calls = []

    def fails_later(outputs, targets):
        if calls:
            calls.append(1)
        if len(calls) > 12:
            raise RuntimeError("later")
        return member.loss(outputs, targets)

    o = Objective(model, fails_later, member.batches())
    calls.append(1)
    with pytest.raises(InputError, match="later"):
        la.robustness(o, [0.1, 0.2], draws=20, progress=False)
    assert plain.differences(before, plain.state_of(model)) == []
    assert unchanged(seeds, generators())


def test_training_after_the_objective_was_made_does_not_change_it():
    member = BY_NAME["batch-norm"]
    model = member.make()
    o = objective(model, member)
    point, value = o.point.clone(), o.value()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        member.loss(model(member.data()[0]), member.data()[1]).backward()
        optimizer.step()
    assert torch.equal(o.point, point)
    assert o.value() == value
    assert o.value(o.point_of(model)) != value


def test_changing_the_data_afterwards_does_not_change_the_objective():
    member = BY_NAME["mlp-tanh"]
    inputs, targets = member.data()
    o = Objective(member.make(), member.loss, (inputs, targets))
    value = o.value()
    inputs.mul_(3)
    targets.zero_()
    assert o.value() == value


def test_a_model_that_writes_into_its_inputs_changes_neither_the_data_nor_the_answer():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x):
            return self.linear(x.mul_(2))

    inputs, targets = BY_NAME["mlp-tanh"].data()
    given = inputs.clone()
    o = Objective(Doubling(), nn.functional.cross_entropy, (inputs, targets))
    assert o.value() == o.value()
    assert torch.equal(inputs, given)


@pytest.mark.parametrize("limit", [0, 2**31], ids=["read anew", "kept"])
def test_reading_a_loader_draws_nothing_from_the_users_generators(limit, monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.batches.KEEP_BYTES", limit)
    member = BY_NAME["mlp-tanh"]
    model, loader = member.make(), DataLoader(TensorDataset(*member.data()), batch_size=BATCH)
    seeds = generators()
    o = Objective(model, member.loss, loader)
    o.value()
    o.hvp(o.gradient())
    assert unchanged(seeds, generators())


def test_the_generators_come_back_when_a_pass_over_a_large_loader_breaks(monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.batches.KEEP_BYTES", 0)  # batches are read anew at every pass
    member = BY_NAME["mlp-tanh"]
    broken = []

    def loss(outputs, targets):
        if broken:
            raise RuntimeError("now")
        return member.loss(outputs, targets)

    o = Objective(member.make(), loss, member.batches())
    broken.append(True)
    caught = None
    try:
        o.gradient()
    except LossAtlasError as error:
        caught = error  # keeps the frames, and with them the half-read loader
    after = torch.randn(3)
    seeds = generators()
    del caught
    assert unchanged(seeds, generators()), f"freeing the frames turned the generators back, {after}"


def test_an_objective_can_be_copied_with_another_policy_without_touching_the_first():
    member = BY_NAME["batch-norm"]
    o = member.objective()
    value, state = o.value(), copy.deepcopy(o.state_dict())
    o.with_batch_norm("recompute").value()
    o.with_batch_norm("batch").value()
    assert o.value() == value
    assert all(torch.equal(tensor, state[name]) for name, tensor in o.state_dict().items())
