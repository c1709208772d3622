"""Runs that part after k steps: closed forms for the heights, real trainings for the bits, bad input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.members import BY_NAME
from oracles.refusals import refused
from torch import Tensor, nn

import lossatlas as la
from lossatlas import zoo
from lossatlas.connectivity.instability import instability
from lossatlas.errors import BufferWarning, CheckpointError, DirectionError, InputError, NonFiniteLoss
from lossatlas.objective import Objective


class Number(nn.Module):
    """One parameter w, whose output is w for every example."""

    def __init__(self, w: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.expand(len(x), 1)


class Sign(Number):
    """Two classes by the sign of w x. All x are positive and of class 1: w > 0 is right, the others are wrong."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-self.w * x, self.w * x], dim=1)


X = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)


def two_wells() -> Objective:
    """L(w) = (w^2 - 1)^2 with minima at -1 and 1 and a hill of height 1 between them."""
    return Objective(Number(), lambda outputs, _: (outputs[:, 0] ** 2 - 1) ** 2, (X, X[:, 0]), metrics=None)


def signs() -> Objective:
    return Objective(Sign(), F.cross_entropy, (X, torch.ones(4, dtype=torch.long)))


def number(w: float) -> Tensor:
    return torch.tensor([w], dtype=torch.float64)


def spawned(k: int, order: int) -> Tensor:
    """Before step 10 the wells are still open, before step 20 the place in the well, and after it nothing."""
    if k < 10:
        return number([-1.0, 1.0][order % 2])
    return number(1.0 if k >= 20 else [0.9, 1.0][order % 2])


def measured(objective, spawn, ks, **options):
    return instability(objective, spawn, ks, **{"progress": False, "steps": 5, "draws": 100} | options)


def test_the_heights_are_frankles_and_the_later_runs_part_the_lower_they_are():
    found = measured(two_wells(), spawned, [20, 0, 15], total_steps=25)
    assert found["k"].values.tolist() == [0, 15, 20]
    # From -1 to 1 the hill, 1; from 0.9 to 1 the loss falls: the end at 0.9 above the mean of both.
    expected = [1.0, (0.9**2 - 1) ** 2 / 2, 0.0]
    np.testing.assert_allclose(found["barrier"][:, 0], expected, rtol=1e-9, atol=1e-12)
    assert (found["barrier_low"] <= found["barrier"] + 1e-12).all()
    assert (found["barrier"] <= found["barrier_high"] + 1e-12).all()
    # All examples have the same loss, so the data leave no doubt.
    np.testing.assert_allclose(found["barrier_high"][:, 0], expected, rtol=1e-9, atol=1e-12)
    assert "barrier_error" not in found
    named = {"kind": "instability", "definition": "frankle", "total_steps": 25}
    assert {name: found.attrs[name] for name in named} == named
    assert not {"verdict", "threshold"} & set(found.attrs)
    assert found.attrs["n_examples"] == 4


def test_a_training_that_knows_its_length_need_not_be_told_it():
    class Training:
        total_steps = 25

        def __call__(self, k, order):
            return spawned(k, order)

    assert measured(two_wells(), Training(), [0]).attrs["total_steps"] == 25
    assert measured(two_wells(), Training(), [0], total_steps=30).attrs["total_steps"] == 30
    with pytest.raises(InputError, match="a run has 25 steps"):
        measured(two_wells(), Training(), [26])


def test_the_error_is_measured_with_the_loss():
    found = measured(signs(), spawned, [0, 30])
    # Right everywhere at w = 1, wrong everywhere at w = -1: at most 1, less the mean 1/2 of the ends.
    assert found["barrier_error"].values.tolist() == [[0.5], [0.0]]
    assert found["barrier_error_low"].values.tolist() == [[0.5], [0.0]]
    assert found["barrier_error_high"].values.tolist() == [[0.5], [0.0]]
    assert found["end_error"].values.tolist() == [[0.5], [0.0]]


def test_runs_that_end_in_one_point_have_no_barrier():
    found = measured(signs(), lambda k, order: number(-2.0), [7], pairs=2)
    for name in ("barrier", "barrier_low", "barrier_high", "barrier_error", "barrier_error_low", "barrier_error_high"):
        assert found[name].values.tolist() == [[0.0, 0.0]]
    assert found["end_error"].values.tolist() == [[1.0, 1.0]]


def test_each_pair_has_orders_of_its_own():
    asked = []

    def spawn(k: int, order: int) -> Tensor:
        asked.append((k, order))
        return number(1.0 + order)

    found = measured(two_wells(), spawn, [4, 2], pairs=2)
    assert sorted(asked) == [(k, order) for k in (2, 4) for order in range(4)]
    assert found.sizes == {"k": 2, "pair": 2}
    # (w^2 - 1)^2 rises from 1 on: the worse end above the mean of both.
    losses = [((1 + order) ** 2 - 1) ** 2 for order in range(4)]
    heights = [(b - a) / 2 for a, b in list(pairwise(losses))[::2]]
    np.testing.assert_allclose(found["barrier"], [heights, heights], rtol=1e-9)


@pytest.mark.parametrize("form", ["module", "state dict", "file", "the same tensor, trained on"])
def test_spawn_may_return_a_network_in_any_form(form, tmp_path):
    kept = number(0.0)

    def spawn(k: int, order: int):
        w = [-1.0, 1.0][order]
        if form == "module":
            return Number(w)
        if form == "state dict":
            return Number(w).state_dict()
        if form == "file":
            torch.save(Number(w).state_dict(), tmp_path / f"{order}.pt")
            return tmp_path / f"{order}.pt"
        kept.fill_(w)
        return kept

    assert measured(two_wells(), spawn, [0])["barrier"].item() == pytest.approx(1.0, rel=1e-9)


def test_trainings_that_fork_differ_before_the_end_and_are_one_at_the_end():
    member = BY_NAME["batch-norm"]
    data = member.data()

    def spawn(k: int, order: int) -> nn.Module:
        network = member.make()
        zoo.fit(network, data, epochs=2, batch_size=5, learning_rate=0.1, fork=(k, order), progress=False)
        return network

    total = 2 * -(-len(data[1]) // 5)  # two epochs, five examples a step
    objective = Objective(member.make(), F.cross_entropy, data)
    found = measured(objective, spawn, [0, total], total_steps=total)
    assert found.attrs["batch_norm"] == "recompute"
    assert float(found["barrier"][0, 0]) > 0
    assert found["barrier"][1].values.tolist() == [0.0]
    # Both are measured with statistics of the data that they are measured on.
    ends = [objective.with_batch_norm("recompute").samples(objective.point_of(spawn(total, order))) for order in (0, 1)]
    assert float(found["end_error"][1, 0]) == pytest.approx(1 - ends[0]["accuracy"].mean, abs=1e-12)
    assert ends[0]["loss"].mean == ends[1]["loss"].mean


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": []}, r"ks=\[\]: give numbers of shared steps"),
        ({"ks": [3, -1]}, r"ks=\[3, -1\]: .*from 0 up"),
        ({"ks": [1, 2, 1]}, "none twice"),
        ({"ks": [1.5]}, "whole"),
        ({"ks": [0, 30], "total_steps": 20}, "a run has 20 steps"),
        ({"pairs": 0}, "pairs=0: give at least 1"),
        ({"pairs": -1}, "pairs=-1"),
        ({"total_steps": -1}, "ks="),
        ({"steps": 2}, "steps=2"),
        ({"draws": 7}, "draws=7"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_questions_are_refused_before_anything_is_trained(options, message):
    def spawn(k: int, order: int) -> Tensor:
        raise AssertionError("a training was begun")

    with refused(InputError, match=message):
        measured(two_wells(), spawn, **{"ks": [0]} | options)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (None, InputError, r"spawn\(3, 0\) returned a NoneType: return the trained network"),
        (7, InputError, "returned a int"),
        (torch.zeros(2), DirectionError, r"point of spawn\(3, 0\) has shape \(2,\)"),
        (number(np.nan), DirectionError, r"point of spawn\(3, 0\) holds NaN"),
        (Number(np.inf), DirectionError, "NaN or infinite"),
        (nn.Linear(1, 1), CheckpointError, "another network"),
    ],
)
def test_what_is_no_network_is_refused(returned, error, message):
    with pytest.raises(error, match=message):
        measured(two_wells(), lambda k, order: returned, [3])


# Real networks

MEMBER = BY_NAME["mlp-tanh"]
INTERVALS = ["barrier", "barrier_low", "barrier_high", "barrier_error", "barrier_error_low", "barrier_error_high"]


def classifier(**options) -> Objective:
    return Objective(MEMBER.make(), MEMBER.loss, MEMBER.data(), **options)


def interpolated(k: int, order: int) -> nn.Module:
    """The later the parting, the nearer to one network."""
    one, other = MEMBER.make(seed=0), MEMBER.make(seed=order + 1)
    with torch.no_grad():
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            p.lerp_(q, 1 / (1 + k))
    return one


def test_every_number_is_that_of_the_barrier_between_the_two_runs():
    o = classifier()
    found = measured(o, interpolated, np.array([8, 0, 2]), pairs=2, seed=3)
    assert found["k"].values.tolist() == [0, 2, 8]
    for k in (0, 2, 8):
        for pair in (0, 1):
            a, b = (o.point_of(interpolated(k, 2 * pair + i)) for i in (0, 1))
            own = la.barrier(o, la.Segment(a, b), definition="frankle", steps=5, draws=100, seed=3, progress=False)
            cell = found.sel(k=k, pair=pair)
            for name in INTERVALS:
                assert float(cell[name]) == float(own[name])
            ends = [1 - o.samples(p)["accuracy"].mean for p in (a, b)]
            assert float(cell["end_error"]) == pytest.approx(np.mean(ends), abs=1e-12)
    assert float(found["barrier"][-1].max()) < 0.1 * float(found["barrier"][0].min())


def test_one_seed_gives_the_same_numbers_and_draws_none_from_the_callers_stream():
    o = classifier()
    points = {order: o.point_of(interpolated(1, order)) for order in range(2)}
    state = torch.get_rng_state()
    first, again, other = (measured(o, lambda k, order: points[order], [1], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.equals(again)
    assert first["barrier"].item() == other["barrier"].item()
    assert first["barrier_high"].item() != other["barrier_high"].item()


def test_without_draws_the_heights_stay_and_the_intervals_are_unknown():
    o = classifier()
    found, known = measured(o, interpolated, [0], draws=0), measured(o, interpolated, [0])
    for name in ("barrier", "barrier_error"):
        np.testing.assert_equal(found[name].item(), known[name].item())
        assert np.isnan(found[f"{name}_high"].item())


def test_a_step_of_any_kind_has_no_error_even_where_runs_are_one():
    batches = [{"x": x, "y": y} for x, y in MEMBER.batches()]
    o = Objective.from_step(MEMBER.make(), lambda m, d: F.cross_entropy(m(d["x"]), d["y"], reduction="none"), batches)
    found = measured(o, lambda k, order: interpolated(k, 0 if k == 5 else order), [0, 5])
    assert set(found) == {"barrier", "barrier_low", "barrier_high"}
    assert found["barrier"][0].item() > 0
    assert found["barrier"][1].item() == 0


def test_a_point_of_another_type_that_takes_a_gradient_is_a_point():
    o = classifier(dtype=torch.float64)
    points = [o.point_of(interpolated(0, order)).float().requires_grad_() for order in (0, 1)]
    found = measured(o, lambda k, order: points[order], [0])
    expected = measured(o, lambda k, order: points[order].detach().double(), [0])
    assert found["barrier"].item() == expected["barrier"].item()
    assert all(point.requires_grad for point in points)


def test_only_the_chosen_parameters_are_compared():
    o = classifier(parameters="2.*")
    with pytest.warns(BufferWarning, match="select them too"):
        found = measured(o, interpolated, [0])
    a, b = (o.point_of(interpolated(0, order)) for order in (0, 1))
    with pytest.warns(BufferWarning, match="select them too"):
        own = la.barrier(o, la.Segment(a, b), definition="frankle", steps=5, draws=100, progress=False)
    assert found["barrier"].item() == own["barrier"].item()


def test_what_spawn_raises_is_not_hidden():
    def spawn(k: int, order: int) -> Tensor:
        raise RuntimeError("no space left on device")

    with pytest.raises(RuntimeError, match="no space left"):
        measured(classifier(), spawn, [0])


def test_a_run_whose_loss_overflows_is_told():
    def spawn(k: int, order: int) -> nn.Module:
        network = MEMBER.make(seed=order)
        with torch.no_grad():
            network[-1].weight.fill_(3e38)
        return network

    with refused(NonFiniteLoss, match="t = 0"):
        measured(classifier(), spawn, [0])


def test_a_bar_counts_the_pairs(capsys):
    measured(classifier(), interpolated, [0, 4], pairs=2, progress=True)
    assert "instability" in capsys.readouterr().err
