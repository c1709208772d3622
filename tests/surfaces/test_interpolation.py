"""Splines through scattered pixels: exact where they must be, with the true error of each node that is left out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lossatlas.surfaces.interpolation import Polyharmonic, first_design, positions, predicted_errors, worst_points

NODES = {1: 14, 2: 45, 3: 90}  # enough for a polynomial of degree 4, also with one node less
dimensions = pytest.mark.parametrize("d", NODES)
powers = pytest.mark.parametrize("power", [7, 3])


def scattered(d: int, seed: int = 0) -> np.ndarray:
    """Pixels drawn at random from a grid on [-1, 1]^d."""
    places = positions({1: (41,), 2: (21, 21), 3: (9, 9, 9)}[d])
    return places[np.random.default_rng(seed).choice(len(places), NODES[d], replace=False)]


def quartic(points: np.ndarray, seed: int = 1) -> np.ndarray:
    """A polynomial of degree 4 with every monomial in it."""
    draw = np.random.default_rng(seed)
    exponents = [e for e in itertools.product(range(5), repeat=points.shape[1]) if sum(e) <= 4]
    return sum(c * np.prod(points**e, axis=1) for c, e in zip(draw.normal(size=len(exponents)), exponents, strict=True))


def wavy(points: np.ndarray) -> np.ndarray:
    return np.sin(3 * points.sum(axis=1)) + np.abs(points[:, 0])


@powers
@dimensions
def test_a_spline_passes_through_its_nodes(d, power):
    nodes = scattered(d)
    np.testing.assert_allclose(Polyharmonic(nodes, wavy(nodes)[:, None], power)(nodes)[:, 0], wavy(nodes), atol=1e-8)


@powers
@dimensions
def test_a_polynomial_of_degree_four_is_reproduced_everywhere(d, power):
    nodes, elsewhere = scattered(d), np.random.default_rng(3).uniform(-1, 1, (200, d))
    spline = Polyharmonic(nodes, quartic(nodes)[:, None], power)
    np.testing.assert_allclose(spline(elsewhere)[:, 0], quartic(elsewhere), atol=1e-8)
    np.testing.assert_allclose(spline.leave_one_out, 0, atol=1e-8)
    assert spline.root_mean_square() < 1e-8


@powers
@dimensions
def test_the_leave_one_out_error_of_each_node_is_the_difference_to_a_spline_without_it(d, power):
    nodes = scattered(d)
    values = wavy(nodes)[:, None]
    left_out = Polyharmonic(nodes, values, power).leave_one_out
    assert np.abs(left_out).max() > 1e-3
    for i in range(len(nodes)):
        others = np.delete(np.arange(len(nodes)), i)
        without = Polyharmonic(nodes[others], values[others], power)
        expected = values[i] - without(nodes[i : i + 1])[0]
        np.testing.assert_allclose(left_out[i], expected, rtol=1e-8, atol=1e-8)


def test_the_root_mean_square_is_that_of_the_leave_one_out_errors():
    nodes = scattered(2)
    spline = Polyharmonic(nodes, wavy(nodes)[:, None], 3)
    assert spline.root_mean_square() == pytest.approx(float(np.sqrt((spline.leave_one_out**2).mean())))


@dimensions
def test_several_quantities_at_once_equal_one_by_one(d):
    nodes, elsewhere = scattered(d), np.random.default_rng(3).uniform(-1, 1, (50, d))
    values = np.stack([wavy(nodes), quartic(nodes), -7 * wavy(nodes)], axis=1)
    both = Polyharmonic(nodes, values, 7)
    for i in range(3):
        alone = Polyharmonic(nodes, values[:, [i]], 7)
        np.testing.assert_allclose(both(elsewhere)[:, [i]], alone(elsewhere), rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(both.leave_one_out[:, [i]], alone.leave_one_out, rtol=1e-7, atol=1e-7)


def test_a_quantity_that_is_missing_somewhere_leaves_the_others_alone():
    nodes = scattered(2)
    values = np.stack([wavy(nodes), np.full(len(nodes), np.nan)], axis=1)
    both = Polyharmonic(nodes, values, 7)(nodes)
    np.testing.assert_allclose(both[:, 0], wavy(nodes), atol=1e-8)
    assert np.isnan(both[:, 1]).all()


def test_many_points_are_predicted_as_few_are():
    nodes = scattered(2)
    spline = Polyharmonic(nodes, wavy(nodes)[:, None], 7)
    many = np.random.default_rng(4).uniform(-1, 1, (100_000, 2))  # more than fit into one piece
    places = [0, 49_999, 50_000, 99_999]
    np.testing.assert_allclose(spline(many)[places], spline(many[places]), rtol=1e-10, atol=1e-10)
    assert spline(many).shape == (100_000, 1)


@pytest.mark.parametrize("shape", [(150, 2), (3, 150), (4, 101), (5, 90), (2, 2, 100), (3, 4, 60)], ids=str)
def test_a_narrow_grid_has_a_spline_too(shape):
    # y^3 = y on three lines: not every monomial up to degree 4 tells the nodes apart.
    places = positions(shape)
    index = np.indices(shape).reshape(len(shape), -1)[int(np.argmax(shape))]  # along the longest axis
    nodes = np.flatnonzero(np.isin(index, np.linspace(0, max(shape) - 1, 17).round()))
    values = np.exp(places[:, 0] - 0.5 * places[:, -1] ** 2)
    for power in (7, 3):
        spline = Polyharmonic(places[nodes], values[nodes, None], power)
        np.testing.assert_allclose(spline(places)[:, 0], values, atol=1e-3)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)], ids=str)
def test_positions_run_over_the_cube_as_flat_indices_do(shape):
    places = positions(shape)
    assert places.shape == (np.prod(shape), len(shape))
    for flat, index in enumerate(np.ndindex(*shape)):
        expected = [-1 + 2 * i / (size - 1) for i, size in zip(index, shape, strict=True)]
        np.testing.assert_allclose(places[flat], expected, atol=1e-15)


SHAPES = [(1001,), (17,), (12,), (4,), (2,), (51, 51), (21, 41), (64, 9), (40, 40), (5, 7), (2, 2), (2, 200)]
SHAPES += [(21, 21, 21), (11, 8, 30), (5, 5, 5), (3, 2, 4)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@shapes
def test_the_first_design_lists_pixels_of_the_grid_once_each_in_order(shape):
    design = first_design(shape)
    assert design[0] == 0
    assert design[-1] == np.prod(shape) - 1
    assert (np.diff(design) > 0).all()


@shapes
def test_the_corners_are_in_the_first_design(shape):
    corners = [np.ravel_multi_index(c, shape) for c in itertools.product(*((0, size - 1) for size in shape))]
    assert np.isin(corners, first_design(shape)).all()


@pytest.mark.parametrize("shape", [s for s in SHAPES if all(size % 2 for size in s)], ids=str)
def test_the_center_of_an_odd_grid_is_in_the_first_design(shape):
    assert np.ravel_multi_index(tuple(size // 2 for size in shape), shape) in first_design(shape)


@pytest.mark.parametrize(("shape", "count"), [((1001,), 9), ((51, 51), 41), ((21, 41), 41), ((21, 21, 21), 63)])
def test_the_first_design_is_a_checkerboard(shape, count):
    design = first_design(shape)
    assert len(design) == count
    lines = [np.unique(axis) for axis in np.unravel_index(design, shape)]
    numbers = [np.searchsorted(line, i) for line, i in zip(lines, np.unravel_index(design, shape), strict=True)]
    assert (sum(numbers) % 2 == 0).all() or len(shape) == 1


@pytest.mark.parametrize("shape", [(5,), (2,), (2, 2), (3, 3), (2, 2, 2)], ids=str)
def test_a_grid_smaller_than_the_first_design_is_taken_whole(shape):
    np.testing.assert_array_equal(first_design(shape), np.arange(np.prod(shape)))


@dimensions
def test_the_worst_points_are_no_nodes_and_each_is_chosen_once(d):
    points = positions({1: (41,), 2: (21, 21), 3: (9, 9, 9)}[d])
    nodes, errors = scattered(d), np.random.default_rng(5).uniform(0, 1, NODES[d])
    chosen = worst_points(nodes, errors, points, 20)
    assert len(np.unique(chosen)) == len(chosen) == 20
    assert np.linalg.norm(points[chosen][:, None] - nodes[None], axis=2).min() > 0


def test_without_errors_the_grid_is_filled_evenly():
    points = positions((17, 17))
    nodes = points[[0, 16, 17 * 16, 17 * 17 - 1]]
    first = worst_points(nodes, np.zeros(4), points, 1)
    np.testing.assert_array_equal(points[first], [[0, 0]])
    five = points[worst_points(nodes, np.zeros(4), points, 5)]
    assert {tuple(p) for p in five} == {(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)}


def test_more_points_are_added_where_leave_one_out_errors_are_larger():
    points = positions((41, 41))
    nodes = points[first_design((41, 41))]
    errors = np.where(nodes[:, 0] > 0, 1.0, 1e-4)
    chosen = points[worst_points(nodes, errors, points, 30)]
    assert np.mean(chosen[:, 0] > 0) > 0.8
    even = points[worst_points(nodes, np.ones(len(nodes)), points, 30)]
    assert 0.3 < np.mean(even[:, 0] > 0) < 0.7


@dimensions
def test_the_predicted_error_is_zero_at_a_node_and_no_more_than_its_neighbours_errors(d):
    nodes, left_out = scattered(d), np.random.default_rng(5).uniform(0.5, 1, NODES[d])
    np.testing.assert_allclose(predicted_errors(nodes, left_out, nodes), 0, atol=1e-6)
    elsewhere = predicted_errors(nodes, left_out, np.random.default_rng(6).uniform(-1, 1, (100, d)))
    assert (elsewhere > 0).all()
    assert (elsewhere <= left_out.max()).all()


def test_the_predicted_error_grows_with_the_depth_of_the_hole():
    nodes = np.linspace(-1, 1, 11)[:, None]
    depths = np.array([0.02, 0.05, 0.1])  # half-way to the next node is 0.1, and each hole's radius 0.2
    found = predicted_errors(nodes, np.full(11, 0.4), depths[:, None])
    np.testing.assert_allclose(found, 0.4 * depths / 0.2, rtol=1e-12)
