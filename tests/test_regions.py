"""Lines and planes: index to point is a pure function, and impossible regions are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lossatlas as la
from lossatlas.errors import DirectionError, InputError

CENTER = torch.tensor([1.0, -2.0, 0.5])
FIRST, SECOND = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 1.0])


def test_a_point_is_the_centre_and_so_much_of_each_direction():
    plane = la.plane(CENTER, FIRST, SECOND, span=((-1.0, 3.0), (0.0, 1.0)), steps=(5, 3))
    assert plane.shape == (5, 3)
    assert plane.dims == ("alpha", "beta")
    assert len(list(plane.indices())) == 15
    for i, alpha in enumerate([-1.0, 0.0, 1.0, 2.0, 3.0]):
        for j, beta in enumerate([0.0, 0.5, 1.0]):
            assert plane.point(i, j).tolist() == [1.0 + alpha, -2.0 + 2 * beta, 0.5 + beta]


def test_the_centre_is_on_an_odd_symmetric_grid_bit_for_bit():
    centre = torch.randn(10, generator=torch.Generator().manual_seed(0)) * 1e-3
    direction = torch.randn(10, generator=torch.Generator().manual_seed(1)) * 1e3
    for steps in (3, 11, 51, 101):
        line = la.line(centre, direction, span=0.7, steps=steps)
        assert torch.equal(line.point(steps // 2), centre)
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


def test_a_region_keeps_its_own_centre():
    centre = CENTER.clone()
    line = la.line(centre, FIRST, steps=3)
    centre.zero_()
    assert torch.equal(line.point(1), CENTER)
    line.point(1).zero_()
    assert torch.equal(line.point(1), CENTER)


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
    "a list": (lambda: la.line(CENTER, FIRST, span=[-1.0, 1.0]), "tuple (low, high)"),
    "three spans": (lambda: la.plane(CENTER, FIRST, SECOND, span=((0.0, 1.0),) * 3), "3 axes"),
    "three steps": (lambda: la.plane(CENTER, FIRST, SECOND, steps=(2, 2, 2)), "3 axes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_regions_are_refused(name):
    ask, words = REFUSED[name]
    with pytest.raises((DirectionError, InputError)) as caught:
        ask()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_segment_meets_its_ends_bit_for_bit():
    a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [1e-4]])
    segment = la.Segment(a, b)
    assert torch.equal(segment.point(0.0), a)
    assert torch.equal(segment.point(1.0), b)
    torch.testing.assert_close(segment.point(0.25), 0.75 * a + 0.25 * b)
    assert segment.length == pytest.approx(float((a - b).double().norm()))


def test_a_segment_needs_two_different_points_of_one_kind():
    for a, b, words in (
        (CENTER, CENTER.clone(), "same point"),
        (CENTER, torch.ones(2), "architecture"),
        (CENTER, CENTER.double() + 1, "one floating-point type"),
        (torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64), "floating-point"),
        (torch.zeros(2, 2), torch.ones(2, 2), "flat"),
    ):
        with pytest.raises(DirectionError, match=words):
            la.Segment(a, b)
