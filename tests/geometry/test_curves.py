"""Curves: ends bit for bit, closed forms of places and lengths, what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles.refusals import refused
from scipy.interpolate import BPoly

from lossatlas.errors import DirectionError
from lossatlas.geometry.curves import Bezier, ParametricCurve, PolygonalChain, Segment

KINDS = [Bezier(), Bezier(3), PolygonalChain(), PolygonalChain(4)]


def named(curve: ParametricCurve) -> str:
    return f"{type(curve).__name__}({curve.bends})"


def points(curve: ParametricCurve, n: int = 50, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(curve.bends + 2, n, dtype=dtype, generator=torch.Generator().manual_seed(curve.bends))


@pytest.mark.parametrize("kind", KINDS, ids=named)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_curve_meets_its_ends_bit_for_bit(kind, dtype):
    given = points(kind, dtype=dtype)
    given[0, 0] = given[-1, 1] = -0.0  # a sum with zeros would make it 0.0
    curve = kind.through(given)
    for end, row in ((curve.point(0.0), given[0]), (curve.point(1.0), given[-1])):
        assert end.numpy().tobytes() == row.numpy().tobytes()
        assert end.dtype == dtype


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_place_is_the_points_weighted_and_the_weights_sum_to_one(kind):
    given = points(kind)
    curve = kind.through(given)
    for t in (0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0):
        weights = curve.weights(t)
        assert weights.shape == (kind.bends + 2,)
        assert float(weights.sum()) == pytest.approx(1, abs=1e-15)
        assert bool((weights >= 0).all())
        torch.testing.assert_close(curve.point(t), weights @ given, rtol=1e-14, atol=1e-14)


def test_a_bezier_curve_is_the_bernstein_polynomial_of_its_points():
    for bends in (1, 2, 5):
        given = points(Bezier(bends), n=4)
        oracle = BPoly(given.numpy()[:, None, :], [0, 1])
        curve = Bezier().through(given)
        for t in np.linspace(0, 1, 9):
            np.testing.assert_allclose(curve.point(float(t)), oracle(t), rtol=1e-13, atol=1e-14)


def test_a_chain_meets_every_bend_and_is_straight_between():
    given = points(PolygonalChain(3))
    chain = PolygonalChain().through(given)
    for k in range(5):
        assert torch.equal(chain.point(k / 4), given[k])
    torch.testing.assert_close(chain.point(0.6), 0.6 * given[2] + 0.4 * given[3], rtol=1e-14, atol=1e-14)


def test_the_length_of_a_chain_is_the_sum_of_its_pieces_in_float64():
    given = points(PolygonalChain(2), n=200_000, dtype=torch.float32)
    exact = np.linalg.norm(np.diff(given.double().numpy(), axis=0), axis=1).sum()
    assert PolygonalChain().through(given).length == pytest.approx(exact, rel=1e-13)


def test_the_length_of_a_parabola_has_the_closed_form():
    # (0, 0), (1, h), (2, 0): y = h x (2 - x) / 2, whose length is sqrt(1 + h^2) + asinh(h) / h.
    for h in (0.1, 2.0, 30.0):
        curve = Bezier().through(torch.tensor([[0.0, 0.0], [1.0, h], [2.0, 0.0]], dtype=torch.float64))
        assert curve.length == pytest.approx(np.sqrt(1 + h**2) + np.arcsinh(h) / h, rel=1e-8)


def test_the_length_of_a_curve_of_high_degree_is_that_of_a_fine_chain():
    curve = Bezier().through(points(Bezier(4)))
    fine = torch.stack([curve.point(float(t)) for t in np.linspace(0, 1, 2001)])
    # Chords are shorter by a share of the order of (curvature / steps)^2.
    assert curve.length == pytest.approx(PolygonalChain().through(fine).length, rel=1e-6)


def test_the_length_counts_a_stretch_as_often_as_it_is_passed():
    # theta(t) = 4 t (1 - t) + t^2 overshoots 1: up to 4/3 at t = 2/3, then back to 1.
    curve = Bezier().through(torch.tensor([[0.0], [2.0], [1.0]]))
    assert curve.length == pytest.approx(4 / 3 + 1 / 3, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_curve_between_two_points_is_the_segment(kind):
    a, b = torch.randn(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    curve, segment = kind.between(a, b), Segment(a, b)
    assert curve.bends == kind.bends
    assert torch.equal(curve.points[0], a)
    assert torch.equal(curve.points[-1], b)
    for t in (0.2, 0.5, 0.9):
        torch.testing.assert_close(curve.point(t), segment.point(t), rtol=1e-13, atol=1e-13)
    assert curve.length == pytest.approx(segment.length, rel=1e-9)


ROWS = torch.eye(3)
REFUSED = {
    "no bend": (lambda: Bezier(0), "bends=0"),
    "a kind asked for a place": (lambda: Bezier(2).point(0.5), r"connect\(objective, a, b, curve=Bezier\(bends=2\)\)"),
    "a kind asked for its length": (lambda: PolygonalChain().length, "no points yet"),
    "too few points": (lambda: Bezier(2, ROWS), r"\(3, 3\): give \(4, n\)"),
    "points of nan": (lambda: Bezier().through(ROWS * torch.tensor([[1.0], [torch.nan], [1.0]])), "NaN"),
    "equal ends": (lambda: Bezier().through(torch.ones(3, 4)), "same point"),
    "whole numbers": (lambda: PolygonalChain().through(torch.eye(3, dtype=torch.int64)), "floating-point"),
    "two architectures": (lambda: Bezier().between(torch.zeros(2), torch.ones(3)), "one architecture"),
    "before the start": (lambda: Bezier().through(ROWS).point(-0.1), "t=-0.1"),
    "beyond the end": (lambda: PolygonalChain().through(ROWS).point(1.5), "t=1.5"),
    "no place": (lambda: PolygonalChain().through(ROWS).point(float("nan")), "t=nan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_curves_are_refused(name):
    ask, words = REFUSED[name]
    with refused(DirectionError, match=words):
        ask()


# Laws


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_segment_meets_its_ends_bit_for_bit_signs_of_zeros_too(dtype):
    a, b = torch.tensor([-0.0, 1e-30, 3.0, -0.0], dtype=dtype), torch.tensor([2.0, -1e30, -0.0, -2.0], dtype=dtype)
    for one, other in ((a, b), (b, a)):
        segment = Segment(one, other)
        assert segment.point(0.0).numpy().tobytes() == one.numpy().tobytes()
        assert segment.point(1.0).numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_the_reversed_points_make_the_reversed_path(kind):
    given = points(kind)
    there, back = kind.through(given), kind.through(given.flip(0))
    for t in (0.0, 0.2, 0.5, 0.81, 1.0):
        torch.testing.assert_close(back.point(t), there.point(1 - t), rtol=1e-13, atol=1e-13)
    assert back.length == pytest.approx(there.length, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_moved_and_turned_path_is_the_path_moved_and_turned(kind):
    given = points(kind, n=6)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(8))).Q
    shift = torch.arange(6.0, dtype=torch.float64)
    curve, moved = kind.through(given), kind.through(3 * given @ turn + shift)
    for t in (0.3, 0.6):
        torch.testing.assert_close(moved.point(t), 3 * curve.point(t) @ turn + shift, rtol=1e-12, atol=1e-12)
    assert moved.length == pytest.approx(3 * curve.length, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_no_path_is_shorter_than_the_straight_line_or_longer_than_its_points(kind):
    given = points(kind)
    curve = kind.through(given)
    straight = float((given[-1] - given[0]).norm())
    assert straight < curve.length <= float(given.diff(dim=0).norm(dim=1).sum()) * (1 + 1e-12)


@pytest.mark.parametrize("bends", [1, 2, 4])
def test_a_bezier_curve_with_its_degree_raised_is_the_same_curve(bends):
    given = points(Bezier(bends), n=7)
    m = bends + 1
    share = torch.arange(1, m + 1, dtype=torch.float64)[:, None] / (m + 1)
    raised = torch.cat([given[:1], share * given[:-1] + (1 - share) * given[1:], given[-1:]])
    low, high = Bezier().through(given), Bezier().through(raised)
    assert high.bends == bends + 1
    for t in np.linspace(0, 1, 7):
        torch.testing.assert_close(high.point(float(t)), low.point(float(t)), rtol=1e-13, atol=1e-13)
    assert high.length == pytest.approx(low.length, rel=1e-8)


def test_a_chain_with_a_point_in_the_middle_of_each_piece_is_the_same_chain():
    given = points(PolygonalChain(2), n=7)
    finer = torch.stack([p for one, other in pairwise(given) for p in (one, (one + other) / 2)])
    coarse, fine = PolygonalChain().through(given), PolygonalChain().through(torch.cat([finer, given[-1:]]))
    assert fine.bends == 5
    for t in np.linspace(0, 1, 13):
        torch.testing.assert_close(fine.point(float(t)), coarse.point(float(t)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [Bezier(30), PolygonalChain(99)], ids=named)
def test_many_bends_stay_accurate(kind):
    a, b = torch.randn(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    curve = kind.between(a, b)
    for t in np.linspace(0, 1, 57):
        assert float(curve.weights(float(t)).sum()) == pytest.approx(1, abs=1e-13)
        torch.testing.assert_close(curve.point(float(t)), Segment(a, b).point(float(t)), rtol=1e-12, atol=1e-12)
    assert curve.length == pytest.approx(Segment(a, b).length, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_what_is_done_to_a_place_leaves_the_path_alone(kind):
    given = points(kind)
    before, curve = given.clone(), kind.through(given)
    for t in (0.0, 0.5, 1.0):
        curve.point(t).fill_(torch.nan)
    assert torch.equal(given, before)
    segment = Segment(given[0], given[-1])
    for t in (0.0, 0.5, 1.0):
        segment.point(t).fill_(torch.nan)
    assert torch.equal(given, before)


def test_a_curve_with_a_cusp_has_its_length():
    # (0, 0), (1, 1), (0, 1), (1, 0): x = 3 t - 6 t^2 + 4 t^3, y = 3 t (1 - t), at rest at t = 1/2.
    curve = Bezier().through(torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))
    # With u = 2 t - 1: dx/dt = 3 u^2, dy/dt = -3 u, so |theta'| = 3 |u| sqrt(1 + u^2), the integral 2 sqrt 2 - 1.
    assert curve.length == pytest.approx(2 * np.sqrt(2) - 1, rel=1e-7)
