"""What is answered to how the loss looks around the minimum, and the panels that sum it up."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from measured import surfaces as measured

from lossatlas.results.blocks import Answer
from lossatlas.results.catalogue import Catalogue
from lossatlas.surfaces.show import SURFACE
from lossatlas.surfaces.show.claims import slice_minimum
from lossatlas.surfaces.show.reading import highest_rise

EVERY = {
    "line": measured.line,
    "plane": measured.plane,
    "interpolated plane": measured.interpolated_plane,
    "several planes": lambda: measured.plane(planes=3),
    "several lines": lambda: measured.line(planes=3),
    "volume": measured.volume,
    "polar": measured.polar,
    "Hessian axes": measured.hessian_plane,
    "without cells": lambda: measured.without_cells(measured.plane()),
}


def answer(*datasets: xr.Dataset) -> Answer:
    catalogue = Catalogue(datasets)
    (found,) = SURFACE.answers(list(catalogue), catalogue)
    return found


def sure(dataset: xr.Dataset) -> xr.Dataset:
    """As if of millions of examples."""
    return dataset.assign(loss_rise_stderr=dataset["loss_rise_stderr"] * 0 + 1e-6)


def lowered(dataset: xr.Dataset) -> xr.Dataset:
    """With one cell surely below the trained point."""
    changed = sure(dataset).copy(deep=True)
    changed["loss"][dict.fromkeys(changed["loss"].dims, 1)] = 0.01
    return changed


@pytest.mark.parametrize("name", EVERY)
def test_every_slice_of_one_network_is_answered_briefly_and_without_a_second_network(name: str):
    found = answer(EVERY[name]())
    assert len(found.short.split()) <= 25
    assert len(found.finding.split()) <= 8
    assert len(found.quantity.split()) <= 6
    assert "A" in found.short
    assert "network B" not in found.sentence + found.limit
    assert found.sentence != found.short
    assert re.search(r"(One|Two|Three) of [\d,]+ directions", found.limit)


def test_the_rise_of_each_network_is_told_with_the_interval_of_its_largest_difference():
    planes = [measured.plane("A"), measured.plane("B")]
    found = answer(*planes)
    for plane in planes:
        value, (low, high) = highest_rise(plane)
        rise = float((plane["loss"] - plane["loss"].sel(alpha=0, beta=0)).max())
        assert value == pytest.approx(rise, rel=1e-6)
        assert low < rise < high
        told = re.search(rf"(\S+) \[(\S+), (\S+)\] around {plane.attrs['network']}", found.short)
        assert told is not None
        assert [float(each) for each in told.groups()] == pytest.approx([value, low, high], abs=0.06 * (high - low))
    assert "at network A to" in found.sentence
    assert "at network B to" in found.sentence


@pytest.mark.parametrize(
    ("make", "verdict", "words"),
    [
        (sure, "supported", "is the minimum of its plane"),
        (lambda plane: plane.assign(loss_rise_stderr=plane["loss_rise_stderr"] + 100), "undecided", "is undecided"),
        (lowered, "contradicted", "is not the minimum of its plane"),
    ],
)
def test_the_words_are_those_of_the_claim(make, verdict: str, words: str):
    dataset = make(measured.plane())
    found = answer(dataset)
    assert [found.claim] == list(slice_minimum(dataset))
    assert found.claim is not None
    assert found.claim.verdict == verdict
    assert words in found.sentence
    assert ("undecided" in found.short) == (verdict == "undecided")


def test_of_two_networks_the_gravest_verdict_stands_for_both_and_each_is_named():
    found = answer(sure(measured.plane("A")), lowered(measured.plane("B")))
    assert found.claim is not None
    assert found.claim.verdict == "contradicted"
    assert found.finding == "network B is the minimum of its plane"
    assert "Network B is not the minimum of its plane" in found.sentence
    assert "network A is the minimum of its plane" in found.sentence


def test_a_lower_point_on_another_slice_is_not_concealed():
    found = answer(sure(measured.plane()), lowered(measured.line()))
    assert "The random line has a point significantly below network A, by" in found.sentence


def test_many_networks_or_long_names_are_told_as_a_range():
    planes = [
        measured.plane("B").assign_attrs(network=f"a name of many words, {k}", model_fingerprint=str(k))
        for k in range(5)
    ]
    many, long = answer(*planes), answer(*planes[:2])
    assert "around 5 networks" in many.short
    assert "whether 5 networks are the minima" in many.sentence or "5 networks are the minima" in many.sentence
    assert max(len(each.short.split()) for each in (many, long)) <= 25


def test_a_surface_without_a_finite_cell_answers_nothing():
    empty = Catalogue([measured.with_losses(measured.plane(), np.nan)])
    assert list(SURFACE.answers(list(empty), empty)) == []
    assert list(SURFACE.panels(list(empty), empty)) == []


@pytest.mark.parametrize("name", EVERY)
def test_every_slice_has_a_panel_with_its_labels(name: str):
    catalogue = Catalogue([EVERY[name]()])
    (panel,) = SURFACE.panels(list(catalogue), catalogue)
    axes = Figure(figsize=(2.1, 1.9)).add_subplot()
    panel.draw(axes)
    axes.figure.canvas.draw()  # type: ignore[union-attr]
    assert axes.get_xlabel()
    assert axes.get_ylabel()


def test_the_panels_of_two_networks_share_one_colour_scale():
    catalogue = Catalogue([measured.plane("A"), measured.plane("B"), measured.line("A")])
    panels = list(SURFACE.panels(list(catalogue), catalogue))
    assert [panel.title for panel in panels] == ["Loss around network A", "Loss around network B"]
    axes = Figure().subplots(1, 2)
    for panel, each in zip(panels, axes, strict=True):
        panel.draw(each)
    assert len({each.collections[0].get_clim() for each in axes}) == 1
