"""A surface from some of its pixels: which ones, a spline through them, and its leave-one-out errors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]
Pixels = NDArray[np.intp]  # flat indices, the last axis running fastest

_DEGREE = 4  # of the polynomial part: a quartic bowl is reproduced exactly
_FIRST = {1: 17, 2: 9, 3: 5}  # lines an axis of the coarsest checkerboard: 9, 41 and 63 nodes
_NEAR = 4  # nodes whose leave-one-out errors speak for a pixel


class Polyharmonic:
    """s(x) = sum_i c_i |x - x_i|^p + polynomial of degree 4, with s(x_i) = f_i: exact at the nodes, at any places.

    ``nodes`` ``(m, d)`` in units in which the grid is [-1, 1]^d; ``values`` ``(m, q)``, q quantities at once; an
    odd ``power``: 7 suits smooth surfaces, 3 those with kinks. ``leave_one_out`` ``(m, q)`` is f_i minus the spline
    through all *other* nodes at x_i: c_i / (A^-1)_ii, from one inverse (Rippa 1999).
    """

    def __init__(self, nodes: Floats, values: Floats, power: int) -> None:
        self.power, self.nodes, self._values = power, nodes, values
        self._exponents = _exponents(nodes)
        m = len(nodes)
        system = np.zeros((m + len(self._exponents),) * 2)
        system[:m] = self._basis(nodes)
        system[m:, :m] = system[:m, m:].T
        inverse = np.linalg.inv(system)
        self._coefficients = inverse[:, :m] @ values
        self.leave_one_out: Floats = self._coefficients[:m] / np.diag(inverse)[:m, None]

    def __call__(self, points: Floats) -> Floats:
        """The spline at ``points`` ``(k, d)``: ``(k, q)``."""
        pieces = np.array_split(points, 1 + len(points) * len(self.nodes) // 2**22)  # tens of MB at a time
        return np.concatenate([self._basis(piece) @ self._coefficients for piece in pieces])

    def root_mean_square(self) -> float:
        """Of the leave-one-out errors; infinite where rounding keeps the spline from its own nodes."""
        exact = np.allclose(self(self.nodes), self._values, rtol=1e-6, atol=1e-6)
        return float(np.sqrt(np.mean(self.leave_one_out**2))) if exact else float("inf")

    def _basis(self, points: Floats) -> Floats:
        powers = np.prod(points[:, None, :] ** self._exponents, axis=2)
        return np.hstack([cdist(points, self.nodes) ** self.power, powers])


def positions(shape: Sequence[int]) -> Floats:
    """``(pixels, d)``: every pixel's place in [-1, 1]^d, by its indices."""
    axes = [np.linspace(-1, 1, size) for size in shape]
    return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)


def first_design(shape: Sequence[int]) -> Pixels:
    """A checkerboard of pixels with the corners and the middle, closer at the edge, where a spline is least sure.

    Its lines are half-way between equal steps and Chebyshev's.
    """
    lines = _FIRST[len(shape)]
    even = np.linspace(-1, 1, lines)
    spaced = (even + np.sin(np.pi * even / 2)) / 2
    axes = [np.round((spaced + 1) / 2 * (size - 1)).astype(np.intp) for size in shape]
    index = np.indices([lines] * len(shape)).reshape(len(shape), -1)
    chosen = index[:, index.sum(axis=0) % 2 == 0]
    return np.unique(np.ravel_multi_index([axis[i] for axis, i in zip(axes, chosen, strict=True)], tuple(shape)))


def predicted_errors(nodes: Floats, left_out: Floats, points: Floats) -> Floats:
    """``(k,)``: the error to expect at ``points``, by the leave-one-out errors of the nearest nodes.

    Leaving a node out opens a hole of radius h, its distance to the next one; a pixel sits in a hole of radius
    r <= h, and is predicted r / h times as badly: what kinks do, and more than a smooth surface does.
    """
    errors, holes, depth = _around(nodes, left_out, points)
    predicted: Floats = errors * np.minimum(1, depth / holes)
    return predicted


def worst_points(nodes: Floats, left_out: Floats, points: Floats, count: int) -> Pixels:
    """``(count,)``: which points to add to the nodes, one after the other where r^2 sqrt(error / h) is largest.

    Squared, the depth r spreads the points over the grid; the leave-one-out errors are rough estimates, and their
    square root draws more points to where the surface is difficult. On surfaces of a small CNN this needs two thirds
    of the nodes that ever finer grids need.
    """
    errors, holes, depth = _around(nodes, left_out, points)
    difficulty = np.sqrt(errors / holes) + np.finfo(float).tiny  # without errors the grid is filled evenly
    chosen: list[int] = []
    for _ in range(min(count, len(points))):
        chosen.append(int(np.argmax(difficulty * depth**2)))
        depth = np.minimum(depth, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.unique(chosen)


def _around(nodes: Floats, left_out: Floats, points: Floats) -> tuple[Floats, Floats, Floats]:
    """At each point, of the nearest nodes: their errors, the holes that they leave, and the nearest one's distance."""
    tree = cKDTree(nodes)
    holes = np.asarray(tree.query(nodes, k=[2])[0])[:, 0]
    distances, nearest = map(np.asarray, tree.query(points, k=list(range(1, min(_NEAR, len(nodes)) + 1))))
    closeness: Floats = 1 / np.maximum(distances, 1e-9) ** 2
    closeness /= closeness.sum(axis=1, keepdims=True)
    errors: Floats = np.sqrt((closeness * left_out[nearest] ** 2).sum(axis=1))
    return errors, (closeness * holes[nearest]).sum(axis=1), distances[:, 0]


def _exponents(nodes: Floats) -> NDArray[np.int64]:
    """Exponents of the monomials, up to degree 4, that are independent on the nodes, with two nodes for each."""
    lines = [len(np.unique(axis)) for axis in nodes.T]  # k coordinates on an axis determine powers up to k - 1
    for degree in range(_DEGREE, 0, -1):
        ranges = [range(min(degree + 1, k)) for k in lines]
        listed = np.array([e for e in itertools.product(*ranges) if sum(e) <= degree])
        enough = 2 * len(listed) <= len(nodes)
        if enough and np.linalg.matrix_rank(np.prod(nodes[:, None, :] ** listed, axis=2)) == len(listed):
            return listed
    return np.zeros((1, nodes.shape[1]), dtype=np.int64)
