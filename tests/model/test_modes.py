"""Training mode: what of it is kept, BatchNorm and dropout as they were asked for, and what a result says of it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.truth_wrapped import ForScripts, quietly
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.modes import Mode, put_into
from lossatlas.objective import Objective

X, Y = plain.normal(12, 4), torch.arange(12) % 3


class Doubled(nn.Module):
    """Twice the outputs in training mode, of BatchNorm, dropout, attention and stochastic depth."""

    class DropPath(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x) if self.training else x

    def __init__(self, inside: float = 0.5):
        super().__init__()
        self.inward, self.norm, self.head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.attention = nn.MultiheadAttention(4, 2, dropout=inside, batch_first=True)
        self.cell = nn.GRU(4, 4, 2, dropout=inside, batch_first=True)
        self.drop, self.path = nn.Dropout(inside), self.DropPath()

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.norm(self.inward(x))).reshape(-1, 1, 4).expand(-1, 3, 4)
        h = h + self.path(self.attention(h, h, h)[0])
        return self.head(self.cell(h)[0].mean(1)) * (2 if self.training else 1)


def loss(m: nn.Module, x: Tensor = X, y: Tensor = Y) -> float:
    """Of the model in evaluation mode, doubled by hand."""
    with torch.no_grad():
        return float(F.cross_entropy(2 * m(x), y))


def model(seed: int = 0) -> Doubled:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Doubled().double()
        made.norm.running_mean, made.norm.running_var = torch.randn(4).double(), 1 + torch.rand(4).double()
    return made


def objective(mode: Mode, **options: object) -> Objective:
    return Objective(model(), F.cross_entropy, (X, Y), batch_size=5, mode=mode, **options)


def test_training_mode_is_that_of_the_model_without_dropout_and_with_frozen_statistics():
    o, m = objective("train"), model().eval()
    point = o.point + 0.1
    assert o.value(point) == pytest.approx(loss(plain.at(m, point)), rel=1e-12)
    assert not o.function.draws
    state = o.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in m.state_dict().items())


def test_training_mode_takes_the_statistics_of_each_batch_where_they_are_asked_for():
    o, m = objective("train", batch_norm="batch"), model().eval()
    m.norm.train()
    losses = [loss(m, X[i : i + 5], Y[i : i + 5]) * len(X[i : i + 5]) for i in (0, 5, 10)]
    assert o.value() == pytest.approx(sum(losses) / 12, rel=1e-12)
    assert o.with_batch_norm("frozen").value() == pytest.approx(loss(model().eval()))


def test_with_dropout_the_loss_is_one_function_of_theta_and_its_gradient_the_differences():
    o = objective("dropout")
    direction = plain.normal(o.n_parameters, seed=2)
    slope = plain.central_difference(o.value, o.point, direction, 1e-5)
    assert float(o.gradient() @ direction) == pytest.approx(slope, rel=1e-6)
    assert o.value() == o.value() != objective("train").value()
    assert (o.function.draws, o.restricted("head.*").value()) == (True, o.value())


def test_the_same_numbers_are_dropped_in_each_batch_at_every_point():
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.drop = nn.Parameter(torch.ones((), dtype=torch.float64)), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(x) * self.scale

    o = Objective(Dropped(), lambda out, t: out.sum(1), (X, Y), batch_size=5, mode="dropout")
    at_one = o.example_losses()
    assert o.example_losses(torch.tensor([3.0])).allclose(3 * at_one)
    assert not at_one.allclose(2 * X.sum(1))


def test_a_result_says_the_mode_and_another_mode_is_another_function():
    found = {mode: objective(mode).provenance() for mode in ("eval", "train", "dropout")}
    assert [found[mode].get("mode") for mode in found] == [
        None,
        "training mode, dropout off",
        "training mode, dropout on",
    ]
    assert len({str(each["model_fingerprint"]) for each in found.values()}) == 3


def test_a_mode_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="choose 'eval', 'train' or 'dropout'"):
        objective("test")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["train", "dropout"])
def test_a_script_is_in_the_same_mode_part_by_part(mode):
    given = ForScripts()
    o = Objective(quietly(torch.jit.script, given), F.cross_entropy, (X.float(), Y), mode=mode)
    put_into(given := copy.deepcopy(given), mode)
    own = {name: module.training for name, module in o.function.module.named_modules()}
    assert own == {name: module.training for name, module in given.named_modules()}
    assert own["drop"] == (mode == "dropout")
    assert not own["norm"]
    assert own["head"]
    assert o.function.draws == (mode == "dropout")
