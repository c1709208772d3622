"""A flat piece of parameter space, sampled on a grid: index -> point is a pure function."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.errors import DirectionError, InputError
from lossatlas.geometry.axes import Axis, grid_axes, interval_about, one_per_axis, snapped
from lossatlas.geometry.bases import FLAT
from lossatlas.model.data.batches import tensor_bytes
from lossatlas.model.filters import Filters, described
from lossatlas.model.points import Points

Chart = Literal["flat", "polar"]


@dataclass(frozen=True)
class Region:
    """theta(i, j, ..) = center + alpha_i d_1 + beta_j d_2 + .., or with r_i cos phi_j, r_i sin phi_j for polar axes.

    Points are made one at a time: a region of any resolution costs (d + 1) n numbers. Made by ``line``, ``plane``,
    ``volume``, ``polar``, ``plane_through``, ``eigen_plane`` and ``Trajectory.plane``; ``zoom`` gives other axes.

    Parameters
    ----------
    center : ``(n,)``.
    directions : d rows ``(d, n)``.
    coordinates : one increasing axis for each direction (or radii and angles), named in ``dims``.
    chart : ``"flat"`` or ``"polar"``.
    slopes, curvatures : d_k' grad L and d_k' H d_k at the center, where they are known (``eigen_plane``).
    origin : what is known of the directions, for ``provenance()``; no part of the fingerprint.
    filters : by which the directions were scaled, where they are known to be; no part of it either.

    Raises
    ------
    DirectionError : ``project`` is asked for points of another size.
    InputError : ``zoom`` to impossible axes; ``quadratic_rise`` without slopes and curvatures.

    Source: planes of a loss are those of Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", equation 1.

    Examples
    --------
    >>> import lossatlas as la
    >>> region = la.plane(torch.zeros(3), torch.eye(2, 3), span=1.0, steps=(5, 3))
    >>> region.shape, region.dims, region.point(4, 0)
    ((5, 3), ('alpha', 'beta'), tensor([ 1., -1.,  0.]))
    >>> region.provenance()["directions"]
    'given'
    """

    center: Tensor
    directions: Tensor
    coordinates: tuple[Axis, ...]
    chart: Chart = "flat"
    slopes: tuple[float, ...] | None = None
    curvatures: tuple[float, ...] | None = None
    origin: Mapping[str, object] = field(default_factory=dict)
    filters: Mapping[str, Filters] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``"line"``, ``"plane"``, ``"volume"`` or ``"polar"``."""
        return "polar" if self.chart == "polar" else FLAT[len(self.coordinates) - 1]

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

        >>> import lossatlas as la
        >>> la.line(torch.zeros(2), torch.tensor([1.0, 0.0]), span=1.0, steps=5).zoom(0.5, at=(0.5,)).coordinates[0]
        array([0.  , 0.25, 0.5 , 0.75, 1.  ])
        """
        spans = one_per_axis(span, len(self.coordinates), "span")
        if at is not None and (len(at) != len(spans) or all(isinstance(s, tuple) for s in spans)):
            raise InputError(f"at={at} with span={span}: give at {len(spans)} coordinates, and span half-widths.")
        spans = [interval_about(*pair) for pair in zip(spans, [0.0] * len(spans) if at is None else at, strict=True)]
        axes = grid_axes(spans, one_per_axis(self.shape if steps is None else steps, len(spans), "steps"))
        if self.chart == "polar" and axes[0][0] < 0:
            raise InputError(f"The radius would start at {axes[0][0]:g}: give it a span (low, high) with 0 <= low.")
        return replace(self, coordinates=tuple(snapped(*pair) for pair in zip(axes, self.coordinates, strict=True)))

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of center, directions and chart: the same after ``zoom``."""
        sha = hashlib.sha256(f"{self.chart}{self.center.dtype}{tuple(self.directions.shape)}".encode())
        sha.update(tensor_bytes(self.center))
        sha.update(tensor_bytes(self.directions))
        return sha.hexdigest()[:16]

    def provenance(self) -> dict[str, object]:
        """``region``, its ``region_fingerprint``, and what its ``directions`` are, with what is known of their origin.

        ``directions`` is ``"random"`` (then with the ``seed`` and the ``directions_normalisation`` asked for),
        ``"principal components"`` (``trajectory``, its fingerprint, and ``center``), ``"Hessian axes"`` (``spectrum``
        and ``network``, where the Dataset names them), ``"through three points"``, or ``"given"``. ``filters`` lists
        the axes by which random directions were scaled, and ``filters_assumed`` those that could not be seen.
        """
        own = {"region": self.name, "region_fingerprint": self.fingerprint(), "directions": "given", **self.origin}
        return own | described(self.filters)
