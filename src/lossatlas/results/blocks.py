"""What a report is made of, as data: running text, formulas, pictures, tables, topics of the theory.

The renderers turn it into HTML and LaTeX. Running text is a tuple of plain strings (escaped by the renderer),
mathematics and citations; ``text`` makes it from a line of prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.results.claim import Claim
    from lossatlas.results.views import View


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

    Parameters
    ----------
    caption : what is seen.
    how : how it was computed, in one line.
    pitfall : what it does not show, in one line.
    method : further sentences on how it was computed and how it is drawn, for the details.
    alt : what it shows, for those who do not see it; the caption where it is empty.
    width : a share of the line.
    view : what a page shows in its place, where it can.
    vector : False for shaded pictures, which a page holds as PNG.
    lead : whether it can open a page: the picture that tells most of all.
    datasets : whose numbers it shows; by default those of its group.
    """

    tag: ClassVar[str] = "picture"
    name: str
    draw: Callable[[], Figure]
    caption: str
    how: str = ""
    pitfall: str = ""
    method: tuple[str, ...] = ()
    alt: str = ""
    width: float = 1.0
    view: Callable[[], View] | None = None
    vector: bool = True
    lead: bool = False
    datasets: tuple[xr.Dataset, ...] = ()

    @cached_property
    def figure(self) -> Figure:
        return self.draw()

    @cached_property
    def saved(self) -> dict[str, bytes]:
        """The figure as a file, by format: filled by the renderers, which share it."""
        return {}


def full_caption(picture: Picture) -> str:
    """What is seen, how it was computed, what it does not show."""
    return " ".join(filter(None, (picture.caption, picture.how, picture.pitfall)))


def capitalised(words: str) -> str:
    """With a capital first letter, the others as they are."""
    return words[:1].upper() + words[1:]


@dataclass(frozen=True)
class Panel:
    """A panel of the figure that sums up a report; ``draw`` is given its axes."""

    title: str
    draw: Callable[[Axes], object]


@dataclass(frozen=True)
class Table:
    """A table of plain strings. `widths` are fractions of the line, for columns of running text.

    ``lead``: it stands in its chapter in the place of the key numbers.
    """

    tag: ClassVar[str] = "table"
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[float, ...] = ()
    lead: bool = False


@dataclass(frozen=True)
class FigureGroup:
    """Datasets that belong into one figure, with its pictures (the first is the main one) and tables.

    ``title`` of the part of the chapter, and ``chapter``, its question: the kind's own where they are empty.
    """

    datasets: tuple[xr.Dataset, ...]
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...] = ()
    title: str = ""
    chapter: str = ""


@dataclass(frozen=True)
class Number:
    """A key number with its error, as text: ``Number("trace", "1.4 ± 0.1", of="network A")``.

    Those of one ``name`` are a row of a table, with a column for each ``of``.
    """

    name: str
    text: str
    of: str


@dataclass(frozen=True)
class Answer:
    """What results say to the question of their chapter, in plain English, with what decides it.

    Parameters
    ----------
    sentence : one or two sentences for the chapter, with intervals; one that is undecided says so.
    short : the same in one sentence of at most 25 words, for the abstract.
    claim : what decides it; None where nothing is tested.
    finding : the claim's hypothesis in a few words, for a table: "connected after alignment".
    quantity : what the claim's number is, in a few words: "error barrier".
    limit : what limits the answer: the pitfall that applies, in one sentence.
    chapter : the question, where it is another than the kind's.
    opening : whether it says whom the report is about, so that the abstract begins with it.
    """

    sentence: str
    short: str
    claim: Claim | None = None
    finding: str = ""
    quantity: str = ""
    limit: str = ""
    chapter: str = ""
    opening: bool = False


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
