"""The pictures of a report as files: each is drawn once in each format, for whichever renderer asks first."""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from lossatlas.drawing.style import save

if TYPE_CHECKING:
    from lossatlas.results.blocks import Picture

_GEOMETRY = re.compile(r' (?:d|x|y|points)="[^"]*"')
_NOISE = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE[^>]*>", re.DOTALL)
_READABLE = " !$&'()*+,-./:;=?@[]^_`{|}~"  # what a data URI in double quotes may hold as it is


def image(picture: Picture, file_format: Literal["svg", "pdf", "png"]) -> bytes:
    """The picture's figure as a file. Its SVG has coordinates to a hundredth of a point, so that it stays small."""
    if file_format not in picture.saved:
        buffer = BytesIO()
        save(picture.figure, buffer, file_format)
        content = buffer.getvalue()
        picture.saved[file_format] = trimmed(content.decode()).encode() if file_format == "svg" else content
    return picture.saved[file_format]


def trimmed(svg: str) -> str:
    """An SVG without comments, and with two decimals in its coordinates.

    >>> trimmed('<path d="M 1.23456 7" style="stroke-width: 0.8125"/><!-- a line -->')
    '<path d="M 1.23 7" style="stroke-width: 0.8125"/>'
    """
    shorter = _GEOMETRY.sub(lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), _NOISE.sub("", svg))
    return re.sub(r"\s*\n\s*", "\n", shorter)


def svg_uri(svg: bytes) -> str:
    """An SVG as a data URI that is text, which is shorter than base64."""
    source = svg.decode().replace("\n", " ")
    if "'" not in source:
        source = source.replace('"', "'")
    return "data:image/svg+xml," + quote(source, safe=_READABLE)
