"""Runs that part: the same barriers as by hand, networks of every kind, what spawn may do wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.members import BY_NAME
from torch import Tensor, nn

import lossatlas as la
from lossatlas.connectivity.instability import instability
from lossatlas.errors import InputError, NonFiniteLoss
from lossatlas.objective import Objective

MEMBER = BY_NAME["mlp-tanh"]
INTERVALS = ["barrier", "barrier_low", "barrier_high", "barrier_error", "barrier_error_low", "barrier_error_high"]


def objective(**options) -> Objective:
    return Objective(MEMBER.make(), MEMBER.loss, MEMBER.data(), **options)


def spawned(k: int, order: int) -> nn.Module:
    """The later the parting, the nearer to one network."""
    one, other = MEMBER.make(seed=0), MEMBER.make(seed=order + 1)
    with torch.no_grad():
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            p.lerp_(q, 1 / (1 + k))
    return one


def measured(o, spawn, ks, **options):
    return instability(o, spawn, ks, **{"progress": False, "steps": 5, "draws": 100} | options)


def test_every_number_is_that_of_the_barrier_between_the_two_runs():
    o = objective()
    found = measured(o, spawned, np.array([8, 0, 2]), pairs=2, seed=3)
    assert found["k"].values.tolist() == [0, 2, 8]
    for k in (0, 2, 8):
        for pair in (0, 1):
            a, b = (o.point_of(spawned(k, 2 * pair + i)) for i in (0, 1))
            own = la.barrier(o, la.Segment(a, b), definition="frankle", steps=5, draws=100, seed=3, progress=False)
            cell = found.sel(k=k, pair=pair)
            for name in INTERVALS:
                assert float(cell[name]) == float(own[name])
            ends = [1 - o.samples(p)["accuracy"].mean for p in (a, b)]
            assert float(cell["end_error"]) == pytest.approx(np.mean(ends), abs=1e-12)
    assert float(found["barrier"][-1].max()) < 0.1 * float(found["barrier"][0].min())


def test_one_seed_gives_the_same_numbers_and_draws_none_from_the_callers_stream():
    o = objective()
    points = {order: o.point_of(spawned(1, order)) for order in range(2)}
    state = torch.get_rng_state()
    first, again, other = (measured(o, lambda k, order: points[order], [1], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.equals(again)
    assert first["barrier"].item() == other["barrier"].item()
    assert first["barrier_high"].item() != other["barrier_high"].item()


def test_without_draws_the_heights_stay_and_the_intervals_are_unknown():
    o = objective()
    found, known = measured(o, spawned, [0], draws=0), measured(o, spawned, [0])
    for name in ("barrier", "barrier_error"):
        assert found[name].item() == known[name].item()
        assert np.isnan(found[f"{name}_high"].item())


def test_a_step_of_any_kind_has_no_error_even_where_runs_are_one():
    batches = [{"x": x, "y": y} for x, y in MEMBER.batches()]
    o = Objective.from_step(MEMBER.make(), lambda m, d: F.cross_entropy(m(d["x"]), d["y"], reduction="none"), batches)
    found = measured(o, lambda k, order: spawned(k, 0 if k == 5 else order), [0, 5])
    assert set(found) == {"barrier", "barrier_low", "barrier_high"}
    assert found["barrier"][0].item() > 0
    assert found["barrier"][1].item() == 0


def test_a_point_of_another_type_that_takes_a_gradient_is_a_point():
    o = objective(dtype=torch.float64)
    points = [o.point_of(spawned(0, order)).float().requires_grad_() for order in (0, 1)]
    found = measured(o, lambda k, order: points[order], [0])
    expected = measured(o, lambda k, order: points[order].detach().double(), [0])
    assert found["barrier"].item() == expected["barrier"].item()
    assert all(point.requires_grad for point in points)


def test_only_the_chosen_parameters_are_compared():
    o = objective(parameters="2.*")
    found = measured(o, spawned, [0])
    a, b = (o.point_of(spawned(0, order)) for order in (0, 1))
    own = la.barrier(o, la.Segment(a, b), definition="frankle", steps=5, draws=100, progress=False)
    assert found["barrier"].item() == own["barrier"].item()


def test_what_spawn_raises_is_not_hidden():
    def spawn(k: int, order: int) -> Tensor:
        raise RuntimeError("no space left on device")

    with pytest.raises(RuntimeError, match="no space left"):
        measured(objective(), spawn, [0])


def test_a_run_whose_loss_overflows_is_told():
    def spawn(k: int, order: int) -> nn.Module:
        network = MEMBER.make(seed=order)
        with torch.no_grad():
            network[-1].weight.fill_(3e38)
        return network

    with pytest.raises(NonFiniteLoss, match="t = 0") as caught:
        measured(objective(), spawn, [0])
    assert "\n" not in str(caught.value)


def test_a_bar_counts_the_pairs(capsys):
    measured(objective(), spawned, [0, 4], pairs=2, progress=True)
    assert "instability" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 2}, "steps=2"),
        ({"draws": 7}, "draws=7"),
        ({"seed": -1}, "seed=-1"),
        ({"pairs": -1}, "pairs=-1"),
        ({"total_steps": -1}, "ks="),
    ],
    ids=str,
)
def test_impossible_questions_are_refused(options, words):
    with pytest.raises(InputError, match=words) as caught:
        measured(objective(), spawned, [0], **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"steps": 2}, {"draws": 7}, {"seed": -1}], ids=str)
def test_questions_of_the_barrier_are_refused_before_anything_is_trained(options):
    asked = []

    def spawn(k: int, order: int) -> nn.Module:
        asked.append(k)
        return spawned(k, order)

    with pytest.raises(InputError):
        measured(objective(), spawn, [0], **options)
    assert asked == []
