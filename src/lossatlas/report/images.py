"""The pictures of a report as files: each is drawn once in each format, for whichever renderer asks first."""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from PIL import Image

from lossatlas.drawing.style import save

if TYPE_CHECKING:
    from lossatlas.results.blocks import Picture

_GEOMETRY = re.compile(r' (?:d|x|y|points)="[^"]*"')
_NOISE = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE[^>]*>", re.DOTALL)
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_LINES = re.compile(r"L [^A-Za-z\"]*(?:L [^A-Za-z\"]*)+")
_READABLE = " !$&'()*+,-./:;=?@[]^_`{|}~"  # what a data URI in double quotes may hold as it is


def image(picture: Picture, file_format: Literal["svg", "pdf", "png"]) -> bytes:
    """The picture's figure as a file; its SVG and PNG are made small without a difference that one could see."""
    if file_format not in picture.saved:
        buffer = BytesIO()
        save(picture.figure, buffer, file_format)
        picture.figure.set_layout_engine("none")  # it is laid out now, for all formats
        picture.saved[file_format] = _SMALLER.get(file_format, bytes)(buffer.getvalue())
    return picture.saved[file_format]


def _few_colours(png: bytes) -> bytes:
    """With a palette of 256 colours, chosen for this picture: a third of the size."""
    buffer = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def trimmed(svg: str) -> str:
    """An SVG without comments, with coordinates to a hundredth of a point, and without repeated letters in its lines.

    >>> trimmed('<path d="M 1.23456 7 L 2 3 L 4 5" style="stroke-width: 0.8125"/><!-- a line -->')
    '<path d="M 1.23 7 L 2 3 4 5" style="stroke-width: 0.8125"/>'
    """
    shorter = re.sub(r"\s*\n\s*", "\n", _NOISE.sub("", svg))
    return _GEOMETRY.sub(lambda match: _LINES.sub(_one_letter, _DECIMALS.sub(r"\1", match[0])), shorter)


def _one_letter(lines: re.Match[str]) -> str:
    return "L " + lines[0].replace("L ", "").replace("\n", " ")


def svg_uri(svg: bytes) -> str:
    """An SVG as a data URI that is text, which is shorter than base64."""
    source = svg.decode().replace("\n", " ")
    if "'" not in source:
        source = source.replace('"', "'")
    return "data:image/svg+xml," + quote(source, safe=_READABLE)


_SMALLER = {"svg": lambda svg: trimmed(svg.decode()).encode(), "png": _few_colours}
