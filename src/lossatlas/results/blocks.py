"""What a report is made of, as data: running text, formulas, pictures, tables, topics of the theory.

The renderers turn it into HTML and LaTeX. Running text is a tuple of plain strings (escaped by the renderer),
mathematics and citations; ``text`` makes it from a line of prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Math:
    """Inline mathematics, in LaTeX."""

    tex: str


@dataclass(frozen=True)
class Cite:
    """A reference to a work by its key."""

    key: str


Text = tuple[str | Math | Cite, ...]


def text(prose: str) -> Text:
    """Prose with $mathematics$ and [@citations]. For sentences written here; never for a user's strings.

    >>> text("The loss $L$ [@li2018].")
    ('The loss ', Math(tex='L'), ' ', Cite(key='li2018'), '.')
    """
    pieces: list[str | Math | Cite] = []
    for part in re.split(r"(\$[^$]+\$|\[@\w+\])", prose):
        if part.startswith("$"):
            pieces.append(Math(part.strip("$")))
        elif part.startswith("[@"):
            pieces.append(Cite(part[2:-1]))
        elif part:
            pieces.append(part)
    return tuple(pieces)


@dataclass(frozen=True)
class Paragraph:
    """Running text; `lead` is set in bold before it."""

    tag: ClassVar[str] = "paragraph"
    content: Text
    lead: str = ""


def paragraph(prose: str) -> Paragraph:
    """A paragraph of prose with $mathematics$ and [@citations]."""
    return Paragraph(text(prose))


@dataclass(frozen=True)
class Bullets:
    """A list of plain sentences; `lead` is set in bold before it."""

    tag: ClassVar[str] = "bullets"
    items: tuple[str, ...]
    lead: str = ""


@dataclass(frozen=True)
class Formula:
    """A displayed formula, in LaTeX."""

    tag: ClassVar[str] = "formula"
    tex: str


@dataclass(frozen=True)
class Picture:
    """A figure with its caption, drawn when it is first asked for.

    ``interactive`` makes a plotly figure that the page shows in its place; ``width`` is a share of the line;
    ``vector`` is False for shaded pictures, which a page holds as PNG.
    """

    tag: ClassVar[str] = "picture"
    name: str
    draw: Callable[[], Figure]
    caption: str
    width: float = 1.0
    interactive: Callable[[], Any] | None = None
    vector: bool = True

    @cached_property
    def figure(self) -> Figure:
        return self.draw()


@dataclass(frozen=True)
class Table:
    """A table of plain strings. `widths` are fractions of the line, for columns of running text."""

    tag: ClassVar[str] = "table"
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[float, ...] = ()


@dataclass(frozen=True)
class FigureGroup:
    """Datasets that belong into one figure, with its pictures (the first is the main one) and tables.

    The report prints the pictures, the numbers of each Dataset, the claims on them, and the tables, in this order.
    """

    datasets: tuple[xr.Dataset, ...]
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...] = ()
    title: str = ""  # of the part of the chapter; the kind's own where it is empty


@dataclass(frozen=True)
class Topic:
    """A part of the theory: printed where a Dataset of the kind is present for which ``needed`` is true."""

    title: str
    blocks: tuple[Paragraph | Formula, ...]
    needed: Callable[[xr.Dataset], bool] = lambda dataset: True


@dataclass(frozen=True)
class Reference:
    """A work that may be cited."""

    authors: str
    year: int
    title: str
    where: str
    url: str
