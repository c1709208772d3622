"""Where to look: flat pieces of parameter space, sampled on a grid. Index -> point is a pure function."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.errors import DirectionError, InputError
from lossatlas.model.batches import tensor_bytes
from lossatlas.model.points import Points

Axis = NDArray[np.float64]
Span = float | tuple[float, float]
Spacing = Literal["linear", "log"]
Chart = Literal["flat", "polar"]

_FLAT = ("line", "plane", "volume")
_DEPENDENT = 1e-6  # of the unit directions' Gram matrix: a smallest eigenvalue (1 - |cosine| of two) below this is none
_ROUNDING = 8  # units in the last place of a point: a distance below this is no distance


@dataclass(frozen=True)
class Region:
    """theta(i, j, ..) = center + alpha_i d_1 + beta_j d_2 + .., or with r_i cos phi_j, r_i sin phi_j for polar axes.

    ``center`` is ``(n,)``, ``directions`` are d rows ``(d, n)``, and ``coordinates`` holds one increasing axis for
    each of them, named in ``dims``. Points are made one at a time: a region of any resolution costs (d + 1) n numbers.
    ``slopes`` and ``curvatures`` hold d_k' grad L and d_k' H d_k at the center where they are known (``eigen_plane``).
    """

    center: Tensor
    directions: Tensor
    coordinates: tuple[Axis, ...]
    chart: Chart = "flat"
    slopes: tuple[float, ...] | None = None
    curvatures: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """``"line"``, ``"plane"``, ``"volume"`` or ``"polar"``."""
        return "polar" if self.chart == "polar" else _FLAT[len(self.coordinates) - 1]

    @property
    def dims(self) -> tuple[str, ...]:
        return ("radius", "angle") if self.chart == "polar" else ("alpha", "beta", "gamma")[: len(self.coordinates)]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.coordinates)

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Every index, the last axis running fastest."""
        return iter(np.ndindex(*self.shape))

    def point(self, *index: int) -> Tensor:
        """theta ``(n,)`` at a grid index; the center itself, bit for bit, where all weights are 0."""
        return self.at(*(float(axis[i]) for axis, i in zip(self.coordinates, index, strict=True)))

    def at(self, *coordinates: float) -> Tensor:
        """theta ``(n,)`` at any coordinates, on the grid or not."""
        theta = Points(self.center, self.directions).at(self.weights(*coordinates))
        return theta.clone() if theta is self.center else theta

    def weights(self, *coordinates: float) -> tuple[float, ...]:
        """What multiplies each direction: the coordinates themselves, or (r cos phi, r sin phi).

        An angle of 2 pi gives the weights of 0, so that the circle closes exactly.
        """
        if self.chart == "flat":
            return coordinates
        radius, angle = coordinates
        return radius * math.cos(angle % math.tau), radius * math.sin(angle % math.tau)

    def project(self, points: Tensor) -> NDArray[np.float64]:
        """The coordinates ``(k, d)`` of the points of the region nearest to ``points`` ``(k, n)``: least squares.

        The inverse of ``at``, up to rounding; worked out in float64. Polar angles are between 0 and 2 pi.
        """
        if points.ndim != 2 or points.shape[1] != len(self.center) or len(points) == 0:
            raise DirectionError(
                f"The points have shape {tuple(points.shape)}: give them as rows, (k, {len(self.center)})."
            )
        center = self.center.double()
        q, r = torch.linalg.qr(self.directions.double().T)
        products = torch.stack([(point.to(center) - center) @ q for point in points])
        weights: Axis = torch.linalg.solve_triangular(r.T, products, upper=False, left=False).cpu().numpy()
        if self.chart == "flat":
            return weights
        return np.stack([np.hypot(*weights.T), np.arctan2(weights[:, 1], weights[:, 0]) % math.tau], axis=1)

    def quadratic_rise(self, *coordinates: float) -> float:
        """sum_k (slope_k w_k + curvature_k w_k^2 / 2): the second-order model of L - L(center), where no pair mixes.

        Raises ``InputError`` where slopes and curvatures are not known.
        """
        if self.slopes is None or self.curvatures is None:
            raise InputError(f"This {self.name} does not know its curvatures: make it with eigen_plane(spectrum).")
        terms = zip(self.weights(*coordinates), self.slopes, self.curvatures, strict=True)
        return sum(slope * w + curvature * w * w / 2 for w, slope, curvature in terms)

    def zoom(
        self, span: Any, *, steps: int | tuple[int, ...] | None = None, at: Sequence[float] | None = None
    ) -> Region:
        """The same center and directions under other, evenly spaced axes; ``steps`` as many as now, unless given.

        ``span`` is a half-width about the coordinates ``at`` (the center) or a pair (low, high), for all axes or for
        each. A coordinate that agrees with one of this region up to rounding equals it bit for bit, so that points
        already evaluated can be recognised.

        >>> line(torch.zeros(2), torch.tensor([1.0, 0.0]), span=1.0, steps=5).zoom(0.5, at=(0.5,)).coordinates[0]
        array([0.  , 0.25, 0.5 , 0.75, 1.  ])
        """
        spans = _each(span, len(self.coordinates), "span")
        if at is not None and (len(at) != len(spans) or all(isinstance(s, tuple) for s in spans)):
            raise InputError(f"at={at} with span={span}: give at {len(spans)} coordinates, and span half-widths.")
        spans = [_about(*pair) for pair in zip(spans, [0.0] * len(spans) if at is None else at, strict=True)]
        axes = _axes(spans, _each(self.shape if steps is None else steps, len(spans), "steps"))
        if self.chart == "polar" and axes[0][0] < 0:
            raise InputError(f"The radius would start at {axes[0][0]:g}: give it a span (low, high) with 0 <= low.")
        return replace(self, coordinates=tuple(_snapped(*pair) for pair in zip(axes, self.coordinates, strict=True)))

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of center, directions and chart: the same after ``zoom``."""
        sha = hashlib.sha256(f"{self.chart}{self.center.dtype}{tuple(self.directions.shape)}".encode())
        sha.update(tensor_bytes(self.center))
        sha.update(tensor_bytes(self.directions))
        return sha.hexdigest()[:16]


def line(
    center: Tensor,
    direction: Tensor,
    *,
    span: Span = 1.0,
    steps: int = 51,
    spacing: Spacing = "linear",
    smallest: float = 1e-3,
    with_center: bool = False,
) -> Region:
    """theta(alpha) = center + alpha d on ``steps`` values of alpha over [-span, span] (or ``(low, high)``).

    ``spacing="log"`` spaces |alpha| geometrically from ``smallest`` * span to span on both sides of 0, which is there
    when ``steps`` is odd; ``(low, high)`` with 0 < low is spaced geometrically from end to end. ``with_center=True``
    insists that alpha = 0 is on the grid.

    Raises ``DirectionError`` for a direction of another size, zero or not finite, ``InputError`` for an impossible
    grid. An odd number of steps has the center on a symmetric grid.

    >>> line(torch.zeros(2), torch.tensor([1.0, 0.0]), span=2.0, steps=3).point(2)
    tensor([2., 0.])
    >>> line(torch.zeros(2), torch.tensor([1.0, 0.0]), steps=5, spacing="log", smallest=0.1).coordinates[0]
    array([-1. , -0.1,  0. ,  0.1,  1. ])
    """
    axes = _axes([span], [steps], spacing, smallest, with_center)
    return Region(*_geometry(center, [direction]), axes)


def plane(
    center: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    span: Span | tuple[Span, Span] = 1.0,
    steps: int | tuple[int, int] = 51,
    spacing: Spacing = "linear",
    smallest: float = 1e-3,
    with_center: bool = False,
) -> Region:
    """theta(alpha, beta) = center + alpha d_1 + beta d_2.

    ``span`` is a half-width for both axes, ``(low, high)`` for both, or ``((low, high), (low, high))`` for each;
    ``steps`` one number or one for each axis; the rest as in ``line``. Raises as ``line``, and ``DirectionError`` for
    collinear directions.
    """
    axes = _axes(_each(span, 2, "span"), _each(steps, 2, "steps"), spacing, smallest, with_center)
    return Region(*_geometry(center, [first, second]), axes)


def volume(
    center: Tensor,
    first: Tensor,
    second: Tensor,
    third: Tensor,
    *,
    span: Span | tuple[Span, Span, Span] = 1.0,
    steps: int | tuple[int, int, int] = 11,
    spacing: Spacing = "linear",
    smallest: float = 1e-3,
    with_center: bool = False,
) -> Region:
    """theta(alpha, beta, gamma) = center + alpha d_1 + beta d_2 + gamma d_3.

    Options and errors as for ``plane``; three half-widths may be given as well. Directions that lie in one plane are
    refused. The cost grows with the cube of the steps: 11 on each axis are 1331 points.
    """
    axes = _axes(_each(span, 3, "span"), _each(steps, 3, "steps"), spacing, smallest, with_center)
    return Region(*_geometry(center, [first, second, third]), axes)


def polar(
    center: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    radius: float = 1.0,
    steps: int | tuple[int, int] = (21, 49),
) -> Region:
    """theta(r, phi) = center + r cos(phi) d_1 + r sin(phi) d_2: a disc if d_1, d_2 are orthogonal, of one length.

    ``steps`` counts radii from 0 to ``radius`` and angles from 0 to 2 pi, both ends included: all points of radius 0
    are the center, and the last angle repeats the first bit for bit, so that a plot or a spline closes.

    Raises as ``plane``, and ``InputError`` for fewer than 4 angles (three rays).

    >>> polar(torch.zeros(2), *torch.eye(2), radius=3.0, steps=(4, 5)).at(3.0, 0.0)
    tensor([3., 0.])
    """
    rings, angles = _each(steps, 2, "steps")
    if isinstance(radius, tuple) or not radius > 0:
        raise InputError(f"radius={radius}: give one positive number.")
    axes = _axes([(0.0, radius), (0.0, math.tau)], [rings, angles])
    if angles < 4:
        raise InputError(f"steps={steps}: give at least 4 angles, of which the last closes the circle.")
    return Region(*_geometry(center, [first, second]), axes, chart="polar")


def plane_through(a: Tensor, b: Tensor, c: Tensor, *, margin: float = 0.2, steps: int | tuple[int, int] = 51) -> Region:
    """The plane through three points: center a, d_1 along b - a, d_2 along what of c - a is orthogonal to it.

    The directions are orthonormal: distances on the picture are distances in parameter space (Garipov et al. 2018).
    Each axis covers the three points and ``margin`` of their extent beyond them on either side;
    ``project(torch.stack([a, b, c]))`` tells where they are.

    Raises ``DirectionError`` for points of different sizes, not finite, equal, or on one line.

    >>> corner = plane_through(torch.zeros(3), torch.tensor([0.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 4.0]))
    >>> corner.at(1.0, 4.0)
    tensor([0., 1., 4.])
    """
    if not margin >= 0 or math.isinf(margin):
        raise InputError(f"margin={margin}: give a share of the points' extent, 0 or more.")
    rounding = _check_points(a, b, c)
    one, offset = (point.to(a.device).double() - a.double() for point in (b, c))
    first = one / torch.linalg.vector_norm(one)
    second = offset
    for _ in range(2):  # twice is enough: the second pass removes what rounding left behind
        second = second - (second @ first) * first
    height = float(torch.linalg.vector_norm(second))
    if height <= rounding:
        raise DirectionError(
            "The three points lie on one line: give a third point beside it, or look at line(a, b - a) alone."
        )
    basis = torch.stack([first, second / height])
    corners = torch.stack([torch.zeros_like(one), one, offset]) @ basis.T
    extra = margin * (corners.amax(dim=0) - corners.amin(dim=0))
    low, high = (corners.amin(dim=0) - extra).tolist(), (corners.amax(dim=0) + extra).tolist()
    return plane(a, *basis.to(a), span=((low[0], high[0]), (low[1], high[1])), steps=steps)


def _geometry(center: Tensor, directions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The center and the directions as rows, both the region's own."""
    for direction in directions:
        _check(center, direction)
    stacked = torch.stack([d.to(center) for d in directions])
    units = stacked.double() / torch.linalg.vector_norm(stacked.double(), dim=1, keepdim=True)
    gram = units @ units.T
    if len(directions) > 1 and float(torch.linalg.eigvalsh(gram)[0]) < _DEPENDENT:
        cosines = ", ".join(f"{float(gram[i, j]):.6f}" for i in range(len(gram)) for j in range(i))
        what = "collinear" if len(directions) == 2 else "linearly dependent"
        raise DirectionError(
            f"The {len(directions)} directions are {what} (cosine {cosines}): give ones that span a "
            f"{_FLAT[len(directions) - 1]}, e.g. random_directions(objective, {len(directions)}, seed=0)."
        )
    return center.detach().clone(), stacked.detach()


def _check(center: Tensor, direction: Tensor) -> None:
    if center.ndim != 1 or direction.shape != center.shape:
        raise DirectionError(
            f"The direction has shape {tuple(direction.shape)} and the center {tuple(center.shape)}: "
            "both are flat vectors with one number a parameter."
        )
    if not center.is_floating_point() or not direction.is_floating_point():
        raise DirectionError(
            f"The center is {center.dtype}, the direction {direction.dtype}: give floating-point tensors."
        )
    norm = float(torch.linalg.vector_norm(direction.double()))
    if not math.isfinite(norm) or norm == 0:
        raise DirectionError(f"The direction has norm {norm}: give a finite direction that is not zero.")


def _check_points(*points: Tensor) -> float:
    """The distance below which two of the points are one, to rounding; raises where that is so."""
    if any(p.ndim != 1 or p.shape != points[0].shape or not p.is_floating_point() for p in points):
        given = ", ".join(f"{p.dtype} {tuple(p.shape)}" for p in points)
        raise DirectionError(f"The points are {given}: give flat floating-point vectors of one architecture.")
    norms = [float(torch.linalg.vector_norm(p.double())) for p in points]
    if not all(map(math.isfinite, norms)):
        raise DirectionError(f"The points have norms {norms}: give finite ones.")
    rounding = _ROUNDING * max(n * torch.finfo(p.dtype).eps for n, p in zip(norms, points, strict=True))
    for first, second in pairwise([*points, points[0]]):
        if float(torch.linalg.vector_norm(first.double() - second.to(first.device).double())) <= rounding:
            raise DirectionError("Two of the three points are the same, to rounding: give three different points.")
    return rounding


def _each(given: Any, count: int, what: str) -> list[Any]:
    """One entry an axis: of a tuple of them, or the same for all. Two numbers are (low, high) of a span."""
    several = isinstance(given, tuple) and (
        what == "steps" or len(given) != 2 or any(isinstance(one, tuple) for one in given)
    )
    if several and len(given) != count:
        raise InputError(f"{what}={given} names {len(given)} axes: give one value for all, or one for each of {count}.")
    return list(given) if several else [given] * count


def _axes(
    spans: Sequence[Any],
    steps: Sequence[int],
    spacing: Spacing = "linear",
    smallest: float = 1e-3,
    with_center: bool = False,
) -> tuple[Axis, ...]:
    if spacing not in ("linear", "log") or not 0 < smallest < 1:
        raise InputError(
            f"spacing={spacing!r}, smallest={smallest}: choose 'linear' or 'log', and smallest between 0 and 1."
        )
    axes = tuple(_axis(span, count, spacing, smallest) for span, count in zip(spans, steps, strict=True))
    for axis, span in zip(axes, spans, strict=True):
        if with_center and not (axis == 0).any():
            even = axis[0] == -axis[-1]
            remedy = f"give {len(axis) + 1} steps" if even else "give a half-width and an odd number of steps"
            raise InputError(f"{len(axis)} steps over span={span} have none at the center: {remedy}.")
    return axes


def _axis(span: Any, steps: int, spacing: Spacing, smallest: float) -> Axis:
    low, high = _interval(span)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise InputError(f"steps={steps}: give a whole number of at least 2.")
    axis = np.linspace(low, high, steps) if spacing == "linear" else _geometric(low, high, steps, smallest)
    if not (np.diff(axis) > 0).all():
        raise InputError(f"span={span} is too narrow for {steps} steps in float64: give a wider one or fewer steps.")
    if spacing == "linear":
        axis[np.abs(axis) < 1e-12 * (high - low)] = 0.0  # the center is exactly the center
    return axis


def _interval(span: Any) -> tuple[float, float]:
    ends = span if isinstance(span, tuple) else (-span, span) if isinstance(span, int | float) else ()
    real = len(ends) == 2 and all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
    if not (real and ends[0] < ends[1]):
        raise InputError(
            f"span={span} is no interval: give a positive half-width or a tuple (low, high) with low < high."
        )
    return float(ends[0]), float(ends[1])


def _about(span: Any, at: float) -> tuple[float, float]:
    low, high = _interval(span)
    return (low, high) if isinstance(span, tuple) else (at + low, at + high)


def _geometric(low: float, high: float, steps: int, smallest: float) -> Axis:
    if low > 0:
        return np.geomspace(low, high, steps)
    if low != -high:
        raise InputError(f"span=({low}, {high}) with spacing='log': give a half-width, or (low, high) with 0 < low.")
    above = np.geomspace(high, smallest * high, steps // 2)[::-1]
    return np.concatenate([-above[::-1], np.zeros(steps % 2), above])


def _snapped(new: Axis, old: Axis) -> Axis:
    """``new``, with the values of ``old`` where both are the same coordinate up to rounding."""
    nearest = old[np.abs(new[:, None] - old).argmin(axis=1)]
    snapped: Axis = np.where(np.abs(new - nearest) < 1e-9 * np.diff(new).min(), nearest, new)
    return snapped
