"""Reports: the same contents as one self-contained HTML file and as LaTeX, with a PDF where LaTeX is installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lossatlas.claims import Claim, derive
from lossatlas.errors import InputError, OutputError
from lossatlas.report import html, latex
from lossatlas.report.results import KINDS
from lossatlas.report.sections import document

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Report", "report"]


class Report(NamedTuple):
    """Where the report is; `pdf` is None where no LaTeX was there, and `message` then says how to get it."""

    html: Path
    tex: Path
    pdf: Path | None
    message: str


def report(
    items: Iterable[xr.Dataset | Claim],
    folder: str | os.PathLike[str],
    *,
    title: str = "lossatlas report",
    setup: Mapping[str, str] | None = None,
) -> Report:
    """Write report.html, report.tex, figures/*.pdf and, where latexmk is installed, report.pdf into `folder`.

    `items` are Datasets, in any order, and Claims; without any Claim they are derived from the Datasets. `setup` is
    printed in the set-up table. All files are finished before the first is moved into place: a failure leaves an
    older report as it was. A report.pdf of an older report goes where no new one could be made.

    Raises InputError for items that are neither or whose kind is unknown, OutputError where the folder cannot be
    written.
    """
    datasets, claims = _sorted_out(items)
    contents = document(datasets, claims or derive(datasets), title, setup or {})
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".report-", dir=target))
    except OSError as error:
        raise OutputError(
            f"The report cannot be written to {target}: {error.strerror}. Choose another folder."
        ) from error
    try:
        (scratch / "report.html").write_text(html.render(contents), encoding="utf-8")
        (scratch / "report.tex").write_text(latex.render(contents), encoding="utf-8")
        latex.write_figures(contents, scratch / "figures")
        made, message = latex.compile_pdf(scratch)
        _move(scratch, target, [picture.name for picture in contents.pictures], made)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Report(target / "report.html", target / "report.tex", target / "report.pdf" if made else None, message)


def _sorted_out(items: Iterable[xr.Dataset | Claim]) -> tuple[list[xr.Dataset], list[Claim]]:
    import xarray as xr

    given = list(items)
    claims = [item for item in given if isinstance(item, Claim)]
    datasets = [item for item in given if isinstance(item, xr.Dataset)]
    for item in given:
        if not isinstance(item, (Claim, xr.Dataset)):
            raise InputError(f"A report is made of Datasets and Claims; {type(item).__name__} is neither.")
    for dataset in datasets:
        kind = dataset.attrs.get("kind")
        if kind not in KINDS:
            raise InputError(
                f"A Dataset of kind {kind!r} cannot be reported; attrs['kind'] must be one of: {_known()}."
            )
    if not datasets:
        raise InputError("A report needs at least one Dataset; none was given.")
    return datasets, claims


def _known() -> str:
    return ", ".join(sorted(KINDS))


def _move(scratch: Path, target: Path, pictures: Sequence[str], pdf: bool) -> None:
    """Each file by one atomic rename, the page last: a reader never sees half a file."""
    (target / "figures").mkdir(exist_ok=True)
    names = [f"figures/{picture}.pdf" for picture in pictures]
    names += ["report.tex", *(["report.pdf"] if pdf else []), "report.html"]
    for name in names:
        (scratch / name).replace(target / name)
    if not pdf:
        (target / "report.pdf").unlink(missing_ok=True)
