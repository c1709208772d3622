"""The report as one HTML file that loads nothing: pictures, formulas, views and downloads are all inside."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from itertools import count
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from latex2mathml.converter import convert
from markupsafe import Markup, escape

from lossatlas.report.downloads import Assets, packed
from lossatlas.report.images import image, svg_uri
from lossatlas.report.viewing import view_json
from lossatlas.results.blocks import Cite, Math, capitalised
from lossatlas.results.uncertainty import interval, number, with_interval

if TYPE_CHECKING:
    from lossatlas.report.document import Document
    from lossatlas.results.blocks import Picture, Text

SCRIPTS = ("packed", "colours", "views", "reading")


def render(document: Document, done: Callable[[], object] = lambda: None) -> str:
    """The page; ``done`` is called after each picture.

    Every user string is escaped. The only scripts are the page's own and plotly's; both run without a request.
    """
    assets = Assets(_hidden(document))
    for picture in document.pictures:
        if picture.view is not None:
            assets.add(f"view-{picture.name}", _view(picture))
    environment = _environment(document, assets, done)
    return environment.get_template("report.html.j2").render(
        document=document,
        bibliography=document.bibliography,
        assets=assets,
        plotly=_plotly() if any(picture.view for picture in document.pictures) else None,
        style=_template("report.css"),
        script=Markup("\n").join(_template(f"{name}.js") for name in SCRIPTS),
        tables=count(1),
        next=next,
    )


def _environment(document: Document, assets: Assets, done: Callable[[], object]) -> Environment:
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
        "source": lambda picture: _source(picture, assets, done),
        "unbroken": _unbroken,
        "downloads": assets.rows,
        "number": number,
        "interval": interval,
        "capitalised": capitalised,
        "with_interval": lambda claim: with_interval(claim.value, claim.interval),
    }
    return environment


def _template(name: str) -> Markup:
    return Markup(files("lossatlas.report").joinpath("templates", name).read_text(encoding="utf-8"))


@cache
def _plotly() -> str:
    """plotly's script, packed: it takes a quarter of a second to pack, and is the same on every page."""
    from plotly.offline import get_plotlyjs

    return packed(get_plotlyjs().encode())


def _view(picture: Picture) -> Callable[[], bytes]:
    assert picture.view is not None, "asked for pictures that have one only"
    view = picture.view
    return lambda: view_json(view()).encode()


def _prose(content: Text, number_of: dict[str, int]) -> Markup:
    def piece(inline: str | Math | Cite) -> Markup:
        if isinstance(inline, str):
            return escape(inline)
        if isinstance(inline, Math):
            return Markup(convert(inline.tex))
        return Markup('<a href="#ref-{}">[{}]</a>').format(inline.key, number_of[inline.key])

    return Markup("").join(piece(inline) for inline in content)


def _unbroken(sentence: str) -> str:
    r"""The sentence, whose lines do not break within an interval or between a value and its error.

    >>> _unbroken("a rise of 1.2 [1.1, 1.3] to 4.9 ± 0.2 %")
    'a rise of 1.2 [1.1,\xa01.3] to 4.9\xa0±\xa00.2\xa0%'
    """
    return re.sub(r" ± | %|\[[^\[\]]{1,40}\]", lambda found: found[0].replace(" ", "\u00a0"), sentence)


def _hidden(document: Document) -> set[str]:
    """The names of the pictures that only the details have, which are closed at first."""
    first = [document.glance, document.lead, *(chapter.picture for chapter in document.chapters)]
    return {picture.name for picture in document.pictures} - {picture.name for picture in first if picture}


def _source(picture: Picture, assets: Assets, done: Callable[[], object]) -> Markup:
    """The attribute that gives a still picture its content: SVG where it is lines, PNG where it is shaded."""
    done()
    if not picture.vector:
        return Markup('src="data:image/png;base64,{}"').format(base64.b64encode(image(picture, "png")).decode())
    if picture.name in assets.hidden:
        return Markup('data-still="{}"').format(assets.svg(picture))
    return Markup('src="{}"').format(svg_uri(image(picture, "svg")))
