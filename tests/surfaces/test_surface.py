"""Surfaces: what the Dataset says, cells that are not finite, and the names of the front page."""

from __future__ import annotations

import copy
import functools
import importlib
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from oracles import plain
from oracles.members import BATCH, BY_NAME, MEMBERS
from oracles.quadratic import quadratic, symmetric
from oracles.refusals import refused
from scipy.stats import hypergeom
from torch import nn

import lossatlas as la
from lossatlas.errors import DirectionError, InputError
from lossatlas.evaluation.points import tuning
from lossatlas.evaluation.points.plans import Plan
from lossatlas.model.functional import FunctionalModel
from lossatlas.objective import Objective
from lossatlas.study.folder import save

MEMBER = BY_NAME["mlp-tanh"]


def line_of(o: Objective, steps: int = 5) -> la.Region:
    return la.line(o.point, la.random_directions(o, 1, seed=0)[0], steps=steps)


@pytest.fixture
def objective():
    return MEMBER.objective(name="made")


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
    center = objective.example_losses().numpy()
    for i in range(4):
        losses = objective.example_losses(region.point(i)).numpy()
        assert float(line["loss"][i]) == pytest.approx(losses.mean())
        assert float(line["loss_stderr"][i]) == pytest.approx(losses.std(ddof=1) / np.sqrt(23))
        assert float(line["loss_rise_stderr"][i]) == pytest.approx((losses - center).std(ddof=1) / np.sqrt(23))


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


@pytest.mark.parametrize("name", ["robustness", "report"])
def test_importing_the_package_of_a_name_does_not_hide_the_function(name, monkeypatch):
    monkeypatch.delitem(sys.modules, f"lossatlas.{name}", raising=False)
    module = importlib.import_module(f"lossatlas.{name}")
    assert module is sys.modules[f"lossatlas.{name}"]
    for _ in range(2):
        function = getattr(la, name)
        assert callable(function)
        assert function.__name__ == name
    monkeypatch.delitem(la.__dict__, name, raising=False)  # as in a process that has never asked for it
    assert callable(getattr(la, name))


# To a tolerance


ACTIVATIONS = ["tanh", "relu"]


@functools.cache
def digits(activation: str, n: int = 200) -> Objective:
    """A small network that was trained briefly on the digits, on n of the test images; the last batch is ragged."""
    return Objective(trained(activation), F.cross_entropy, images(n), batch_size=64, name="digits")


@functools.cache
def trained(activation: str) -> nn.Module:
    network = la.zoo.mlp(64, (12,), activation=activation, seed=0)
    la.zoo.fit(network, la.zoo.load("digits").train, epochs=5, seed=0, learning_rate=0.05, progress=False)
    return network


def images(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = la.zoo.load("digits").test
    return inputs[:n], labels[:n]


@functools.cache
def wide(activation: str, seed: int = 0, steps: int | tuple[int, int] = 31) -> la.Region:
    o = digits(activation)
    return la.plane(o.point, *la.random_directions(o, 2, seed=seed), span=1.0, steps=steps)


@functools.cache
def exact(activation: str, seed: int = 0) -> xr.Dataset:
    return la.surface(digits(activation), wide(activation, seed), progress=False)


@functools.cache
def within(activation: str, seed: int = 0, tol: float = 0.01) -> xr.Dataset:
    return la.surface(digits(activation), wide(activation, seed), tol=tol, progress=False)


def deviation(found: xr.Dataset, truth: xr.Dataset) -> np.ndarray:
    return np.abs(found["loss"].values / truth["loss"].values - 1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_surface_to_a_tolerance_is_within_it_at_nineteen_of_twenty_pixels(activation):
    under = []
    for seed in range(3):
        found, truth = within(activation, seed), exact(activation, seed)
        assert found.attrs["method"] == "polyharmonic spline of log loss"
        assert np.mean(deviation(found, truth) <= 0.01) >= 0.95
        assert found.attrs["n_evaluations"] < 0.4 * 961
        interpolated = found["evaluated"].values == 0
        under.append(np.mean(deviation(found, truth)[interpolated] <= found["loss_error"].values[interpolated]))
    assert np.mean(under) >= 0.9


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_where_the_model_was_evaluated_the_surface_is_the_exact_one(activation):
    found, truth = within(activation), exact(activation)
    evaluated = found["evaluated"].values == 1
    assert evaluated.sum() == found.attrs["n_evaluations"]
    for name in ("loss", "loss_stderr", "accuracy", "accuracy_stderr", "loss_rise_stderr"):
        np.testing.assert_allclose(found[name].values[evaluated], truth[name].values[evaluated], rtol=1e-5, atol=1e-7)
    assert (found["loss_error"].values[evaluated] == 0).all()
    assert (found["loss_error"].values[~evaluated] > 0).all()


def test_what_is_interpolated_stays_within_what_was_evaluated():
    found = within("relu")
    evaluated = found["evaluated"].values == 1
    for name in ("accuracy", "accuracy_stderr", "loss_stderr", "loss_rise_stderr"):
        values = found[name].values
        assert values.min() >= values[evaluated].min()
        assert values.max() <= values[evaluated].max()
    assert 0 <= found["accuracy"].min() <= found["accuracy"].max() <= 1


def test_the_evaluated_points_stand_in_the_dataset_with_their_roles():
    found, truth = within("tanh"), exact("tanh")
    assert found.sizes["evaluation"] == found.attrs["n_evaluations"]
    names = {name for name in found.variables if str(name).startswith("evaluation_")}
    columns = ("alpha", "beta", "loss", "loss_stderr", "role", "surprise")
    assert names == {f"evaluation_{name}" for name in columns}
    roles = found["evaluation_role"].values
    assert set(roles) <= {"node", "held-out", "pixel"}
    held = roles == "held-out"
    assert held.sum() == found.attrs["held_out"]
    surprise = found["evaluation_surprise"].values
    assert np.isnan(surprise[~held]).all()
    assert (surprise[held] <= 0.01).all()
    assert found.attrs["held_out_beyond"] == 0
    for i in range(found.sizes["evaluation"]):
        place = {dim: found[f"evaluation_{dim}"].values[i] for dim in ("alpha", "beta")}
        assert int(found["evaluated"].sel(place)) == 1
        for name in ("loss", "loss_stderr"):
            value = found[f"evaluation_{name}"].values[i]
            assert value == float(found[name].sel(place))
            assert value == pytest.approx(float(truth[name].sel(place)), rel=1e-5)


def test_the_attributes_say_what_was_asked_and_what_was_shown():
    found, truth = within("tanh"), exact("tanh")
    asked = {"tolerance": 0.01, "coverage": 0.95, "confidence": 0.95}
    assert {name: found.attrs[name] for name in asked} == asked
    assert 0.95 <= found.attrs["coverage_bound"] < 1
    assert found.attrs["held_out"] >= 50
    assert found.attrs["error_estimate"] > 0
    noise = np.median(truth["loss_stderr"] / truth["loss"])
    assert found.attrs["data_error"] == pytest.approx(noise, rel=0.02)
    assert "tolerance" not in truth.attrs
    assert "loss_error" not in truth
    assert "evaluation" not in truth.sizes
    for name, value in found.attrs.items():
        listed = value if isinstance(value, list) else [value]
        assert all(type(v) in (str, int, float) for v in listed), name


def test_the_shown_coverage_is_that_of_the_hypergeometric_distribution():
    found = within("relu", 1)
    pool = 961 - int((found["evaluation_role"] == "node").sum())
    bad, held = round((1 - found.attrs["coverage_bound"]) * 961), found.attrs["held_out"]
    assert hypergeom.pmf(0, pool, bad + 1, held) <= 0.05


def test_a_dataset_of_a_tolerance_survives_its_file(tmp_path):
    found = within("tanh")
    save(found, tmp_path / "surface.nc")
    again = xr.load_dataset(tmp_path / "surface.nc", engine="netcdf4")
    xr.testing.assert_identical(again.drop_attrs(), found.drop_attrs())
    assert again["evaluation_role"].values.tolist() == found["evaluation_role"].values.tolist()
    for name, value in found.attrs.items():
        np.testing.assert_array_equal(again.attrs[name], value, err_msg=name)


@pytest.mark.parametrize("tol", [None, 0.01])
def test_the_number_of_evaluations_is_that_of_the_passes_over_the_data(tol, monkeypatch):
    o, calls = digits("tanh"), []
    measure = FunctionalModel.measure
    monkeypatch.setattr(FunctionalModel, "measure", lambda *given: calls.append(1) or measure(*given))
    found = la.surface(o, wide("tanh", steps=21), tol=tol, fast=False, progress=False)
    assert len(calls) == 4 * (found.attrs["n_evaluations"] + 1)  # four batches; the center once, to compare with
    assert found.attrs["n_evaluations"] == int(found["evaluated"].sum())


@pytest.mark.parametrize("tol", [0, -0.01, 1, 2, float("nan"), float("inf"), 1e-7])
def test_an_impossible_tolerance_is_refused_with_the_remedy(objective, tol):
    with refused(InputError, match="tol=") as caught:
        la.surface(objective, line_of(objective), tol=tol, progress=False)
    assert "None for the exact grid" in str(caught.value)


def test_a_tolerance_below_float32_names_the_type_and_the_least_and_float64_resolves_it(objective):
    with pytest.raises(InputError, match=r"below what float32 resolves: give at least 1e-05, .*float64"):
        la.surface(objective, line_of(objective), tol=1e-6, progress=False)
    double = Objective(MEMBER.make(), MEMBER.loss, MEMBER.data(), dtype=torch.float64)
    assert la.surface(double, line_of(double), tol=1e-6, progress=False).attrs["tolerance"] == 1e-6
    with pytest.raises(InputError, match="below what float64 resolves"):
        la.surface(double, line_of(double), tol=1e-15, progress=False)


@pytest.mark.parametrize("share", ["coverage", "confidence"])
@pytest.mark.parametrize("value", [0, 1, -0.5, 1.5, float("nan")])
def test_an_impossible_share_is_refused(objective, share, value):
    with pytest.raises(InputError, match=f"{share}={value}"):
        la.surface(objective, line_of(objective), tol=0.1, progress=False, **{share: value})


def test_a_small_grid_is_evaluated_in_full_and_says_so(objective):
    found = la.surface(objective, line_of(objective, 9), tol=0.01, progress=False)
    assert found.attrs["method"] == "exact grid"
    assert "every pixel was evaluated" in found.attrs["note"]
    assert found.attrs["n_evaluations"] == 9
    assert found.attrs["coverage_bound"] == 1
    assert found.attrs["held_out"] == found.attrs["error_estimate"] == 0
    assert not found["loss_error"].values.any()
    assert set(found["evaluation_role"].values) == {"node"}
    truth = la.surface(objective, line_of(objective, 9), progress=False)
    np.testing.assert_array_equal(found["loss"], truth["loss"])


def test_the_datas_own_error_is_pointed_out_exactly_where_it_exceeds_the_tolerance():
    noted = []
    for tol in (0.01, 0.05, 0.08, 0.2, 0.5):
        found = within("tanh", tol=tol)
        noise = np.median(found["loss_stderr"] / found["loss"])
        noted.append("standard error" in found.attrs["note"])
        assert noted[-1] == (noise > tol)
    assert noted[0]
    assert not noted[-1]


def test_a_surface_with_a_hole_is_evaluated_in_full():
    region = wide("tanh", steps=21)

    def loss(outputs, targets):
        each = F.cross_entropy(outputs, targets, reduction="none")
        return torch.where(each.mean() > 1.5, torch.nan, each)

    holed = Objective(trained("tanh"), loss, [images()])
    found = la.surface(holed, region, tol=0.01, progress=False)
    truth = la.surface(holed, region, progress=False)
    assert found.attrs["method"] == "exact grid"
    assert "not finite" in found.attrs["note"]
    assert found.attrs["n_nonfinite"] == truth.attrs["n_nonfinite"] > 20
    np.testing.assert_allclose(found["loss"], truth["loss"], rtol=1e-6)


def test_a_loss_below_zero_is_interpolated_itself():
    shifted = Objective(trained("tanh"), lambda a, b: F.cross_entropy(a, b) - 1.0, [images()], metrics=None)
    region = wide("tanh")
    found = la.surface(shifted, region, tol=0.01, progress=False)
    assert found.attrs["method"] == "polyharmonic spline of the loss"
    truth = exact("tanh")["loss"].values - 1
    assert truth.min() < 0 < truth.max()
    off = np.abs(found["loss"].values - truth) / np.abs(truth).max()
    assert np.mean(off <= 0.01) >= 0.95


def test_a_loss_of_one_batch_has_no_standard_error_and_a_surface_all_the_same():
    step = Objective.from_step(trained("tanh"), lambda model, b: F.cross_entropy(model(b[0]), b[1]), [images()])
    found = la.surface(step, wide("tanh", steps=21), tol=0.01, progress=False)
    assert found.attrs["stderr_over"] == "batches"
    assert np.isnan(found["loss_stderr"].values).all()
    assert np.isfinite(found["loss"].values).all()
    assert "standard error" not in found.attrs["note"]


def test_the_seed_draws_the_held_out_pixels():
    o, region = digits("tanh"), wide("tanh", steps=21)
    held = []
    for seed in (0, 0, 1):
        found = la.surface(o, region, tol=0.01, seed=seed, fast=False, progress=False)
        where = found["evaluation_role"].values == "held-out"
        held.append(
            set(zip(found["evaluation_alpha"].values[where], found["evaluation_beta"].values[where], strict=True))
        )
    assert held[0] == held[1] != held[2]


# Some of the examples, and each class


def test_the_loss_on_a_subset_is_within_its_own_error_of_that_on_all():
    o, region = digits("tanh", 540), wide("tanh", steps=7)
    truth = la.surface(o, region, progress=False)
    for seed in range(5):
        found = la.surface(o, region, subset=100, seed=seed, progress=False)
        assert found.attrs["n_examples_all"] == 540
        assert abs(found.attrs["subset"] - 100) <= 5
        assert found.attrs["n_examples"] == found.attrs["subset"]
        error = found["loss_subset_stderr"].values
        assert (error > 0).all()
        assert (np.abs(found["loss"] - truth["loss"]).values <= 4 * error).all()


def test_the_subsets_error_is_that_of_a_stratified_sample_without_replacement():
    o, region = digits("tanh", 540), la.line(digits("tanh").point, digits("tanh").point, span=0.1, steps=3)
    labels = images(540)[1].numpy()
    losses = o.example_losses().numpy()
    draws = [float(la.surface(o, region, subset=100, seed=s, progress=False)["loss"][1]) for s in range(60)]
    found = la.surface(o, region, subset=100, progress=False)["loss_subset_stderr"].values[1]
    variance = 0.0
    for c in range(10):
        own = losses[labels == c]
        n = round(100 * len(own) / 540)
        variance += (len(own) / 540) ** 2 * (1 - n / len(own)) * own.var(ddof=1) / n
    assert found == pytest.approx(np.sqrt(variance), rel=0.5)  # from 100 examples, with a heavy tail
    assert np.std(draws) == pytest.approx(np.sqrt(variance), rel=0.35)  # 60 draws: 4 standard errors
    assert np.mean(draws) == pytest.approx(losses.mean(), abs=4 * np.sqrt(variance / 60))


def test_a_subset_of_all_examples_is_the_whole():
    o, region = digits("tanh"), wide("tanh", steps=3)
    whole, same = la.surface(o, region, progress=False), la.surface(o, region, subset=200, progress=False)
    np.testing.assert_allclose(same["loss"], whole["loss"], rtol=1e-6)
    np.testing.assert_allclose(same["loss_stderr"], whole["loss_stderr"], rtol=1e-5)
    assert not same["loss_subset_stderr"].values.any()


def test_the_error_map_holds_the_subsets_error_too():
    o = digits("tanh", 540)
    found = la.surface(o, wide("tanh"), subset=200, tol=0.01, progress=False)
    share = (found["loss_subset_stderr"] / found["loss"]).values
    evaluated = found["evaluated"].values == 1
    np.testing.assert_allclose(found["loss_error"].values[evaluated], share[evaluated], rtol=1e-9)
    assert (found["loss_error"].values >= share).all()
    assert (found["loss_error"].values[~evaluated] > share[~evaluated]).all()


def test_how_a_subset_was_evaluated_is_explained(objective):
    o = Objective(MEMBER.make(), MEMBER.loss, MEMBER.data(n=100))
    found = la.surface(o, line_of(o), subset=30, progress=False)
    assert o.explain().splitlines()[0] == str(Plan.from_json(found.attrs["evaluation"]))
    assert "no surface was asked for yet" not in o.explain()


@pytest.mark.parametrize("tol", [None, 0.01])
def test_the_mean_of_the_class_losses_weighted_by_their_numbers_is_the_loss(tol):
    o = digits("tanh")
    found = la.surface(o, wide("tanh", steps=21), by_class=True, tol=tol, progress=False)
    assert found["class_loss"].dims == ("alpha", "beta", "class")
    assert found["class"].values.tolist() == list(range(10))
    shares = np.bincount(o.batches.labels().numpy()) / 200
    evaluated = found["evaluated"].values == 1
    mean = (found["class_loss"].values * shares).sum(axis=-1)
    np.testing.assert_allclose(mean[evaluated], found["loss"].values[evaluated], rtol=1e-6)
    np.testing.assert_allclose(mean, found["loss"].values, rtol=0.05)


def test_the_loss_of_each_class_is_that_of_its_examples():
    o = digits("relu")
    region = wide("relu", steps=3)
    found = la.surface(o, region, by_class=True, progress=False)
    labels = o.batches.labels()
    for index in region.indices():
        losses = o.example_losses(region.point(*index))
        expected = [float(losses[labels == c].mean()) for c in range(10)]
        np.testing.assert_allclose(found["class_loss"].values[index], expected, rtol=1e-6)


def test_class_losses_of_a_subset_are_those_of_its_own_examples():
    found = la.surface(digits("tanh", 540), wide("tanh", steps=3), by_class=True, subset=100, progress=False)
    assert found["class_loss"].shape == (3, 3, 10)
    labels = images(540)[1].numpy()
    shares = np.bincount(labels) / 540
    np.testing.assert_allclose((found["class_loss"].values * shares).sum(axis=-1), found["loss"], rtol=1e-6)


def test_metrics_of_the_same_sweep_equal_those_of_a_separate_one():
    metrics = {
        "top2": lambda o, t: (o.topk(2, dim=1).indices == t[:, None]).any(1).float(),
        "margin": lambda o, t: o.max(1).values - o.mean(1),
        "spread": lambda o, t: o.std(),  # a mean over the batch
    }
    measured = Objective(trained("tanh"), F.cross_entropy, images(), metrics=metrics, batch_size=50)
    region = wide("tanh", steps=5)
    found = la.surface(measured, region, progress=False)
    for index in region.indices():
        one = measured.evaluate(region.point(*index))
        for name, (value, stderr) in one.metrics.items():
            assert float(found[name][index]) == pytest.approx(value, rel=1e-5)
            assert float(found[f"{name}_stderr"][index]) == pytest.approx(stderr, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("wrong", [lambda o, t: torch.ones(3), lambda o, t: 1.0], ids=["shape", "type"])
def test_a_metric_of_the_wrong_shape_is_refused_before_anything_is_evaluated(wrong):
    with pytest.raises(InputError, match="'strange'"):
        MEMBER.objective(metrics={"strange": wrong})


@pytest.mark.parametrize("option", [dict(subset=10), dict(by_class=True)], ids=str)
def test_data_without_classes_have_no_strata_and_the_error_says_what_to_give(option):
    member = BY_NAME["regression"]
    o = Objective(member.make(), member.loss, member.data())
    with pytest.raises(InputError, match=r"class.*give data as \(inputs, class indices\)"):
        la.surface(o, line_of(o), progress=False, **option)


@pytest.mark.parametrize("option", [dict(subset=10), dict(by_class=True)], ids=str)
def test_a_loss_of_whole_batches_has_no_strata(option):
    step = Objective.from_step(MEMBER.make(), lambda model, b: MEMBER.loss(model(b[0]), b[1]), MEMBER.batches())
    with pytest.raises(InputError, match="one value an example"):
        la.surface(step, line_of(step), progress=False, **option)


@pytest.mark.parametrize("count", [5, 24, 0, -1, 10.5, True])
def test_an_impossible_subset_is_refused(objective, count):
    with pytest.raises(InputError, match=rf"subset={count}: give a whole number from 6 .* to 23"):
        la.surface(objective, line_of(objective), subset=count, progress=False)


# Regions


def region_of(o: Objective, kind: str) -> la.Region:
    first, second, third = la.random_directions(o, 3, seed=2)
    return {
        "line": lambda: la.line(o.point, first, span=(-0.3, 1.0), steps=7),
        "plane": lambda: la.plane(o.point, first, second, span=((-1.0, 0.4), (0.1, 0.9)), steps=(5, 4)),
        "volume": lambda: la.volume(o.point, first, second, third, span=(1.0, 0.5, (-0.1, 0.6)), steps=(4, 3, 2)),
        "polar": lambda: la.polar(o.point, first, second, radius=0.8, steps=(4, 6)),
        "log": lambda: la.plane(o.point, first, second, spacing="log", smallest=0.01, steps=(7, 4)),
        "elsewhere": lambda: la.plane(o.point + 0.3 * third, first, second, steps=(3, 4)),
    }[kind]()


@pytest.mark.parametrize("kind", ["line", "plane", "volume", "polar", "log", "elsewhere"])
def test_every_cell_is_the_loss_at_its_own_point(kind, monkeypatch):
    monkeypatch.setattr(tuning, "_WORTH", 0.0)  # so that few points are prepared for as well
    model, data = MEMBER.make(), MEMBER.data()
    o = Objective(model, MEMBER.loss, data, batch_size=9)
    region = region_of(o, kind)
    found = la.surface(o, region, progress=False)
    assert found["loss"].dims == region.dims
    assert found["loss"].shape == region.shape
    assert found.attrs["region"] == region.name
    for dim, axis in zip(region.dims, region.coordinates, strict=True):
        np.testing.assert_array_equal(found[dim], axis)
    for index in region.indices():
        there = plain.loss_at(model, MEMBER.loss, data, region.point(*index))
        assert float(found["loss"][index]) == pytest.approx(there, rel=2e-6)


def test_the_middle_of_a_disc_and_its_seam_are_one_number_and_one_evaluation():
    o = digits("tanh")
    region = la.polar(o.point, *la.random_directions(o, 2, seed=0), steps=(5, 9))
    found = la.surface(o, region, progress=False)
    loss = found["loss"].values
    assert (loss[0] == loss[0, 0]).all()
    np.testing.assert_array_equal(loss[:, 0], loss[:, -1])
    assert loss[0, 0] == pytest.approx(o.value(), rel=1e-6)
    assert found.attrs["n_evaluations"] == 1 + 4 * 8


def test_a_disc_to_a_tolerance_is_within_it():
    o = digits("tanh")
    region = la.polar(o.point, *la.random_directions(o, 2, seed=0), steps=(21, 49))
    found, truth = la.surface(o, region, tol=0.01, progress=False), la.surface(o, region, progress=False)
    assert found["loss"].dims == ("radius", "angle")
    assert {"evaluation_radius", "evaluation_angle"} <= set(found.variables)
    assert np.mean(deviation(found, truth) <= 0.01) >= 0.95


@pytest.mark.parametrize("kind", ["line", "volume"])
def test_lines_and_volumes_to_a_tolerance_are_within_it(kind):
    o = digits("tanh")
    directions = la.random_directions(o, 3, seed=0)
    region = la.line(o.point, directions[0], steps=401) if kind == "line" else la.volume(o.point, *directions, steps=13)
    found, truth = la.surface(o, region, tol=0.01, progress=False), la.surface(o, region, progress=False)
    assert found["loss"].dims == region.dims
    assert found.attrs["method"] != "exact grid"
    assert np.mean(deviation(found, truth) <= 0.01) >= 0.95
    assert {f"evaluation_{dim}" for dim in region.dims} <= set(found.variables)


@pytest.mark.parametrize("tol", [None, 0.01])
def test_several_planes_have_a_mean_and_a_spread(tol):
    o = digits("tanh")
    several = [wide("tanh", seed) for seed in range(3)]
    found = la.surface(o, several, tol=tol, progress=False)
    ones = [within("tanh", seed) if tol else exact("tanh", seed) for seed in range(3)]
    losses = np.stack([one["loss"].values for one in ones])
    assert found["loss"].dims == ("plane", "alpha", "beta")
    assert found["plane"].values.tolist() == [0, 1, 2]
    assert found["loss_mean"].dims == found["loss_spread"].dims == ("alpha", "beta")
    np.testing.assert_allclose(found["loss"], losses, rtol=1e-4)
    np.testing.assert_allclose(found["loss_mean"], found["loss"].values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["loss_spread"], found["loss"].values.std(axis=0, ddof=1), rtol=1e-9)
    assert found.attrs["n_planes"] == 3
    assert found.attrs["n_evaluations"] == sum(one.attrs["n_evaluations"] for one in ones)
    assert ("loss_error" in found) == (tol is not None)
    assert "evaluation" not in found.sizes


def test_several_planes_of_other_axes_or_only_one_are_refused(objective):
    lines = [line_of(objective, 5), line_of(objective, 6)]
    with pytest.raises(InputError, match="different axes"):
        la.surface(objective, lines, progress=False)
    for few in ([], lines[:1]):
        with pytest.raises(InputError, match=f"{len(few)} regions: give one, or a list of at least two"):
            la.surface(objective, few, progress=False)


def test_the_quadratic_model_of_a_quadratic_is_the_surface():
    matrix, _ = symmetric([6.0, 2.0, 0.5, -1.5])
    o = quadratic(matrix, torch.randn(7, 4, dtype=torch.float64), torch.linspace(-1, 1, 4, dtype=torch.float64))
    spectrum = la.spectrum(o, 1, tol=1e-9, vectors=True)
    region = la.eigen_plane(spectrum, rise=2.0, steps=(7, 4))
    found = la.surface(o, region, progress=False)
    assert found["quadratic"].dims == ("alpha", "beta")
    np.testing.assert_allclose(found["quadratic"], found["loss"], atol=2e-5)
    alpha, beta = np.meshgrid(*region.coordinates, indexing="ij")
    (p, q), (a, b) = region.slopes, region.curvatures
    expected = o.value() + p * alpha + q * beta + (a * alpha**2 + b * beta**2) / 2
    np.testing.assert_allclose(found["quadratic"], expected, rtol=1e-6)
    assert "quadratic" not in la.surface(o, la.line(o.point, o.point, steps=2), progress=False)


def test_the_quadratic_model_touches_the_surface_of_a_network_at_its_center():
    o = Objective(MEMBER.make(torch.float64), MEMBER.loss, MEMBER.data(torch.float64))
    region = la.eigen_plane(la.spectrum(o, 1, tol=1e-6, vectors=True), span=1e-2, steps=3)
    found = la.surface(o, region, progress=False)
    np.testing.assert_allclose(found["quadratic"], found["loss"], atol=1e-6)
    assert float(found["quadratic"][1, 1]) == pytest.approx(o.value(), rel=1e-12)


# What is there already


def test_a_zoom_takes_over_the_points_that_it_shares():
    o = digits("tanh")
    region = wide("tanh", steps=21)
    whole = la.surface(o, region, fast=False, progress=False)
    near = region.zoom(0.5, steps=21)
    zoomed = la.refine(whole, o, near, fast=False, progress=False)
    assert zoomed.attrs["n_evaluations"] == 21 * 21 - 11 * 11
    fresh = la.surface(o, near, fast=False, progress=False)
    for name in ("loss", "loss_stderr", "accuracy", "accuracy_stderr", "loss_rise_stderr"):
        np.testing.assert_array_equal(zoomed[name], fresh[name])
        np.testing.assert_array_equal(zoomed[name][::2, ::2], whole[name][5:16, 5:16])


def test_the_same_region_again_costs_nothing():
    o = digits("tanh")
    again = la.surface(o, wide("tanh"), reuse=exact("tanh"), progress=False)
    assert again.attrs["n_evaluations"] == 0
    np.testing.assert_array_equal(again["loss"], exact("tanh")["loss"])


def test_only_pixels_that_were_evaluated_are_taken_over():
    o, found = digits("tanh"), within("tanh")
    whole = la.surface(o, wide("tanh"), reuse=found, progress=False)
    assert whole.attrs["n_evaluations"] == 961 - found.attrs["n_evaluations"]
    np.testing.assert_allclose(whole["loss"], exact("tanh")["loss"], rtol=2e-6)
    evaluated = found["evaluated"].values == 1
    np.testing.assert_array_equal(whole["loss"].values[evaluated], found["loss"].values[evaluated])


def test_a_tolerance_can_be_tightened_with_what_is_there():
    o, found = digits("tanh"), within("tanh")
    finer = la.surface(o, wide("tanh"), tol=0.002, reuse=found, progress=False)
    alone = la.surface(o, wide("tanh"), tol=0.002, progress=False)
    assert finer.attrs["n_evaluations"] < alone.attrs["n_evaluations"]
    assert np.mean(deviation(finer, exact("tanh")) <= 0.002) >= 0.95


def test_a_surface_from_its_file_is_taken_over_as_well(tmp_path):
    save(exact("tanh"), tmp_path / "surface.nc")
    earlier = xr.load_dataset(tmp_path / "surface.nc", engine="netcdf4")
    again = la.surface(digits("tanh"), wide("tanh"), reuse=earlier, progress=False)
    assert again.attrs["n_evaluations"] == 0
    np.testing.assert_array_equal(again["loss"], exact("tanh")["loss"])


def test_class_losses_are_taken_over_too():
    o, region = digits("tanh"), wide("tanh", steps=5)
    earlier = la.surface(o, region, by_class=True, progress=False)
    again = la.surface(o, region, by_class=True, reuse=earlier, progress=False)
    assert again.attrs["n_evaluations"] == 0
    np.testing.assert_array_equal(again["class_loss"], earlier["class_loss"])
    assert la.surface(o, region, reuse=earlier, progress=False).attrs["n_evaluations"] == 0
    with pytest.raises(InputError, match="by_class"):
        la.surface(o, region, by_class=True, reuse=la.surface(o, region, progress=False), progress=False)


def others(o: Objective) -> dict[str, tuple[Objective, la.Region, str]]:
    """What another surface may differ in, and the word that the error must say."""
    region, data = wide("tanh", steps=5), images()
    model = trained("tanh")
    moved = copy.deepcopy(model)
    with torch.no_grad():
        next(moved.parameters()).add_(1e-3)
    made = functools.partial(Objective, model, F.cross_entropy, batch_size=64)
    turned = la.plane(o.point, *la.random_directions(o, 2, seed=9), steps=5)
    return {
        "model": (Objective(moved, F.cross_entropy, data, batch_size=64), region, "model"),
        "data": (made((data[0] + 0.1, data[1])), region, "data"),
        "fewer data": (made((data[0][:100], data[1][:100])), region, "data"),
        "directions": (o, turned, "directions"),
        "center": (o, la.plane(o.point + 1e-3, *region.directions, steps=5), "center"),
        "chart": (o, la.polar(o.point, *region.directions, steps=5), "directions"),
        "loss": (Objective(model, nn.CrossEntropyLoss(label_smoothing=0.1), data, batch_size=64), region, "loss"),
        "metrics": (made(data, metrics={"margin": lambda a, b: a.max(1).values}), region, "margin"),
    }


DIFFERENCES = ["model", "data", "fewer data", "directions", "center", "chart", "loss", "metrics"]


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_surface_of_anything_else_is_not_taken_over(difference):
    o = digits("tanh")
    other, region, word = others(o)[difference]
    earlier = la.surface(o, wide("tanh", steps=5), progress=False)
    with refused(InputError, match=word):
        la.surface(other, region, reuse=earlier, progress=False)


def test_a_surface_under_another_batch_norm_policy_is_not_taken_over():
    member = BY_NAME["batch-norm"]
    o = member.objective()
    earlier = la.surface(o, line_of(o), progress=False)
    with pytest.raises(InputError, match="batch"):
        la.surface(o.with_batch_norm("batch"), line_of(o), reuse=earlier, progress=False)


def test_a_surface_of_several_planes_cannot_be_taken_over():
    o = digits("tanh")
    several = la.surface(o, [wide("tanh", seed, 4) for seed in range(2)], progress=False)
    with pytest.raises(InputError, match="plane"):
        la.surface(o, wide("tanh", 0, 4), reuse=several, progress=False)


# What the region knows


def test_a_surface_knows_its_directions_and_their_seed(objective):
    directions = la.random_directions(objective, 2, seed=5)
    made = la.surface(objective, la.plane(objective.point, directions, steps=2), seed=3, progress=False)
    assert (made.attrs["directions"], made.attrs["seed"]) == ("random", 5)
    given = la.surface(objective, la.plane(objective.point, *(1.0 * directions), steps=2), progress=False)
    assert given.attrs["directions"] == "given"
    assert "seed" not in given.attrs


def test_a_surface_to_a_tolerance_tells_the_seed_of_its_directions_from_that_of_the_held_out_pixels(objective):
    line = la.line(objective.point, la.random_directions(objective, 1, seed=5)[0], steps=5)
    made = la.surface(objective, line, tol=0.1, seed=3, progress=False)
    assert (made.attrs["seed"], made.attrs["held_out_seed"]) == (5, 3)


def test_the_plane_of_a_trajectory_knows_the_trajectory(objective):
    points = objective.point + 0.1 * torch.randn(4, objective.n_parameters, generator=torch.Generator().manual_seed(0))
    trajectory = la.Trajectory(points, [0, 1, 2, 3])
    found = la.surface(objective, trajectory.plane(steps=3), progress=False)
    assert found.attrs["directions"] == "principal components"
    assert found.attrs["trajectory_fingerprint"] == trajectory.fingerprint()


def test_several_planes_have_the_seeds_of_all(objective):
    planes = [la.plane(objective.point, la.random_directions(objective, 2, seed=s), steps=2) for s in (4, 7)]
    assert la.surface(objective, planes, progress=False).attrs["seed"] == [4, 7]


# Laws of the prepared evaluation


every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)


@every_member
def test_prepared_and_plain_evaluation_agree_to_single_precision(member, monkeypatch):
    monkeypatch.setattr(tuning, "_WORTH", 0.0)
    monkeypatch.setattr(tuning, "_SHARE", 1e9)  # every step of preparation is tried
    o = member.objective()  # 23 examples: the last batch is ragged
    region = la.plane(o.point, *la.random_directions(o, 2, seed=0), span=((-0.5, 1.0), 0.4), steps=(5, 4))
    fast, slow = (la.surface(o, region, fast=fast, progress=False) for fast in (True, False))
    assert Plan.from_json(slow.attrs["evaluation"]) == Plan()
    assert Plan.from_json(fast.attrs["evaluation"]).prepared
    assert "evaluation_fallback" not in {**slow.attrs, **fast.attrs}
    for name in slow.data_vars:
        assert fast[name].dims == slow[name].dims
        # A standard error is a small difference of large numbers, and loses more digits than a mean.
        rtol, atol = (1e-6, 0) if not name.endswith("_stderr") else (1e-3, 1e-6)
        np.testing.assert_allclose(fast[name], slow[name], rtol=rtol, atol=atol, err_msg=str(name))


@every_member
def test_the_prepared_center_is_the_plain_loss_and_the_model_is_untouched(member, monkeypatch):
    monkeypatch.setattr(tuning, "_WORTH", 0.0)
    model, data = member.make(), member.data()
    before = plain.state_of(model)
    o = Objective(model, member.loss, data, batch_size=BATCH)
    own, value = o.state_dict(), o.value()
    found = la.surface(o, la.plane(o.point, *la.random_directions(o, 2, seed=0), steps=5), progress=False)
    assert float(found["loss"][2, 2]) == pytest.approx(plain.loss_of(model, member.loss, data), rel=1e-6)
    assert plain.differences(before, plain.state_of(model)) == []
    assert o.value() == value
    assert all(torch.equal(tensor, o.state_dict()[name]) for name, tensor in own.items())


def test_a_surface_names_the_reason_for_the_plain_loop(objective):
    """So few points repay no preparation; a plain loop that was asked for has no reason."""
    found = la.surface(objective, line_of(objective), progress=False)
    assert Plan.from_json(found.attrs["evaluation"]) == Plan()
    assert found.attrs["evaluation_fallback"] == "so few points repay no preparation"
    assert "evaluation_fallback" not in la.surface(objective, line_of(objective), fast=False, progress=False).attrs


def test_train_and_test_are_measured_in_one_sweep():
    member = BY_NAME["mlp-tanh"]
    model, (inputs, targets) = member.make(), member.data()
    train = Objective(model, member.loss, (inputs[:15], targets[:15]), batch_size=9)
    test = Objective(model, member.loss, (inputs[15:], targets[15:]), batch_size=9)
    region = la.plane(train.point, *la.random_directions(train, 2, seed=0), steps=(3, 4))
    both = la.surface(train, region, also={"test": test}, progress=False)
    alone = la.surface(test, region, progress=False)
    for name in ("loss", "loss_stderr", "accuracy", "accuracy_stderr"):
        np.testing.assert_allclose(both[f"test_{name}"], alone[name], rtol=1e-6)
    np.testing.assert_allclose(both["loss"], la.surface(train, region, progress=False)["loss"], rtol=1e-6)
    with pytest.raises(DirectionError):
        la.surface(train, region, also={"test": digits("relu")}, progress=False)


def test_a_plan_is_repeated_bit_for_bit_and_one_that_does_not_fit_is_refused():
    o, region = digits("relu"), wide("relu", steps=5)
    plan = Plan(prepared=True, rewrites=("shared layer",), batch_size=256).to_json()
    first, second = (la.surface(o, region, fast=plan, progress=False) for _ in range(2))
    assert first["loss"].equals(second["loss"])
    assert first.attrs["evaluation"] == plan
    with pytest.raises(InputError, match="no plan"):
        la.surface(o, region, fast="as fast as you can", progress=False)
