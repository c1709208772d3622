"""A training run measured from its folder: the analysis, and the surface that belongs to it."""

from __future__ import annotations

import pytest
import torch
import xarray as xr
from oracles import plain
from oracles.members import BY_NAME
from oracles.refusals import refused
from torch.nn.utils import vector_to_parameters

from lossatlas.errors import InputError
from lossatlas.objective import Objective
from lossatlas.trajectory.measurement import trajectory_measurement
from lossatlas.trajectory.trajectory import Trajectory


def test_without_an_objective_there_is_the_analysis_alone(recorded, tmp_path):
    recorded(tmp_path, steps=13)
    ((name, dataset),) = trajectory_measurement(tmp_path, components=3, seed=4, progress=False).items()
    assert name == "trajectory"
    xr.testing.assert_identical(dataset, Trajectory.load(tmp_path).analyse(components=3, seed=4))


def test_with_an_objective_the_surface_on_the_plane_knows_the_trajectory(recorded):
    member = BY_NAME["mlp-tanh"]
    model, record = recorded(steps=13)
    o = Objective(model, member.loss, member.data())
    found = trajectory_measurement(record.trajectory, o, steps=5, progress=False)
    assert list(found) == ["trajectory", "trajectory_plane"]
    surface = found["trajectory_plane"]
    assert surface["loss"].shape == (5, 5)
    assert surface.attrs["directions"] == "principal components"
    assert (
        surface.attrs["trajectory_fingerprint"]
        == found["trajectory"].attrs["trajectory_fingerprint"]
        == record.trajectory.fingerprint()
    )
    center = surface["loss"].sel(alpha=0, beta=0)
    assert float(center) == pytest.approx(float(found["trajectory"]["loss"][-1]), rel=1e-6)


def test_the_sharpness_along_a_trajectory_is_that_of_the_dense_hessian_at_the_snapshots(recorded):
    member = BY_NAME["mlp-tanh"]
    model, record = recorded(steps=13)
    found = record.trajectory.analyse(Objective(model, member.loss, member.data()), sharpness=3, progress=False)
    measured = found["lambda_max"].notnull().to_numpy()
    assert measured.tolist() == [True, False, True, False, True]
    for k in measured.nonzero()[0]:
        vector_to_parameters(record.trajectory.points[k], model.parameters())
        exact = float(torch.linalg.eigvalsh(plain.hessian(model, member.loss, member.data()))[-1])
        here = found.isel(snapshot=k)
        assert float(here["lambda_max_residual"]) <= 5e-2 * exact
        assert float(here["lambda_max"]) == pytest.approx(exact, abs=float(here["lambda_max_residual"]) + 1e-6)


def test_sharpness_without_an_objective_is_refused_before_anything_is_computed(recorded):
    with refused(InputError, "sharpness=3.*an objective"):
        recorded(steps=13)[1].trajectory.analyse(sharpness=3)


def test_what_was_kept_is_not_computed_again(recorded):
    member = BY_NAME["mlp-tanh"]
    model, record = recorded(steps=13)
    o = Objective(model, member.loss, member.data())
    earlier = {"trajectory": xr.Dataset(attrs={"from": "an earlier call"})}

    def keep(name, compute):
        if name not in earlier:
            earlier[name] = compute()
        return earlier[name]

    found = trajectory_measurement(record.trajectory, o, steps=3, keep=keep, progress=False)
    assert found["trajectory"].attrs == {"from": "an earlier call"}
    assert found["trajectory_plane"] is earlier["trajectory_plane"]
