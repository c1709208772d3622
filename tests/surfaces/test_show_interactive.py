"""The interactive views: surfaces in space, volumes, trajectories and paths on them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from measured import surfaces as measured

from lossatlas.drawing.grids import axes_of
from lossatlas.surfaces.show import interactive, isosurfaces
from lossatlas.surfaces.show.surfaces import surface, surface_3d


def test_the_interactive_surface_holds_log10_of_the_loss_in_single_precision():
    trace = interactive.surface_3d(measured.plane()).data[0]
    assert trace.z.dtype == np.float32
    np.testing.assert_allclose(trace.z.T, np.log10(measured.plane()["loss"]), rtol=1e-6, atol=1e-7)


def test_holes_of_the_interactive_surface_are_valid_json():
    text = interactive.surface_3d(measured.without_cells(measured.plane())).to_json()
    assert json.loads(text)["data"][0]["type"] == "surface"


def test_the_interactive_surface_shows_the_evaluated_points_at_their_own_loss_and_the_error_under_the_pointer():
    dataset = measured.some_beyond(1)
    figure = interactive.surface_3d(dataset)
    tested = dataset.attrs["held_out"]
    names = [trace.name for trace in figure.data]
    nodes = dataset["evaluation_loss"].to_numpy()[dataset["evaluation_role"].to_numpy() == "node"]
    within, beyond = f"held-out, within ({tested - 1})", "held-out, beyond (1)"
    assert names == ["loss", f"node ({len(nodes)})", within, beyond]
    np.testing.assert_allclose(figure.data[1].z, np.log10(nodes), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(figure.data[0].customdata[..., 3].T, 100 * dataset["loss_error"], rtol=1e-5)


def test_the_quadratic_model_is_switched_on_in_the_legend_and_stays_within_the_heights_of_the_loss():
    dataset = measured.hessian_plane()
    trace = interactive.surface_3d(dataset).data[1]
    assert (trace.name, trace.visible) == ("quadratic model", "legendonly")
    low, high = np.log10(dataset["loss"].min().item()), np.log10(dataset["loss"].max().item())
    assert np.nanmax(trace.z) <= high + 1e-6
    assert np.nanmin(trace.z) >= low - 0.1 * (high - low) - 1e-6


def test_the_surfaces_of_a_volume_lie_at_round_losses_that_its_cells_enclose():
    dataset = measured.volume()
    figure = isosurfaces.volume_3d(dataset)
    assert 2 <= len(figure.data) <= isosurfaces.MOST_LEVELS
    loss = dataset["loss"].transpose(*axes_of(dataset)).to_numpy()
    for trace in figure.data:
        level = float(trace.name.removeprefix("loss "))
        assert trace.isomin == trace.isomax == pytest.approx(np.log10(level), rel=1e-9)
        assert min((loss < level).sum(), (loss >= level).sum()) >= isosurfaces.FEWEST
        np.testing.assert_allclose(trace.value.reshape(loss.shape), np.log10(loss), rtol=1e-5, atol=1e-6)
    scene = figure.layout.scene
    assert [scene[axis].title.text for axis in ("xaxis", "yaxis", "zaxis")] == ["α", "β", "γ"]


def test_cells_of_a_volume_that_are_not_finite_are_marked_and_do_not_stop_the_drawing():
    dataset = measured.without_cells(measured.volume())
    *surfaces, marks = isosurfaces.volume_3d(dataset).data
    assert marks.name == f"not finite ({dataset.attrs['n_nonfinite']})"
    assert len(marks.x) == dataset.attrs["n_nonfinite"]
    assert surfaces
    assert all(np.isfinite(trace.value).all() for trace in surfaces)


def test_a_volume_of_a_constant_loss_or_without_any_finite_cell_has_no_surface():
    assert len(isosurfaces.volume_3d(measured.with_losses(measured.volume(), 1.0)).data) == 0
    (marks,) = isosurfaces.volume_3d(measured.with_losses(measured.volume(), np.nan)).data
    assert marks.name == "not finite (343)"


@pytest.fixture
def trajectory() -> xr.Dataset:
    """A straight trajectory into the center; its losses are not those of the plane."""
    alpha = np.linspace(-0.9, 0.0, 6)
    columns = {"alpha": alpha, "beta": alpha / 2, "loss": 1 + alpha**2, "step": np.arange(6)}
    return xr.Dataset({name: ("snapshot", values) for name, values in columns.items()})


def test_a_trajectory_is_drawn_at_the_true_loss_of_its_snapshots_with_both_colour_bars_apart(trajectory: xr.Dataset):
    height = np.log10(trajectory["loss"].to_numpy())
    traces = interactive.surface_3d(measured.plane(), trajectory).data
    np.testing.assert_allclose(traces[1].z, height, rtol=1e-6)
    assert abs(traces[0].colorbar.x - traces[1].marker.colorbar.x) > 0.1
    (curve,) = surface_3d(measured.plane(), trajectory).axes[0].lines
    np.testing.assert_allclose(curve.get_data_3d()[2], height)  # type: ignore[attr-defined]


def test_paths_on_a_plane_take_the_place_of_the_cross_and_are_dashed_where_they_leave_it():
    plane, t = measured.plane(), np.linspace(0, 1, 5)
    places = {"path_alpha": [t, t - 0.5], "path_beta": [t, 0 * t], "path_off_plane": [0 * t, t]}
    paths = xr.Dataset({name: (("path", "t_path"), values) for name, values in places.items()})
    dataset = plane.merge(paths.assign_coords(path=["line", "Bezier curve"], t_path=t))
    axes = surface(dataset).axes[0]
    styles = [(drawn.get_linestyle(), list(drawn.get_xdata())) for drawn in axes.lines]  # type: ignore[arg-type]
    assert styles == [("-", list(t)), ("--", list(t - 0.5))]
    names = [trace.name for trace in interactive.surface_3d(dataset).data]
    assert names == ["loss", "line", "Bezier curve, up to 1 off the plane"]
