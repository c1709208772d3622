"""Stored surfaces: whatever stops them, they go on where they were and end bit for bit as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from oracles.refusals import refused
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import OutputError
from lossatlas.evaluation.points.plans import Plan
from lossatlas.evaluation.points.tuning import Tuner
from lossatlas.model.functional import FunctionalModel
from lossatlas.objective import Objective
from lossatlas.study.target import load_objective
from lossatlas.surfaces.store import BLOCK, Store

TIMES = ("seconds", "preparation_seconds")  # all else must be the same
ASKED = [dict(tol=None), dict(tol=0.01), dict(tol=0.01, by_class=True, subset=30)]
every_request = pytest.mark.parametrize("asked", ASKED, ids=["exact grid", "tolerance", "subset"])


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3))


def data(seed: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(60, 6, generator=generator), torch.randint(3, (60,), generator=generator)


def region(o: Objective, seed: int = 0, steps: int = 21) -> la.Region:
    return la.plane(o.point, *la.random_directions(o, 2, seed=seed), steps=steps)


def surface(o: Objective, where: Any = None, **options: Any) -> xr.Dataset:
    return la.surface(o, where or region(o), progress=False, **(dict(fast=False) | options))


class Accuracy:
    """A metric that the user's Ctrl-C meets at its ``left``-th call, once it is armed."""

    def __init__(self) -> None:
        self.left: int | None = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise KeyboardInterrupt
        return (outputs.argmax(1) == targets).float()


@pytest.fixture
def metric() -> Accuracy:
    return Accuracy()


@pytest.fixture
def objective(metric: Accuracy) -> Objective:
    return Objective(network(), F.cross_entropy, data(), metrics={"accuracy": metric}, batch_size=100)  # one batch


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry a batch that was evaluated."""
    calls: list[int] = []
    measure = FunctionalModel.measure
    monkeypatch.setattr(FunctionalModel, "measure", lambda *given: calls.append(1) or measure(*given))
    return calls


def assert_the_same(one: xr.Dataset, other: xr.Dataset) -> None:
    """Bit for bit, but for the time it took."""
    xr.testing.assert_identical(one.drop_attrs(), other.drop_attrs())
    drop = dict.fromkeys(TIMES)
    assert one.attrs | drop == other.attrs | drop


@every_request
def test_an_interrupted_surface_goes_on_and_ends_bit_for_bit_the_same(asked, objective, metric, tmp_path):
    whole, unstored = surface(objective, store=tmp_path / "whole", **asked), surface(objective, **asked)
    assert_the_same(whole, unstored)
    for points in (1, BLOCK, 50):
        store = tmp_path / f"broken after {points}"
        metric.left = points
        with pytest.raises(KeyboardInterrupt):
            surface(objective, store=store, **asked)
        assert_the_same(surface(objective, store=store, **asked), whole)


@every_request
def test_a_surface_that_is_interrupted_again_and_again_comes_to_its_end(asked, objective, metric, tmp_path):
    whole, interruptions = surface(objective, **asked), 0
    while True:
        metric.left = 2 * BLOCK - 5
        try:
            done = surface(objective, store=tmp_path, **asked)
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions >= 1
    assert_the_same(done, whole)


def test_what_was_stored_is_not_evaluated_again(objective, metric, passes, tmp_path):
    metric.left = 100  # the center and 99 points, of which three blocks of 32 are complete
    with pytest.raises(KeyboardInterrupt):
        surface(objective, store=tmp_path)
    passes.clear()
    done = surface(objective, store=tmp_path)
    assert len(passes) == 21 * 21 - 3 * BLOCK + 1
    assert done.attrs["n_evaluations"] == 21 * 21
    passes.clear()
    assert_the_same(surface(objective, store=tmp_path), done)
    assert len(passes) == 1


@pytest.mark.parametrize("tol", [None, 0.01])
def test_a_prepared_surface_goes_on_by_the_plan_it_was_begun_with(tol, objective, monkeypatch, tmp_path):
    plan = Plan(prepared=True, batch_size=17)
    with monkeypatch.context() as patch:
        patch.setattr(Tuner, "choose", lambda self: self.follow(plan))
        whole = surface(objective, store=tmp_path / "whole", tol=tol, fast=True)
        written, write = [], Store.write
        patch.setattr(Store, "write", lambda *given: interrupt(written) or write(*given))
        with pytest.raises(KeyboardInterrupt):
            surface(objective, store=tmp_path / "broken", tol=tol, fast=True)
    monkeypatch.setattr(Tuner, "choose", lambda self: pytest.fail("the plan is in the store"))
    done = surface(objective, store=tmp_path / "broken", tol=tol, fast=True)
    assert Plan.from_json(done.attrs["evaluation"]) == plan
    assert_the_same(done, whole)


def interrupt(written: list[int]) -> None:
    """Ctrl-C before the third block is written."""
    written.append(1)
    if len(written) == 3:
        raise KeyboardInterrupt


PROBLEM = """
import os, signal
import torch, torch.nn.functional as F
import lossatlas as la
calls = []
def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    def accuracy(outputs, targets):
        calls.append(1)
        if str(len(calls)) == os.environ.get("KILL_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        return (outputs.argmax(1) == targets).float()
    return la.Objective(model, F.cross_entropy, (torch.randn(60, 6), torch.randint(3, (60,))),
                        metrics={"accuracy": accuracy}, batch_size=100)
def surface(store, tol):
    objective = make()
    plane = la.plane(objective.point, *la.random_directions(objective, 2, seed=0), steps=21)
    return la.surface(objective, plane, store=store, tol=tol, fast=False, progress=False)
if __name__ == "__main__":
    import sys
    for tol in sys.argv[2:]:  # each in a process of its own; PyTorch is imported once for all
        child = os.fork()
        if child == 0:
            surface(f"{sys.argv[1]}/{tol}", float(tol) or None)
            os._exit(0)
        print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""
TOLERANCES = [None, 0.01]


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """The folder with the problem and its stores, whose processes were killed."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "problem.py").write_text(PROBLEM)
    command = [sys.executable, folder / "problem.py", folder, *(str(tol or 0) for tol in TOLERANCES)]
    done = subprocess.run(command, env=os.environ | {"KILL_AT": "75"}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * len(TOLERANCES), done.stderr
    return folder


@pytest.mark.parametrize("tol", TOLERANCES)
def test_a_killed_process_leaves_a_surface_that_another_one_finishes(tol, killed):
    store = killed / str(tol or 0)
    assert any(store.rglob("c/0/*"))  # the first block is there
    o = load_objective(f"{killed / 'problem.py'}:make")
    done = surface(o, store=store, tol=tol)
    assert_the_same(done, surface(o, tol=tol))


def test_each_of_several_planes_is_stored_and_resumed(objective, metric, passes, tmp_path):
    several = [region(objective, seed, 9) for seed in range(3)]
    whole = surface(objective, several)
    metric.left = 81 + 1 + 40  # in the second one
    with pytest.raises(KeyboardInterrupt):
        surface(objective, several, store=tmp_path)
    passes.clear()
    assert_the_same(surface(objective, several, store=tmp_path), whole)
    assert len(passes) == (0 + 1) + (81 - BLOCK + 1) + (81 + 1)


def test_losses_that_are_not_finite_are_stored_as_they_are(tmp_path, passes):
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (0.5 - outputs.square().mean(1)).sqrt() + 0 * targets

    inputs = torch.ones(4, 6)
    o = Objective(network(), loss, (inputs, torch.zeros(4)))
    line = la.line(o.point, o.point, span=(-1.0, 9.0), steps=11)
    first = surface(o, line, store=tmp_path)
    assert 0 < first.attrs["n_nonfinite"] < 11
    passes.clear()
    assert_the_same(surface(o, line, store=tmp_path), first)
    assert len(passes) == 1


# What a store refuses


def moved() -> Objective:
    model = network()
    with torch.no_grad():
        model[0].weight.add_(1e-3)
    return Objective(model, F.cross_entropy, data(), batch_size=100)


def made(**options: Any) -> Objective:
    return Objective(network(), F.cross_entropy, data(), **(dict(batch_size=100) | options))


def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


def margin(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.max(1).values


# name -> (what the second call is, the word that its refusal must say)
OTHERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "tol": (lambda store: surface(made(), store=store, tol=0.02), "tol"),
    "no tol": (lambda store: surface(made(), store=store, tol=None), "tol"),
    "coverage": (lambda store: surface(made(), store=store, tol=0.01, coverage=0.9), "coverage"),
    "confidence": (lambda store: surface(made(), store=store, tol=0.01, confidence=0.9), "confidence"),
    "seed": (lambda store: surface(made(), store=store, tol=0.01, seed=1), "seed"),
    "subset": (lambda store: surface(made(), store=store, tol=0.01, subset=30), "data_fingerprint|n_examples|subset"),
    "by_class": (lambda store: surface(made(), store=store, tol=0.01, by_class=True), "class"),
    "fast": (lambda store: surface(made(), store=store, tol=0.01, fast=True), "fast"),
    "steps": (lambda store: surface(made(), region(made(), steps=22), store=store, tol=0.01), "axes"),
    "directions": (lambda store: surface(made(), region(made(), 1), store=store, tol=0.01), "region"),
    "model": (lambda store: surface(moved(), store=store, tol=0.01), "model_fingerprint"),
    "data": (
        lambda store: surface(Objective(network(), F.cross_entropy, data(8), batch_size=100), store=store, tol=0.01),
        "data_fingerprint",
    ),
    "type": (lambda store: surface(made(dtype=torch.float64), store=store, tol=0.01), "dtype|fingerprint"),
    "metrics": (lambda store: surface(made(metrics={"margin": margin}), store=store, tol=0.01), "margin"),
    "no metrics": (lambda store: surface(made(metrics=None), store=store, tol=0.01), "accuracy"),
    "loss": (
        lambda store: surface(Objective(network(), smoothed, data(), batch_size=100), store=store, tol=0.01),
        "loss",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_store_of_another_surface_is_refused_by_what_differs_and_stays_as_it_was(name, tmp_path, passes):
    first = surface(made(), store=tmp_path, tol=0.01)
    ask, word = OTHERS[name]
    with refused(OutputError, match=word) as caught:
        ask(tmp_path)
    assert "another folder" in str(caught.value)
    again = made()
    where = region(again)
    passes.clear()
    assert_the_same(surface(again, where, store=tmp_path, tol=0.01), first)
    assert len(passes) == 1


def test_a_store_under_another_batch_norm_policy_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    o = Objective(model, F.cross_entropy, data(), batch_size=100)
    surface(o, region(o, steps=3), store=tmp_path)
    with pytest.raises(OutputError, match="batch_norm"):
        surface(o.with_batch_norm("batch"), region(o, steps=3), store=tmp_path)


def test_a_store_that_is_open_elsewhere_is_refused(objective, tmp_path):
    done = surface(objective, region(objective, steps=3), store=tmp_path)
    with Store(tmp_path / "other", {}, ["loss"]), pytest.raises(OutputError, match="in use"):
        surface(objective, region(objective, steps=3), store=tmp_path / "other")
    assert_the_same(surface(objective, region(objective, steps=3), store=tmp_path), done)


def test_a_damaged_store_or_a_file_in_its_place_is_refused(objective, tmp_path):
    surface(objective, region(objective, steps=3), store=tmp_path / "damaged")
    (tmp_path / "damaged" / "points.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for place, words in (("damaged", "cannot be read"), ("file", "file")):
        with refused(OutputError, match=words):
            surface(objective, region(objective, steps=3), store=tmp_path / place)


def test_a_store_that_was_begun_with_other_points_at_hand_is_refused(objective, tmp_path):
    near = region(objective).zoom(0.5)
    earlier = surface(objective)
    surface(objective, near, store=tmp_path)
    with pytest.raises(OutputError, match="holds other points"):
        surface(objective, near, store=tmp_path, reuse=earlier)
