"""A report's contents, built once as data: summary, theory, set-up, results, conclusion, references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lossatlas.drawing.overlays import has_ways
from lossatlas.report.blocks import Results
from lossatlas.report.captions import distinct
from lossatlas.report.document import (
    Block,
    Bullets,
    ClaimTable,
    Document,
    Paragraph,
    References,
    Section,
    Table,
)
from lossatlas.report.results import sections
from lossatlas.report.theory import theory

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.claims import Claim

TRAINING = {"optimizer": "optimiser", "batch_size": "batch size", "epochs": "epochs", "seed": "seeds of the training"}
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


def document(datasets: Sequence[xr.Dataset], claims: Sequence[Claim], title: str, setup: Mapping[str, str]) -> Document:
    """The whole report. The order of the Datasets does not matter: they are sorted by kind, network and name."""
    ordered = sorted(datasets, key=_order)
    body = Document(
        title,
        (
            _summary(claims),
            theory(_topics(ordered)),
            _setup(ordered, setup),
            Section("Results", "results", sections(Results(ordered, claims))),
            _conclusion(claims),
        ),
    )
    references = Section("References", "references", (References(body.cited),))
    return Document(title, (*body.sections, references))


def _topics(datasets: Sequence[xr.Dataset]) -> set[str]:
    """What the theory has to explain: the kinds of the Datasets, and what some of a kind only have."""
    kinds = {"ways_plane" if has_ways(dataset) else str(dataset.attrs["kind"]) for dataset in datasets}
    variables = {name for name in ("density", "trace", "trend_eigenvalue") for d in datasets if name in d}
    tolerance = {"tolerance" for d in datasets if d.attrs["kind"] == "surface" and "tolerance" in d.attrs}
    curved = {
        "curve" for d in datasets if d.attrs["kind"] == "barrier" and d.attrs.get("curve", "Segment") != "Segment"
    }
    return kinds | variables | tolerance | curved


def _order(dataset: xr.Dataset) -> tuple[str, ...]:
    keys = ("kind", "network", "name", "region", "directions", "relative", "batches", "data")
    everything = repr(sorted(dataset.attrs.items(), key=str))  # so that no tie is left to the order given
    return (*(str(dataset.attrs.get(key, "")) for key in keys), everything)


def _tested(claims: Sequence[Claim]) -> str:
    n = len(claims)
    return (
        f"{n} claim{'s were' if n != 1 else ' was'} tested. No correction for their number was made: with 95 % "
        f"intervals, "
        "about one quantity in twenty lies outside its interval by chance. Standard errors take the examples as "
        "independent draws."
    )


def _summary(claims: Sequence[Claim]) -> Section:
    how = (
        "Observations in this report are numbers read off the data. Every judgement on them is a claim: a hypothesis, "
        "a statistic, its interval, and the "
        "verdict that the interval gives. Supported: the whole interval lies on the side of the threshold that the "
        "hypothesis names. Contradicted: it lies on the other side. Undecided: neither."
    )
    if not claims:
        none = Paragraph(("The Datasets given allow no claim.",))
        return Section("Summary", "summary", (none,))
    return Section("Summary", "summary", (Paragraph((how,)), ClaimTable(tuple(claims)), Paragraph((_tested(claims),))))


def _setup(datasets: Sequence[xr.Dataset], setup: Mapping[str, str]) -> Section:
    rows = [(str(key), str(value)) for key, value in setup.items()]
    histories = [dataset for dataset in datasets if dataset.attrs["kind"] == "history"]
    recorded = [(histories, TRAINING), (datasets, PROVENANCE)]
    for source, key, name in ((source, *named) for source, names in recorded for named in names.items()):
        spell = (lambda value: f"{int(value):,}") if key == "n_parameters" else str
        found = distinct(source, key, spell)
        if found:
            rows.append((name, found))
    seconds = [float(dataset.attrs["seconds"]) for dataset in datasets if "seconds" in dataset.attrs]
    if seconds:
        rows.append(("computing time", f"{sum(seconds):,.0f} s"))
    caption = "Set-up: what was given, and what the Datasets record. Values that differ between Datasets are listed."
    return Section("Set-up", "setup", (Table(caption, ("item", "value"), tuple(rows), (0.28, 0.72)),))


def _conclusion(claims: Sequence[Claim]) -> Section:
    """Claims only, by verdict, each with how it was computed and how far it reaches."""
    blocks: list[Block] = []
    for verdict in ("supported", "contradicted", "undecided"):
        found = tuple(f"{claim.sentence} {claim.detail}" for claim in claims if claim.verdict == verdict)
        if found:
            blocks.append(Bullets(found, lead=f"{verdict.capitalize()} ({len(found)})."))
    return Section("Conclusion", "conclusion", (*blocks, Paragraph((_tested(claims),))))
