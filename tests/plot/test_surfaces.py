"""What is drawn of a surface beyond its contours: error maps, volumes, polar and log axes, several planes, classes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import made_datasets as made
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from lossatlas import plot
from lossatlas.errors import InputError
from lossatlas.plot import interactive, isosurfaces
from lossatlas.plot.classes import worst_classes
from lossatlas.plot.error_maps import error_bands, evaluations
from lossatlas.plot.grids import grid, mesh
from lossatlas.plot.scales import scale_of
from lossatlas.plot.volumes import middle_slices

DRAWN: dict[str, Callable[[], Figure]] = {
    "plane to a tolerance": lambda: plot.figure(made.with_tolerance(made.plane())),
    "planes to a tolerance and exact": lambda: plot.surface(made.with_tolerance(made.plane("A")), made.plane("B")),
    "plane to a tolerance with missing cells": lambda: plot.figure(made.with_tolerance(made.plane(nonfinite=True))),
    "line to a tolerance": lambda: plot.figure(made.with_tolerance(made.line(steps=201))),
    "quadratic model": lambda: plot.figure(made.with_quadratic(made.plane())),
    "quadratic model that is never positive": lambda: plot.figure(made.plane().assign(quadratic=-made.plane()["loss"])),
    "quadratic model on a line": lambda: plot.figure(made.with_quadratic(made.line())),
    "volume": lambda: plot.figure(made.with_quadratic(made.volume())),
    "volume with missing cells": lambda: plot.figure(made.volume(nonfinite=True)),
    "volume without any finite cell": lambda: plot.figure(made.volume() * np.nan),
    "polar": lambda: plot.figure(made.polar()),
    "polar with missing cells": lambda: plot.figure(made.polar().where(made.polar()["radius"] < 0.8)),
    "polar to a tolerance": lambda: plot.figure(made.with_tolerance(made.polar())),
    "polar, 3D": lambda: plot.surface_3d(made.polar()),
    "several lines": lambda: plot.figure(made.several(made.line())),
    "several planes": lambda: plot.figure(made.several(made.plane())),
    "one plane as several": lambda: plot.figure(made.several(made.plane(), planes=1)),
    "several planes with missing cells": lambda: plot.figure(made.several(made.plane(nonfinite=True))),
    "several planes, 3D": lambda: plot.surface_3d(made.several(made.plane())),
    "logarithmic axes": lambda: plot.figure(made.log_spaced()),
    "logarithmic axes, to a tolerance": lambda: plot.figure(made.with_tolerance(made.log_spaced())),
    "logarithmic axes, 3D": lambda: plot.surface_3d(made.log_spaced()),
    "classes on a line": lambda: plot.classes(made.with_classes(made.line())),
}


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if not hasattr(axes, "_colorbar")]


def contour_levels(axes: Axes) -> list[list[float]]:
    """Of each set of contour lines, in the order drawn."""
    return [list(c.levels) for c in axes.collections if isinstance(c, QuadContourSet) and not c.filled]


def bars(axes: Axes) -> list[str]:
    """The labels of the colour bars that belong to one panel."""
    return [child.get_ylabel() for child in axes.child_axes]


@pytest.mark.parametrize("name", DRAWN)
def test_every_panel_has_both_labels_and_the_figure_draws_without_a_warning(name: str):
    figure = DRAWN[name]()
    assert panels(figure)
    for axes in panels(figure):
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    buffer = io.BytesIO()
    plot.save(figure, buffer, "pdf")
    assert buffer.getvalue().startswith(b"%PDF")


def test_beside_an_interpolated_plane_stands_an_equally_large_error_map():
    figure = plot.figure(made.with_tolerance(made.plane()))
    plot.save(figure, io.BytesIO(), "png")  # lays the panels out
    loss, error = panels(figure)
    assert loss.get_position().size == pytest.approx(error.get_position().size, rel=1e-3)
    assert loss.get_xlim() == error.get_xlim()
    assert loss.get_ylim() == error.get_ylim()
    assert bars(loss) == [r"$\log_{10}$ loss"]
    assert bars(error) == ["relative error (%)"]


def test_the_error_map_shows_the_errors_in_per_cent_at_their_own_alpha_and_beta():
    dataset = made.with_tolerance(made.plane(steps=11), every=3)
    (drawn,) = (c for c in panels(plot.figure(dataset))[1].collections if isinstance(c, QuadMesh))
    np.testing.assert_allclose(drawn.get_array().T, 100 * dataset["loss_error"].to_numpy(), rtol=1e-12)


def test_the_error_map_has_a_line_at_the_tolerance():
    error = panels(plot.figure(made.with_tolerance(made.plane(), tolerance=0.02)))[1]
    assert contour_levels(error) == [[2.0]]


def test_every_evaluated_point_is_marked_once_with_its_role():
    dataset = made.with_tolerance(made.plane(steps=51), beyond=3)
    figure = plot.figure(dataset)
    drawn = {len(line.get_xdata()): line for line in panels(figure)[1].lines}  # type: ignore[arg-type]
    assert sorted(drawn) == [3, 56, 121]  # beyond and within the tolerance; 11 x 11 nodes
    nodes = (np.arange(51)[::5] - 25) / 25
    np.testing.assert_allclose(np.unique(drawn[121].get_xdata()), nodes, atol=1e-12)
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["node (121)", "held-out, within 1 % (56)", "held-out, beyond 1 % (3)", "error = 1 %"]


def test_a_held_out_point_whose_surprise_is_not_finite_counts_as_beyond():
    dataset = made.with_tolerance(made.plane(), beyond=0)
    dataset["evaluation_surprise"][-2:] = np.nan
    marked = {mark: len(points[0]) for mark, points in evaluations(dataset).items()}
    assert marked == {"node": 25, "held-out, within": 57, "held-out, beyond": 2}


def test_a_surface_that_was_evaluated_everywhere_has_no_error_map():
    dataset = made.with_tolerance(made.plane())
    dataset["loss_error"] = dataset["loss_error"] * 0
    assert len(panels(plot.figure(dataset))) == 1


@pytest.mark.parametrize("worst", [0.1, 1.0, 1.3, 7.0, 1e6])
def test_the_tolerance_is_a_bound_of_the_colour_bands_and_the_worst_lies_within_them_if_they_are_few(worst: float):
    bounds, colours = error_bands(1.0, worst)
    assert 1.0 in bounds
    assert len(colours.colors) == len(bounds) - 1  # type: ignore[arg-type]
    assert bounds[-1] >= min(worst, 256)
    assert len(bounds) <= 13


def test_the_quadratic_model_is_dashed_at_the_levels_of_the_loss():
    dataset = made.with_quadratic(made.plane())
    (axes,) = panels(plot.figure(dataset))
    solid, dashed = (c for c in axes.collections if isinstance(c, QuadContourSet) and not c.filled)
    assert list(solid.levels) == list(dashed.levels)
    assert solid.linestyles == "solid"
    assert dashed.linestyles == "dashed"
    # The model is 0.27 + 6 alpha^2 + 3 beta^2, so its contour at the loss 2 crosses beta = 0 at alpha = 0.537.
    k = int(np.argmin(np.abs(dashed.levels - np.log10(2))))
    reach = dashed.get_paths()[k].vertices[:, 0].max()
    assert reach == pytest.approx(np.sqrt((2 - 0.27) / 6), rel=0.02)


def test_the_quadratic_model_on_a_line_is_a_dashed_curve_that_does_not_change_the_range_of_the_loss():
    dataset = made.with_quadratic(made.line())
    dataset["quadratic"] = dataset["quadratic"] + 1e4 * dataset["alpha"] ** 2
    plain, with_model = plot.figure(made.line()).axes[0], plot.figure(dataset).axes[0]
    (curve,) = (line for line in with_model.lines if line.get_label() == "quadratic model")
    assert curve.get_linestyle() == "--"
    np.testing.assert_allclose(curve.get_ydata(), dataset["quadratic"])  # type: ignore[arg-type]
    assert with_model.get_ylim() == plain.get_ylim()


def test_a_line_to_a_tolerance_shows_where_it_was_evaluated():
    dataset = made.with_tolerance(made.line(steps=201), every=8)
    axes = plot.figure(dataset).axes[0]
    marked = np.concatenate([np.transpose(line.get_data()) for line in axes.lines if line.get_linestyle() == "None"])
    expected = np.stack([dataset["evaluation_alpha"], dataset["evaluation_loss"]], axis=1)
    assert len(marked) == 26 + 59
    assert {tuple(point) for point in marked} == {tuple(point) for point in expected}


def test_a_volume_is_shown_by_three_slices_through_its_centre_on_one_colour_scale():
    dataset = made.volume(steps=9)
    figure = plot.figure(dataset)
    assert [axes.get_title() for axes in panels(figure)] == [r"$\gamma$ = 0", r"$\beta$ = 0", r"$\alpha$ = 0"]
    assert [axes.get_xlabel() for axes in panels(figure)] == [r"$\alpha$", r"$\alpha$", r"$\beta$"]
    assert [axes.get_ylabel() for axes in panels(figure)] == [r"$\beta$", r"$\gamma$", r"$\gamma$"]
    assert len({axes.collections[0].get_clim() for axes in panels(figure)}) == 1
    xr.testing.assert_equal(middle_slices(dataset)[1]["loss"], dataset["loss"].sel(beta=0.0))


def test_an_axis_of_a_volume_that_does_not_reach_zero_is_cut_half_way():
    dataset = made.volume(steps=9).assign_coords(gamma=np.linspace(2, 4, 13))
    assert float(middle_slices(dataset)[0]["gamma"]) == 3.0


def test_missing_cells_of_a_volume_are_counted():
    figure = plot.figure(made.volume(nonfinite=True))
    assert figure.get_supxlabel() == "hatched: 37 of 4845 cells not finite"


@pytest.mark.parametrize("endpoint", [False, True])
def test_a_polar_picture_goes_once_around_whether_the_last_angle_repeats_the_first_or_not(endpoint: bool):
    angle, radius = np.linspace(0, 2 * np.pi, 9, endpoint=endpoint), np.array([0, 0.5, 1])
    loss = xr.DataArray(1 + np.outer(radius, np.cos(angle) ** 2), dims=("radius", "angle"))
    dataset = xr.Dataset({"loss": loss}, coords={"radius": radius, "angle": angle}, attrs={"kind": "surface"})
    across, up, values = grid(dataset)
    assert across[-1] - across[0] == pytest.approx(2 * np.pi, rel=1e-12)
    np.testing.assert_allclose(values[:, -1], values[:, 0], rtol=1e-12)
    assert values.shape == (len(up), len(across))
    (axes,) = panels(plot.figure(dataset))
    assert axes.name == "polar"


def test_a_polar_surface_stands_in_space_at_r_cos_and_r_sin():
    dataset = made.polar()
    x, y, loss = mesh(dataset)
    np.testing.assert_allclose(np.hypot(x, y)[:, 5], dataset["radius"], atol=1e-12)
    k = 12  # a quarter turn
    np.testing.assert_allclose(x[:, k], 0, atol=1e-12)
    np.testing.assert_allclose(y[:, k], dataset["radius"], atol=1e-12)
    np.testing.assert_allclose(loss[:, k], dataset["loss"].isel(angle=k))
    trace = interactive.surface_3d(dataset).data[0]
    np.testing.assert_allclose(trace.x, x, atol=1e-6)


def test_of_several_planes_the_mean_and_the_spread_relative_to_it_are_drawn():
    """Plane k has (1 + 0.2 k r) times the loss: at r = 1 the factors are 1, 1.2, 1.4."""
    dataset = made.several(made.plane(), planes=3)
    mean, spread = panels(plot.figure(dataset))
    assert mean.get_title() == "mean of 3 planes"
    assert spread.get_title() == "spread of 3 planes"
    assert bars(spread) == ["standard deviation / mean (%)"]
    trace = interactive.surface_3d(dataset).data[0]
    np.testing.assert_allclose(trace.z.T, np.log10(dataset["loss"].mean("plane")), rtol=1e-6)
    assert trace.customdata[12, 0, 3] == pytest.approx(100 * 0.2 / 1.2, rel=1e-5)  # alpha = -1, beta = 0


def test_of_several_lines_each_is_drawn_with_their_mean_and_one_standard_deviation():
    dataset = made.several(made.line(), planes=4)
    loss = plot.figure(dataset).axes[0]
    thin = [line for line in loss.lines if line.get_linewidth() < 1 and len(line.get_xdata()) == 51]  # type: ignore[arg-type]
    assert len(thin) == 4
    (mean,) = (line for line in loss.lines if "mean of 4 directions" in str(line.get_label()))
    np.testing.assert_allclose(mean.get_ydata(), dataset["loss"].mean("plane"))  # type: ignore[arg-type]
    edge = loss.collections[0].get_paths()[0].vertices
    factor = 1 + 0.2 * np.arange(4)
    highest = made.line()["loss"][-1].item() * (factor.mean() + factor.std(ddof=1))
    assert edge[np.isclose(edge[:, 0], 1.0), 1].max() == pytest.approx(highest, rel=1e-9)


@pytest.mark.parametrize(
    ("coordinates", "kind"),
    [
        (np.linspace(-1, 1, 7), "linear"),
        (np.linspace(0.5, 2, 4), "linear"),
        (np.geomspace(1e-3, 10, 9), "log"),
        (np.array([-1, -0.1, 0, 0.1, 1]), "symlog"),
        (np.array([-4, -2, -1, 1, 2, 4]), "symlog"),
        (np.array([-1, -0.3, -0.1, 0, 0.1, 0.2, 1]), "linear"),
        (np.array([-3, 0.1, 1, 10]), "linear"),
        (np.array([0.0, 1.0]), "linear"),
    ],
)
def test_the_scale_of_an_axis_is_read_from_its_coordinates(coordinates: np.ndarray[Any, Any], kind: str):
    assert scale_of(coordinates).kind == kind


@pytest.mark.parametrize("decades", [1, 2, 3, 6])
def test_positions_on_a_logarithmic_axis_keep_the_order_and_the_ticks_are_powers_of_ten_on_it(decades: int):
    positive = np.geomspace(10.0**-decades, 1, 4 * decades + 1)
    for coordinates in (positive, np.concatenate([-positive[::-1], [0], positive])):
        scale = scale_of(coordinates)
        steps = np.diff(scale.positions(coordinates))
        assert (steps > 0).all()
        ticks = scale.ticks(coordinates)
        assert ticks.max() == 1
        assert 2 <= len(ticks) <= 7
        powers = np.log10(np.abs(ticks[ticks != 0]))
        np.testing.assert_allclose(powers, powers.round(), atol=1e-9)
        assert ticks.min() == -1 or coordinates.min() > 0


def test_logarithmic_axes_are_drawn_on_logarithmic_scales_in_both_kinds_of_figure():
    (axes,) = panels(plot.figure(made.log_spaced()))
    assert axes.get_xscale() == "symlog"
    assert axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["−1", "−0.01", "0", "0.01", "1"]
    scene = interactive.surface_3d(made.log_spaced()).layout.scene
    assert list(scene.yaxis.ticktext) == ["0.01", "1"]
    assert list(scene.yaxis.tickvals) == pytest.approx([-2, 0])
    assert scene.xaxis.ticktext[2] == "0"
    assert plot.line(made.log_spaced().isel(beta=0)).axes[0].get_xscale() == "symlog"


def test_each_class_has_its_picture_and_all_share_one_colour_scale():
    figure = plot.classes(made.with_classes(made.plane(), classes=7))
    assert [axes.get_title() for axes in panels(figure)] == [f"class {k}" for k in range(7)]
    assert len({axes.collections[0].get_clim() for axes in panels(figure)}) == 1
    assert {axes.get_xlabel() for axes in panels(figure)[2:]} == {r"$\alpha$"}


def test_each_class_has_its_curve_on_a_line():
    dataset = made.with_classes(made.line())
    curves = {str(line.get_label()): line.get_ydata() for line in plot.classes(dataset).axes[0].lines}
    np.testing.assert_allclose(curves["3"], 0.85 * dataset["loss"])  # type: ignore[arg-type]
    np.testing.assert_allclose(curves["all examples"], dataset["loss"])  # type: ignore[arg-type]


def test_of_many_classes_those_with_the_highest_loss_are_drawn_and_the_figure_says_so():
    dataset = made.with_classes(made.plane(), classes=13)
    assert worst_classes(dataset["class_loss"]) == list(range(3, 13))
    figure = plot.classes(dataset)
    assert figure.get_suptitle() == "the 10 of 13 classes with the highest mean loss"


@pytest.mark.parametrize("dataset", [made.plane(), made.with_classes(made.volume(steps=3))])
def test_no_picture_of_classes_without_their_losses_or_of_a_volume(dataset: xr.Dataset):
    with pytest.raises(InputError, match="class_loss on a line or a plane"):
        plot.classes(dataset)


def test_the_turning_surface_shows_the_evaluated_points_at_their_own_loss_and_the_error_under_the_pointer():
    dataset = made.with_tolerance(made.plane(steps=51))
    figure = interactive.surface_3d(dataset)
    names = [trace.name for trace in figure.data]
    assert names == ["loss", "node (121)", "held-out, within (58)", "held-out, beyond (1)"]
    nodes = dataset["evaluation_loss"].to_numpy()[dataset["evaluation_role"].to_numpy() == "node"]
    np.testing.assert_allclose(figure.data[1].z, np.log10(nodes), rtol=1e-6)
    np.testing.assert_allclose(figure.data[0].customdata[..., 3].T, 100 * dataset["loss_error"], rtol=1e-5)


def test_the_quadratic_model_waits_in_the_legend_of_the_turning_surface():
    trace = interactive.surface_3d(made.with_quadratic(made.plane())).data[1]
    assert (trace.name, trace.visible) == ("quadratic model", "legendonly")
    low, high = np.log10(made.plane()["loss"].min().item()), np.log10(made.plane()["loss"].max().item())
    assert np.nanmax(trace.z) <= high + 1e-6
    assert np.nanmin(trace.z) >= low - 0.1 * (high - low) - 1e-6


def test_the_surfaces_of_a_block_lie_at_round_losses_that_its_cells_enclose():
    dataset = made.volume()
    figure = isosurfaces.volume_3d(dataset)
    assert 2 <= len(figure.data) <= isosurfaces.MOST_LEVELS
    loss = dataset["loss"].to_numpy()
    for trace in figure.data:
        level = float(trace.name.removeprefix("loss "))
        assert trace.isomin == trace.isomax == pytest.approx(np.log10(level), rel=1e-9)
        assert min((loss < level).sum(), (loss >= level).sum()) >= isosurfaces.FEWEST
        np.testing.assert_allclose(trace.value.reshape(loss.shape), np.log10(loss), rtol=1e-6)
    scene = figure.layout.scene
    assert [scene[axis].title.text for axis in ("xaxis", "yaxis", "zaxis")] == ["α", "β", "γ"]
    assert figure.layout.coloraxis.colorbar.title.text == "log₁₀ loss"


def test_cells_of_a_block_that_are_not_finite_are_marked_and_do_not_stop_the_drawing():
    dataset = made.volume(nonfinite=True)
    figure = isosurfaces.volume_3d(dataset)
    *surfaces, marks = figure.data
    assert marks.name == "not finite (37)"
    assert len(marks.x) == int((~np.isfinite(dataset["loss"])).sum())
    assert all(np.isfinite(trace.value).all() for trace in surfaces)
    assert json.loads(figure.to_json())["data"][0]["type"] == "isosurface"


def test_a_block_of_a_constant_loss_or_without_any_finite_cell_has_no_surface():
    assert len(isosurfaces.volume_3d(made.volume() * 0 + 1.0).data) == 0
    (marks,) = isosurfaces.volume_3d(made.volume(steps=3) * np.nan).data
    assert marks.name == f"not finite ({3 * 5 * 7})"
