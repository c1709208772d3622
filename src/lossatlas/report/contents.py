"""A report's contents, built once as data: abstract, glance, chapters, and the details of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lossatlas.report.chapters import chapters, said_once
from lossatlas.report.document import ClaimTable, Document, References, Section
from lossatlas.report.glance import abstract, glance, rows
from lossatlas.report.references import BIBLIOGRAPHY
from lossatlas.report.theory import theory
from lossatlas.results.blocks import Bullets, Paragraph, Table
from lossatlas.results.captions import listed
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Claim
from lossatlas.results.groups import distinct

PROVENANCE = {
    "model": "model",
    "n_parameters": "parameters",
    "data": "data",
    "dtype": "number format",
    "batch_norm": "batch normalisation",
    "mode": "mode of the model",
    "lossatlas": "lossatlas",
    "torch": "PyTorch",
    "model_fingerprint": "fingerprint of the model",
    "data_fingerprint": "fingerprint of the data",
}
HOW_TO_READ = (
    "Every judgement in this report is a claim: a hypothesis, a statistic, its interval, and the verdict that the "
    "interval gives. Supported: the whole interval lies on the side "
    "of the threshold that the hypothesis names. Contradicted: it lies on the other side. Undecided: neither."
)


def document(catalogue: Catalogue, claims: Sequence[Claim], title: str, setup: Mapping[str, str]) -> Document:
    """The whole report. The order of the Datasets does not matter."""
    told = list(said_once(chapters(catalogue)))
    mains = [chapter.picture for chapter in told if chapter.picture]
    lead = next((p for p in mains if p.lead), next((p for p in mains if p.view), None))
    works = [kind.references for kind in catalogue.present()]
    found = Document(
        title,
        abstract(catalogue, told),
        glance(catalogue),
        tuple(rows(told)),
        tuple(told),
        (*_claims(claims), theory(catalogue), _setup(catalogue, setup)),
        lead,
        {k: v for each in (*works, BIBLIOGRAPHY) for k, v in each.items()},
    )
    methods = _methods(found)
    references = Section("References", "references", (References(found.cited),))
    return replace(found, details=(*methods, *found.details, references))


def _methods(found: Document) -> Iterator[Section]:
    """Every sentence on how figures were made, once, with the figures that it holds for."""
    holds: dict[str, list[int]] = {}
    for number, picture in enumerate(found.pictures, 1):
        for sentence in dict.fromkeys(picture.method):
            holds.setdefault(sentence, []).append(number)
    by_figures: dict[tuple[int, ...], list[str]] = {}
    for sentence, numbers in holds.items():
        by_figures.setdefault(tuple(numbers), []).append(sentence)
    items = tuple(f"{_figures(numbers)}: {' '.join(by_figures[numbers])}" for numbers in sorted(by_figures))
    if items:
        yield Section("Methods", "methods", (Bullets(items),))


def _figures(numbers: Sequence[int]) -> str:
    """The figures by their numbers: "Figures 2, 3 and 7"."""
    return f"Figure{'s' * (len(numbers) > 1)} {listed([str(number) for number in numbers])}"


def _claims(claims: Sequence[Claim]) -> Iterator[Section]:
    """Every claim once, with how it was computed and how far it reaches."""
    if claims:
        blocks = (Paragraph((HOW_TO_READ,)), ClaimTable(tuple(claims)), _tested(claims))
        yield Section("All claims", "claims", blocks)


def _tested(claims: Sequence[Claim]) -> Paragraph:
    n = len(claims)
    text = (
        f"{n} claim{'s were' if n != 1 else ' was'} tested. No correction for their number was made: with 95 % "
        "intervals, about one quantity in twenty lies outside its interval by chance. Standard errors take the "
        "examples as independent draws."
    )
    return Paragraph((text,))


def _setup(catalogue: Catalogue, setup: Mapping[str, str]) -> Section:
    rows = [(str(key), str(value)) for key, value in setup.items()]
    rows += [row for kind in catalogue.present() for row in kind.setup(catalogue.of(kind)).items()]
    for key, name in PROVENANCE.items():
        found = distinct(list(catalogue), key, (lambda n: f"{int(n):,}") if key == "n_parameters" else str)
        rows += [(name, found)] if found else []
    seconds = [float(dataset.attrs["seconds"]) for dataset in catalogue if "seconds" in dataset.attrs]
    rows += [("computing time", f"{sum(seconds):,.0f} s")] if seconds else []
    caption = "Set-up: what was given, and what the Datasets record. Values that differ between Datasets are listed."
    return Section("Set-up", "setup", (Table(caption, ("item", "value"), tuple(rows), (0.28, 0.72)),))
