"""A report as data: abstract, glance, chapters that each answer a question, and details.

`html.py` and `latex.py` only render it, so both say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from lossatlas.results.blocks import Answer, Bullets, Cite, Formula, Paragraph, Picture, Reference, Table
from lossatlas.results.claim import Claim


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
    """A titled part of the details; `anchor` is unique in the document."""

    tag: ClassVar[str] = "section"
    title: str
    anchor: str
    blocks: tuple[Block, ...]


Block = Paragraph | Bullets | Formula | Picture | Table | ClaimTable | References | Section


@dataclass(frozen=True)
class Chapter:
    """A question with its answers, the main figure, at most five key numbers, and what limits the answers.

    ``details`` are its further figures, tables and methods: collapsed on a page, in the appendix of a paper.
    """

    tag: ClassVar[str] = "chapter"
    question: str
    anchor: str
    answers: tuple[Answer, ...]
    picture: Picture | None
    numbers: Table | None
    details: Section | None


@dataclass(frozen=True)
class Row:
    """A question of the report in one line: what was found, the number that decides it, and its claim."""

    question: str
    anchor: str
    finding: str
    quantity: str
    claim: Claim | None


@dataclass(frozen=True)
class Document:
    """The whole report.

    ``lead`` is the picture of a chapter that a page shows first, where its view can be played with; ``glance`` sums up
    all chapters. ``details``: the claims, theory, set-up, references. ``bibliography`` holds every work that it may
    cite.
    """

    title: str
    abstract: tuple[str, ...]
    glance: Picture | None
    rows: tuple[Row, ...]
    chapters: tuple[Chapter, ...]
    details: tuple[Section, ...]
    lead: Picture | None = None
    bibliography: Mapping[str, Reference] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[Section, ...]:
        """The details of the chapters, then those of the whole."""
        return (*(chapter.details for chapter in self.chapters if chapter.details), *self.details)

    def blocks(self) -> Iterator[Block]:
        """Every block of the details in reading order, sections included."""
        for section in self.sections:
            yield from _walk(section)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Each once: the glance, those of the chapters, those of the details."""
        first = [self.glance, *(chapter.picture for chapter in self.chapters)]
        return (*filter(None, first), *(block for block in self.blocks() if isinstance(block, Picture)))

    def number_of(self, picture: Picture) -> int:
        """Of the figure, from 1 on, in the order of ``pictures``."""
        return [each.name for each in self.pictures].index(picture.name) + 1

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
