"""A report as data: sections that hold paragraphs, formulas, pictures, tables, claims and references.

`html.py` and `latex.py` only render it, so both say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from lossatlas.results.blocks import Bullets, Cite, Formula, Paragraph, Picture, Reference, Table
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
    """The whole report; ``bibliography`` holds every work that it may cite."""

    title: str
    sections: tuple[Section, ...]
    bibliography: Mapping[str, Reference] = field(default_factory=dict)

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
