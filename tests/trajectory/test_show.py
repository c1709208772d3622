"""What is shown of a trajectory: on which planes it is drawn, what is read off it, what is claimed."""

from __future__ import annotations

from typing import NamedTuple

import measured
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from matplotlib.figure import Figure

import lossatlas as la
from lossatlas import zoo
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Verdict
from lossatlas.results.values import value
from lossatlas.surfaces.show import SURFACE
from lossatlas.surfaces.show.interactive import surface_3d
from lossatlas.trajectory.show import TRAJECTORY
from lossatlas.trajectory.show.claims import beyond_random_walk
from lossatlas.trajectory.show.drawings import explained, on_plane
from lossatlas.trajectory.show.trajectories import owner
from lossatlas.trajectory.show.views import steps


class Run(NamedTuple):
    """A network's trajectory: analysed on test and on training data and without data, and planes through it."""

    test: xr.Dataset
    train: xr.Dataset
    alone: xr.Dataset
    plane: xr.Dataset
    about_last: xr.Dataset
    interpolated: xr.Dataset
    elsewhere: xr.Dataset
    history: xr.Dataset


@pytest.fixture(scope="module")
def run() -> Run:
    data = zoo.load("digits")
    train, test = ((split[0][:200], split[1][:200]) for split in (data.train, data.test))
    network = zoo.mlp(64, classes=10, seed=0)
    record = la.Recorder(network, every=4)
    options = {"epochs": 6, "batch_size": 50, "learning_rate": 0.05, "progress": False}
    history = zoo.fit(network, train, test=test, on_step=record, **options)
    on_test, on_train = (la.Objective(network, F.cross_entropy, each, network="A") for each in (test, train))
    trajectory = record.trajectory
    given = la.plane(on_test.point, *trajectory.components(2), steps=3)
    return Run(
        test=trajectory.analyse(on_test, progress=False),
        train=trajectory.analyse(on_train, progress=False),
        alone=trajectory.analyse(progress=False),
        plane=la.surface(on_test, trajectory.plane(steps=(7, 5)), progress=False),
        about_last=la.surface(on_test, trajectory.plane(steps=3, center="last"), progress=False),
        interpolated=la.surface(on_test, trajectory.plane(steps=15), tol=0.1, progress=False),
        elsewhere=la.surface(on_test, given, progress=False),
        history=history.to_dataset(network="A"),
    )


def names(*datasets: xr.Dataset) -> list[list[str]]:
    """The names of the pictures of the trajectories among these Datasets, group by group."""
    catalogue = Catalogue(datasets)
    groups = TRAJECTORY.figures(catalogue.of(TRAJECTORY), catalogue)
    return [[picture.name for picture in group.pictures] for group in groups]


# Planes


def test_a_trajectory_is_drawn_on_its_own_planes_first_and_by_itself_it_has_its_shares_of_variance(run: Run):
    assert names(run.test) == [["explained"]]
    assert names(run.test, run.plane, run.elsewhere) == [["trajectory", "trajectory-3d"], ["explained"]]
    assert names(run.test, run.interpolated)[0] == ["trajectory", "trajectory-3d", "trajectory-error"]
    assert isinstance(la.plot.figure(run.test), Figure)


def test_a_plane_is_printed_with_the_trajectory_and_not_once_more_with_the_surfaces(run: Run):
    catalogue = Catalogue([run.test, run.plane, run.elsewhere])
    trajectories = catalogue.of(TRAJECTORY)
    (shown,) = TRAJECTORY.shows_instead(trajectories, catalogue)
    first = next(iter(TRAJECTORY.figures(trajectories, catalogue)))
    assert shown.attrs["trajectory_fingerprint"] == run.plane.attrs["trajectory_fingerprint"]
    assert [dataset.attrs["id"] for dataset in first.datasets] == [shown.attrs["id"], trajectories[0].attrs["id"]]
    assert [d.attrs["id"] for d in catalogue.of(SURFACE) if d is not shown] != [shown.attrs["id"]]


def test_no_trajectory_is_drawn_on_the_plane_of_another_or_of_components_about_another_center(run: Run):
    assert owner(run.plane, [run.test]) is run.test
    assert owner(run.about_last, [run.test]) is None
    assert owner(run.elsewhere, [run.test]) is None
    assert owner(run.plane, [run.test.assign_attrs(trajectory_fingerprint="another")]) is None
    assert owner(run.plane.isel(beta=0), [run.test]) is None


def test_a_plane_is_drawn_once_with_the_analysis_on_its_own_data(run: Run):
    assert owner(run.plane, [run.alone, run.train, run.test]) is run.test
    assert owner(run.plane, [run.train, run.alone]) is run.train
    every = names(run.plane, run.alone, run.train, run.test)
    assert sorted(every) == [*[["explained"]] * 3, ["trajectory", "trajectory-3d"]]


@pytest.mark.parametrize(("analysis", "drawn"), [("test", True), ("train", False), ("alone", False)])
def test_in_space_the_snapshots_stand_at_their_loss_only_where_it_is_of_the_same_examples(
    run: Run, analysis: str, drawn: bool
):
    catalogue = Catalogue([run.plane, getattr(run, analysis)])
    picture = next(iter(TRAJECTORY.figures(catalogue.of(TRAJECTORY), catalogue))).pictures[1]
    assert picture.view is not None
    (panel,) = picture.view().panels
    assert ("training" in [trace.name for trace in panel.data]) == drawn
    assert ("true loss of its snapshots" in picture.caption) == drawn


# Pictures


def test_the_snapshots_lie_at_their_coordinates_over_the_whole_plane(run: Run):
    figure = on_plane(run.plane, run.test)
    axes = figure.axes[0]
    dots = next(c for c in axes.collections if c.get_array() is not None and len(c.get_offsets()) > 1)
    np.testing.assert_allclose(dots.get_offsets(), np.stack([run.test["alpha"], run.test["beta"]], axis=1))
    np.testing.assert_array_equal(dots.get_array(), run.test["step"])
    assert axes.get_xlim() == pytest.approx(tuple(run.plane["alpha"].to_numpy()[[0, -1]]))
    assert axes.get_ylim() == pytest.approx(tuple(run.plane["beta"].to_numpy()[[0, -1]]))
    share = 100 * float(run.test["explained_variance_ratio"][0])
    assert axes.get_xlabel() == f"PC 1 ({share:.1f} % of the variance)"


def test_in_space_the_trajectory_is_drawn_at_its_true_loss_with_both_colour_bars_apart(run: Run):
    surface, line = surface_3d(run.plane, run.test).data
    np.testing.assert_allclose(line.z, np.log10(run.test["loss"].to_numpy()), rtol=1e-6)
    assert line.marker.colorbar.x - (surface.colorbar.x or 1.02) > 0.1  # plotly's own is 1.02


def test_the_losses_have_a_panel_where_they_were_measured(run: Run):
    assert len(explained(run.test).axes) == 3
    assert len(explained(run.alone).axes) == 2


# Numbers and claims


def test_the_numbers_are_those_of_the_dataset(run: Run):
    found = told(run.test)
    two = f"{100 * float(run.test['explained_variance_ratio'][:2].sum()):.1f} %"
    assert found["variance on two components"] == two
    k = int(run.test["off_plane_distance"].to_numpy().argmax())
    farthest = f"{float(run.test['off_plane_distance'][k]):.3g} at step {int(run.test['step'][k])}"
    assert found["farthest off the plane"] == farthest
    relative = np.abs(run.test["plane_loss"] / run.test["loss"] - 1)
    assert found["loss on the plane off the true one, at most"].startswith(f"{100 * float(relative.max()):.1f} % (")
    assert not [name for name in told(run.alone) if name.startswith("loss")]


def told(dataset: xr.Dataset) -> dict[str, str]:
    """The key numbers: name -> text."""
    return {number.name: number.text for number in TRAJECTORY.numbers(dataset)}


def test_a_snapshot_without_a_loss_leaves_the_other_differences(run: Run):
    known = xr.DataArray(np.arange(run.test.sizes["snapshot"]) != 3, dims="snapshot")
    broken = run.test.assign(loss=run.test["loss"].where(known, 0.0))
    worst = np.abs(run.test["plane_loss"] / run.test["loss"] - 1).where(known).max()
    assert told(broken)["loss on the plane off the true one, at most"].startswith(f"{100 * float(worst):.1f} % (")


@pytest.mark.parametrize(
    ("factor", "verdict"), [(2.0, Verdict.SUPPORTED), (1.0, Verdict.UNDECIDED), (0.5, Verdict.CONTRADICTED)]
)
def test_a_trajectory_beats_random_signs_or_it_does_not(run: Run, factor: float, verdict: Verdict):
    null = run.test.copy(deep=True)
    rng = np.random.default_rng(0)
    null["sign_flip_two"][:] = float(run.test["explained_variance_ratio"][:2].sum()) / factor
    null["sign_flip_two"] = null["sign_flip_two"] + 0.01 * rng.standard_normal(null.sizes["draw"])
    claim = beyond_random_walk(null)
    assert claim.verdict is verdict
    assert claim.datasets == (run.test.attrs["id"],)
    observed, draws = float(null["explained_variance_ratio"][:2].sum()), null["sign_flip_two"].to_numpy()
    assert claim.value == pytest.approx(observed - np.median(draws))
    assert claim.interval == pytest.approx((observed - np.quantile(draws, 0.975), observed - np.quantile(draws, 0.025)))


def test_without_draws_of_the_signs_nothing_is_decided(run: Run):
    assert beyond_random_walk(run.test.isel(draw=slice(0, 0))).verdict is Verdict.UNDECIDED


# Answers and the view of a page


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (2.0, "more than with random"),
        (1.0, "not told apart from those with random"),
        (0.5, "less than with random"),
    ],
)
def test_the_answer_says_what_the_claim_decides_in_the_numbers_of_the_dataset(run: Run, factor: float, words: str):
    null = run.test.copy(deep=True)
    observed = float(null["explained_variance_ratio"][:2].sum())
    jitter = 0.01 * np.random.default_rng(0).standard_normal(null.sizes["draw"])
    null["sign_flip_two"][:] = observed / factor + jitter
    (answer,) = TRAJECTORY.answers([null], Catalogue([null]))
    assert f"{100 * observed:.1f} % of the variance of the trajectory of network A, {words}" in answer.sentence
    assert words in answer.short
    assert answer.claim == beyond_random_walk(null)


def test_answers_fit_an_abstract_with_and_without_draws_of_the_signs_of_one_trajectory_or_two(run: Run):
    without = run.test.isel(draw=slice(0, 0))
    for some in ([run.test], [without], [run.test, run.train.assign_attrs(network="B")]):
        (answer,) = TRAJECTORY.answers(some, Catalogue(some))
        assert len(answer.short.split()) <= 25
        assert answer.short != answer.sentence
        assert answer.sentence.count("Two principal components") == len(some)
    three = [run.test.assign_attrs(network=label) for label in "ABC"]
    (answer,) = TRAJECTORY.answers(three, Catalogue(three))
    assert "variance of 3 trajectories" in answer.sentence
    assert "of 3 trajectories" in answer.short


def test_the_slider_moves_the_line_and_a_point_on_the_map_and_points_on_the_profiles(run: Run):
    view = steps(run.plane, run.test, run.history)
    slider = view.slider
    assert slider is not None
    assert slider.labels == tuple(f"{step}" for step in run.test["step"].to_numpy())
    line, point, loss, off = slider.moves
    assert [move.panel for move in slider.moves] == [0, 0, 1, 1]
    k = 5
    np.testing.assert_allclose(line.values["x"][k], run.test["alpha"][: k + 1], rtol=1e-6)
    np.testing.assert_allclose(point.values["y"], run.test["beta"], rtol=1e-6)
    np.testing.assert_allclose(loss.values["y"], run.test["loss"], rtol=1e-6)
    np.testing.assert_allclose(off.values["y"], run.test["off_plane_distance"], rtol=1e-5)
    assert f"{float(run.test['off_plane_distance'][k]):.3g} off the plane" in slider.readouts[k]
    assert slider.readouts[k].startswith(f"step {int(run.test['step'][k])}: loss {value(run.test, 'loss', snapshot=k)}")
    for move in slider.moves:  # at rest the picture shows where the slider stands
        trace = view.panels[move.panel].data[move.trace]
        np.testing.assert_allclose(trace.y, np.atleast_1d(move.values["y"][slider.start]), rtol=1e-6)


def test_under_the_pointer_are_the_loss_its_error_and_whether_the_cell_was_evaluated(run: Run):
    contour = steps(run.interpolated, run.test, None).panels[0].data[0]
    loss = run.interpolated["loss"].transpose("beta", "alpha").to_numpy()
    evaluated = run.interpolated["evaluated"].transpose("beta", "alpha").to_numpy()
    assert float(contour.customdata[2, 3, 0]) == pytest.approx(loss[2, 3], rel=1e-3)
    assert set(contour.customdata[evaluated == 1, 2]) == {"evaluated"}
    assert set(contour.customdata[evaluated == 0, 2]) == {"interpolated"}


def test_beside_the_trajectory_is_the_history_of_its_own_network(run: Run):
    def profiles(*histories: xr.Dataset) -> set[str]:
        catalogue = Catalogue([run.test, run.plane, *histories])
        picture = next(iter(TRAJECTORY.figures(catalogue.of(TRAJECTORY), catalogue))).pictures[0]
        assert picture.view is not None
        return {trace.name for trace in picture.view().panels[1].data}

    own = profiles(run.history)
    assert {"mini-batch", "test data", "true loss", "on the plane"} <= own
    assert profiles(run.history.assign_attrs(network="B")) == own - {"mini-batch", "test data"}


def test_sharpness_that_the_training_loop_recorded_has_a_profile(run: Run):
    told_sharpness = run.history.assign(sharpness=("step", np.arange(run.history.sizes["step"], dtype=float)))
    (trace,) = (t for t in steps(run.plane, run.test, told_sharpness).panels[1].data if t.name == "sharpness")
    np.testing.assert_allclose(trace.x, run.history["step"])


def test_sharpness_that_was_measured_has_a_profile_and_the_slider_marks_it_on_its_line():
    trajectory = measured.results()["trajectory"]
    view = steps(None, trajectory, None)
    measured_at = trajectory["lambda_max"].notnull().to_numpy()
    known = trajectory["lambda_max"][measured_at]
    assert view.slider is not None
    assert known.size == 3
    (row,) = (k for k, trace in enumerate(view.panels[1].data) if trace.name == "λ_max")
    np.testing.assert_allclose(view.panels[1].data[row].y, known, rtol=1e-6)
    marked = view.slider.moves[-1].values["y"]
    np.testing.assert_allclose(marked[measured_at], known, rtol=1e-6)
    assert [("λ_max" in readout) for readout in view.slider.readouts] == trajectory[
        "lambda_max"
    ].notnull().values.tolist()


def test_a_long_training_has_a_slider_of_at_most_101_places_from_the_first_snapshot_to_the_last():
    network = zoo.mlp(64, classes=10, seed=0)
    record = la.Recorder(network, every=1)
    for step in range(150):
        with torch.no_grad():
            next(network.parameters()).view(-1)[step % 7].add_(0.01)
        record(step)
    trajectory = record.trajectory.analyse(progress=False)
    slider = steps(None, trajectory, None).slider
    assert slider is not None
    assert (len(slider.labels), slider.labels[0], slider.labels[-1]) == (101, "0", "149")
