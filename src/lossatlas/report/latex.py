"""The report as LaTeX for pdfLaTeX, and its compilation where the engine is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from lossatlas.report.images import image
from lossatlas.results.blocks import Cite, Math, capitalised, full_caption
from lossatlas.results.uncertainty import with_interval

if TYPE_CHECKING:
    from pathlib import Path

    from lossatlas.report.document import Document
    from lossatlas.results.blocks import Table, Text

NO_ENGINE = (
    "report.pdf was not made, because latexmk or pdflatex is not installed. Install them (Debian and Ubuntu: "
    "apt install latexmk texlive-latex-recommended lmodern) and run the same again, or compile report.tex elsewhere."
)
TIME_LIMIT = 300  # seconds for one compilation, which takes about 5

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_\allowbreak{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "/": r"/\allowbreak{}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "−": r"\ensuremath{-}",
    "∞": r"\ensuremath{\infty}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "≈": r"\ensuremath{\approx}",
    "✓": r"\ensuremath{\checkmark}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "’": "'",
    "‘": "`",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "…": r"\dots{}",
    "⁻": r"\textsuperscript{\textendash}",
    "\u00a0": "~",
    "\u202f": "~",
} | {digit: rf"\textsuperscript{{{k}}}" for k, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_GREEK = {
    unicodedata.lookup(f"GREEK SMALL LETTER {name}"): rf"\ensuremath{{\{name.lower()}}}"
    for name in (
        *("ALPHA", "BETA", "GAMMA", "DELTA", "EPSILON", "ZETA", "ETA", "THETA", "IOTA", "KAPPA", "MU", "NU", "XI"),
        *("PI", "RHO", "SIGMA", "TAU", "UPSILON", "PHI", "CHI", "PSI", "OMEGA"),
    )
}
_GREEK |= {"λ": r"\ensuremath{\lambda}"}  # whose name in Unicode is "lamda"
_GREEK |= {"Δ": r"\ensuremath{\Delta}", "Σ": r"\ensuremath{\Sigma}"}


def escape(text: str) -> str:
    r"""Any string as LaTeX text that pdfLaTeX sets: special characters escaped, Unicode mapped or named by its code.

    >>> print(escape("50 % of a_b & 1.0 ± 0.1"))
    50 \% of a\_\allowbreak{}b \& 1.0 \ensuremath{\pm} 0.1
    >>> print(escape("é 中"))
    é [U+4E2D]
    """
    mapped = "".join(_character(character) for character in unicodedata.normalize("NFC", text))
    return re.sub(r"([-'`,])(?=\1)", r"\1{}", mapped)  # two of these would run together: --preset is no dash


def _character(character: str) -> str:
    known = _SPECIAL.get(character) or _GREEK.get(character)
    if known is not None:
        return known
    if character.isascii():
        return character if character.isprintable() else " "
    if character.isalpha() and ord(character) < 0x180:  # Latin letters, which the T1 fonts have
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(_character(each) for each in plain) or f"[U+{ord(character):04X}]"


def render(document: Document) -> str:
    """The source of the report; its figures are `figures/NAME.pdf` next to it."""
    environment = Environment(  # no autoescape: that is for HTML; the filters escape for LaTeX
        loader=PackageLoader("lossatlas.report"),
        undefined=StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "tex": escape,
        "prose": _prose,
        "columns": _columns,
        "loose_value": lambda claim: escape(with_interval(claim.value, claim.interval)),
        "value": lambda claim: rf"\mbox{{{escape(with_interval(claim.value, claim.interval))}}}",
        "caption": full_caption,
        "capitalised": capitalised,
        "url": lambda address: re.sub(r"([%#])", r"\\\1", address),
    }
    return environment.get_template("report.tex.j2").render(document=document, bibliography=document.bibliography)


def _prose(content: Text) -> str:
    def piece(inline: str | Math | Cite) -> str:
        if isinstance(inline, str):
            return escape(inline)
        return f"${inline.tex}$" if isinstance(inline, Math) else rf"\cite{{{inline.key}}}"

    return "".join(piece(inline) for inline in content)


def _columns(table: Table) -> str:
    if table.widths:
        return "".join(rf"L{{{width}}}" for width in table.widths)
    return "l" + "r" * (len(table.header) - 1)


def write_figures(document: Document, folder: Path, done: Callable[[], object] = lambda: None) -> None:
    """Each picture as a PDF; ``done`` is called after each."""
    folder.mkdir()
    for picture in document.pictures:
        (folder / f"{picture.name}.pdf").write_bytes(image(picture, "pdf"))
        done()


def compile_pdf(folder: Path) -> tuple[bool, str]:
    """Whether report.pdf was made from report.tex in the folder, and one line about it."""
    if shutil.which("latexmk") is None or shutil.which("pdflatex") is None:
        return False, NO_ENGINE
    command = [
        "latexmk",
        "-norc",
        "-pdf",
        "-interaction=nonstopmode",
        "-halt-on-error",
        "-no-shell-escape",
        "report.tex",
    ]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return False, f"report.pdf was not made: latexmk took more than {TIME_LIMIT} s. Compile report.tex by hand."
    if done.returncode == 0 and (folder / "report.pdf").is_file():
        return True, "report.pdf was made by latexmk."
    output = done.stdout.decode(errors="replace").splitlines()
    why = next((line for line in output if line.startswith("!")), f"latexmk ended with {done.returncode}")
    return False, f"report.pdf was not made: LaTeX stopped with {why!r}. Compile report.tex by hand to see its log."
