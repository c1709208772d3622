"""What is said of a surface: how it was made, how sure it is, and what can be read off it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import made_datasets as made
import numpy as np
import pytest
import xarray as xr

from lossatlas.report import captions, observations, report
from lossatlas.report.document import Document
from lossatlas.report.sections import document

ACCURATE = made.with_tolerance(made.plane(steps=51))  # 11 x 11 nodes and 59 held-out pixels

EVERY_KIND = {
    "plane to a tolerance": ACCURATE,
    "line to a tolerance": made.with_tolerance(made.line(steps=201)),
    "Hessian axes": made.with_quadratic(made.plane()),
    "line with the quadratic model": made.with_quadratic(made.line()),
    "volume": made.volume(nonfinite=True),
    "polar": made.polar(),
    "several planes": made.several(made.plane(steps=9)),
    "several lines": made.several(made.line()),
    "logarithmic axes": made.log_spaced(),
    "classes": made.with_classes(made.plane(steps=9)),
    "classes of a line": made.with_classes(made.line()),
}


@pytest.fixture
def without_latex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def titles(contents: Document) -> set[str]:
    return {inner.title for section in contents.sections for inner in section.subsections}


def said(dataset: xr.Dataset) -> str:
    return " ".join(observations.surface(dataset))


@pytest.mark.parametrize("caption", [captions.surface([ACCURATE]), captions.line([EVERY_KIND["line to a tolerance"]])])
def test_the_caption_of_an_interpolated_surface_says_how_it_was_made_and_how_sure_it_is(caption: str):
    assert re.search(
        r"polyharmonic spline of log loss, (180|100) evaluations of the whole data for (2,601|201) pixels", caption
    )
    assert "tolerance 1 %" in caption
    assert "58 of 59 random held-out pixels within 1 %: at least 92.2 % of the pixels at 95 % confidence." in caption
    assert "2.4 %, an estimate" in caption or "2.3 %, an estimate" in caption
    assert "Error of the data: 3.1 %" in caption
    assert ACCURATE.attrs["note"] in caption
    assert caption.count("Evaluations of the whole data") == 0


def test_the_bound_on_the_share_of_pixels_is_rounded_down():
    assert "at least 95.0 % of" in captions.held_out(ACCURATE.assign_attrs(coverage_bound=0.95059))
    assert "at least 94.9 % of" in captions.held_out(ACCURATE.assign_attrs(coverage_bound=0.94999))
    assert "at least 95.0 % of" in captions.held_out(ACCURATE.assign_attrs(coverage_bound=0.95))


def test_without_held_out_pixels_nothing_is_said_of_them():
    bare = ACCURATE.assign_attrs(held_out=0, coverage_bound=float("nan"), method="exact grid", note="")
    assert "held-out" not in captions.accuracy(bare)
    assert "Accuracy: exact grid" in captions.accuracy(bare)
    assert captions.accuracy(made.plane()) == ""


def test_of_two_interpolated_surfaces_the_caption_names_whose_accuracy_it_is():
    other = made.with_tolerance(made.line("B", steps=201), beyond=0)
    caption = captions.line([EVERY_KIND["line to a tolerance"], other])
    assert "Accuracy, network A: " in caption
    assert "Accuracy, network B: " in caption


def test_the_observation_sets_the_estimated_worst_pixel_beside_the_error_of_the_data():
    sentences = said(ACCURATE)
    assert "58 of 59 random held-out pixels within 1 %" in sentences
    estimate = 100 * float(ACCURATE["loss_error"].max())
    assert (
        f"worst pixel is estimated to be {estimate:.2g} % off; the error of the data is 3.1 % of the loss" in sentences
    )


def test_the_share_of_cells_where_the_quadratic_model_holds_is_counted():
    alpha = np.linspace(-1, 1, 5)
    loss = xr.DataArray(1 + alpha**2, dims="alpha", coords={"alpha": alpha})
    dataset = xr.Dataset({"loss": loss, "quadratic": loss * [1.0, 1.09, 1.2, 0.95, 0.5]}, attrs={"kind": "surface"})
    assert "within 10 % of the loss on 60.0 % of the finite cells" in said(dataset)
    assert "Dashed: the quadratic model" in captions.line([dataset])


def test_the_spread_over_several_planes_is_read_off():
    """Three planes with the factors 1, 1 + 0.2 r and 1 + 0.4 r: at r = 1 a spread of 0.2 / 1.2."""
    sentences = said(made.several(made.line(), planes=3))
    assert "the mean loss over 3 directions is 0.27 at alpha = 0" in sentences
    assert "16.7 % at most" in sentences
    assert "each of 3 directions" in captions.line([made.several(made.line(), planes=3)])
    assert "the mean over 5 planes" in captions.surface([EVERY_KIND["several planes"]])
    assert said(EVERY_KIND["several planes"]).startswith("Network A: the mean loss over 5 planes is 0.27 at alpha = 0,")


def test_the_centre_of_a_polar_surface_has_no_angle():
    assert "0.2700 ± 0.0062 at radius = 0, and between" in said(made.polar())
    assert "The angle counts from the first direction" in captions.surface([made.polar()])


def test_axes_that_are_not_linear_are_named():
    assert (
        "The scale of alpha is logarithmic on both sides of zero and linear near it, that of beta is logarithmic."
        in captions.surface([made.log_spaced()])
    )
    assert "scale of" not in captions.surface([made.plane()]).replace("colour scale", "")


def test_the_classes_with_the_highest_and_the_lowest_loss_at_the_centre_are_named():
    sentences = said(EVERY_KIND["classes"])
    assert "the loss is highest for class 9 (0.3915) and lowest for class 0 (0.1485)" in sentences
    assert "10 of 13 classes" in captions.classes(made.with_classes(made.plane(), classes=13))


def test_the_theory_of_the_bound_is_printed_for_surfaces_to_a_tolerance_only():
    title = "Surfaces to a tolerance"
    assert title not in titles(document([made.plane(steps=5)], [], "", {}))
    assert title in titles(document([made.with_tolerance(made.plane(steps=9), every=4)], [], "", {}))


@pytest.mark.parametrize("name", EVERY_KIND)
def test_every_kind_of_surface_is_reported_with_no_attribute_but_its_kind(
    name: str, tmp_path: Path, without_latex: None
):
    bare = EVERY_KIND[name].assign_attrs()
    bare.attrs = {"kind": "surface"}
    page = report([bare], tmp_path).html.read_text(encoding="utf-8")
    words = re.sub(r"<script>.*?</script>|data:image[^\"]*", "", page, flags=re.DOTALL)
    assert "Observation." in words
    assert "nan" not in re.sub(r"<[^>]*>", " ", words).lower().split()


def test_a_report_holds_a_figure_of_each_kind_and_one_to_turn_where_there_is_a_height_or_a_block():
    items = [made.with_tolerance(made.plane("A")), made.with_tolerance(made.plane("B")), made.volume(steps=5)]
    items += [made.with_classes(made.polar(rings=5, spokes=8), 3), made.plane("A"), made.plane("B")]
    pictures = document(items, [], "", {}).pictures
    # An interpolated plane stands alone with its error map, the polar one by itself; the exact two share a figure.
    alone = [len(picture.figure.axes) for picture in pictures if re.fullmatch(r"planes(-\d)?", picture.name)]
    assert sorted(alone) == [1, 2, 2, 2]
    assert {"volume", "plane-classes"} <= {picture.name for picture in pictures}
    assert sum(picture.interactive is not None for picture in pictures) == 6
    assert len({picture.name for picture in pictures}) == len(pictures)


def test_the_plane_of_a_road_that_was_interpolated_is_shown_once_more_with_its_error_map():
    plane, road = made.principal_plane(), made.trajectory()
    with_map, exact = (document([each, road], [], "", {}) for each in (made.with_tolerance(plane), plane))
    assert "road-error" in {picture.name for picture in with_map.pictures}
    assert "road-error" not in {picture.name for picture in exact.pictures}
    assert any(
        "polyharmonic spline of log loss" in picture.caption for picture in with_map.pictures if picture.name == "road"
    )
