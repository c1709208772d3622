"""Where to look: lines, planes, volumes and discs of parameter space, and how finely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lossatlas.errors import DirectionError, InputError
from lossatlas.geometry.axes import Axis, Spacing, Span, grid_axes, one_per_axis
from lossatlas.geometry.bases import basis, check_points, rows_of
from lossatlas.geometry.directions import filters_of_rows, origin
from lossatlas.geometry.region import Chart
from lossatlas.geometry.region import Region as Region


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
    """theta(alpha) = center + alpha d on ``steps`` values of alpha over [-span, span].

    Parameters
    ----------
    center : ``(n,)``, such as ``objective.point``.
    direction : ``(n,)``, or ``(1, n)`` as ``random_directions(objective, 1, seed=0)`` gives it.
    span : in units of |d|: a half-width about 0, or ``(low, high)``.
    steps : an odd number has the center on a symmetric grid.
    spacing : ``"log"`` spaces |alpha| geometrically from ``smallest`` * span to span on both sides of 0, which is there
        when ``steps`` is odd; ``(low, high)`` with 0 < low is spaced geometrically from end to end.
    with_center : insist that alpha = 0 is on the grid.

    Raises
    ------
    DirectionError : a direction of another size, zero or not finite, or more than one.
    InputError : an impossible grid.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 3 (1-D plots).

    Examples
    --------
    >>> line(torch.zeros(2), torch.tensor([1.0, 0.0]), span=2.0, steps=3).point(2)
    tensor([2., 0.])
    >>> line(torch.zeros(2), torch.tensor([1.0, 0.0]), steps=5, spacing="log", smallest=0.1).coordinates[0]
    array([-1. , -0.1,  0. ,  0.1,  1. ])
    """
    axes = grid_axes([span], [steps], spacing, smallest, with_center)
    return _region("line", center, [direction], axes)


def plane(
    center: Tensor,
    *directions: Tensor,
    span: Span | tuple[Span, Span] = 1.0,
    steps: int | tuple[int, int] = 51,
    spacing: Spacing = "linear",
    smallest: float = 1e-3,
    with_center: bool = False,
) -> Region:
    """theta(alpha, beta) = center + alpha d_1 + beta d_2.

    Parameters
    ----------
    center : ``(n,)``, such as ``objective.point``.
    directions : two of ``(n,)``, or one tensor of rows ``(2, n)`` such as ``random_directions(objective, 2, seed=0)``.
        The region remembers where ``Directions`` come from (``Region.provenance``), whole or one by one.
    span : a half-width for both axes, ``(low, high)`` for both, or ``((low, high), (low, high))`` for each.
    steps : one number, or one for each axis.
    spacing, smallest, with_center : as in ``line``.

    Raises
    ------
    DirectionError : directions of another size or number, zero, not finite, or collinear.
    InputError : an impossible grid.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 3 (2-D plots).

    Examples
    --------
    >>> plane(torch.zeros(2), torch.eye(2), span=((-1.0, 1.0), (0.0, 6.0)), steps=(3, 4)).point(2, 3)
    tensor([1., 6.])
    """
    axes = grid_axes(one_per_axis(span, 2, "span"), one_per_axis(steps, 2, "steps"), spacing, smallest, with_center)
    return _region("plane", center, directions, axes)


def volume(
    center: Tensor,
    *directions: Tensor,
    span: Span | tuple[Span, Span, Span] = 1.0,
    steps: int | tuple[int, int, int] = 11,
    spacing: Spacing = "linear",
    smallest: float = 1e-3,
    with_center: bool = False,
) -> Region:
    """theta(alpha, beta, gamma) = center + alpha d_1 + beta d_2 + gamma d_3.

    Options as for ``plane``, with three directions, or rows ``(3, n)``; three half-widths may be given as well. The
    cost grows with the cube of the steps: 11 on each axis are 1331 points.

    Raises
    ------
    DirectionError : directions of another size or number, zero, not finite, or in one plane.
    InputError : an impossible grid.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 3, with a third direction.

    Examples
    --------
    >>> volume(torch.zeros(3), torch.eye(3), span=(1.0, 2.0, 3.0), steps=3).point(2, 2, 2)
    tensor([1., 2., 3.])
    """
    axes = grid_axes(one_per_axis(span, 3, "span"), one_per_axis(steps, 3, "steps"), spacing, smallest, with_center)
    return _region("volume", center, directions, axes)


def polar(
    center: Tensor,
    *directions: Tensor,
    radius: float = 1.0,
    steps: int | tuple[int, int] = (21, 49),
) -> Region:
    """theta(r, phi) = center + r cos(phi) d_1 + r sin(phi) d_2: a disc if d_1, d_2 are orthogonal, of one length.

    Parameters
    ----------
    center, directions : as for ``plane``.
    radius : of the disc, in units of |d|.
    steps : of radii from 0 to ``radius`` and of angles from 0 to 2 pi, both ends included: all points of radius 0 are
        the center, and the last angle repeats the first bit for bit, so that a plot or a spline closes.

    Raises
    ------
    DirectionError : as for ``plane``.
    InputError : an impossible grid, or fewer than 4 angles (three rays).

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", equation 1, in polar coordinates.

    Examples
    --------
    >>> polar(torch.zeros(2), torch.eye(2), radius=3.0, steps=(4, 5)).at(3.0, 0.0)
    tensor([3., 0.])
    """
    rings, angles = one_per_axis(steps, 2, "steps")
    if isinstance(radius, tuple) or not radius > 0:
        raise InputError(f"radius={radius}: give one positive number.")
    axes = grid_axes([(0.0, radius), (0.0, math.tau)], [rings, angles])
    if angles < 4:
        raise InputError(f"steps={steps}: give at least 4 angles, of which the last closes the circle.")
    return _region("polar", center, directions, axes)


def plane_through(a: Tensor, b: Tensor, c: Tensor, *, margin: float = 0.2, steps: int | tuple[int, int] = 51) -> Region:
    """theta(alpha, beta) = a + alpha d_1 + beta d_2, d_1 along b - a, d_2 along what of c - a is orthogonal to it.

    The directions are orthonormal: distances on the picture are distances in parameter space. Each axis covers the
    three points ``(n,)`` and ``margin`` of their extent beyond them on either side; ``project(torch.stack([a, b, c]))``
    tells where they are.

    Raises
    ------
    DirectionError : points of different sizes, not finite, equal, or on one line.
    InputError : a negative margin, or an impossible grid.

    Source: Garipov et al. 2018, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", figure 1.

    Examples
    --------
    >>> corner = plane_through(torch.zeros(3), torch.tensor([0.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 4.0]))
    >>> corner.at(1.0, 4.0)
    tensor([0., 1., 4.])
    """
    if not margin >= 0 or math.isinf(margin):
        raise InputError(f"margin={margin}: give a share of the points' extent, 0 or more.")
    rounding = check_points(a, b, c)
    one, offset = (point.to(a.device).double() - a.double() for point in (b, c))
    basis = _orthonormal_pair(one, offset, rounding)
    corners = torch.stack([torch.zeros_like(one), one, offset]) @ basis.T
    extra = margin * (corners.amax(dim=0) - corners.amin(dim=0))
    low, high = (corners.amin(dim=0) - extra).tolist(), (corners.amax(dim=0) + extra).tolist()
    region = plane(a, basis.to(a), span=((low[0], high[0]), (low[1], high[1])), steps=steps)
    return replace(region, origin={"directions": "through three points"})


def _orthonormal_pair(one: Tensor, offset: Tensor, rounding: float) -> Tensor:
    """The unit vector along ``one``, and that along what of ``offset`` is orthogonal to it: ``(2, n)``."""
    first = one / torch.linalg.vector_norm(one)
    second = offset
    for _ in range(2):  # twice is enough: the second pass removes what rounding left behind
        second = second - (second @ first) * first
    height = float(torch.linalg.vector_norm(second))
    if height <= rounding:
        raise DirectionError(
            "The three points lie on one line: give a third point off that line, or look at line(a, b - a) alone."
        )
    return torch.stack([first, second / height])


def _region(name: str, center: Tensor, directions: Sequence[Tensor], axes: tuple[Axis, ...]) -> Region:
    """The region with what its directions know of their origin."""
    rows = rows_of(directions, name)
    chart: Chart = "polar" if name == "polar" else "flat"
    return Region(*basis(center, rows), axes, chart, origin=origin(rows), filters=filters_of_rows(rows))
