"""VTK's PolyData as XML, which ParaView opens."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lossatlas.drawing.shapes import Shape

    Array = NDArray[np.float64] | NDArray[np.int64]

TYPES = {"f": ("Float64", "<f8"), "i": ("Int64", "<i8")}


def vtp_text(shape: Shape, source: str) -> str:
    """A shape as the text of a ``.vtp``; ``source`` says in a comment where it is from.

    The points of the lines follow those of the surface; what is not known at a point is NaN.
    """
    file = ET.Element("VTKFile", type="PolyData", version="1.0", byte_order="LittleEndian", header_type="UInt64")
    file.append(ET.Comment(f" {source} "))
    body = ET.SubElement(file, "PolyData")
    _name_lines(ET.SubElement(body, "FieldData"), [line.name for line in shape.lines])
    points = np.concatenate([shape.vertices, *(line.points for line in shape.lines)])
    piece = ET.SubElement(body, "Piece", _counts(points, shape))
    _point_data(ET.SubElement(piece, "PointData"), shape)
    numbers = np.arange(1, len(shape.lines) + 1)
    _add(ET.SubElement(piece, "CellData"), "line", np.append(numbers, np.zeros(len(shape.faces), dtype=int)))
    _add(ET.SubElement(piece, "Points"), "Points", points)
    _cells(ET.SubElement(piece, "Lines"), _line_indices(shape))
    _cells(ET.SubElement(piece, "Polys"), shape.faces)
    ET.indent(file)
    return '<?xml version="1.0"?>\n' + ET.tostring(file, encoding="unicode") + "\n"


def _counts(points: NDArray[np.float64], shape: Shape) -> dict[str, str]:
    counts = {"Points": len(points), "Verts": 0, "Lines": len(shape.lines), "Strips": 0, "Polys": len(shape.faces)}
    return {f"NumberOf{name}": str(count) for name, count in counts.items()}


def _point_data(parent: ET.Element, shape: Shape) -> None:
    parts = [(len(shape.vertices), shape.numbers), *((len(line.points), line.numbers) for line in shape.lines)]
    for name in dict.fromkeys(name for _, numbers in parts for name in numbers):
        _add(parent, name, np.concatenate([numbers.get(name, np.full(n, np.nan)) for n, numbers in parts]))
        if name == "log10_loss" or (name == "loss" and "Scalars" not in parent.attrib):
            parent.set("Scalars", name)


def _line_indices(shape: Shape) -> list[range]:
    starts = np.cumsum([len(shape.vertices), *(len(line.points) for line in shape.lines)]).tolist()
    return [range(start, end) for start, end in pairwise(starts)]


def _cells(parent: ET.Element, cells: Sequence[Sequence[int]]) -> None:
    _add(parent, "connectivity", np.array([index for cell in cells for index in cell], dtype=int))
    _add(parent, "offsets", np.cumsum([len(cell) for cell in cells], dtype=int))


def _name_lines(parent: ET.Element, names: list[str]) -> None:
    """Strings are written as the codes of their characters, each with a 0 at its end."""
    codes = " ".join(str(code) for name in names for code in (*name.encode(), 0))
    array = ET.SubElement(parent, "Array", type="String", Name="lines", NumberOfTuples=str(len(names)), format="ascii")
    array.text = codes


def _add(parent: ET.Element, name: str, array: Array) -> None:
    """An array in base64, behind its length in bytes."""
    vtk_type, layout = TYPES[array.dtype.kind]
    data = np.ascontiguousarray(array, dtype=layout).tobytes()
    several = {"NumberOfComponents": str(array.shape[1])} if array.ndim > 1 else {}
    element = ET.SubElement(parent, "DataArray", {"type": vtk_type, "Name": name, "format": "binary", **several})
    element.text = base64.b64encode(len(data).to_bytes(8, "little") + data).decode()
