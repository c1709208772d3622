"""What is shown of a trajectory: on which planes it is drawn, what is read off it, what is claimed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch.nn.functional as F
import xarray as xr
from matplotlib.figure import Figure

import lossatlas as la
from lossatlas import zoo
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Verdict
from lossatlas.surfaces.show import SURFACE
from lossatlas.surfaces.show.interactive import surface_3d
from lossatlas.trajectory.show import TRAJECTORY
from lossatlas.trajectory.show.claims import beyond_random_walk
from lossatlas.trajectory.show.drawings import explained, on_plane
from lossatlas.trajectory.show.trajectories import owner


class Run(NamedTuple):
    """A network's trajectory: analysed on test and on training data and without data, and planes through it."""

    test: xr.Dataset
    train: xr.Dataset
    alone: xr.Dataset
    plane: xr.Dataset
    about_last: xr.Dataset
    interpolated: xr.Dataset
    elsewhere: xr.Dataset


@pytest.fixture(scope="module")
def run() -> Run:
    data = zoo.load("digits")
    train, test = ((split[0][:200], split[1][:200]) for split in (data.train, data.test))
    network = zoo.mlp(64, classes=10, seed=0)
    record = la.Recorder(network, every=4)
    zoo.fit(network, train, epochs=6, batch_size=50, learning_rate=0.05, on_step=record, progress=False)
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
    assert [dataset.attrs["id"] for dataset in first.datasets] == [shown.attrs["id"]]
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
    view = next(iter(TRAJECTORY.figures(catalogue.of(TRAJECTORY), catalogue))).pictures[1]
    assert view.interactive is not None
    assert ("training" in [trace.name for trace in view.interactive().data]) == drawn
    assert ("true loss of its snapshots" in view.caption) == drawn


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
    assert abs(surface.colorbar.x - line.marker.colorbar.x) > 0.1


def test_the_losses_have_a_panel_where_they_were_measured(run: Run):
    assert len(explained(run.test).axes) == 3
    assert len(explained(run.alone).axes) == 2


# Numbers and claims


def test_the_numbers_are_those_of_the_dataset(run: Run):
    shares, farthest, losses = TRAJECTORY.numbers(run.test)
    assert f"explain {100 * float(run.test['explained_variance_ratio'][:2].sum()):.1f} % of the variance" in shares
    k = int(run.test["off_plane_distance"].to_numpy().argmax())
    assert f"at step {int(run.test['step'][k])}, lies {float(run.test['off_plane_distance'][k]):.3g} off it" in farthest
    relative = np.abs(run.test["plane_loss"] / run.test["loss"] - 1)
    assert f"by {100 * float(relative.max()):.1f} % at most" in losses
    assert len(list(TRAJECTORY.numbers(run.alone))) == 2


def test_a_snapshot_without_a_loss_leaves_the_other_differences(run: Run):
    known = xr.DataArray(np.arange(run.test.sizes["snapshot"]) != 3, dims="snapshot")
    broken = run.test.assign(loss=run.test["loss"].where(known, 0.0))
    worst = np.abs(run.test["plane_loss"] / run.test["loss"] - 1).where(known).max()
    assert f"by {100 * float(worst):.1f} % at most" in list(TRAJECTORY.numbers(broken))[2]


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
