"""The trajectory of training: snapshots on disk and in memory, principal components, null models."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from oracles import plain
from oracles.members import BY_NAME
from oracles.refusals import refused
from sklearn.decomposition import PCA
from torch import nn

from lossatlas.errors import DirectionError, InputError
from lossatlas.objective import Objective
from lossatlas.trajectory.recorder import Recorder
from lossatlas.trajectory.trajectory import Trajectory


def walk(snapshots: int = 12, n: int = 50, seed: int = 0, dtype: torch.dtype = torch.float64) -> Trajectory:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(snapshots, n, generator=generator, dtype=torch.float64) * torch.linspace(2, 0.1, n).double()
    return Trajectory((10 + steps.cumsum(0)).to(dtype), range(0, 10 * snapshots, 10))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_points_and_directions_on_a_gpu_give_what_they_give_on_the_cpu():
    trajectory = walk()
    there, directions = Trajectory(trajectory.points.cuda(), trajectory.steps), trajectory.components().cuda()
    assert there.fingerprint() == trajectory.fingerprint()
    torch.testing.assert_close(there.components(), trajectory.components())
    np.testing.assert_allclose(there.project(directions), trajectory.project(directions.cpu()))
    assert there.analyse(progress=False).equals(trajectory.analyse(progress=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_components_are_those_of_sklearn(dtype):
    trajectory = walk(dtype=dtype)
    reference = PCA(svd_solver="full").fit(trajectory.points.double().numpy())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    ours = trajectory.components(5).double().numpy()
    cosines = np.sum(ours * reference.components_[:5], axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=tolerance)
    np.testing.assert_allclose(ours @ ours.T, np.eye(5), atol=tolerance)
    np.testing.assert_allclose(trajectory.explained_variance(), reference.explained_variance_ratio_[:11], atol=1e-12)


def test_the_components_about_the_last_snapshot_are_those_of_its_svd():
    trajectory = walk()
    _, values, rows = np.linalg.svd((trajectory.points - trajectory.points[-1]).numpy(), full_matrices=False)
    ours = trajectory.components(3, center="last").numpy()
    np.testing.assert_allclose(np.abs(np.sum(ours * rows[:3], axis=1)), 1, atol=1e-10)
    shares = values**2 / (values**2).sum()
    np.testing.assert_allclose(trajectory.explained_variance("last"), shares[:11], atol=1e-12)


@pytest.mark.parametrize("center", ["mean", "last"])
def test_signs_are_fixed_by_the_first_snapshot(center):
    trajectory = walk(seed=4)
    about = trajectory.points.mean(0) if center == "mean" else trajectory.points[-1]
    assert ((trajectory.points[0] - about) @ trajectory.components(4, center).T >= 0).all()


def test_a_far_trajectory_with_small_steps_loses_nothing_to_rounding():
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


def test_a_plane_and_an_analysis_are_of_one_trajectory():
    trajectory = walk()
    region = trajectory.plane(steps=5, center="last")
    expected = {
        "directions": "principal components",
        "trajectory_fingerprint": trajectory.fingerprint(),
        "center": "last",
    }
    for found in (region, region.zoom(0.1), copy.deepcopy(region)):
        assert expected.items() <= found.provenance().items()
    assert trajectory.analyse(draws=2).attrs["trajectory_fingerprint"] == trajectory.fingerprint()
    assert trajectory.history.attrs["trajectory_fingerprint"] == trajectory.fingerprint()


def test_a_fingerprint_is_of_the_points_and_the_steps():
    one = walk()
    assert re.fullmatch("[0-9a-f]{16}", one.fingerprint())
    assert one.fingerprint() == Trajectory(one.points.clone(), list(one.steps), [{"step": 0}]).fingerprint()
    moved, fewer = one.points.clone(), Trajectory(one.points[1:], one.steps[1:])
    moved[3, 4] += 1e-9
    others = [Trajectory(moved, one.steps), Trajectory(one.points, range(12)), fewer, walk(dtype=torch.float32)]
    assert len({one.fingerprint(), *(other.fingerprint() for other in others)}) == 5


def test_the_plane_contains_the_whole_trajectory_and_the_last_snapshot_is_its_center():
    for seed in range(5):
        trajectory = walk(seed=seed)
        for margin in (0.0, 0.2):
            plane = trajectory.plane(steps=(7, 5), margin=margin)
            assert all(0.0 in axis for axis in plane.coordinates)
            assert torch.equal(plane.at(0.0, 0.0), trajectory.points[-1])
            coordinates = trajectory.project(plane.directions)
            assert (coordinates[-1] == 0).all()
            for axis, values in zip(plane.coordinates, coordinates.T, strict=True):
                assert axis[0] <= values.min() - margin * np.ptp(values) * 0.999
                assert axis[-1] >= values.max() + margin * np.ptp(values) * 0.999
            np.testing.assert_allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-10)


def test_a_straight_trajectory_with_a_little_noise_still_has_a_plane_of_some_height():
    points = torch.linspace(0, 1, 6)[:, None] * torch.ones(6, 30) + 1e-3 * torch.randn(
        6, 30, generator=torch.Generator().manual_seed(0)
    )
    length = float((points[-1] - points[0]).norm())
    first, second = (np.ptp(axis) for axis in Trajectory(points, range(6)).plane(steps=51).coordinates)
    assert 1.4 * length < first < 1.6 * length
    assert 0.25 * length < second < 0.4 * length


def test_distances_are_those_of_pythagoras():
    trajectory = walk()
    found = trajectory.analyse(draws=3)
    offsets = (trajectory.points - trajectory.points[-1]).numpy()
    np.testing.assert_allclose(found["distance"], np.linalg.norm(offsets, axis=1), rtol=1e-12)
    on_plane = found["alpha"] ** 2 + found["beta"] ** 2
    np.testing.assert_allclose(found["off_plane_distance"] ** 2 + on_plane, found["distance"] ** 2, rtol=1e-9)
    assert float(found["off_plane_distance"][-1]) == 0
    assert float(found["distance"][0]) > 0


def test_the_sign_flips_keep_a_straight_trajectory_below_one_and_are_seeded():
    trajectory = walk()
    found = trajectory.analyse(draws=20, seed=3)["sign_flip_two"].values
    np.testing.assert_array_equal(found, trajectory.analyse(draws=20, seed=3)["sign_flip_two"].values)
    increments = trajectory.points.diff(dim=0).numpy()
    signs = np.random.default_rng(3).choice([-1.0, 1.0], size=(20, 11))
    flipped = np.vstack([np.zeros(50), (increments * signs[7][:, None]).cumsum(0)])
    assert found[7] == pytest.approx(PCA().fit(flipped).explained_variance_ratio_[:2].sum(), rel=1e-9)


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
    trajectory = Trajectory(points, range(0, 10 * len(points), 10))
    for ask in (trajectory.analyse, trajectory.plane) if words != "same point" else (trajectory.explained_variance,):
        with refused(InputError, match=words):
            ask()
    if words == "same point":
        with pytest.raises(InputError):
            trajectory.plane()


def test_an_empty_recording_has_no_trajectory():
    with pytest.raises(InputError, match="0 snapshot"):
        Recorder(nn.Linear(2, 1)).trajectory.explained_variance()


def test_a_count_below_one_and_an_unknown_center_are_refused():
    with pytest.raises(InputError, match="every"):
        Recorder(nn.Linear(2, 1), every=0)
    with pytest.raises(InputError, match="components=1"):
        walk().analyse(components=1)
    with pytest.raises(InputError, match="'last'"):
        walk().explained_variance("first")


# With an objective


def test_true_losses_and_those_of_the_projection_are_both_measured(recorded):
    member = BY_NAME["mlp-tanh"]
    model, record = recorded(steps=13)
    o = Objective(model, member.loss, member.data())
    trajectory = record.trajectory
    found = trajectory.analyse(o, draws=2, progress=False)
    for i, point in enumerate(trajectory.points):
        assert float(found["loss"][i]) == pytest.approx(
            plain.loss_at(model, member.loss, member.data(), point), rel=1e-6
        )
    first, second = trajectory.components(2)
    there = trajectory.points[-1] + float(found["alpha"][1]) * first + float(found["beta"][1]) * second
    assert float(found["plane_loss"][1]) == pytest.approx(o.value(there), rel=1e-5)
    assert float(found["plane_loss"][-1]) == float(found["loss"][-1])
    assert found.attrs["n_snapshots"] == 5


def test_a_trajectory_of_another_network_is_refused(recorded):
    o = Objective(BY_NAME["tied"].make(), BY_NAME["tied"].loss, BY_NAME["tied"].data())
    with pytest.raises(DirectionError, match=str(o.n_parameters)):
        recorded()[1].trajectory.analyse(o, draws=2, progress=False)
