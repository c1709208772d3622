"""A surface and the lines on it as bodies in space: vertices, faces, polylines, and the numbers at each vertex."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import values
from lossatlas.drawing.grids import axes_of, colour_scale, grid, is_polar, mesh, over_planes, shown
from lossatlas.drawing.overlays import paths, surface_height
from lossatlas.drawing.scales import scale_of
from lossatlas.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from lossatlas.drawing.style import FloatArray

    IntArray = NDArray[np.int64]

RISE = 0.6  # from the lowest to the highest loss, in lengths of the longer side
Numbers = dict[str, "FloatArray"]


@dataclass(frozen=True)
class Line:
    """A polyline (k, 3) with its name, and numbers (k,) at its points."""

    name: str
    points: FloatArray
    numbers: Numbers


@dataclass(frozen=True)
class Shape:
    """A surface and lines: ``vertices`` (n, 3), ``faces`` as indices of three or four vertices each, counter-clockwise
    seen from above, ``numbers`` (n,) at the vertices.
    """

    vertices: FloatArray
    faces: list[tuple[int, ...]]
    numbers: Numbers
    lines: list[Line]


@dataclass(frozen=True)
class Heights:
    """Losses as heights: their logarithm where all of the surface are positive, 0 at the lowest."""

    logarithmic: bool
    lowest: float
    stretch: float

    def of(self, loss: FloatArray) -> FloatArray:
        return self.stretch * (shown(loss, self.logarithmic) - self.lowest)


def heights(loss: FloatArray, *sides: FloatArray) -> Heights:
    """So that the losses rise by ``RISE`` of the longer side."""
    logarithmic, _ = colour_scale(loss)
    drawn = shown(loss, logarithmic)
    finite = drawn[np.isfinite(drawn)]
    if not finite.size:
        raise InputError("No loss of it is finite, so it has no shape: export it as .csv.")
    return Heights(logarithmic, float(finite.min()), RISE * max(map(np.ptp, sides)) / (float(np.ptp(finite)) or 1.0))


def surface_shape(dataset: xr.Dataset, track: xr.Dataset | None = None) -> Shape:
    """A loss over two axes, as the 3D views draw it: x and y as ``mesh`` has them; cells that are not finite are holes.

    Of several planes their mean. Its lines: the paths that it has, at the height of the surface, and a track, at the
    loss of its snapshots.
    """
    picture = over_planes(dataset)
    x, y, loss = mesh(picture)
    scale = heights(loss, x, y)
    every = np.stack([x, y, scale.of(loss)], axis=-1).reshape(-1, 3)
    numbers = _numbers(picture, scale)
    kept, faces = _welded(every, _quads(len(x), len(x[0]), turned=is_polar(picture)))
    lines = [*_paths(picture, scale), *(track_lines(track, scale, picture) if track is not None else [])]
    return Shape(every[kept], faces, {name: each[kept] for name, each in numbers.items()}, lines)


def track_shape(track: xr.Dataset) -> Shape:
    """A track by itself, at the loss of its snapshots; flat where they have none."""
    loss = values(track, "loss") if "loss" in track else np.ones(track.sizes["snapshot"])
    scale = heights(loss, values(track, "alpha"), values(track, "beta"))
    return Shape(np.empty((0, 3)), [], {}, list(track_lines(track, scale)))


def track_lines(track: xr.Dataset, scale: Heights, plane: xr.Dataset | None = None) -> Iterator[Line]:
    """The snapshots one after the other, on the axes of their plane; broken where a loss is not finite."""
    alpha, beta = values(track, "alpha"), values(track, "beta")
    height = scale.of(values(track, "loss")) if "loss" in track else np.zeros_like(alpha)
    x, y = (alpha, beta) if plane is None else _positions(plane, alpha, beta)
    names = [name for name in ("step", "alpha", "beta", "loss", "loss_stderr") if name in track]
    numbers = {name: values(track, name) for name in names}
    if "loss" in numbers and scale.logarithmic:
        numbers["log10_loss"] = shown(numbers["loss"], True)
    yield from _pieces(Line("training", np.stack([x, y, height], axis=-1), numbers))


def _positions(picture: xr.Dataset, alpha: FloatArray, beta: FloatArray) -> tuple[FloatArray, FloatArray]:
    across, up = (scale_of(values(picture, name)) for name in axes_of(picture))
    return across.positions(alpha), up.positions(beta)


def _paths(picture: xr.Dataset, scale: Heights) -> Iterator[Line]:
    """The paths where they are projected to; a part over a hole, or outside, is left out."""
    for path in paths(picture):
        drawn = surface_height(picture, scale.logarithmic, path.alpha, path.beta)
        height = scale.stretch * (drawn - scale.lowest)
        points = np.stack([*_positions(picture, path.alpha, path.beta), height], axis=-1)
        yield from _pieces(Line(path.name, points, {"alpha": path.alpha, "beta": path.beta}))


def _pieces(line: Line) -> Iterator[Line]:
    """A line without its points that are not finite: pieces of at least two points, from one gap to the next."""
    at = np.flatnonzero(np.isfinite(line.points).all(1))
    for piece in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1):
        if len(piece) > 1:
            yield Line(line.name, line.points[piece], {name: each[piece] for name, each in line.numbers.items()})


def _numbers(picture: xr.Dataset, scale: Heights) -> Numbers:
    """The coordinates and every variable over the plane, one for each entry of a further dimension."""
    across, up, loss = grid(picture)
    axes = dict(zip(axes_of(picture), np.meshgrid(across, up), strict=True))
    found = {name: each.ravel() for name, each in axes.items()}
    for name, variable in picture.data_vars.items():
        more = [dim for dim in variable.dims if dim not in axes]
        if len(variable.dims) - len(more) < 2 or variable.dtype.kind not in "fiub":
            continue
        for place in product(*(range(variable.sizes[dim]) for dim in more)):
            entries = [str(picture[dim].to_numpy()[k]) for dim, k in zip(more, place, strict=True)]
            one = variable.isel(dict(zip(more, place, strict=True)))
            found[" ".join([str(name), *entries])] = _over(picture, one)
    return found | ({"log10_loss": shown(loss, True).ravel()} if scale.logarithmic else {})


def _over(picture: xr.Dataset, variable: xr.DataArray) -> FloatArray:
    return grid(picture[[*axes_of(picture)]].assign(loss=variable))[2].ravel()


def _quads(up: int, across: int, turned: bool) -> IntArray:
    """The corners of each cell of a grid (up, across), counter-clockwise; ``turned`` where across runs against it."""
    k = np.arange(up * across).reshape(up, across)
    corners = [k[:-1, :-1], k[:-1, 1:], k[1:, 1:], k[1:, :-1]]
    return np.stack(corners[::-1] if turned else corners, axis=-1).reshape(-1, 4)


def _welded(vertices: FloatArray, quads: IntArray) -> tuple[IntArray, list[tuple[int, ...]]]:
    """Which vertices are kept, and the faces on them.

    A quad with a corner that is not finite is a hole. Corners at one place, as where an angle has gone around and at
    radius 0, are one vertex, and a quad that has one twice is a triangle.
    """
    known = np.isfinite(vertices).all(axis=1)
    quads = quads[np.asarray(known)[quads].all(axis=1)]
    used, at = np.unique(quads, return_inverse=True)
    size = np.ptp(vertices[used][:, :2], axis=0).max(initial=0.0) or 1.0
    places = np.round(vertices[used][:, :2] / size, 9) + 0.0  # -0.0 and 0.0 are one place
    _, first, same = np.unique(places, axis=0, return_index=True, return_inverse=True)
    faces = [tuple(dict.fromkeys(face)) for face in same.reshape(-1)[at.reshape(quads.shape)].tolist()]
    return used[first], [face for face in faces if len(face) > 2]
