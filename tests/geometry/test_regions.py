"""Lines and planes: index to point is a pure function, and impossible regions are refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from oracles.refusals import refused

import lossatlas as la
from lossatlas.errors import DirectionError, InputError
from lossatlas.geometry import regions

CENTER = torch.tensor([1.0, -2.0, 0.5])
FIRST, SECOND, THIRD = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.5, 0.0, -1.0]])


def test_a_point_is_the_center_and_so_much_of_each_direction():
    plane = la.plane(CENTER, FIRST, SECOND, span=((-1.0, 3.0), (0.0, 1.0)), steps=(5, 3))
    assert plane.shape == (5, 3)
    assert plane.dims == ("alpha", "beta")
    assert len(list(plane.indices())) == 15
    for i, alpha in enumerate([-1.0, 0.0, 1.0, 2.0, 3.0]):
        for j, beta in enumerate([0.0, 0.5, 1.0]):
            assert plane.point(i, j).tolist() == [1.0 + alpha, -2.0 + 2 * beta, 0.5 + beta]


def test_the_center_is_on_an_odd_symmetric_grid_bit_for_bit():
    center = torch.randn(10, generator=torch.Generator().manual_seed(0)) * 1e-3
    direction = torch.randn(10, generator=torch.Generator().manual_seed(1)) * 1e3
    for steps in (3, 11, 51, 101):
        line = la.line(center, direction, span=0.7, steps=steps)
        assert torch.equal(line.point(steps // 2), center)
        assert line.coordinates[0][steps // 2] == 0


def test_zero_is_exactly_zero_wherever_it_falls_on_the_grid():
    for below in range(1, 12):
        for above in range(1, 12):
            (axis,) = la.line(CENTER, FIRST, span=(-0.1 * below, 0.1 * above), steps=below + above + 1).coordinates
            assert axis[below] == 0
            np.testing.assert_allclose(axis, 0.1 * np.arange(-below, above + 1), atol=1e-15)


def test_spans_are_half_widths_or_pairs():
    assert la.line(CENTER, FIRST, span=2, steps=2).coordinates[0].tolist() == [-2, 2]
    assert la.line(CENTER, FIRST, span=(-1, 3), steps=2).coordinates[0].tolist() == [-1, 3]
    same = la.plane(CENTER, FIRST, SECOND, span=(-1.0, 3.0), steps=2)
    np.testing.assert_array_equal(same.coordinates, [[-1, 3], [-1, 3]])
    mixed = la.plane(CENTER, FIRST, SECOND, span=(2.0, (-1.0, 3.0)), steps=2)
    np.testing.assert_array_equal(mixed.coordinates, [[-2, 2], [-1, 3]])


def test_a_region_keeps_its_own_center():
    center = CENTER.clone()
    line = la.line(center, FIRST, steps=3)
    center.zero_()
    assert torch.equal(line.point(1), CENTER)
    line.point(1).zero_()
    assert torch.equal(line.point(1), CENTER)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_volume_has_a_third_axis():
    volume = regions.volume(CENTER, FIRST, SECOND, THIRD, span=((-1.0, 1.0), (0.0, 1.0), (0.0, 6.0)), steps=(3, 2, 4))
    assert volume.shape == (3, 2, 4)
    assert volume.dims == ("alpha", "beta", "gamma")
    assert len(set(volume.indices())) == 24
    for i, alpha in enumerate([-1.0, 0.0, 1.0]):
        for j, beta in enumerate([0.0, 1.0]):
            for k, gamma in enumerate([0.0, 2.0, 4.0, 6.0]):
                expected = [1.0 + alpha + 0.5 * gamma, -2.0 + 2 * beta, 0.5 + beta - gamma]
                assert volume.point(i, j, k).tolist() == expected
    assert torch.equal(volume.point(1, 0, 0), CENTER)


def test_a_volume_takes_three_half_widths():
    volume = regions.volume(CENTER, FIRST, SECOND, THIRD, span=(1.0, 2, 0.5), steps=3)
    np.testing.assert_array_equal(volume.coordinates, [[-1, 0, 1], [-2, 0, 2], [-0.5, 0, 0.5]])


def test_polar_axes_run_round_the_center():
    first, second = drawn(0, 2, 40)
    center = drawn(1, 40)
    polar = regions.polar(center, first, second, radius=2.0, steps=(3, 13))
    assert polar.dims == ("radius", "angle")
    radii, angles = polar.coordinates
    assert radii.tolist() == [0, 1, 2]
    np.testing.assert_allclose(angles, np.deg2rad(30) * np.arange(13), rtol=1e-15)
    for i, j in polar.indices():
        r, phi = radii[i], angles[j]
        expected = center.double() + r * math.cos(phi) * first.double() + r * math.sin(phi) * second.double()
        torch.testing.assert_close(polar.point(i, j), expected.float(), rtol=0, atol=2e-6)


def test_the_middle_of_a_disc_is_the_center_and_its_seam_closes_bit_for_bit():
    center, first, second = drawn(0, 3, 40)
    polar = regions.polar(center, first, second, radius=0.7, steps=(4, 9))
    for j in range(9):
        assert torch.equal(polar.point(0, j), center)
    for i in range(4):
        assert torch.equal(polar.point(i, 0), polar.point(i, 8))
    assert not torch.equal(polar.point(3, 0), polar.point(3, 7))


def test_regions_know_their_names():
    assert la.line(CENTER, FIRST).name == "line"
    assert la.plane(CENTER, FIRST, SECOND).name == "plane"
    assert regions.volume(CENTER, FIRST, SECOND, THIRD).name == "volume"
    assert regions.polar(CENTER, FIRST, SECOND).name == "polar"
    assert regions.polar(CENTER, FIRST, SECOND).chart == "polar"
    assert regions.volume(CENTER, FIRST, SECOND, THIRD).chart == "flat"


def test_log_axes_are_geometric_on_both_sides_of_an_exact_zero():
    axis = la.line(CENTER, FIRST, span=2.0, steps=9, spacing="log").coordinates[0]
    np.testing.assert_allclose(axis, [-2, -0.2, -0.02, -0.002, 0, 0.002, 0.02, 0.2, 2], rtol=1e-14)
    assert axis[4] == 0
    np.testing.assert_array_equal(axis, -axis[::-1])
    assert torch.equal(la.line(CENTER, FIRST, steps=9, spacing="log").point(4), CENTER)
    assert la.line(CENTER, FIRST, steps=3, spacing="log").coordinates[0].tolist() == [-1, 0, 1]
    even = la.line(CENTER, FIRST, steps=4, spacing="log", smallest=0.25).coordinates[0]
    np.testing.assert_allclose(even, [-1, -0.25, 0.25, 1], rtol=1e-15)


def test_a_zero_of_a_tiny_log_axis_leaves_its_smallest_values_alone():
    axis = la.line(CENTER, FIRST, span=1.0, steps=5, spacing="log", smallest=1e-15).coordinates[0]
    np.testing.assert_allclose(axis, [-1, -1e-15, 0, 1e-15, 1], rtol=1e-14)


def test_a_positive_log_axis_is_geometric_from_end_to_end():
    plane = la.plane(CENTER, FIRST, SECOND, span=((0.01, 100.0), 1.0), steps=(5, 3), spacing="log", smallest=0.1)
    np.testing.assert_allclose(plane.coordinates[0], [0.01, 0.1, 1, 10, 100], rtol=1e-14)
    np.testing.assert_allclose(plane.coordinates[1], [-1, 0, 1], rtol=1e-14)


def test_a_center_that_is_asked_for_is_there():
    assert 0 in la.line(CENTER, FIRST, steps=5, with_center=True).coordinates[0]
    assert 0 in la.line(CENTER, FIRST, steps=7, spacing="log", with_center=True).coordinates[0]
    assert 0 in la.line(CENTER, FIRST, span=(-1.0, 2.0), steps=4, with_center=True).coordinates[0]


@pytest.mark.parametrize(
    "region",
    [
        la.line(drawn(0, 30), drawn(1, 30), span=(-0.3, 2.0), steps=4),
        la.plane(
            drawn(0, 30), *(drawn(1, 2, 30) * torch.tensor([[1e-2], [1e2]])), span=((-1.0, 3.0), 2.0), steps=(4, 3)
        ),
        regions.volume(drawn(0, 30), *drawn(1, 3, 30), span=(1.0, 2.0, 0.1), steps=(3, 2, 4)),
        regions.polar(drawn(0, 30), *drawn(1, 2, 30), radius=3.0, steps=(4, 6)).zoom(((0.5, 3.0), (0.1, 6.0))),
    ],
    ids=lambda region: region.name,
)
def test_projecting_is_the_inverse_of_a_point(region):
    region = dataclasses.replace(region, center=region.center.double(), directions=region.directions.double())
    coordinates = np.stack([axis.ravel() for axis in np.meshgrid(*region.coordinates, indexing="ij")], axis=1)
    points = torch.stack([region.at(*row) for row in coordinates.tolist()])
    np.testing.assert_allclose(region.project(points), coordinates, rtol=1e-11, atol=1e-11)


def test_a_point_off_the_plane_is_projected_to_the_nearest():
    plane = la.plane(CENTER, FIRST, SECOND)
    normal = torch.tensor([0.0, 1.0, -2.0])  # orthogonal to both
    np.testing.assert_allclose(plane.project((plane.at(0.25, -0.5) + 3 * normal)[None]), [[0.25, -0.5]], atol=1e-6)


def test_a_plane_through_three_points_is_undistorted_and_holds_them():
    corners = drawn(0, 3, 200)
    a, b, c = corners
    plane = regions.plane_through(a, b, c, margin=0.25, steps=(7, 5))
    assert plane.shape == (7, 5)
    torch.testing.assert_close(plane.directions @ plane.directions.T, torch.eye(2), rtol=0, atol=1e-6)
    found = plane.project(corners)
    np.testing.assert_allclose(found[:2], [[0, 0], [float((b - a).norm()), 0]], atol=1e-5)
    assert found[2, 1] > 0
    distances = np.linalg.norm(found[:, None] - found[None], axis=2)
    np.testing.assert_allclose(distances, torch.cdist(corners, corners), atol=1e-4)
    for row, point in zip(found.tolist(), corners, strict=True):
        torch.testing.assert_close(plane.at(*row), point, rtol=0, atol=1e-5)
    for axis, values in zip(plane.coordinates, found.T, strict=True):
        extent = values.max() - values.min()
        np.testing.assert_allclose(
            [axis[0], axis[-1]], [values.min() - extent / 4, values.max() + extent / 4], atol=1e-4
        )


def test_three_points_nearly_on_a_line_still_span_a_plane():
    a, b = drawn(0, 2, 200).double()
    aside = drawn(1, 200).double()
    along = (b - a) / (b - a).norm()
    aside -= (aside @ along) * along
    c = (a + b) / 2 + 1e-5 * aside / aside.norm()
    plane = regions.plane_through(a, b, c)
    np.testing.assert_allclose(plane.project(c[None]), [[float((b - a).norm()) / 2, 1e-5]], rtol=1e-7)
    torch.testing.assert_close(plane.directions @ plane.directions.T, torch.eye(2).double(), rtol=0, atol=1e-13)


def test_a_midpoint_that_rounding_put_off_the_line_is_still_on_it():
    for seed in range(20):
        a, b = drawn(seed, 2, 1000)
        with pytest.raises(DirectionError, match="one line"):
            regions.plane_through(a, b, 0.3 * a + 0.7 * b)


def test_zooming_keeps_center_and_directions_and_meets_the_old_grid():
    plane = la.plane(CENTER, FIRST, SECOND, span=((-1.0, 1.0), (-0.3, 0.7)), steps=(21, 11))
    near = plane.zoom(0.2, steps=(9, 5), at=(0.3, 0.1))
    assert near.center is plane.center
    assert near.directions is plane.directions
    assert near.shape == (9, 5)
    np.testing.assert_allclose(near.coordinates[0], np.linspace(0.1, 0.5, 9), atol=1e-15)
    np.testing.assert_allclose(near.coordinates[1], np.linspace(-0.1, 0.3, 5), atol=1e-15)
    assert len(set(near.coordinates[0]) & set(plane.coordinates[0])) == 5  # 0.1, 0.2, .. 0.5, bit for bit
    assert len(set(near.coordinates[1]) & set(plane.coordinates[1])) == 5
    pairs = plane.zoom(((0.0, 0.5), 0.1))
    assert pairs.shape == plane.shape
    ends = [(axis[0], axis[-1]) for axis in pairs.coordinates]
    np.testing.assert_allclose(ends, [(0.0, 0.5), (-0.1, 0.1)], rtol=1e-15, atol=1e-15)


def test_a_zoom_far_below_the_old_grid_keeps_its_own_values():
    line = la.line(CENTER, FIRST, steps=3).zoom(1e-12, steps=5)
    np.testing.assert_allclose(line.coordinates[0], 1e-12 * np.array([-1, -0.5, 0, 0.5, 1]), rtol=1e-12)


def test_a_fingerprint_is_of_the_tensors_and_the_chart_and_not_of_the_axes():
    plane = la.plane(CENTER, FIRST, SECOND)
    assert plane.fingerprint() == la.plane(CENTER.clone(), FIRST, SECOND, span=3.0, steps=4).fingerprint()
    assert plane.fingerprint() == plane.zoom(0.1, steps=3).fingerprint()
    others = [
        la.plane(CENTER + 1e-6, FIRST, SECOND),
        la.plane(CENTER, SECOND, FIRST),
        la.plane(CENTER.double(), FIRST, SECOND),
        la.line(CENTER, FIRST),
        regions.polar(CENTER, FIRST, SECOND),
    ]
    assert len({plane.fingerprint(), *(other.fingerprint() for other in others)}) == 6


def test_the_origin_of_the_directions_outlives_a_zoom_and_is_no_part_of_the_fingerprint():
    plane = regions.plane_through(CENTER, CENTER + FIRST, CENTER + SECOND)
    given = la.plane(CENTER, *plane.directions)
    assert plane.fingerprint() == given.fingerprint()
    assert given.provenance() == {"region": "plane", "region_fingerprint": given.fingerprint(), "directions": "given"}
    for region in (plane, plane.zoom(0.1, steps=3), dataclasses.replace(plane, slopes=(0.0, 0.0))):
        assert region.provenance() == plane.provenance() == given.provenance() | {"directions": "through three points"}


def test_the_quadratic_model_is_slope_and_curvature_along_each_direction():
    flat = dataclasses.replace(la.plane(CENTER, FIRST, SECOND), slopes=(1.0, -2.0), curvatures=(4.0, -6.0))
    assert flat.quadratic_rise(0.5, 2.0) == 0.5 - 4.0 + 0.5 - 12.0
    polar = dataclasses.replace(regions.polar(CENTER, FIRST, SECOND), slopes=(1.0, -2.0), curvatures=(4.0, -6.0))
    assert polar.quadratic_rise(2.0, math.pi / 2) == pytest.approx(-4.0 - 12.0, abs=1e-12)
    with pytest.raises(InputError, match="eigen_plane"):
        la.line(CENTER, FIRST).quadratic_rise(1.0)


ON_ONE_LINE = (CENTER, CENTER + FIRST, CENTER - 2 * FIRST)
REFUSED = {
    "another size": (lambda: la.line(CENTER, torch.ones(4)), "(4,)"),
    "zero": (lambda: la.line(CENTER, torch.zeros(3)), "norm 0"),
    "nan": (lambda: la.line(CENTER, torch.tensor([1.0, torch.nan, 0.0])), "norm nan"),
    "integers": (lambda: la.line(torch.zeros(3, dtype=torch.int64), FIRST), "floating-point"),
    "an integer direction": (lambda: la.line(CENTER, torch.ones(3, dtype=torch.int64)), "floating-point"),
    "collinear": (lambda: la.plane(CENTER, FIRST, -3 * FIRST), "collinear"),
    "one step": (lambda: la.line(CENTER, FIRST, steps=1), "at least 2"),
    "half a step": (lambda: la.line(CENTER, FIRST, steps=2.5), "whole number"),
    "no width": (lambda: la.line(CENTER, FIRST, span=0.0), "half-width"),
    "a negative width": (lambda: la.line(CENTER, FIRST, span=-1.0), "half-width"),
    "an infinite width": (lambda: la.line(CENTER, FIRST, span=float("inf")), "half-width"),
    "low above high": (lambda: la.line(CENTER, FIRST, span=(1.0, 0.0)), "low < high"),
    "three for a plane": (lambda: la.plane(CENTER, torch.eye(3)), "3 directions are given and a plane has 2"),
    "two for a line": (lambda: la.line(CENTER, torch.eye(3)[:2]), "a line has 1"),
    "none": (lambda: la.plane(CENTER), "0 directions"),
    "a list": (lambda: la.line(CENTER, FIRST, span=[-1.0, 1.0]), "tuple (low, high)"),
    "three spans": (lambda: la.plane(CENTER, FIRST, SECOND, span=((0.0, 1.0),) * 3), "3 axes"),
    "three steps": (lambda: la.plane(CENTER, FIRST, SECOND, steps=(2, 2, 2)), "3 axes"),
    "a width of nan": (lambda: la.line(CENTER, FIRST, span=float("nan")), "half-width"),
    "an end of nan": (lambda: la.line(CENTER, FIRST, span=(float("nan"), 1.0)), "half-width"),
    "a width in words": (lambda: la.line(CENTER, FIRST, span="wide"), "half-width"),
    "too narrow": (lambda: la.line(CENTER, FIRST, span=(1.0, 1.0 + 1e-15)), "too narrow"),
    "three in a plane": (lambda: regions.volume(CENTER, FIRST, SECOND, FIRST - 2 * SECOND), "linearly dependent"),
    "two of three collinear": (lambda: regions.volume(CENTER, FIRST, SECOND, -FIRST), "span a volume"),
    "two spans": (lambda: regions.volume(CENTER, FIRST, SECOND, THIRD, span=((0.0, 1.0),) * 2), "2 axes"),
    "no center": (lambda: la.line(CENTER, FIRST, steps=50, with_center=True), "give 51 steps"),
    "no center on one": (lambda: la.plane(CENTER, FIRST, SECOND, steps=(5, 8), with_center=True), "give 9 steps"),
    "no center, log": (lambda: la.line(CENTER, FIRST, steps=6, spacing="log", with_center=True), "give 7 steps"),
    "no center inside": (lambda: la.line(CENTER, FIRST, span=(1.0, 2.0), with_center=True), "half-width and an odd"),
    "another spacing": (lambda: la.line(CENTER, FIRST, spacing="cubic"), "'linear' or 'log'"),
    "smallest of 1": (lambda: la.line(CENTER, FIRST, spacing="log", smallest=1.0), "between 0 and 1"),
    "a log axis from 0": (lambda: la.line(CENTER, FIRST, span=(0.0, 1.0), spacing="log"), "0 < low"),
    "no radius": (lambda: regions.polar(CENTER, FIRST, SECOND, radius=0.0), "positive"),
    "a radius of nan": (lambda: regions.polar(CENTER, FIRST, SECOND, radius=float("nan")), "positive"),
    "an infinite radius": (lambda: regions.polar(CENTER, FIRST, SECOND, radius=float("inf")), "half-width"),
    "two angles": (lambda: regions.polar(CENTER, FIRST, SECOND, steps=(5, 3)), "4 angles"),
    "a collinear disc": (lambda: regions.polar(CENTER, FIRST, 2 * FIRST), "collinear"),
    "a negative radius": (lambda: regions.polar(CENTER, FIRST, SECOND).zoom(0.5), "0 <= low"),
    "zoom to nothing": (lambda: la.line(CENTER, FIRST).zoom(0.0), "half-width"),
    "zoom to nan": (lambda: la.line(CENTER, FIRST).zoom(0.1, at=(float("nan"),)), "half-width"),
    "zoom at too many": (lambda: la.line(CENTER, FIRST).zoom(0.1, at=(0.0, 1.0)), "1 coordinates"),
    "zoom twice placed": (lambda: la.line(CENTER, FIRST).zoom((0.0, 1.0), at=(0.5,)), "half-widths"),
    "one point to project": (lambda: la.line(CENTER, FIRST).project(CENTER), "(k, 3)"),
    "points on a line": (lambda: regions.plane_through(*ON_ONE_LINE), "one line"),
    "a point twice": (lambda: regions.plane_through(CENTER, CENTER + FIRST, CENTER), "three different points"),
    "equal points": (lambda: regions.plane_through(CENTER, CENTER.clone(), SECOND), "three different points"),
    "points of two networks": (lambda: regions.plane_through(CENTER, FIRST, torch.ones(4)), "one architecture"),
    "a point of nan": (lambda: regions.plane_through(CENTER, FIRST, SECOND * torch.nan), "finite"),
    "a negative margin": (lambda: regions.plane_through(CENTER, FIRST, SECOND, margin=-1.0), "margin=-1.0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_regions_are_refused(name):
    ask, words = REFUSED[name]
    with refused((DirectionError, InputError)) as caught:
        ask()
    assert words in str(caught.value)


def test_a_segment_meets_its_ends_bit_for_bit():
    a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [1e-4]])
    segment = la.Segment(a, b)
    assert torch.equal(segment.point(0.0), a)
    assert torch.equal(segment.point(1.0), b)
    torch.testing.assert_close(segment.point(0.25), 0.75 * a + 0.25 * b)
    assert segment.length == pytest.approx(float((a - b).double().norm()))


def test_a_segment_needs_two_points_of_one_kind():
    for a, b, words in (
        (CENTER, torch.ones(2), "architecture"),
        (CENTER, CENTER.double() + 1, "one floating-point type"),
        (torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64), "floating-point"),
        (torch.zeros(2, 2), torch.ones(2, 2), "flat"),
    ):
        with pytest.raises(DirectionError, match=words):
            la.Segment(a, b)
