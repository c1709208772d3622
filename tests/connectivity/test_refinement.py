"""Where to evaluate next: closed forms of parabolas, kinks and plateaus."""

from __future__ import annotations

import numpy as np
import pytest

from lossatlas.connectivity.refinement import Tolerance, evidence, vertices

GRID = np.linspace(0, 1, 9)
COARSE = Tolerance(height=np.inf, t=np.inf)


@pytest.mark.parametrize("place", [0.3, 0.4375, 0.51, 0.93])
@pytest.mark.parametrize(
    "t", [GRID, np.sort(np.r_[0, np.random.default_rng(0).random(8), 1])], ids=["equal", "unequal"]
)
def test_the_vertex_of_a_parabola_is_found_exactly_in_its_interval(t, place):
    found = vertices(t, 2 - 3 * (t - place) ** 2)
    interval = int(np.searchsorted(t, place)) - 1
    assert found[interval] == pytest.approx(2, abs=1e-12)
    assert np.isneginf(np.delete(found, interval)).all()


def test_a_valley_has_no_vertex():
    assert np.isneginf(vertices(GRID, (GRID - 0.4) ** 2)).all()


@pytest.mark.parametrize("place", np.linspace(0.13, 0.87, 40))
def test_what_a_peak_rises_between_the_points_is_no_more_than_the_resolution(place):
    for function in (lambda t: -((t - place) ** 2), lambda t: -abs(t - place), lambda t: np.cos(3 * (t - place))):
        values = function(GRID)
        assert function(place) - values.max() <= evidence(GRID, values, COARSE).height_resolution + 1e-15


def test_the_intervals_next_to_the_maximum_are_halved_until_the_place_is_known():
    values = -((GRID - 0.51) ** 2)
    found = evidence(GRID, values, Tolerance(height=np.inf, t=0.1))
    assert found.t_resolution == 0.125
    assert found.further.tolist() == [0.4375, 0.5625]
    assert evidence(GRID, values, Tolerance(height=np.inf, t=0.125)).further.size == 0


def test_a_maximum_at_an_end_and_a_plateau_have_nothing_to_refine():
    tolerance = Tolerance(height=1e-9, t=1e-9)
    for values in (GRID, -GRID, GRID**2, np.ones(9)):
        found = evidence(GRID, values, tolerance)
        assert (found.height_resolution, found.further.size) == (0, 0)


def test_a_rise_within_the_step_is_not_refined():
    values = np.where(np.arange(9) == 4, 0.01, 0.0)
    assert evidence(GRID, values, Tolerance(height=1e-9, t=1e-9, step=0.01)).further.size == 0
    assert evidence(GRID, values, Tolerance(height=1e-9, t=1e-9, step=0.009)).further.tolist() == [0.4375, 0.5625]


def test_a_hidden_peak_next_to_an_end_is_looked_at():
    values = np.array([0.0, -0.001, -1.0, -3.0, -6.0, -9.0, -9.0, -9.0, 0.0])
    found = evidence(GRID, values, Tolerance(height=0.01, t=1.0))
    assert 0.0625 in found.further


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_no_number_needs_no_refinement(bad):
    found = evidence(GRID, np.where(GRID == 0.5, bad, -GRID), Tolerance(height=1e-9, t=1e-9))
    assert found.further.size == 0
    assert np.isnan([found.height_resolution, found.t_resolution]).all()


@pytest.mark.parametrize("place", [0, 3, 8])
def test_no_place_comes_twice_or_outside_and_every_place_halves_an_interval(place):
    rng = np.random.default_rng(place)
    for _ in range(50):
        t = np.sort(np.r_[0, rng.random(7), 1])
        found = evidence(t, rng.normal(size=9) + 3 * (np.arange(9) == place), Tolerance(height=0.01, t=0.01))
        middles = (t[:-1] + t[1:]) / 2
        assert len(set(found.further.tolist())) == len(found.further)
        assert np.isclose(found.further[:, None], middles).any(1).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_evidence_knows_no_unit(scale):
    values = np.random.default_rng(3).normal(size=9)
    one = evidence(GRID, values, Tolerance(height=0.05, t=0.1))
    other = evidence(GRID, scale * values + 5 * scale, Tolerance(height=0.05 * scale, t=0.1))
    assert other.further.tolist() == one.further.tolist()
    assert other.height_resolution == pytest.approx(scale * one.height_resolution, rel=1e-9)
    assert other.t_resolution == one.t_resolution


def test_the_mirrored_profile_has_the_mirrored_places():
    values = np.random.default_rng(4).normal(size=9)
    tolerance = Tolerance(height=0.05, t=0.1)
    one, other = evidence(GRID, values, tolerance), evidence(GRID, values[::-1], tolerance)
    np.testing.assert_allclose(np.sort(1 - other.further), one.further, atol=1e-15)
    assert other.height_resolution == pytest.approx(one.height_resolution, rel=1e-12)
