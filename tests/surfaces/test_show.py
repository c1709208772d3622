"""How surfaces are shown: which belong into one figure, their captions, the numbers read off, the theory."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr
from measured import surfaces as measured

from lossatlas.results.blocks import FigureGroup
from lossatlas.results.catalogue import Catalogue
from lossatlas.surfaces.show import SURFACE, captions
from lossatlas.surfaces.show.numbers import numbers


def groups(*datasets: xr.Dataset) -> list[FigureGroup]:
    catalogue = Catalogue(datasets)
    return list(SURFACE.figures(list(catalogue), catalogue))


def text(dataset: xr.Dataset) -> str:
    return " ".join(numbers(dataset))


def names(group: FigureGroup) -> list[str]:
    return [picture.name for picture in group.pictures]


def test_each_shape_of_region_has_its_own_part_and_planes_of_principal_components_theirs():
    principal = measured.plane().assign_attrs(directions="principal components")
    polar = measured.polar().assign_attrs(directions="principal components")
    found = groups(principal, measured.volume(), measured.plane("B"), measured.line(), polar)
    titles = ["Loss along a line", "Loss on a plane", "Loss on a plane", "Loss in a volume"]
    assert [group.title for group in found] == [*titles, "Loss on a plane of principal components"]


def test_planes_of_two_networks_share_a_figure_and_each_has_its_view_in_space():
    (group,) = groups(measured.plane("A"), measured.plane("B"))
    assert [dataset.attrs["network"] for dataset in group.datasets] == ["A", "B"]
    assert names(group) == ["planes", "plane-3d", "plane-3d"]
    assert [picture.interactive is not None for picture in group.pictures] == [False, True, True]


def test_an_interpolated_plane_has_a_figure_of_its_own_and_so_has_a_polar_one():
    found = groups(measured.interpolated_plane("A"), measured.interpolated_plane("B"), measured.polar())
    assert sorted(len(group.pictures[0].figure.axes) for group in found) == [1, 2, 2]
    assert all(len(group.datasets) == 1 for group in found)


def test_lines_of_other_data_or_other_directions_are_not_drawn_into_one_figure():
    line = measured.line()
    others = [line.assign_attrs(data="other data"), line.assign_attrs(directions="given"), measured.line("B")]
    assert sorted(len(group.datasets) for group in groups(line, *others)) == [1, 1, 2]


def test_pictures_of_classes_follow_the_surface_that_has_their_losses():
    (lines,) = groups(measured.line("B"), measured.line(by_class=True))
    assert names(lines) == ["lines", "line-classes"]
    (planes,) = groups(measured.plane(by_class=True))
    assert names(planes) == ["planes", "plane-3d", "plane-classes"]


@pytest.mark.parametrize("of", ["line", "plane"])
def test_the_caption_of_an_interpolated_surface_tells_how_it_was_made_and_how_accurate_it_is(of: str):
    dataset = measured.line(tol=0.01) if of == "line" else measured.interpolated_plane()
    caption = (captions.line if of == "line" else captions.surface)([dataset])
    a, percents = dataset.attrs, {"line": "1 %", "plane": "5 %"}[of]
    made = f"polyharmonic spline of log loss, {a['n_evaluations']} evaluations of the whole data for "
    assert f"{made}{dataset['loss'].size} pixels, tolerance {percents}." in caption
    tested = int(a["held_out"])
    assert f"{tested} of {tested} random held-out pixels within {percents}: at least 95.0 % of the pixels" in caption
    assert a["note"] in caption
    assert "Evaluations of the whole data" not in caption


def test_the_bound_on_the_share_of_pixels_is_rounded_down():
    dataset = measured.interpolated_plane()
    for bound, printed in ((0.95059, "95.0"), (0.94999, "94.9"), (0.95, "95.0")):
        assert f"at least {printed} % of" in captions.held_out(dataset.assign_attrs(coverage_bound=bound))


def test_without_held_out_pixels_nothing_is_stated_about_them():
    dense = measured.interpolated_plane().assign_attrs(held_out=0, coverage_bound=np.nan, method="exact grid", note="")
    assert "held-out" not in captions.accuracy(dense)
    assert "held-out" not in text(dense)
    assert "Accuracy: exact grid" in captions.accuracy(dense)
    assert captions.accuracy(measured.plane()) == ""


def test_of_two_interpolated_surfaces_the_caption_names_whose_accuracy_it_is():
    caption = captions.line([measured.line("A", tol=0.01), measured.line("B", tol=0.01)])
    assert "Accuracy, network A: " in caption
    assert "Accuracy, network B: " in caption


def test_the_caption_names_the_trained_point_only_where_it_is_the_center():
    elsewhere = measured.plane().assign_attrs(center_is_model=0)
    assert "through the trained point (cross)" in captions.surface([measured.plane()])
    assert "trained point" not in captions.surface([elsewhere])


def test_the_caption_of_several_draws_lists_their_seeds_also_after_a_round_trip_through_a_file():
    dataset = measured.line(planes=3)
    stored = dataset.assign_attrs(seed=np.asarray(dataset.attrs["seed"]))
    assert "Seed: 0, 1, 2." in captions.line([dataset])
    assert captions.line([stored]) == captions.line([dataset])
    assert "each of 3 directions" in captions.line([dataset])


def test_axes_that_are_not_linear_are_named():
    both = "logarithmic on both sides of zero and linear near it"
    caption = captions.surface([measured.log_spaced()])
    assert f"The scale of alpha is {both}, that of beta is {both}." in caption
    assert "scale of" not in captions.surface([measured.plane()]).replace("colour scale", "")


def test_of_many_classes_the_caption_states_how_many_are_drawn():
    dataset = xr.concat([measured.plane(by_class=True)] * 2, dim="class", data_vars="minimal")
    assert "The 10 of 20 classes with the highest mean loss." in captions.classes(dataset)
    assert "classes with the highest" not in captions.classes(measured.plane(by_class=True))


def test_the_loss_at_the_center_and_its_range_are_read_off():
    dataset = measured.plane()
    loss = dataset["loss"].to_numpy()
    sentence = next(iter(numbers(dataset)))
    assert sentence.startswith("Network A: the loss is ")
    assert re.search(r"at alpha = 0, beta = 0, and between (\S+) and (\S+) over the 81 cells\.$", sentence)
    assert f"between {loss.min():.4g} and {loss.max():.4g} over" in sentence


def test_cells_that_are_not_finite_are_counted_and_left_out_of_the_range():
    dataset = measured.without_cells(measured.plane())
    assert f"{dataset.attrs['n_nonfinite']} of its cells are not finite and are left out." in text(dataset)
    assert "∞" not in text(dataset)
    assert text(measured.with_losses(measured.plane(), np.nan)) == "Network A: no cell is finite."


def test_the_share_of_cells_where_the_quadratic_model_holds_is_counted():
    line = measured.line().isel(alpha=slice(0, 5))
    loss = np.array([3.0, 2.0, 1.0, 2.0, 3.0])
    dataset = measured.with_losses(line, loss, quadratic=loss * [1.0, 1.09, 1.2, 0.95, 0.5])
    assert "within 10 % of the loss on 60.0 % of the finite cells" in text(dataset)
    assert "Dashed: the quadratic model" in captions.line([dataset])


def test_the_spread_over_several_directions_is_read_off_their_own_losses():
    dataset = measured.line(planes=3)
    loss = dataset["loss"].transpose("plane", "alpha").to_numpy()
    relative = loss.std(axis=0, ddof=1) / loss.mean(axis=0)
    assert f"{100 * np.median(relative):.1f} % of the mean in the median of the cells" in text(dataset)
    assert f"and {100 * relative.max():.1f} % at most" in text(dataset)
    assert text(dataset).startswith("Network A: the mean loss over 3 directions is ")
    assert text(measured.plane(planes=3)).startswith("Network A: the mean loss over 3 planes is ")


def test_the_center_of_a_polar_surface_has_no_angle():
    assert re.search(r"at radius = 0, and between", text(measured.polar()))
    assert "The angle counts from the first direction" in captions.surface([measured.polar()])


def parsed(number: str) -> float:
    """3.4×10⁻⁵ as a float."""
    return float(number.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")).replace("×10", "e"))


@pytest.mark.parametrize("planes", [1, 3])
def test_the_classes_with_the_highest_and_the_lowest_loss_at_the_center_are_named(planes: int):
    """Every draw of directions has the same center; the losses of its single examples are the oracle."""
    objective = measured.objective("A")
    losses, labels = objective.samples(objective.point)["loss"].values, objective.batches.labels()
    assert labels is not None
    means = [float(losses[labels == k].mean()) for k in range(10)]
    high, low = int(np.argmax(means)), int(np.argmin(means))
    found = re.search(
        r"highest for class (\d) \((\S+)\) and lowest for class (\d) \((\S+)\)",
        text(measured.plane(planes=planes, by_class=True)),
    )
    assert found is not None
    assert (int(found[1]), int(found[3])) == (high, low)
    assert [parsed(found[2]), parsed(found[4])] == pytest.approx([means[high], means[low]], rel=1e-3)


def test_the_theory_of_the_bound_is_needed_by_surfaces_to_a_tolerance_only():
    (topic,) = (topic for topic in SURFACE.theory() if topic.title == "Surfaces to a tolerance")
    assert topic.needed(measured.interpolated_plane())
    assert not topic.needed(measured.plane())
