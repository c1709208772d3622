"""Wavefront's OBJ, which Blender and most 3D programs open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from matplotlib import colormaps

if TYPE_CHECKING:
    from lossatlas.drawing.shapes import Shape
    from lossatlas.drawing.style import FloatArray


def obj_text(shape: Shape, source: str) -> str:
    """A shape as the text of an ``.obj``; ``source`` says in a comment where it is from.

    Lines that are broken at a hole are objects of their own. The colours, viridis from the lowest to the highest loss,
    follow the coordinates of a vertex: a custom that Blender and MeshLab know, and others pass over.
    """
    return "\n".join([f"# {source}", *_surface(shape), *_lines(shape)]) + "\n"


def _surface(shape: Shape) -> Iterator[str]:
    if shape.faces:
        yield "o loss"
        yield from _vertices(shape.vertices, _top(shape))
        yield from ("f " + " ".join(str(1 + index) for index in face) for face in shape.faces)


def _lines(shape: Shape) -> Iterator[str]:
    start = len(shape.vertices)
    for line in shape.lines:
        yield f"o {re.sub(r'[^-.A-Za-z0-9]+', '_', line.name)}"
        yield from _vertices(line.points, _top(shape))
        yield "l " + " ".join(str(start + k) for k in range(1, len(line.points) + 1))
        start += len(line.points)


def _top(shape: Shape) -> float:
    """The greatest height, which has the last colour."""
    every = [shape.vertices, *(line.points for line in shape.lines)]
    return max(float(points[:, 2].max(initial=0.0)) for points in every) or 1.0


def _vertices(points: FloatArray, top: float) -> Iterator[str]:
    """In the file y is up and z towards the viewer."""
    colours = colormaps["viridis"](points[:, 2] / top)[:, :3]
    for (x, y, height), (red, green, blue) in zip(points, colours, strict=True):
        yield f"v {x:.9g} {height:.9g} {-y:.9g} {red:.4f} {green:.4f} {blue:.4f}"
