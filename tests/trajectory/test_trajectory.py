"""The road of training: snapshots on disk and in memory, principal components, null models."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from oracles import plain
from oracles.members import BY_NAME
from sklearn.decomposition import PCA
from torch import nn

import lossatlas as la
from lossatlas.errors import CheckpointError, DirectionError, InputError, OutputError
from lossatlas.model.checkpoints import read_state
from lossatlas.objective import Objective
from lossatlas.trajectory.trajectory import Recorder, Trajectory


def walk(snapshots: int = 12, n: int = 50, seed: int = 0, dtype: torch.dtype = torch.float64) -> Trajectory:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(snapshots, n, generator=generator, dtype=torch.float64) * torch.linspace(2, 0.1, n).double()
    return Trajectory((10 + steps.cumsum(0)).to(dtype), range(0, 10 * snapshots, 10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_components_are_those_of_sklearn(dtype):
    road = walk(dtype=dtype)
    reference = PCA(svd_solver="full").fit(road.points.double().numpy())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    ours = road.components(5).double().numpy()
    cosines = np.sum(ours * reference.components_[:5], axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=tolerance)
    np.testing.assert_allclose(ours @ ours.T, np.eye(5), atol=tolerance)
    np.testing.assert_allclose(road.explained_variance(), reference.explained_variance_ratio_[:11], atol=1e-12)


def test_the_components_about_the_last_snapshot_are_those_of_its_svd():
    road = walk()
    _, values, rows = np.linalg.svd((road.points - road.points[-1]).numpy(), full_matrices=False)
    ours = road.components(3, center="last").numpy()
    np.testing.assert_allclose(np.abs(np.sum(ours * rows[:3], axis=1)), 1, atol=1e-10)
    shares = values**2 / (values**2).sum()
    np.testing.assert_allclose(road.explained_variance("last"), shares[:11], atol=1e-12)


@pytest.mark.parametrize("center", ["mean", "last"])
def test_signs_are_fixed_by_the_first_snapshot(center):
    road = walk(seed=4)
    about = road.points.mean(0) if center == "mean" else road.points[-1]
    assert ((road.points[0] - about) @ road.components(4, center).T >= 0).all()


def test_a_far_road_with_small_steps_loses_nothing_to_rounding():
    near = walk(dtype=torch.float64)
    far = Trajectory((near.points - near.points[0]) * 1e-3 + 1000.0, near.steps)
    np.testing.assert_allclose(far.explained_variance(), near.explained_variance(), atol=1e-7)


def test_a_random_walk_shows_the_closed_form():
    snapshots = 40
    k = np.arange(1, snapshots)
    closed = 1 / (4 * np.sin(np.pi * k / (2 * snapshots)) ** 2)
    found = walk(snapshots, 100).analyse(components=snapshots - 1, draws=2)["random_walk_ratio"].values
    np.testing.assert_allclose(found, closed / closed.sum(), rtol=1e-10)


def test_a_long_random_walk_in_many_dimensions_shows_61_15_and_7_per_cent():
    steps = torch.randn(300, 20_000, generator=torch.Generator().manual_seed(0))
    shares = Trajectory(steps.cumsum(0), range(300)).explained_variance()
    np.testing.assert_allclose(shares[:3], [0.608, 0.152, 0.068], atol=0.01)


def test_the_plane_contains_the_whole_road_and_the_last_snapshot_is_its_centre():
    for seed in range(5):
        road = walk(seed=seed)
        for margin in (0.0, 0.2):
            plane = road.plane(steps=(7, 5), margin=margin)
            assert all(0.0 in axis for axis in plane.coordinates)
            assert torch.equal(plane.at(0.0, 0.0), road.points[-1])
            coordinates = road.project(plane.directions)
            assert (coordinates[-1] == 0).all()
            for axis, values in zip(plane.coordinates, coordinates.T, strict=True):
                assert axis[0] <= values.min() - margin * np.ptp(values) * 0.999
                assert axis[-1] >= values.max() + margin * np.ptp(values) * 0.999
            np.testing.assert_allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-10)


def test_a_straight_road_with_a_little_noise_still_has_a_plane_of_some_height():
    points = torch.linspace(0, 1, 6)[:, None] * torch.ones(6, 30) + 1e-3 * torch.randn(
        6, 30, generator=torch.Generator().manual_seed(0)
    )
    length = float((points[-1] - points[0]).norm())
    first, second = (np.ptp(axis) for axis in Trajectory(points, range(6)).plane(steps=51).coordinates)
    assert 1.4 * length < first < 1.6 * length
    assert 0.25 * length < second < 0.4 * length


def test_distances_are_those_of_pythagoras():
    road = walk()
    found = road.analyse(draws=3)
    offsets = (road.points - road.points[-1]).numpy()
    np.testing.assert_allclose(found["distance"], np.linalg.norm(offsets, axis=1), rtol=1e-12)
    on_plane = found["alpha"] ** 2 + found["beta"] ** 2
    np.testing.assert_allclose(found["off_plane_distance"] ** 2 + on_plane, found["distance"] ** 2, rtol=1e-9)
    assert float(found["off_plane_distance"][-1]) == 0
    assert float(found["distance"][0]) > 0


def test_the_sign_flips_keep_a_straight_road_below_one_and_are_seeded():
    road = walk()
    found = road.analyse(draws=20, seed=3)["sign_flip_two"].values
    np.testing.assert_array_equal(found, road.analyse(draws=20, seed=3)["sign_flip_two"].values)
    increments = road.points.diff(dim=0).numpy()
    signs = np.random.default_rng(3).choice([-1.0, 1.0], size=(20, 11))
    flipped = np.vstack([np.zeros(50), (increments * signs[7][:, None]).cumsum(0)])
    assert found[7] == pytest.approx(PCA().fit(flipped).explained_variance_ratio_[:2].sum(), rel=1e-9)


# Recording


def train(model: nn.Module, record: Recorder, steps: range, optimizer: torch.optim.Optimizer) -> None:
    member = BY_NAME["mlp-tanh"]
    inputs, targets = member.data()
    for step in steps:
        optimizer.zero_grad()
        loss = member.loss(model(inputs), targets)
        loss.backward()
        record(step, loss=loss.item())
        optimizer.step()


def recorded(folder=None, steps: int = 7, **options) -> tuple[nn.Module, Recorder]:
    model = BY_NAME["mlp-tanh"].make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = Recorder(model, every=3, folder=folder, optimizer=optimizer, **options)
    train(model, record, range(steps), optimizer)
    return model, record


def test_a_folder_holds_what_memory_holds(tmp_path):
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


def test_gradient_norm_and_learning_rate_are_observed():
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


def test_snapshots_in_memory_do_not_follow_the_model():
    model, record = recorded()
    before = record.trajectory.points.clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(record.trajectory.points, before)


def test_resuming_replaces_what_came_later(tmp_path):
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


def test_a_folder_of_another_recording_is_refused(tmp_path):
    recorded(tmp_path)
    with pytest.raises(OutputError, match="resume=True"):
        Recorder(nn.Linear(2, 1), folder=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        Recorder(nn.Linear(2, 1), folder=tmp_path / "file")


def test_a_killed_run_leaves_half_a_line_and_all_else(tmp_path):
    recorded(tmp_path)
    history = tmp_path / "history.jsonl"
    with history.open("a") as file:
        file.write('{"step": 7, "loss": 0.')
    assert Trajectory.load(tmp_path).history["step"].values.tolist() == list(range(7))
    model = BY_NAME["mlp-tanh"].make()
    Recorder(model, every=3, folder=tmp_path, resume=True)(7, loss=0.5)
    assert [json.loads(line)["step"] for line in history.read_text().splitlines()] == list(range(8))


def test_a_damaged_history_is_refused_in_one_line(tmp_path):
    recorded(tmp_path)
    history = tmp_path / "history.jsonl"
    history.write_text("nonsense\n" + history.read_text())
    with pytest.raises(CheckpointError, match="delete that line") as caught:
        Trajectory.load(tmp_path)
    assert "\n" not in str(caught.value)


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


# Too little


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (torch.ones(1, 5), "1 snapshot"),
        (torch.ones(4, 5), "same point"),
        (torch.arange(4.0)[:, None] * torch.ones(4, 5), "fewer than 2 dimensions"),
        (torch.tensor([[0.0, 1.0], [2.0, 3.0]]), "fewer than 2 dimensions"),
        (torch.tensor([[0.0, 1.0], [2.0, torch.nan], [3.0, 0.0]]), "step 10"),
    ],
    ids=["one", "identical", "a line", "two", "nan"],
)
def test_too_little_to_analyse_is_an_error(points, words):
    road = Trajectory(points, range(0, 10 * len(points), 10))
    for ask in (road.analyse, road.plane) if words != "same point" else (road.explained_variance,):
        with pytest.raises(InputError, match=words) as caught:
            ask()
        assert "\n" not in str(caught.value)
    if words == "same point":
        with pytest.raises(InputError):
            road.plane()


def test_an_empty_recording_has_no_road():
    with pytest.raises(InputError, match="0 snapshot"):
        Recorder(nn.Linear(2, 1)).trajectory.explained_variance()


def test_a_count_below_one_and_an_unknown_centre_are_refused():
    with pytest.raises(InputError, match="every"):
        Recorder(nn.Linear(2, 1), every=0)
    with pytest.raises(InputError, match="'last'"):
        walk().explained_variance("first")


# With an objective


def test_true_losses_and_those_of_the_projection_are_both_measured():
    member = BY_NAME["mlp-tanh"]
    model, record = recorded(steps=13)
    o = Objective(model, member.loss, member.data())
    road = record.trajectory
    found = road.analyse(o, draws=2, progress=False)
    for i, point in enumerate(road.points):
        assert float(found["loss"][i]) == pytest.approx(
            plain.loss_at(model, member.loss, member.data(), point), rel=1e-6
        )
    first, second = road.components(2)
    there = road.points[-1] + float(found["alpha"][1]) * first + float(found["beta"][1]) * second
    assert float(found["plane_loss"][1]) == pytest.approx(o.value(there), rel=1e-5)
    assert float(found["plane_loss"][-1]) == float(found["loss"][-1])
    assert found.attrs["n_snapshots"] == 5
    surface = la.surface(o, road.plane(steps=3), progress=False)
    assert surface.attrs["cosine"] == pytest.approx(0, abs=1e-5)


def test_a_road_of_another_network_is_refused():
    o = Objective(BY_NAME["tied"].make(), BY_NAME["tied"].loss, BY_NAME["tied"].data())
    with pytest.raises(DirectionError, match=str(o.n_parameters)):
        recorded()[1].trajectory.analyse(o, draws=2, progress=False)
