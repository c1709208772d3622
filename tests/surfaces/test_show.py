"""How surfaces are shown: which belong into one figure, what is told of them, the numbers read off, the theory."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr
from measured import surfaces as measured

from lossatlas.results.blocks import FigureGroup, Picture
from lossatlas.results.catalogue import Catalogue
from lossatlas.surfaces.show import SURFACE, captions
from lossatlas.surfaces.show.numbers import numbers


def groups(*datasets: xr.Dataset) -> list[FigureGroup]:
    catalogue = Catalogue(datasets)
    return list(SURFACE.figures(list(catalogue), catalogue))


def main(*datasets: xr.Dataset) -> Picture:
    return groups(*datasets)[0].pictures[0]


def rows(dataset: xr.Dataset) -> dict[str, str]:
    """Name -> text of the key numbers."""
    found = list(numbers(dataset))
    assert {number.of for number in found} == {f"Network {dataset.attrs['network']}"}
    assert len({number.name for number in found}) == len(found)
    return {number.name: number.text for number in found}


def names(group: FigureGroup) -> list[str]:
    return [picture.name for picture in group.pictures]


def test_each_shape_of_region_has_its_own_part_the_most_telling_first():
    principal = measured.plane().assign_attrs(directions="principal components")
    polar = measured.polar().assign_attrs(directions="principal components")
    found = groups(principal, measured.volume(), measured.plane("B"), measured.line(), polar)
    titles = ["Loss on a plane", "Loss on a plane", "Loss in a volume", "Loss along a line"]
    assert [group.title for group in found] == [*titles, "Loss on a plane of principal components"]


def test_planes_of_most_networks_come_first_and_share_a_figure_that_has_the_view():
    first, second = groups(measured.plane("A"), measured.plane("B"), measured.hessian_plane())
    assert [dataset.attrs["network"] for dataset in first.datasets] == ["A", "B"]
    assert [dataset.attrs["directions"] for dataset in second.datasets] == ["Hessian axes"]
    assert names(first) == ["planes", "planes-3d"]
    assert [picture.view is not None for picture in first.pictures] == [True, False]


def test_interpolated_planes_share_a_figure_of_two_rows_and_a_polar_one_stands_alone():
    found = groups(measured.interpolated_plane("A"), measured.interpolated_plane("B"), measured.polar())
    assert [(len(group.datasets), len(group.pictures[0].figure.axes)) for group in found] == [(2, 4), (1, 1)]


def test_lines_of_other_data_or_other_directions_are_not_drawn_into_one_figure():
    line = measured.line()
    others = [line.assign_attrs(data="other data"), line.assign_attrs(directions="given"), measured.line("B")]
    assert sorted(len(group.datasets) for group in groups(line, *others)) == [1, 1, 2]


def test_pictures_of_classes_follow_the_surface_that_has_their_losses():
    (lines,) = groups(measured.line("B"), measured.line(by_class=True))
    assert names(lines) == ["lines", "line-classes"]
    (planes,) = groups(measured.plane(by_class=True))
    assert names(planes) == ["planes", "planes-3d", "plane-classes"]


@pytest.mark.parametrize("of", ["line", "plane"])
def test_the_method_of_an_interpolated_surface_tells_how_it_was_made_and_how_accurate_it_is(of: str):
    dataset = measured.line(tol=0.01) if of == "line" else measured.interpolated_plane()
    picture = main(dataset)
    method, a, percents = " ".join(picture.method), dataset.attrs, {"line": "1 %", "plane": "5 %"}[of]
    made = f"polyharmonic spline of log loss, {a['n_evaluations']} evaluations of the whole data for "
    assert f"{made}{dataset['loss'].size} cells, tolerance {percents}." in method
    tested = int(a["held_out"])
    assert f"{tested} of {tested} random held-out cells within {percents}: at least 95.0 % of the cells" in method
    assert a["note"] in method
    assert f"evaluated at {a['n_evaluations']} of {dataset['loss'].size} points on digits" in picture.how


def test_the_bound_on_the_share_of_cells_is_rounded_down():
    dataset = measured.interpolated_plane()
    for bound, printed in ((0.95059, "95.0"), (0.94999, "94.9"), (0.95, "95.0")):
        assert f"at least {printed} % of" in captions.held_out(dataset.assign_attrs(coverage_bound=bound))


def test_without_held_out_cells_nothing_is_stated_about_them():
    dense = measured.interpolated_plane().assign_attrs(held_out=0, coverage_bound=np.nan, method="exact grid", note="")
    assert "held-out" not in captions.accuracy(dense)
    assert not any("held-out" in name for name in rows(dense))
    assert "made by: exact grid" in captions.accuracy(dense)
    assert captions.accuracy(measured.plane()) == ""


def test_of_two_interpolated_surfaces_the_method_names_whose_accuracy_it_is():
    method = " ".join(main(measured.line("A", tol=0.01), measured.line("B", tol=0.01)).method)
    assert "The surface of network A was made by: " in method
    assert "The surface of network B was made by: " in method


def test_the_caption_names_the_network_only_where_it_is_the_center():
    elsewhere = measured.plane().assign_attrs(center_is_model=0)
    assert "a random plane through network A (cross)" in captions.surface([measured.plane()])
    assert "network A" not in captions.surface([elsewhere])
    both = captions.surface([measured.plane("A"), measured.plane("B")])
    assert "random planes through network A and network B (crosses), on one colour scale" in both


def test_no_picture_tells_of_two_networks_where_there_is_one_and_none_of_numerical_noise():
    for picture in (picture for group in groups(measured.plane(), measured.line()) for picture in group.pictures):
        told = " ".join((picture.caption, picture.how, picture.pitfall, *picture.method, picture.alt))
        assert "network B" not in told
        assert "×10⁻" not in told


def test_the_method_lists_the_seeds_of_several_draws_also_after_a_round_trip_through_a_file():
    dataset = measured.line(planes=3)
    stored = dataset.assign_attrs(seed=np.asarray(dataset.attrs["seed"]))
    assert "Seed of the directions: 0, 1, 2." in main(dataset).method
    assert main(stored).method == main(dataset).method
    assert "3 directions one by one" in captions.line([dataset])


def test_axes_that_are_not_linear_and_angles_are_named_in_the_method():
    both = "logarithmic on both sides of zero and linear near it"
    assert f"The scale of alpha is {both}, that of beta is {both}." in main(measured.log_spaced()).method
    assert not [sentence for sentence in main(measured.plane()).method if "scale of" in sentence]
    assert "The angle counts from the first direction towards the second." in main(measured.polar()).method


def test_of_many_classes_the_caption_states_how_many_are_drawn():
    dataset = xr.concat([measured.plane(by_class=True)] * 2, dim="class", data_vars="minimal")
    assert "The 10 of 20 classes with the highest mean loss." in captions.classes(dataset)
    assert "classes with the highest" not in captions.classes(measured.plane(by_class=True))


def test_the_loss_at_the_center_and_at_its_highest_are_read_off_with_their_errors():
    dataset = measured.plane()
    found, center = rows(dataset), dataset.sel(alpha=0, beta=0)
    value, stderr = map(float, found["loss at the trained point (digits)"].split(" ± "))
    assert (value, stderr) == pytest.approx((float(center["loss"]), float(center["loss_stderr"])), abs=1e-2)
    highest = float(found["highest loss, random plane"].split(" ± ")[0])
    assert highest == pytest.approx(float(dataset["loss"].max()), rel=1e-2)
    assert found["highest loss, random plane"] in main(dataset).alt


def test_cells_that_are_not_finite_are_counted_and_left_out_of_the_range():
    dataset = measured.without_cells(measured.plane())
    found = rows(dataset)
    assert found["cells that are not finite, random plane"] == f"{dataset.attrs['n_nonfinite']} of 81"
    assert "∞" not in " ".join(found.values())
    assert rows(measured.with_losses(measured.plane(), np.nan)) == {
        "cells that are not finite, random plane": "81 of 81"
    }


def test_the_share_of_cells_where_the_quadratic_model_holds_is_counted():
    line = measured.line().isel(alpha=slice(0, 5))
    loss = np.array([3.0, 2.0, 1.0, 2.0, 3.0])
    dataset = measured.with_losses(line, loss, quadratic=loss * [1.0, 1.09, 1.2, 0.95, 0.5])
    assert rows(dataset)["cells where the quadratic model is within 10 %, random line"] == "60.0 %"
    assert any(sentence.startswith("Dashed: the quadratic model") for sentence in main(dataset).method)


def test_the_spread_over_several_directions_is_read_off_their_own_losses():
    dataset = measured.line(planes=3)
    loss = dataset["loss"].transpose("plane", "alpha").to_numpy()
    relative = loss.std(axis=0, ddof=1) / loss.mean(axis=0)
    told = f"{100 * np.median(relative):.1f} % ({100 * relative.max():.1f} %)"
    assert rows(dataset)["standard deviation over mean, median (largest), mean of 3 directions"] == told
    assert "highest loss, mean of 3 planes" in rows(measured.plane(planes=3))


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
    found = rows(measured.plane(planes=planes, by_class=True))
    for which, k in (("highest", int(np.argmax(means))), ("lowest", int(np.argmin(means)))):
        told = re.fullmatch(r"(\d) \((\S+)\)", found[f"class of the {which} loss at the center"])
        assert told is not None
        assert int(told[1]) == k
        assert parsed(told[2]) == pytest.approx(means[k], rel=5e-3)


def test_the_theory_of_the_bound_is_needed_by_surfaces_to_a_tolerance_only():
    (topic,) = (topic for topic in SURFACE.theory() if topic.title == "Surfaces to a tolerance")
    assert topic.needed(measured.interpolated_plane())
    assert not topic.needed(measured.plane())
