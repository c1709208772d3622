"""Surfaces: what the Dataset says, cells that are not finite, and the names of the front page."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from oracles.members import BY_NAME

import lossatlas as la
from lossatlas.errors import DirectionError
from lossatlas.objective import Objective

MEMBER = BY_NAME["mlp-tanh"]


@pytest.fixture
def objective():
    return Objective(MEMBER.make(), MEMBER.loss, MEMBER.data(), batch_size=9, name="made")


def test_a_line_has_one_axis_and_a_plane_two(objective):
    first, second = la.random_directions(objective, 2, seed=0)
    line = la.surface(objective, la.line(objective.point, first, steps=3), progress=False)
    plane = la.surface(objective, la.plane(objective.point, first, second, steps=(3, 2)), progress=False)
    assert line["loss"].dims == line["accuracy_stderr"].dims == ("alpha",)
    assert plane["loss"].shape == plane["loss_stderr"].shape == (3, 2)
    assert line.attrs["region"] == "line"
    assert plane.attrs["region"] == "plane"
    assert "cosine" in plane.attrs
    assert "cosine" not in line.attrs


def test_the_attributes_are_numbers_strings_and_lists_of_them(objective):
    region = la.plane(objective.point, *la.random_directions(objective, 2, seed=0), steps=2)
    dataset = la.surface(objective, region, progress=False)
    for name, value in dataset.attrs.items():
        listed = value if isinstance(value, list) else [value]
        assert all(type(v) in (str, int, float) for v in listed), name
    assert dataset.attrs["kind"] == "surface"
    assert dataset.attrs["data"] == "made"
    assert dataset.attrs["n_parameters"] == objective.n_parameters
    assert dataset.attrs["stderr_over"] == "examples"
    assert dataset.attrs["n_nonfinite"] == 0
    assert dataset.attrs["center_is_model"] == 1
    norm = float(objective.point.double().norm())
    assert dataset.attrs["relative_norms"] == pytest.approx([n / norm for n in dataset.attrs["direction_norms"]])


def test_the_errors_of_each_cell_and_of_its_rise_are_those_of_the_examples(objective):
    direction = la.random_directions(objective, 1, seed=0)[0]
    region = la.line(objective.point, direction, steps=4)
    line = la.surface(objective, region, progress=False)
    centre = objective.example_losses().numpy()
    for i in range(4):
        losses = objective.example_losses(region.point(i)).numpy()
        assert float(line["loss"][i]) == pytest.approx(losses.mean())
        assert float(line["loss_stderr"][i]) == pytest.approx(losses.std(ddof=1) / np.sqrt(23))
        assert float(line["loss_rise_stderr"][i]) == pytest.approx((losses - centre).std(ddof=1) / np.sqrt(23))


def test_cells_that_are_not_finite_are_kept_and_counted():
    def loss(outputs, targets):
        return outputs.square().mean(1).sub(0.5).sqrt() + 0 * targets

    inputs = torch.ones(4, 6)
    model = MEMBER.make()
    with torch.no_grad():
        model[2].weight.mul_(20)
    o = Objective(model, loss, (inputs, torch.zeros(4)))
    line = la.surface(o, la.line(o.point, -o.point, span=(0.0, 1.0), steps=5), progress=False)
    assert line.attrs["n_nonfinite"] >= 1
    assert np.isnan(line["loss"].values).sum() == line.attrs["n_nonfinite"]
    assert np.isnan(line["loss"].values[-1])
    assert np.isfinite(line["loss"].values[0])


def test_a_region_of_another_model_is_refused(objective):
    with pytest.raises(DirectionError, match=str(objective.n_parameters)):
        la.surface(objective, la.line(torch.zeros(3), torch.ones(3)), progress=False)


@pytest.mark.parametrize("name", ["surface", "robustness", "report"])
def test_importing_the_module_does_not_hide_the_function(name, monkeypatch):
    monkeypatch.delitem(sys.modules, f"lossatlas.{name}", raising=False)
    module = importlib.import_module(f"lossatlas.{name}")
    assert module is sys.modules[f"lossatlas.{name}"]
    for _ in range(2):
        function = getattr(la, name)
        assert callable(function)
        assert function.__name__ == name
    monkeypatch.delitem(la.__dict__, name, raising=False)  # as in a process that has never asked for it
    assert callable(getattr(la, name))
