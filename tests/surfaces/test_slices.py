"""Slices: the regions through the model that they stand for, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from oracles.members import BY_NAME
from oracles.refusals import refused

import lossatlas as la
from lossatlas.errors import InputError
from lossatlas.objective import Objective
from lossatlas.surfaces.slices import slices

MEMBER = BY_NAME["mlp-tanh"]


@pytest.fixture
def objective():
    return MEMBER.objective()


@pytest.mark.parametrize(("dims", "region"), [(1, la.line), (2, la.plane), (3, la.volume)])
def test_a_slice_is_the_surface_along_random_directions_through_the_model(objective, dims, region):
    found = slices(objective, dims=dims, steps=3, span=0.5, norm="layer", one_d="scale", seed=4, progress=False)
    directions = la.random_directions(objective, dims, seed=4, norm="layer", one_d="scale")
    expected = la.surface(objective, region(objective.point, *directions, span=0.5, steps=3), progress=False)
    np.testing.assert_array_equal(found["loss"], expected["loss"])
    assert found["loss"].dims == expected["loss"].dims
    assert (found.attrs["directions"], found.attrs["seed"]) == ("random", 4)


def test_further_data_are_measured_at_the_same_points(objective):
    inputs, targets = MEMBER.data()
    part = Objective(MEMBER.make(), MEMBER.loss, (inputs[:7], targets[:7]))
    found = slices(objective, dims=1, train=part, steps=3, seed=4, progress=False)
    np.testing.assert_allclose(found["train_loss"], slices(part, dims=1, steps=3, seed=4, progress=False)["loss"], 1e-6)
    np.testing.assert_array_equal(found["loss"], slices(objective, dims=1, steps=3, seed=4, progress=False)["loss"])


def test_several_planes_are_drawn_with_consecutive_seeds(objective):
    found = slices(objective, steps=3, seed=4, planes=2, progress=False)
    for i in range(2):
        alone = slices(objective, steps=3, seed=4 + i, progress=False)
        np.testing.assert_array_equal(found["loss"][i], alone["loss"])
    assert found.attrs["seed"] == [4, 5]


def test_hessian_axes_are_those_of_the_extreme_eigenvalues(objective):
    found = slices(objective, axes="hessian", steps=3, seed=1, progress=False)
    region = la.eigen_plane(la.spectrum(objective, 1, vectors=True, seed=1), steps=3)
    np.testing.assert_allclose(found["loss"], la.surface(objective, region, progress=False)["loss"], rtol=1e-6)
    assert found.attrs["directions"] == "Hessian axes"
    assert "quadratic" in found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(axes="hessian", dims=1), "one plane"),
        (dict(axes="hessian", planes=2), "one plane"),
        (dict(axes="principal"), "axes='principal'"),
        (dict(planes=0), "planes=0"),
        (dict(dims=4), "dims=4"),
    ],
)
def test_impossible_slices_are_refused_before_anything_is_evaluated(objective, options, words, monkeypatch):
    monkeypatch.setattr(Objective, "samples", None)
    with refused(InputError, match=words):
        slices(objective, progress=False, **options)
