"""What is drawn of a surface: contours, error maps, volumes, polar and log axes, several planes, classes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from measured import surfaces as measured

from lossatlas import plot
from lossatlas.errors import InputError
from lossatlas.surfaces.show import interactive
from lossatlas.surfaces.show.classes import classes, worst_classes
from lossatlas.surfaces.show.error_maps import error_bands, evaluations
from lossatlas.surfaces.show.lines import line
from lossatlas.surfaces.show.surfaces import surface, surface_3d
from lossatlas.surfaces.show.volumes import middle_slices, volume

EDGE_CASES: dict[str, Callable[[], Figure]] = {
    "line with gaps": lambda: line(measured.without_cells(measured.line(), every=3)),
    "line without accuracy": lambda: line(measured.line().drop_vars("accuracy")),
    "interpolated and exact plane": lambda: surface(measured.interpolated_plane("A"), measured.plane("B")),
    "interpolated plane with missing cells": lambda: surface(measured.without_cells(measured.interpolated_plane())),
    "plane without any finite cell": lambda: surface(measured.with_losses(measured.plane(), np.nan)),
    "plane of a constant loss": lambda: surface(measured.with_losses(measured.plane(), 1.0)),
    "plane with negative losses": lambda: surface(measured.with_losses(measured.plane(), measured.plane()["loss"] - 5)),
    "quadratic model that is never positive": lambda: surface(
        measured.with_losses(measured.plane(), measured.plane()["loss"], quadratic=-1.0)
    ),
    "volume with missing cells": lambda: volume(measured.without_cells(measured.volume())),
    "volume without any finite cell": lambda: volume(measured.with_losses(measured.volume(), np.nan)),
    "polar with missing cells": lambda: surface(measured.without_cells(measured.polar())),
    "polar, 3D": lambda: surface_3d(measured.polar()),
    "several planes, 3D": lambda: surface_3d(measured.plane(planes=3)),
    "logarithmic axes, 3D": lambda: surface_3d(measured.log_spaced()),
    "missing cells, 3D": lambda: surface_3d(measured.without_cells(measured.plane())),
}


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if not hasattr(axes, "_colorbar")]


def contours(axes: Axes) -> list[QuadContourSet]:
    """The sets of contour lines, in the order drawn."""
    return [c for c in axes.collections if isinstance(c, QuadContourSet) and not c.filled]


def bars(axes: Axes) -> list[str]:
    """The labels of the colour bars that belong to one panel."""
    return [child.get_ylabel() for child in axes.child_axes]


@pytest.mark.parametrize("name", EDGE_CASES)
def test_every_panel_has_both_labels_and_the_figure_draws_without_a_warning(name: str):
    figure = EDGE_CASES[name]()
    assert panels(figure)
    for axes in panels(figure):
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    buffer = io.BytesIO()
    plot.save(figure, buffer, "pdf")
    assert buffer.getvalue().startswith(b"%PDF")


def test_missing_cells_are_counted_on_the_figure():
    dataset = measured.without_cells(measured.plane())
    note = f"hatched: {dataset.attrs['n_nonfinite']} of 81 cells not finite"
    assert note in surface(dataset).axes[0].get_title()
    assert "not finite" not in surface(measured.plane()).axes[0].get_title()
    block = measured.without_cells(measured.volume())
    assert volume(block).get_supxlabel() == f"hatched: {block.attrs['n_nonfinite']} of 343 cells not finite"


def test_two_planes_share_one_colour_scale_and_are_named_by_their_networks():
    figure = surface(measured.plane("A"), measured.plane("B"))
    assert [axes.get_title() for axes in panels(figure)] == ["network A", "network B"]
    assert len({axes.collections[0].get_clim() for axes in panels(figure)}) == 1


def test_next_to_an_interpolated_plane_stands_an_equally_large_error_map():
    figure = surface(measured.interpolated_plane())
    plot.save(figure, io.BytesIO(), "png")  # places the panels
    loss, error = panels(figure)
    assert loss.get_position().size == pytest.approx(error.get_position().size, rel=1e-3)
    assert loss.get_xlim() == error.get_xlim()
    assert loss.get_ylim() == error.get_ylim()
    assert bars(loss) == ["loss"]
    assert bars(error) == ["relative error (%)"]


def test_the_error_map_shows_the_errors_in_per_cent_at_their_own_alpha_and_beta():
    dataset = measured.interpolated_plane()
    (drawn,) = (c for c in panels(surface(dataset))[1].collections if isinstance(c, QuadMesh))
    np.testing.assert_allclose(drawn.get_array().T, 100 * dataset["loss_error"].to_numpy(), rtol=1e-12)


def test_the_error_map_has_a_line_at_the_tolerance():
    within = float(measured.interpolated_plane()["loss_error"].max()) / 2
    (drawn,) = contours(panels(surface(measured.interpolated_plane().assign_attrs(tolerance=within)))[1])
    assert list(drawn.levels) == [100 * within]


def test_every_evaluated_point_is_marked_once_with_its_role():
    dataset = measured.some_beyond(3)
    figure = surface(dataset)
    nodes, held_out = (int((dataset["evaluation_role"] == role).sum()) for role in ("node", "held-out"))
    drawn = [len(marks.get_xdata()) for marks in panels(figure)[1].lines]  # type: ignore[arg-type]
    assert drawn == [nodes, held_out - 3, 3]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        f"node ({nodes})",
        f"held-out, within 5 % ({held_out - 3})",
        "held-out, beyond 5 % (3)",
        "error = 5 %",
    ]


def test_a_held_out_point_whose_error_is_not_finite_counts_as_beyond():
    dataset = measured.some_beyond(0)
    dataset["evaluation_surprise"][:] = np.nan
    marked = {mark: len(points[0]) for mark, points in evaluations(dataset).items()}
    assert marked["held-out, beyond"] == dataset.attrs["held_out"]
    assert "held-out, within" not in marked


def test_a_surface_that_was_evaluated_everywhere_has_no_error_map():
    dataset = measured.interpolated_plane()
    dense = dataset.assign(loss_error=dataset["loss_error"] * 0)
    assert len(panels(surface(dense))) == 1


@pytest.mark.parametrize("worst", [0.1, 1.0, 1.3, 7.0, 1e6])
def test_the_tolerance_is_a_bound_of_the_colour_bands_and_the_worst_lies_within_them_if_they_are_few(worst: float):
    bounds, colours = error_bands(1.0, worst)
    assert 1.0 in bounds
    assert len(colours.colors) == len(bounds) - 1  # type: ignore[arg-type]
    assert bounds[-1] >= min(worst, 256)
    assert len(bounds) <= 13


def test_the_quadratic_model_is_dashed_at_the_levels_of_the_loss():
    """The model 0.27 + 6 alpha^2 + 3 beta^2 has the loss 2 on beta = 0 at alpha = 0.537."""
    plane = measured.plane(steps=31)
    model = (0.27 + 6 * plane["alpha"] ** 2 + 3 * plane["beta"] ** 2).transpose(*plane["loss"].dims)
    (axes,) = panels(surface(measured.with_losses(plane, model, quadratic=model)))
    solid, dashed = contours(axes)
    assert list(solid.levels) == list(dashed.levels)
    assert (solid.linestyles, dashed.linestyles) == ("solid", "dashed")
    k = int(np.argmin(np.abs(dashed.levels - np.log10(2))))
    reach = dashed.get_paths()[k].vertices[:, 0].max()
    assert reach == pytest.approx(np.sqrt((2 - 0.27) / 6), rel=0.02)


def test_the_quadratic_model_on_a_line_is_a_dashed_curve_that_does_not_change_the_range_of_the_loss():
    plain = measured.line()
    with_model = measured.with_losses(plain, plain["loss"], quadratic=1e4 * plain["alpha"] ** 2)
    axes = line(with_model).axes[0]
    (curve,) = (each for each in axes.lines if each.get_label() == "quadratic model")
    assert curve.get_linestyle() == "--"
    assert axes.get_ylim() == line(plain).axes[0].get_ylim()


def test_a_line_to_a_tolerance_shows_where_it_was_evaluated():
    dataset = measured.line(tol=0.01)
    axes = line(dataset).axes[0]
    marked = np.concatenate([np.transpose(each.get_data()) for each in axes.lines if each.get_linestyle() == "None"])
    expected = np.stack([dataset["evaluation_alpha"], dataset["evaluation_loss"]], axis=1)
    assert len(marked) == len(expected)
    assert {tuple(point) for point in marked} == {tuple(point) for point in expected}


def test_a_volume_is_shown_by_three_slices_through_its_center_on_one_colour_scale():
    dataset = measured.volume()
    figure = volume(dataset)
    assert [axes.get_title() for axes in panels(figure)] == [r"$\gamma$ = 0", r"$\beta$ = 0", r"$\alpha$ = 0"]
    assert [axes.get_xlabel() for axes in panels(figure)] == [r"$\alpha$", r"$\alpha$", r"$\beta$"]
    assert [axes.get_ylabel() for axes in panels(figure)] == [r"$\beta$", r"$\gamma$", r"$\gamma$"]
    assert len({axes.collections[0].get_clim() for axes in panels(figure)}) == 1
    xr.testing.assert_equal(middle_slices(dataset)[1]["loss"], dataset["loss"].sel(beta=0.0))


def test_an_axis_of_a_volume_that_does_not_reach_zero_is_cut_half_way():
    dataset = measured.volume().assign_coords(gamma=np.linspace(2, 4, 7))
    assert float(middle_slices(dataset)[0]["gamma"]) == 3.0


def test_of_several_planes_the_mean_and_the_spread_relative_to_it_are_drawn():
    dataset = measured.plane(planes=3)
    mean, spread = panels(surface(dataset))
    assert (mean.get_title(), spread.get_title()) == ("mean of 3 planes", "spread of 3 planes")
    assert bars(spread) == ["standard deviation / mean (%)"]
    trace = interactive.surface_3d(dataset).data[0]
    loss = dataset["loss"].transpose("plane", "beta", "alpha").to_numpy()
    np.testing.assert_allclose(trace.z, np.log10(loss.mean(axis=0)), rtol=1e-6)
    relative = 100 * loss.std(axis=0, ddof=1) / loss.mean(axis=0)
    np.testing.assert_allclose(trace.customdata[..., 1], relative, rtol=1e-5, atol=1e-6)


def test_of_several_lines_each_is_drawn_with_their_mean_and_one_standard_deviation():
    dataset = measured.line(planes=3)
    axes, losses = line(dataset).axes[0], dataset["loss"].transpose("plane", "alpha").to_numpy()
    thin = [each.get_ydata() for each in axes.lines if each.get_linewidth() < 1 and len(each.get_xdata()) == 21]  # type: ignore[arg-type]
    np.testing.assert_allclose(np.stack(thin), losses)
    (mean,) = (each for each in axes.lines if "mean of 3 directions" in str(each.get_label()))
    np.testing.assert_allclose(mean.get_ydata(), losses.mean(axis=0))  # type: ignore[arg-type]
    edge = axes.collections[0].get_paths()[0].vertices
    highest = losses[:, -1].mean() + losses[:, -1].std(ddof=1)
    assert edge[np.isclose(edge[:, 0], 1.0), 1].max() == pytest.approx(highest, rel=1e-9)


def test_logarithmic_axes_are_drawn_on_logarithmic_scales_in_both_kinds_of_figure():
    dataset = measured.log_spaced()
    (axes,) = panels(surface(dataset))
    assert (axes.get_xscale(), axes.get_yscale()) == ("symlog", "symlog")
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert {"−1", "0", "1"} <= set(ticks)
    scene = interactive.surface_3d(dataset).layout.scene
    assert list(scene.xaxis.ticktext) == ticks
    assert np.allclose(scene.xaxis.tickvals, -np.asarray(scene.xaxis.tickvals)[::-1])
    assert line(dataset.isel(beta=4)).axes[0].get_xscale() == "symlog"


def test_each_class_has_its_picture_and_all_share_one_colour_scale():
    figure = classes(measured.plane(by_class=True))
    assert [axes.get_title() for axes in panels(figure)] == [f"class {k}" for k in range(10)]
    assert len({axes.collections[0].get_clim() for axes in panels(figure)}) == 1
    assert [axes.get_xlabel() for axes in panels(figure)] == [""] * 5 + [r"$\alpha$"] * 5


def test_each_class_has_its_curve_on_a_line():
    dataset = measured.line(by_class=True)
    curves = {str(each.get_label()): each.get_ydata() for each in classes(dataset).axes[0].lines}
    np.testing.assert_allclose(curves["3"], dataset["class_loss"].sel({"class": 3}))  # type: ignore[arg-type]
    np.testing.assert_allclose(curves["all examples"], dataset["loss"])  # type: ignore[arg-type]


def test_of_many_classes_those_with_the_highest_loss_are_drawn_and_the_figure_states_it():
    """Thirteen classes, the loss of class k being k + 1 times that of all."""
    plane = measured.plane()
    loss = xr.concat([(k + 1) * plane["loss"] for k in range(13)], dim="class").assign_coords({"class": range(13)})
    dataset = plane.assign(class_loss=loss)
    assert worst_classes(dataset["class_loss"]) == list(range(3, 13))
    assert classes(dataset).get_suptitle() == "the 10 of 13 classes with the highest mean loss"


@pytest.mark.parametrize("of", ["plane", "volume"])
def test_no_picture_of_classes_without_their_losses_or_of_a_volume(of: str):
    dataset = measured.plane() if of == "plane" else measured.volume()
    if of == "volume":
        dataset = dataset.assign(class_loss=dataset["loss"].expand_dims({"class": [0, 1]}))
    with pytest.raises(InputError, match="class_loss on a line or a plane"):
        classes(dataset)
