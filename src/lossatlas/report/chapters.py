"""The chapters of a report: each a question, with what the kinds that answer it say and show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from typing import TYPE_CHECKING

from lossatlas.report.document import Block, Chapter, Section
from lossatlas.results import chapters as questions
from lossatlas.results.blocks import Answer, FigureGroup, Number, Picture, Table
from lossatlas.results.catalogue import Catalogue

if TYPE_CHECKING:
    from lossatlas.results.kind import Kind

ANSWERS, NUMBERS = 2, 5  # of a chapter, at most
COLUMNS = 4  # of a table of numbers, at most: one with more is turned


@dataclass
class _Material:
    """What the kinds give for one question, a list for each kind."""

    answers: list[list[Answer]] = field(default_factory=list)
    groups: list[tuple[str, FigureGroup]] = field(default_factory=list)  # with the title of their part
    numbers: list[list[Number]] = field(default_factory=list)


def chapters(catalogue: Catalogue) -> list[Chapter]:
    """One for each question that has Datasets, in the order of the questions."""
    material: dict[str, _Material] = {}
    elsewhere = _shown_elsewhere(catalogue)
    for kind in catalogue.present():
        _add(kind, catalogue, elsewhere, material)
    names = _Names()
    return [_chapter(question, material[question], names) for question in sorted(material, key=questions.place)]


def _shown_elsewhere(catalogue: Catalogue) -> set[str]:
    """The ids of the Datasets that another kind shows in its figures."""
    kinds = catalogue.present()
    return {d.attrs["id"] for kind in kinds for d in kind.shows_instead(catalogue.of(kind), catalogue)}


def _add(kind: Kind, catalogue: Catalogue, elsewhere: set[str], material: dict[str, _Material]) -> None:
    def of(question: str) -> _Material:
        return material.setdefault(question or kind.chapter, _Material())

    every = catalogue.of(kind)
    own = [dataset for dataset in every if dataset.attrs["id"] not in elsewhere]
    groups = list(kind.figures(own, catalogue)) if own else []
    for group in groups:
        of(group.chapter).groups.append((group.title or kind.title, group))
    for question, answers in groupby(kind.answers(every, catalogue), key=lambda answer: answer.chapter):
        of(question).answers.append(list(answers))
    shown = [dataset.attrs["id"] for group in groups for dataset in group.datasets]
    in_order = sorted(every, key=lambda dataset: [*shown, dataset.attrs["id"]].index(dataset.attrs["id"]))
    if numbers := [number for dataset in in_order for number in kind.numbers(dataset)]:
        of("").numbers.append(numbers)


def _chapter(question: str, found: _Material, names: _Names) -> Chapter:
    anchor = _anchor(question)
    parts = [(title, _named(group, names)) for title, group in found.groups]
    pictures = [picture for _, group in parts for picture in group.pictures]
    main = next((picture for picture in pictures if picture.lead), next(iter(pictures), None))
    table = next((table for _, group in parts for table in group.tables if table.lead), None)
    if table is None and found.numbers:
        table = number_table(found.numbers[0], NUMBERS)
    return Chapter(
        question,
        anchor,
        tuple(answers[0] for answers in found.answers[:ANSWERS]),
        main,
        table,
        _details(question, anchor, parts, (main, table), found.numbers),
    )


def _details(
    question: str,
    anchor: str,
    parts: Sequence[tuple[str, FigureGroup]],
    shown: tuple[Picture | None, Table | None],
    numbers: Sequence[Sequence[Number]],
) -> Section | None:
    """The figures and tables that the chapter does not show, under the titles of their parts, and all key numbers."""
    sections: list[Block] = []
    elsewhere = set(map(id, shown))
    for title, members in groupby(parts, key=lambda part: part[0]):
        blocks = [block for _, group in members for block in _blocks(group) if id(block) not in elsewhere]
        sections += [Section(title, f"{anchor}-{_slug(title)}", tuple(blocks))] if blocks else []
    tables: list[Block] = [number_table(each) for each in numbers]
    sections += [Section("Numbers", f"{anchor}-numbers", tuple(tables))] if tables else []
    return Section(question, f"{anchor}-details", tuple(sections)) if sections else None


def _blocks(group: FigureGroup) -> tuple[Block, ...]:
    return (*group.pictures, *group.tables)


def number_table(numbers: Iterable[Number], most: int | None = None) -> Table:
    """Names as rows, what they are of as columns; the other way round where there are many columns.

    A second number of one name and column, as of other data, is a row of its own.
    """
    found: dict[tuple[str, int], dict[str, str]] = {}
    for number in numbers:
        known = (found.get((number.name, k), {}).get(number.of, number.text) for k in count())
        place = next(k for k, text in enumerate(known) if text == number.text)
        found.setdefault((number.name, place), {})[number.of] = number.text
    shown = dict(list(found.items())[:most])
    columns = list(dict.fromkeys(of for row in shown.values() for of in row))
    rows = [(name, *(row.get(of, "") for of in columns)) for (name, _), row in shown.items()]
    turned = len(columns) > COLUMNS
    header, *body = zip(*[("", *columns), *rows], strict=True) if turned else [("", *columns), *rows]
    return Table("Key numbers.", tuple(header), tuple(map(tuple, body)))


class _Names:
    """Makes the names of pictures, and so their files, unique."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def unique(self, name: str) -> str:
        k = self._counts[name] = self._counts.get(name, 0) + 1
        return name if k == 1 else f"{name}-{k}"


def _named(group: FigureGroup, names: _Names) -> FigureGroup:
    """The group with pictures that know their Datasets and have names of their own."""
    pictures = (
        replace(each, name=names.unique(each.name), datasets=each.datasets or group.datasets) for each in group.pictures
    )
    return replace(group, pictures=tuple(pictures))


def _anchor(question: str) -> str:
    return f"question-{_slug(question)}"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def said_once(chapters: Sequence[Chapter]) -> Iterator[Chapter]:
    """The chapters with every sentence of how and pitfall at its first figure only."""
    said = set[str]()

    def once(picture: Picture) -> Picture:
        how, pitfall = ("" if each in said else each for each in (picture.how, picture.pitfall))
        said.update((how, pitfall))
        return replace(picture, how=how, pitfall=pitfall)

    def of(block: Block) -> Block:
        if isinstance(block, Section):
            return replace(block, blocks=tuple(map(of, block.blocks)))
        return once(block) if isinstance(block, Picture) else block

    mains = [once(chapter.picture) if chapter.picture else None for chapter in chapters]
    for chapter, main in zip(chapters, mains, strict=True):
        details = chapter.details and Section(
            chapter.details.title, chapter.details.anchor, tuple(map(of, chapter.details.blocks))
        )
        yield replace(chapter, picture=main, details=details)
