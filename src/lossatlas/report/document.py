"""A report as data: sections that hold paragraphs, formulas, pictures, tables, claims and references.

`html.py` and `latex.py` only render it, so both say the same. Running text is a tuple of plain strings (escaped by
the renderer), mathematics and citations; `text` makes it from a line of prose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lossatlas.claims import Claim


@dataclass(frozen=True)
class Math:
    """Inline mathematics, in LaTeX."""

    tex: str


@dataclass(frozen=True)
class Cite:
    """A reference to an entry of `references.BIBLIOGRAPHY`."""

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
    """A figure with its caption; `interactive` is a plotly figure that the page shows in its place."""

    tag: ClassVar[str] = "picture"
    name: str
    figure: Figure
    caption: str
    width: float = 1.0
    interactive: Any = None
    vector: bool = True


@dataclass(frozen=True)
class Table:
    """A table of plain strings. `widths` are fractions of the line, for columns of running text."""

    tag: ClassVar[str] = "table"
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[float, ...] = ()


@dataclass(frozen=True)
class ClaimTable:
    """Every claim in one row each."""

    tag: ClassVar[str] = "claims"
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class References:
    """The works cited, in the order of their first citation."""

    tag: ClassVar[str] = "references"
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A titled part; `anchor` is unique in the document."""

    tag: ClassVar[str] = "section"
    title: str
    anchor: str
    blocks: tuple[Block, ...]

    @property
    def subsections(self) -> tuple[Section, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Section))


Block = Paragraph | Bullets | Formula | Picture | Table | ClaimTable | References | Section


@dataclass(frozen=True)
class Document:
    title: str
    sections: tuple[Section, ...]

    def blocks(self) -> Iterator[Block]:
        """Every block in reading order, sections included."""
        for section in self.sections:
            yield from _walk(section)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple(block for block in self.blocks() if isinstance(block, Picture))

    @property
    def cited(self) -> tuple[str, ...]:
        """The keys cited, each once, in the order of their first citation."""
        texts = (block.content for block in self.blocks() if isinstance(block, Paragraph))
        return tuple(dict.fromkeys(piece.key for each in texts for piece in each if isinstance(piece, Cite)))


def _walk(block: Block) -> Iterator[Block]:
    yield block
    if isinstance(block, Section):
        for inner in block.blocks:
            yield from _walk(inner)
