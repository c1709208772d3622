"""What is no function of theta is refused when the objective is made; what a caller holds stays as it is."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import InputError

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.calls, self.kept = nn.Linear(4, 3), 0, None

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Counting(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x) / (1 + 0.1 * self.calls)


class Drifting(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x) * (1 + 1e-5 * self.calls)


class RemembersItsWeights(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self.linear.weight.detach().norm()
        return self.linear(x) / self.kept


class RemembersItsInputs(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = x.mean()
        return self.linear(x - self.kept)


class KeepsWeightsElsewhere(Net):
    def __init__(self) -> None:
        super().__init__()
        self.rows = list(self.linear.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x @ row for row in self.rows], 1) + self.linear.bias


class KnowsWhetherGradientsAreOn(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * (1 if torch.is_grad_enabled() else 2)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Counting, r"and then .*the model.calls changed"),
        (Drifting, r"and then .*the model.calls changed"),
        (RemembersItsWeights, "At moved parameters.* a cache"),
        (RemembersItsInputs, "fresh copy of the model.*first calls"),
        (KeepsWeightsElsewhere, "At moved parameters"),
        (KnowsWhetherGradientsAreOn, "is_grad_enabled"),
    ],
)
def test_a_model_that_is_no_function_of_its_parameters_is_refused_with_the_cause(
    model: Callable[[], nn.Module], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        la.Objective(model(), F.cross_entropy, (X, Y), batch_size=6)


def _penalised(model: nn.Module, outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets) + sum(p.square().sum() for p in model.parameters())


@pytest.mark.parametrize(
    "loss",
    [
        lambda model: lambda f, y: _penalised(model, f, y),
        lambda model: functools.partial(_penalised, model),
        lambda model: lambda f, y: (lambda: _penalised(model, f, y))(),
        lambda model: lambda f, y: _penalised({"deep": [model]}["deep"][0], f, y),
    ],
)
def test_a_penalty_on_the_model_that_was_given_is_refused_however_it_gets_there(loss: Any) -> None:
    model = Net()
    with pytest.raises(InputError, match=r"'linear.weight' of the model that was given.*from_step"):
        la.Objective(model, loss(model), (X, Y))


def test_a_step_that_computes_with_another_model_is_refused() -> None:
    other = Net()
    with pytest.raises(InputError, match="trainable parameters of its own"):
        la.Objective.from_step(Net(), lambda model, batch: F.cross_entropy(other(batch[0]), batch[1]), [(X, Y)])
    other.requires_grad_(False)
    with pytest.raises(InputError, match="whatever the parameters are"):
        la.Objective.from_step(Net(), lambda model, batch: F.cross_entropy(other(batch[0]), batch[1]), [(X, Y)])


def test_fixed_references_and_names_of_the_model_raise_no_alarm() -> None:
    model = Net()
    start, teacher = copy.deepcopy(model), Net()

    def step(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        assert not model.calls  # a plain attribute of the model that was given
        away = sum((p - q).square().sum() for p, q in zip(net.parameters(), start.parameters(), strict=True))
        return F.cross_entropy(net(batch[0]), batch[1]) + 0.1 * away.detach() + teacher(batch[0]).detach().mean()

    start.requires_grad_(False)
    assert la.Objective.from_step(model, step, [(X, Y)]).value() > 0


class CountingMetric(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.seen += len(targets)
        return (outputs.argmax(1) == targets).double()


def test_what_the_caller_holds_stays_as_it_is() -> None:
    model, metric, loss = Net(), CountingMetric(), nn.CrossEntropyLoss(weight=torch.ones(3))
    before = copy.deepcopy((model.state_dict(), metric.state_dict(), loss.state_dict()))
    o = la.Objective(model, loss, (X, Y), metrics={"right": metric})
    o.point.zero_()
    value = o.evaluate().loss
    with torch.no_grad():
        model.linear.weight.zero_()
        loss.weight.zero_()
    assert o.evaluate().loss == value == o.evaluate(o.point).loss
    torch.testing.assert_close(metric.state_dict(), before[1])
    assert bool(before[0]["linear.weight"].any())


class ClipsItsWeights(Net):
    def forward(self, x: Tensor) -> Tensor:
        for parameter in self.parameters():
            parameter.data.clamp_(-0.1, 0.1)
        return self.linear(x)


class KeepsAQueue(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("queue", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        found = self.linear(x) * self.queue
        self.queue.mul_(0.5)
        return found


def test_what_a_call_overwrites_is_there_again_for_the_next_batch() -> None:
    clipped = la.Objective(ClipsItsWeights(), F.cross_entropy, (X, Y), batch_size=4)
    point = clipped.point
    assert clipped.value() == clipped.value(point)
    assert torch.equal(clipped.point, point)
    assert float(point.abs().max()) > 0.1
    queue = la.Objective(KeepsAQueue(), F.cross_entropy, (X, Y), batch_size=4)
    assert queue.value() == pytest.approx(F.cross_entropy(Net()(X), Y).item())
    assert "writes into queue" in queue.explain()


def test_rows_that_depend_on_their_batch_are_told_and_never_cut() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))
    o = la.Objective(model, F.cross_entropy, (X, Y), batch_size=6)
    assert o.provenance()["batch_norm"] == "batch"
    assert "depends on its batch" in str(o.provenance()["batch_dependence"])
    with pytest.raises(InputError, match="rows depend on others"):
        o.subset(6)


class DropsOutInEvalMode(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.dropout(x, training=True))


def test_random_numbers_in_eval_mode_are_told() -> None:
    o = la.Objective(DropsOutInEvalMode(), F.cross_entropy, (X, Y))
    assert o.value() == o.value()
    assert "fixed seed" in str(o.provenance()["random_numbers"])


REFUSED_STEPS = {
    "train mode": lambda m, b: F.cross_entropy(m.train()(b[0]), b[1]),
    "calls backward": lambda m, b: (loss := F.cross_entropy(m(b[0]), b[1]), loss.backward())[0],
}


@pytest.mark.parametrize("said", REFUSED_STEPS)
def test_a_step_that_trains_is_refused(said: str) -> None:
    with pytest.raises(InputError, match=said):
        la.Objective.from_step(Net(), REFUSED_STEPS[said], [(X, Y)])


def test_a_function_of_the_model_that_is_an_attribute_of_it_is_named() -> None:
    model = Net()
    old = model.linear.forward
    model.linear.forward = lambda x: 2 * old(x)
    with pytest.raises(InputError, match="'forward' of linear is a function that refers to the model"):
        la.Objective(model, F.cross_entropy, (X, Y))


def test_complex_numbers_stay_complex_in_another_type() -> None:
    class Phases(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("phases", torch.polar(torch.ones(3), torch.arange(3.0)))

        def forward(self, x: Tensor) -> Tensor:
            return (self.linear(x) * self.phases).real

    o = la.Objective(Phases(), F.cross_entropy, (X, Y), dtype=torch.float64)
    assert o.value() == pytest.approx(F.cross_entropy(Phases()(X), Y).item(), rel=1e-6)


def test_an_embedding_that_bounds_its_norms_leaves_points_alone() -> None:
    model = nn.Sequential(nn.Embedding(5, 4, max_norm=1.0), nn.Flatten(), nn.Linear(8, 3))
    model[0].weight.data.mul_(9)
    o = la.Objective(model, F.cross_entropy, (torch.arange(24).view(12, 2) % 5, Y))
    point, own = 2 * torch.ones(o.n_parameters), o.point
    assert o.value(point) == o.value(point)
    assert o.value() == o.value()
    assert bool((point == 2).all())
    assert torch.equal(o.point, own)
    with pytest.raises(InputError, match=r"0\.weight \(max_norm=1\.0 rescales rows"):
        o.gradient()
