"""A report's contents, built once as data: summary, theory, set-up, chapters, conclusion, references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lossatlas.report.chapters import chapters
from lossatlas.report.document import Block, ClaimTable, Document, References, Section
from lossatlas.report.references import BIBLIOGRAPHY
from lossatlas.report.theory import theory
from lossatlas.results.blocks import Bullets, Paragraph, Table
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Claim, Verdict
from lossatlas.results.groups import distinct

PROVENANCE = {
    "model": "model",
    "n_parameters": "parameters",
    "data": "data",
    "dtype": "number format",
    "batch_norm": "batch normalisation",
    "lossatlas": "lossatlas",
    "torch": "PyTorch",
    "model_fingerprint": "fingerprint of the model",
    "data_fingerprint": "fingerprint of the data",
}
HOW_TO_READ = (
    "Observations in this report are numbers read off the data. Every judgement on them is a claim: a hypothesis, a "
    "statistic, its interval, and the verdict that the interval gives. Supported: the whole interval lies on the side "
    "of the threshold that the hypothesis names. Contradicted: it lies on the other side. Undecided: neither."
)


def document(catalogue: Catalogue, claims: Sequence[Claim], title: str, setup: Mapping[str, str]) -> Document:
    """The whole report. The order of the Datasets does not matter."""
    body = (
        _summary(claims),
        theory(catalogue),
        _setup(catalogue, setup),
        *chapters(catalogue, claims),
        _conclusion(claims),
    )
    references = Section("References", "references", (References(Document(title, body).cited),))
    works = [kind.references for kind in catalogue.present()]
    return Document(title, (*body, references), {k: v for each in (*works, BIBLIOGRAPHY) for k, v in each.items()})


def _tested(claims: Sequence[Claim]) -> Paragraph:
    n = len(claims)
    text = (
        f"{n} claim{'s were' if n != 1 else ' was'} tested. No correction for their number was made: with 95 % "
        "intervals, about one quantity in twenty lies outside its interval by chance. Standard errors take the "
        "examples as independent draws."
    )
    return Paragraph((text,))


def _summary(claims: Sequence[Claim]) -> Section:
    if not claims:
        return Section("Summary", "summary", (Paragraph(("The Datasets given allow no claim.",)),))
    return Section("Summary", "summary", (Paragraph((HOW_TO_READ,)), ClaimTable(tuple(claims)), _tested(claims)))


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


def _conclusion(claims: Sequence[Claim]) -> Section:
    """Claims only, by verdict, each with how it was computed and how far it reaches."""
    blocks: list[Block] = []
    for verdict in Verdict:
        found = tuple(f"{claim.sentence} {claim.detail}".strip() for claim in claims if claim.verdict is verdict)
        blocks += [Bullets(found, lead=f"{verdict.capitalize()} ({len(found)}).")] if found else []
    return Section("Conclusion", "conclusion", (*blocks, _tested(claims)))
