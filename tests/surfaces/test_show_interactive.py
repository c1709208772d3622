"""The interactive views: surfaces in space, volumes, trajectories and paths on them."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import xarray as xr
from measured import surfaces as measured

from lossatlas.drawing.grids import axes_of
from lossatlas.results.views import View
from lossatlas.surfaces.show import interactive, isosurfaces, views
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
    np.testing.assert_allclose(figure.data[0].customdata[..., 2].T, 100 * dataset["loss_error"], rtol=1e-5)


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


def seen(view: View, at: tuple[int, ...], panel: int) -> list[object]:
    """The traces of a panel that are seen with these choices."""
    assert view.changes is not None
    visible = {
        change.trace: change.values["visible"]
        for change in view.changes[at]
        if change.trace is not None and change.panel == panel
    }
    return [trace for k, trace in enumerate(view.panels[panel].data) if visible[k] is True]


def axis_of(view: View, at: tuple[int, ...]) -> list[dict[str, object]]:
    """What these choices change of the layout of each panel."""
    assert view.changes is not None
    found: list[dict[str, object]] = [{} for _ in view.panels]
    for change in view.changes[at]:
        if change.trace is None:
            found[change.panel] |= dict(change.values)
    return found


def test_planes_side_by_side_can_be_seen_as_loss_accuracy_and_error_on_both_scales_and_from_above():
    datasets = measured.plane("A"), measured.plane("B")
    view = views.planes(*datasets)
    assert [panel.layout.title.text for panel in view.panels] == ["network A", "network B"]
    assert view.linked
    shown = {choice.name: choice.options for choice in view.choices}
    assert shown == {
        "shown": ("loss", "accuracy", "standard error"),
        "scale": ("log", "linear"),
        "as": ("surface", "map"),
    }
    assert set(view.changes or ()) == set(product(range(3), range(2), range(2)))
    for panel, dataset in enumerate(datasets):
        for at, expected in {
            (0, 0, 0): np.log10(dataset["loss"]),
            (0, 1, 0): dataset["loss"],
            (1, 0, 1): dataset["accuracy"],
            (2, 0, 0): np.log10(dataset["loss_stderr"]),
        }.items():
            trace, cross = seen(view, at, panel)
            assert (cross.x[0], cross.y[0]) == (0, 0)  # type: ignore[attr-defined]
            assert 0 < cross.z[0] - trace.z[4, 4] < 0.05 * (trace.cmax - trace.cmin)  # type: ignore[attr-defined]
            np.testing.assert_allclose(trace.z.T, expected, rtol=1e-5, atol=1e-6)  # type: ignore[attr-defined]


def test_all_panels_have_one_colour_scale_and_one_vertical_axis_whatever_is_shown():
    view = views.planes(measured.plane("A"), measured.plane("B"))
    for at in view.changes or ():
        traces = [trace for panel in range(2) for trace in seen(view, at, panel) if trace.type == "surface"]  # type: ignore[attr-defined]
        assert len({(trace.cmin, trace.cmax) for trace in traces}) == 1  # type: ignore[attr-defined]
        one, other = axis_of(view, at)
        assert one == other
        low, high = one["scene.zaxis.range"]  # type: ignore[misc]
        assert low < min(float(np.nanmin(trace.z)) for trace in traces)  # type: ignore[attr-defined]
        assert high > max(float(np.nanmax(trace.z)) for trace in traces)  # type: ignore[attr-defined]


def test_the_view_is_first_seen_as_its_first_choices_say():
    view = views.planes(measured.interpolated_plane("A"))
    first = (0,) * len(view.choices)
    visible = [trace for trace in view.panels[0].data if trace.visible is True]
    assert visible == seen(view, first, 0)
    assert list(view.panels[0].layout.scene.zaxis.range) == axis_of(view, first)[0]["scene.zaxis.range"]


def test_the_pointer_tells_value_and_standard_error_and_whether_a_cell_was_evaluated():
    dataset = measured.interpolated_plane()
    trace = interactive.surface_3d(dataset).data[0]
    for alpha, beta in ((0, 0), (3, 17)):
        cell = dataset.isel(alpha=alpha, beta=beta)
        value, stderr, *_ = trace.customdata[beta, alpha]
        assert (value, stderr) == pytest.approx((float(cell["loss"]), float(cell["loss_stderr"])), rel=1e-5)
        assert trace.text[beta, alpha] == ("evaluated" if cell["evaluated"] else "interpolated")
    assert "%{text}" in trace.hovertemplate
    assert "interpolation error about" in trace.hovertemplate
    assert "<br>evaluated" in interactive.surface_3d(measured.plane()).data[0].hovertemplate


def test_further_data_are_a_choice_only_where_every_plane_has_them():
    plane = measured.plane()
    more = {f"train_{name}": 2 * plane[name] for name in ("loss", "loss_stderr", "accuracy")}
    both = plane.assign(more)
    (data,) = [choice for choice in views.planes(both).choices if choice.name == "data"]
    assert data.options == ("digits", "train")
    view = views.planes(both)
    trace, _ = seen(view, (0, 1, 1, 0), 0)
    np.testing.assert_allclose(trace.z.T, 2 * plane["loss"], rtol=1e-6)  # type: ignore[attr-defined]
    assert "data" not in [choice.name for choice in views.planes(both, measured.plane("B")).choices]


def test_ticks_of_a_logarithmic_axis_carry_the_losses_also_where_their_range_is_narrow():
    narrow = measured.with_losses(measured.plane(), np.linspace(2.28, 2.52, 81).reshape(9, 9))
    axis = interactive.surface_3d(narrow).layout.scene.zaxis
    assert len(axis.tickvals) >= 2
    np.testing.assert_allclose(10 ** np.asarray(axis.tickvals), [float(text) for text in axis.ticktext], rtol=1e-3)
