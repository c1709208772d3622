"""Recording: snapshots on disk and in memory, what is observed, what a killed run leaves, what is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
from oracles import plain
from oracles.members import BY_NAME
from oracles.refusals import refused
from torch import nn

from lossatlas.errors import CheckpointError, OutputError
from lossatlas.model.checkpoints import read_state
from lossatlas.trajectory.recorder import Recorder
from lossatlas.trajectory.trajectory import Trajectory


def test_a_folder_holds_what_memory_holds(tmp_path, recorded):
    in_memory, on_disk = recorded()[1].trajectory, recorded(tmp_path / "run")[1].trajectory
    assert in_memory.steps == on_disk.steps == [0, 3, 6]
    assert torch.equal(in_memory.points, on_disk.points)
    assert in_memory.history.identical(on_disk.history)
    loaded = Trajectory.load(tmp_path / "run")
    assert torch.equal(loaded.points, on_disk.points)


def test_snapshots_are_the_models_state_dict_bit_for_bit(tmp_path):
    model = BY_NAME["batch-norm"].make()
    Recorder(model, every=1, folder=tmp_path)(0)
    state = read_state(tmp_path / "step-00000000.safetensors")
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(Trajectory.load(tmp_path).points[0], plain.flat(model))


def test_gradient_norm_and_learning_rate_are_observed(recorded):
    model, record = recorded()
    history = record.trajectory.history
    truth = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
    assert float(history["gradient_norm"][-1]) == pytest.approx(truth, rel=1e-12)
    assert (history["learning_rate"] == 0.1).all()
    assert history.sizes == {"step": 7}
    assert history.attrs["kind"] == "history"


def test_what_a_call_states_goes_before_what_is_observed():
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    record = Recorder(model, every=1)
    record(0, gradient_norm=7.0)
    record(1, loss=2.0)
    history = record.trajectory.history
    assert float(history["gradient_norm"][0]) == 7.0
    assert math.isnan(history["loss"][0])


def test_snapshots_in_memory_do_not_follow_the_model(recorded):
    model, record = recorded()
    before = record.trajectory.points.clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(record.trajectory.points, before)


def test_resuming_replaces_what_came_later(tmp_path, recorded, train):
    recorded(tmp_path, steps=10)
    whole = Trajectory.load(tmp_path)
    model = BY_NAME["mlp-tanh"].make()
    model.load_state_dict(read_state(tmp_path / "step-00000003.safetensors"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, Recorder(model, every=3, folder=tmp_path, optimizer=optimizer, resume=True), range(3, 7), optimizer)
    resumed = Trajectory.load(tmp_path)
    assert resumed.steps == [0, 3, 6]
    assert torch.equal(resumed.points, whole.points[:3])
    assert resumed.history["step"].values.tolist() == list(range(7))
    assert resumed.history["loss"].values == pytest.approx(whole.history["loss"].values[:7], rel=1e-6)


def test_a_folder_of_another_recording_is_refused(tmp_path, recorded):
    recorded(tmp_path)
    with pytest.raises(OutputError, match="resume=True"):
        Recorder(nn.Linear(2, 1), folder=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        Recorder(nn.Linear(2, 1), folder=tmp_path / "file")


def test_a_killed_run_leaves_half_a_line_and_all_else(tmp_path, recorded):
    recorded(tmp_path)
    history = tmp_path / "history.jsonl"
    with history.open("a") as file:
        file.write('{"step": 7, "loss": 0.')
    assert Trajectory.load(tmp_path).history["step"].values.tolist() == list(range(7))
    model = BY_NAME["mlp-tanh"].make()
    Recorder(model, every=3, folder=tmp_path, resume=True)(7, loss=0.5)
    assert [json.loads(line)["step"] for line in history.read_text().splitlines()] == list(range(8))


def test_a_damaged_history_is_refused_in_one_line(tmp_path, recorded):
    recorded(tmp_path)
    history = tmp_path / "history.jsonl"
    history.write_text("nonsense\n" + history.read_text())
    with refused(CheckpointError, match="delete that line"):
        Trajectory.load(tmp_path)


def test_folders_without_snapshots_or_with_two_networks_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no snapshots"):
        Trajectory.load(tmp_path)
    Recorder(nn.Linear(2, 1), every=1, folder=tmp_path)(0)
    Recorder(nn.Linear(3, 1), every=1, folder=tmp_path, resume=True)(1)
    with pytest.raises(CheckpointError, match="different networks"):
        Trajectory.load(tmp_path)
    torch.save({}, tmp_path / "x.pt")
    (tmp_path / "step-00000002.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="step-00000002"):
        Trajectory.load(tmp_path)
