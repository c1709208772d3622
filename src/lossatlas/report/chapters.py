"""The chapters of the results: each a question, with the parts of the kinds that answer it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from lossatlas.report.document import Block, Section
from lossatlas.results.blocks import Bullets, FigureGroup, Picture
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Claim
from lossatlas.results.discovery import kind_of

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.kind import Kind

NO_CLAIM = "No claim is tested on this figure."


def chapters(catalogue: Catalogue, claims: Sequence[Claim]) -> Iterator[Section]:
    """A section for each question that has Datasets, in the order of the kinds."""
    building = _Building(claims)
    shown_elsewhere = _shown_elsewhere(catalogue)
    for question, kinds in groupby(catalogue.present(), key=lambda kind: kind.chapter):
        parts = [part for kind in kinds for part in building.parts(kind, catalogue, shown_elsewhere)]
        if parts:
            yield Section(question, _anchor(question), tuple(parts))


def _shown_elsewhere(catalogue: Catalogue) -> set[str]:
    """The ids of the Datasets that another kind shows in its figures."""
    kinds = catalogue.present()
    return {d.attrs["id"] for kind in kinds for d in kind.shows_instead(catalogue.of(kind), catalogue)}


class _Building:
    """The parts of the chapters: names of pictures are made unique, and each claim is printed once."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self._claims = list(claims)
        self._names: dict[str, int] = {}

    def parts(self, kind: Kind, catalogue: Catalogue, shown_elsewhere: set[str]) -> Iterator[Section]:
        datasets = [dataset for dataset in catalogue.of(kind) if dataset.attrs["id"] not in shown_elsewhere]
        groups = kind.figures(datasets, catalogue) if datasets else []
        for title, members in groupby(groups, key=lambda group: group.title or kind.title):
            blocks = [block for group in members for block in self._blocks(group)]
            yield Section(title, _anchor(title), tuple(blocks))

    def _blocks(self, group: FigureGroup) -> Iterator[Block]:
        yield from map(self._named, group.pictures)
        yield from _numbers(group.datasets)
        yield Bullets(tuple(self._sentences(group.datasets)) or (NO_CLAIM,), lead="Interpretation.")
        yield from group.tables

    def _named(self, picture: Picture) -> Picture:
        k = self._names[picture.name] = self._names.get(picture.name, 0) + 1
        return picture if k == 1 else replace(picture, name=f"{picture.name}-{k}")

    def _sentences(self, datasets: Iterable[xr.Dataset]) -> Iterator[str]:
        """The claims whose first Dataset is among these, each at its first figure only."""
        ids = {dataset.attrs["id"] for dataset in datasets}
        here = [claim for claim in self._claims if claim.datasets and claim.datasets[0] in ids]
        self._claims = [claim for claim in self._claims if claim not in here]
        yield from (claim.sentence for claim in here)


def _numbers(datasets: Iterable[xr.Dataset]) -> Iterator[Bullets]:
    """What is read off the Datasets, where their kinds read anything off."""
    sentences = tuple(sentence for dataset in datasets for sentence in kind_of(dataset).numbers(dataset))
    if sentences:
        yield Bullets(sentences, lead="Observation.")


def _anchor(title: str) -> str:
    return "results-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
