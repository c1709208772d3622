"""Reports: the same contents as one self-contained HTML file and as LaTeX, with a PDF where LaTeX is installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from tqdm.auto import tqdm

from lossatlas.errors import InputError, OutputError
from lossatlas.report import html, latex
from lossatlas.report.contents import document
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Claim

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.report.document import Document

    Item = xr.Dataset | Claim | Mapping[str, xr.Dataset]

__all__ = ["Report", "report"]


class Report(NamedTuple):
    """Where the report is; `pdf` is None where no LaTeX was there, and `message` then says how to get it."""

    html: Path
    tex: Path
    pdf: Path | None
    message: str


def report(
    items: Iterable[Item],
    folder: str | os.PathLike[str],
    *,
    title: str = "lossatlas report",
    setup: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Report:
    """report.html, report.tex, figures/*.pdf and, where latexmk is installed, report.pdf, written into ``folder``.

    Parameters
    ----------
    items : Datasets in any order, mappings of them (as ``connectivity`` returns), and Claims of one's own, which stand
        in the table of claims with those that the Datasets allow.
    setup : further rows of the set-up table.

    All files are finished before the first is moved into place: a failure leaves an older report as it was. A
    report.pdf of an older report goes where no new one could be made.

    Raises ``InputError`` for items that are neither, of no kind or not complete, ``OutputError`` where the folder
    cannot be written.

    Examples
    --------
    >>> import tempfile, torch, lossatlas as la
    >>> data = torch.ones(8, 1), torch.zeros(8, 1)
    >>> objective = la.Objective(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, data)
    >>> noise = la.robustness(objective, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     la.report([noise], folder, progress=False).html.name
    'report.html'
    """
    datasets, claims = _sorted_out(items)
    catalogue = Catalogue(datasets)
    derived = catalogue.claims()
    every = [*derived, *(claim for claim in claims if claim not in derived)]
    contents = document(catalogue, every, title, setup or {})
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".report-", dir=target))
    except OSError as error:
        raise OutputError(
            f"The report cannot be written to {target}: {error.strerror}. Choose another folder."
        ) from error
    try:
        made, message = _written(contents, scratch, progress)
        _move(scratch, target, [picture.name for picture in contents.pictures], made)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Report(target / "report.html", target / "report.tex", target / "report.pdf" if made else None, message)


def _written(contents: Document, folder: Path, progress: bool) -> tuple[bool, str]:
    """Every file of the report in ``folder``: whether there is a PDF, and one line about it."""
    total = 2 * len(contents.pictures)  # each once for the page and once for the paper
    with tqdm(total=total, desc="report", unit="figure", disable=not progress, leave=False) as bar:
        (folder / "report.html").write_text(html.render(contents, bar.update), encoding="utf-8")
        (folder / "report.tex").write_text(latex.render(contents), encoding="utf-8")
        latex.write_figures(contents, folder / "figures", bar.update)
        return latex.compile_pdf(folder)


def _sorted_out(items: Iterable[Item]) -> tuple[list[xr.Dataset], list[Claim]]:
    import xarray as xr

    datasets: list[xr.Dataset] = []
    claims: list[Claim] = []
    for item in items:
        if isinstance(item, xr.Dataset):
            datasets.append(item)
        elif isinstance(item, Claim):
            claims.append(item)
        elif isinstance(item, Mapping):
            datasets += cast("Mapping[str, xr.Dataset]", item).values()
        else:
            raise InputError(f"A report is made of Datasets and Claims; {type(item).__name__} is neither.")
    if not datasets:
        raise InputError("A report needs at least one Dataset; none was given.")
    return datasets, claims


def _move(scratch: Path, target: Path, pictures: Sequence[str], pdf: bool) -> None:
    """Each file by one atomic rename, the page last: a reader never sees half a file."""
    (target / "figures").mkdir(exist_ok=True)
    names = [f"figures/{picture}.pdf" for picture in pictures]
    names += ["report.tex", *(["report.pdf"] if pdf else []), "report.html"]
    for name in names:
        (scratch / name).replace(target / name)
    if not pdf:
        (target / "report.pdf").unlink(missing_ok=True)
