"""Buffers on paths: carried along, computed anew or told; each end's loss beside its model's own."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.profiles import measured
from torch import nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import spectral_norm as parametrized

import lossatlas as la
from lossatlas.connectivity.show.claims import linear_connectivity
from lossatlas.errors import BufferWarning
from lossatlas.model import belongings
from lossatlas.objective import Objective

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (60,), generator=torch.Generator().manual_seed(1))


class Normalised(nn.Module):
    """Inputs minus a registered buffer that training would have fixed."""

    def __init__(self, mu):
        super().__init__()
        torch.manual_seed(int(mu))
        self.register_buffer("mu", torch.full((6,), mu))
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        return self.inner(x - self.mu)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """Other tests have models with these parameters too."""
    monkeypatch.setattr(belongings, "_KEPT", OrderedDict())


def trained(model, steps=60, loss=lambda o, t: F.cross_entropy(5 * o, t)):
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(X), Y).backward()
        optimizer.step()
    return model.eval()


def test_a_normaliser_moves_with_the_path():
    a, b = Normalised(0.0), Normalised(4.0)
    o = Objective(a, F.cross_entropy, (X, Y))
    with pytest.warns(BufferWarning, match=r"\(mu\)"):
        end = o.point_of(b)
    found = measured(o, la.Segment(o.point, end), steps=5, tol=None)
    for t, loss in zip(found["t"].values, found["loss"].values, strict=True):
        weight, bias = torch.lerp(a.inner.weight, b.inner.weight, t), torch.lerp(a.inner.bias, b.inner.bias, t)
        expected = F.cross_entropy(F.linear(X - 4 * t, weight, bias), Y)
        assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert found.attrs["carried_buffers"] == "mu"
    assert found.attrs["ends_note"] == ""
    assert o.value() == pytest.approx(F.cross_entropy(a(X), Y).item(), rel=1e-6)  # the objective itself is as it was


def test_connect_and_connectivity_train_and_measure_with_both_models_buffers():
    a, b = Normalised(0.0), Normalised(4.0)
    o = Objective(a, F.cross_entropy, (X, Y))
    own = [Objective(model, F.cross_entropy, (X, Y)).value() for model in (a, b)]
    for found in (
        la.connect(o, a, b, epochs=2, profile_steps=3, progress=False).profiles[0],
        la.connectivity(o, a, b, align="none", steps=3, progress=False)["barrier"],
    ):
        np.testing.assert_allclose(found["loss"].values[[0, -1]], own, rtol=1e-6)


def normed(norm, seed):
    torch.manual_seed(seed)
    return trained(nn.Sequential(norm(nn.Linear(6, 16)), nn.Tanh(), norm(nn.Linear(16, 3))))


@pytest.mark.parametrize("norm", [parametrized, spectral_norm])
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
def test_the_vectors_of_spectral_norm_are_those_of_each_point_s_weights(norm):
    a, b = normed(norm, 1), normed(norm, 2)
    o = Objective(a, lambda out, t: F.cross_entropy(5 * out, t), (X, Y), metrics=None)
    with pytest.warns(BufferWarning, match="_u"):
        line = la.Segment(o.point, o.point_of(b))
    with pytest.warns(BufferWarning, match="call the model in train mode once more"):
        found = measured(o, line, steps=5, tol=None)
    weights = [p for p in o.space if len(p.shape) == 2]
    biases = [p for p in o.space if len(p.shape) == 1]
    for t, loss in zip(found["t"].values, found["loss"].values, strict=True):
        named = {e.name: line.point(float(t))[e.start : e.stop].view(e.shape) for e in o.space}
        first, second = (named[e.name] / torch.linalg.svdvals(named[e.name])[0] for e in weights)
        one, two = (named[e.name] for e in biases)
        out = F.linear(torch.tanh(F.linear(X, first, one)), second, two)
        assert loss == pytest.approx(float(F.cross_entropy(5 * out, Y)), rel=1e-4)
    assert float(found["loss"][-1]) == pytest.approx(F.cross_entropy(5 * b(X), Y).item(), rel=0.05)


def batch_normed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    return trained(model.train(), 150, F.cross_entropy)


def test_statistics_of_too_few_examples_are_told_with_both_losses_and_the_remedy():
    a = batch_normed()
    b = copy.deepcopy(a)
    with torch.no_grad():
        b[3].bias += 0.1
    o = Objective(a, F.cross_entropy, (X, Y), batch_norm_data=(X[:2], Y[:2]))
    with pytest.warns(BufferWarning, match=r"2 examples in all.*batch_norm_data=") as told:
        found = measured(o, la.Segment(o.point, o.point_of(b)), steps=3, tol=None)
    assert len(told) == 2
    own = F.cross_entropy(b(X), Y).item()
    assert f"{own:.4g}" in found.attrs["ends_note"]
    assert f"{float(found['loss'][-1]):.4g}" in found.attrs["ends_note"]
    assert "own buffers" in linear_connectivity(found).detail


def test_frozen_statistics_of_the_other_model_are_told():
    a, b = batch_normed(), batch_normed()
    with torch.no_grad():
        b[1].running_mean += 3
        b[3].bias += 0.1
    o = Objective(a, F.cross_entropy, (X, Y))
    with pytest.warns(BufferWarning, match="use batch_norm='recompute'"):
        measured(o, la.Segment(o.point, o.point_of(b)), steps=3, tol=None, batch_norm="frozen")


def test_parameters_outside_the_selection_that_differ_are_told():
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in range(2))
    with torch.no_grad():
        b[0].weight *= 20
        b[2].weight *= 20
    o = Objective(a, F.cross_entropy, (X, Y), parameters="2.*")
    with pytest.warns(BufferWarning, match=r"outside the selection differ \(0.weight, 0.bias\).*parameters="):
        measured(o, la.Segment(o.point, o.point_of(b)), steps=3, tol=None)


def test_a_bare_point_has_no_buffers_which_is_said_where_the_model_has_some():
    plain = Objective(nn.Linear(6, 3), F.cross_entropy, (X, Y))
    assert measured(plain, la.Segment(plain.point, plain.point + 1), steps=3).attrs["ends_note"] == ""
    o = Objective(Normalised(1.0), F.cross_entropy, (X, Y))
    with pytest.warns(BufferWarning, match=r"not known \(taken to be the objective's: mu\): give the model"):
        measured(o, la.Segment(o.point, o.point + 1), steps=3)


class Scaled(nn.Module):
    """Inputs by a number that no state dict holds."""

    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.scale = scale
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        return self.inner(self.scale * x)


def test_an_attribute_of_another_model_is_told_and_one_without_effect_is_not():
    o = Objective(Scaled(1.0), F.cross_entropy, (X, Y))
    with pytest.warns(BufferWarning, match=r"no state dict holds \(scale\).*its own Objective"):
        o.end_of(Scaled(3.0))
    labelled = Scaled(1.0)
    labelled.name = "b"
    assert torch.equal(o.point_of(nn.DataParallel(labelled)), o.point)
    relu, tanh = (nn.Sequential(nn.Linear(6, 5), act, nn.Linear(5, 3)) for act in (nn.ReLU(), nn.Tanh()))
    with pytest.warns(BufferWarning, match="class of 1"):
        la.connectivity(Objective(relu, F.cross_entropy, (X, Y)), relu, tanh, align="none", steps=3, progress=False)


@pytest.mark.parametrize("policy", ["recompute", "batch", "frozen"])
def test_each_end_is_compared_with_its_own_model_in_eval_mode_under_every_policy(policy):
    a, b = batch_normed(), batch_normed()
    with torch.no_grad():
        b[1].running_mean += 3
        b[3].bias += 0.1
    o = Objective(a, F.cross_entropy, (X, Y), batch_norm=policy)
    own = F.cross_entropy(b(X), Y).item()
    with pytest.warns(BufferWarning, match=f"and that model's own, with its own buffers, is {own:.4g}"):
        measured(o, la.Segment(o.point, o.point_of(b)), steps=3, tol=None, batch_norm=policy)


def test_buffers_that_no_state_dict_holds_come_from_the_module_and_are_told_where_there_is_none():
    a, b = Normalised(0.0), Normalised(4.0)
    for model in (a, b):
        model.register_buffer("mu", model.mu, persistent=False)
    own = F.cross_entropy(b(X), Y).item()
    o = Objective(a, F.cross_entropy, (X, Y))
    found = measured(o, la.Segment(o.point, o.end_of(b.state_dict())), steps=3, tol=None)
    assert "No state dict holds mu" in found.attrs["ends_note"]
    for source in (b, b.state_dict()):  # the state dict does not take away what the module told
        found = measured(o, la.Segment(o.point, o.end_of(source)), steps=3, tol=None)
        assert found["loss"][-1] == pytest.approx(own, rel=1e-6)
        assert found.attrs["ends_note"] == ""


def test_buffers_of_another_shape_stay_and_are_told():
    a, b = Normalised(0.0), Normalised(9.0)
    for model in (a, b):
        model.register_buffer("mu", model.mu[: 1 if model is b else 6], persistent=False)
    o = Objective(a, F.cross_entropy, (X, Y))
    with pytest.warns(BufferWarning, match=r"of another shape stay the objective's \(mu\)"):
        measured(o, la.Segment(o.point, o.end_of(b)), steps=3, tol=None)


def test_one_point_of_two_models_is_told():
    a, b = Normalised(1.0), Normalised(2.0)
    twin = copy.deepcopy(b)
    twin.mu += 1
    o = Objective(a, F.cross_entropy, (X, Y))
    o.end_of(twin)
    found = measured(o, la.Segment(o.point, o.end_of(b)), steps=3, tol=None)
    assert "Several models have the parameters of the end t = 1" in found.attrs["ends_note"]
    assert found["loss"][-1] == pytest.approx(F.cross_entropy(b(X), Y).item(), rel=1e-6)
    with pytest.warns(BufferWarning, match=r"other buffers than the objective's \(mu\)"):
        Objective(b, F.cross_entropy, (X, Y)).point_of(twin)


def test_what_is_kept_is_bounded_and_what_is_dropped_is_told(monkeypatch):
    monkeypatch.setattr(belongings, "MOST", 50)  # bytes: two times 6 numbers
    o = Objective(Normalised(0.0), F.cross_entropy, (X, Y))
    ends = [o.end_of(Normalised(k)) for k in (11.0, 12.0, 13.0)]
    assert sum(t.nbytes for one in belongings._KEPT.values() for t in one.tensors.values()) <= 50
    measured(o, la.Segment(o.point, ends[2]), steps=3, tol=None)
    with pytest.warns(BufferWarning, match=r"not known.*objective.point_of\(model\)"):
        measured(o, la.Segment(o.point, ends[0]), steps=3, tol=None)


@pytest.mark.filterwarnings("ignore:The loss at the last end of the line after alignment")
def test_an_aligned_network_keeps_its_buffers():
    class Centred(nn.Sequential):
        def __init__(self, seed):
            torch.manual_seed(seed)
            super().__init__(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
            self.register_buffer("mu", torch.full((6,), float(seed)))

        def forward(self, x):
            return super().forward(x - self.mu)

    a, b = Centred(1), Centred(5)
    o = Objective(a, F.cross_entropy, (X, Y))
    own = F.cross_entropy(b(X), Y).item()
    for source in (b, o.end_of(b)):
        found = measured(o, la.Segment(o.point, la.align(o, a, source).point), steps=3, tol=None)
        assert found["loss"][-1] == pytest.approx(own, rel=1e-5)
    found = la.connectivity(o, a, b, steps=3, plane_steps=3, progress=False)
    assert found["barrier_aligned"]["loss"][-1] == pytest.approx(own, rel=1e-5)


def test_the_ends_are_compared_without_a_profile_too():
    a, b = batch_normed(), batch_normed()
    with torch.no_grad():
        b[1].running_mean += 3
        b[3].bias += 0.1
    o = Objective(a, F.cross_entropy, (X, Y))
    with pytest.warns(BufferWarning, match="t = 1 of the path"):
        found = la.connect(o, a, b, epochs=1, profile_steps=0, progress=False)
    assert "batch_norm_data=" in found.training.attrs["ends_note"]
    with pytest.warns(BufferWarning) as told:
        la.connectivity(o, a, b, steps=3, plane_steps=3, progress=False)
    assert any("The loss at the last end of the line is" in str(one.message) for one in told)


def test_a_metric_that_does_not_move_decides_nothing():
    w = nn.Linear(1, 1, bias=False)
    o = Objective(
        w,
        lambda out, _: (out[:, 0] ** 2 - 1) ** 2 + 0.1,
        (torch.ones(40, 1), torch.zeros(40)),
        metrics={"accuracy": lambda out, _: torch.arange(len(out)) % 2 * 1.0},
    )
    found = measured(o, la.Segment(torch.tensor([-1.0]), torch.tensor([1.0])), steps=5)
    claim = linear_connectivity(found)
    assert float(found["height_error"].max()) == 0
    assert claim.verdict == "contradicted"
    assert "loss" in claim.statistic
    assert claim.value == pytest.approx(10.0)
