"""The report as one HTML file that loads nothing: pictures, formulas and scripts are all inside."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from latex2mathml.converter import convert
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from lossatlas.drawing.style import save
from lossatlas.results.blocks import Cite, Math, Picture
from lossatlas.results.uncertainty import interval, number

if TYPE_CHECKING:
    from lossatlas.report.document import Document
    from lossatlas.results.blocks import Text


def render(document: Document, done: Callable[[], object] = lambda: None) -> str:
    """The page; ``done`` is called after each picture.

    Every user string is escaped; the only scripts are plotly's own and the figures' data.
    """
    environment = Environment(
        loader=PackageLoader("lossatlas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    number_of = {key: k for k, key in enumerate(document.cited, 1)}
    environment.filters |= {
        "prose": lambda content: _prose(content, number_of),
        "math": lambda tex: Markup(convert(tex, display="block")),
        "image": lambda picture: _image(picture, done),
        "interactive": _interactive,
        "number": number,
        "interval": interval,
    }
    interactive = any(picture.interactive is not None for picture in document.pictures)
    return environment.get_template("report.html.j2").render(
        document=document,
        bibliography=document.bibliography,
        plotly=Markup(get_plotlyjs()) if interactive else None,
        figures=count(1),
        next=next,
        tables=count(1),
    )


def _prose(content: Text, number_of: dict[str, int]) -> Markup:
    def piece(inline: str | Math | Cite) -> Markup:
        if isinstance(inline, str):
            return escape(inline)
        if isinstance(inline, Math):
            return Markup(convert(inline.tex))
        return Markup('<a href="#ref-{}">[{}]</a>').format(inline.key, number_of[inline.key])

    return Markup("").join(piece(inline) for inline in content)


def _image(picture: Picture, done: Callable[[], object]) -> str:
    """The static figure as a data URI: SVG where it is lines, PNG where it is shaded."""
    buffer = BytesIO()
    save(picture.figure, buffer, "svg" if picture.vector else "png")
    done()
    kind = "svg+xml" if picture.vector else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _interactive(picture: Picture) -> Markup:
    assert picture.interactive is not None, "asked for pictures that have one only"
    division = picture.interactive().to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"view-{picture.name}",
        config={"displaylogo": False, "responsive": True},
    )
    return Markup(division)
