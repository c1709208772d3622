from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import measured
import pytest
import xarray as xr
from oracles.refusals import refused

from lossatlas.drawing import style
from lossatlas.errors import InputError, OutputError
from lossatlas.report import Report, latex, report
from lossatlas.report.contents import document
from lossatlas.report.document import ClaimTable, Section
from lossatlas.report.latex import escape
from lossatlas.results.blocks import Bullets, Cite, Math, Paragraph, full_caption, text
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.chapters import COMPARISON, CONNECTIVITY
from lossatlas.results.claim import Claim
from lossatlas.results.discovery import kind_of, kinds

SPECIAL = r"a_b 100 % & #1 $x$ {y} ~ ^ \end{document} \input{/etc/passwd} <script>alert(1)</script> λ ± 中 'q' --set"


def one(name: str) -> xr.Dataset:
    return measured.results()[name]


def every() -> list[xr.Dataset]:
    return list(measured.results().values())


def drawn() -> list[xr.Dataset]:
    """One of each kind, and what is compared of both networks: drawing all would take minutes."""
    kinds_of = {dataset.attrs["kind"]: dataset for dataset in every()}
    return [*kinds_of.values(), *(one(f"{name} A") for name in ("history", "spectrum", "robustness"))]


class Page(HTMLParser):
    """What a browser would fetch for this page, the text that it shows, and the anchors of its links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.shown: list[str] = []
        self.scripts = 0
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given["id"]} if given.get("id") else set()
        self.fetched += [given[key] or "" for key in ("src", "srcset", "poster", "data", "background") if key in given]
        if "href" in given:
            (self.links if tag == "a" else self.fetched).append(given["href"] or "")
        self.scripts += tag == "script"
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.shown.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.shown).split())


def plain(source: str) -> str:
    """A LaTeX source back as words, for comparison: the inverse of the escapes that claims use."""
    for pattern, sign in (
        (r"\\allowbreak\{\}", ""),
        (r"\\textless\{\}", "<"),
        (r"\\textasciicircum\{\}", "^"),
        (r"\\ensuremath\{\\pm\}", "±"),
        (r"\\ensuremath\{\\times\}", "×"),
        (r"\\ensuremath\{-\}", "−"),
        (r"\\ensuremath\{\\infty\}", "∞"),
        (r"\\textsuperscript\{\\textendash\}", "⁻"),
        (r"\\text(?:en)dash\{\}", "–"),
        (r"([-'`,])\{\}", r"\1"),
        (r"\\([&%$#_{}])", r"\1"),
        (r"\\textsuperscript\{(\d)\}", lambda digit: "⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit[1])]),
    ):
        source = re.sub(pattern, sign, source)
    return " ".join(source.split())


@pytest.fixture
def without_latex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a whole study on a machine without LaTeX."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        folder = tmp_path_factory.mktemp("report")
        return report(drawn(), folder, title=SPECIAL, setup={"key_%": SPECIAL, "b": "2"})


@pytest.fixture(scope="module")
def page(written: Report) -> Page:
    return Page(written.html.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def source(written: Report) -> str:
    return written.tex.read_text(encoding="utf-8")


def test_the_page_loads_nothing(page: Page):
    assert page.fetched
    assert all(address.startswith("data:image/") for address in page.fetched)
    assert not [link for link in page.links if not link.startswith(("#", "https://arxiv.org/", "https://doi.org/"))]


def test_the_page_forbids_itself_every_connection(written: Report):
    head = written.html.read_text(encoding="utf-8")[:2000]
    assert "default-src 'none'" in head
    assert "connect-src" not in head


def test_every_link_within_the_page_has_its_target(page: Page):
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert inner
    assert inner <= page.anchors


@pytest.mark.usefixtures("_unrendered")
def test_a_page_without_interactive_figures_carries_no_plotting_library(tmp_path: Path, without_latex: None):
    page = report([one("line")], tmp_path).html
    assert page.stat().st_size < 1e6


def test_users_strings_are_shown_and_never_run(page: Page, written: Report):
    assert "<script>alert(1)" not in written.html.read_text(encoding="utf-8")
    assert SPECIAL in page.words


def test_every_claim_is_once_in_both_renderings(page: Page, source: str):
    words = plain(source)
    for claim in Catalogue(drawn()).claims():
        for words_of_claim in (claim.hypothesis, claim.statistic[1:], claim.detail):
            assert " ".join(words_of_claim.split()) in page.words
            assert " ".join(words_of_claim.split()) in words
        hypothesis = f"{' '.join(claim.hypothesis.split())}."
        assert page.words.count(hypothesis) == words.count(hypothesis) == 1


SENTENCE = re.compile(r"[A-Z][^.;|]{40,}?[a-z)%\]][.:](?=\s|$)")


def test_no_sentence_stands_twice_in_a_document():
    contents = document(Catalogue(every()), Catalogue(every()).claims(), "", {})
    told = [
        *contents.abstract,
        *(answer.sentence for chapter in contents.chapters for answer in chapter.answers),
        *(answer.limit for chapter in contents.chapters for answer in chapter.answers),
        *(full_caption(picture) for picture in contents.pictures),
        *(item for block in contents.blocks() if isinstance(block, Bullets) for item in block.items),
        *("".join(map(str, block.content)) for block in contents.blocks() if isinstance(block, Paragraph)),
    ]
    sentences = Counter(found for text in told for found in SENTENCE.findall(text))
    assert len(sentences) > 100
    assert not [sentence for sentence, count in sentences.items() if count > 1]


def test_an_abstract_has_at_most_150_words_and_begins_with_whom_it_is_about():
    for items in (every(), [one("plane")], [one("history A"), one("spectrum A")]):
        found = document(Catalogue(items), [], "", {}).abstract
        assert found
        assert sum(len(sentence.split()) for sentence in found) <= 150
    (first, *_) = document(Catalogue(every()), [], "", {}).abstract
    assert "A and B" in first


def test_a_report_on_one_network_has_no_empty_chapter_and_no_word_of_a_second_one():
    of_one = (d for d in every() if kind_of(d).chapter not in (CONNECTIVITY, COMPARISON))
    items = [dataset for dataset in of_one if dataset.attrs.get("network") == "A"]
    contents = document(Catalogue(items), Catalogue(items).claims(), "", {})
    assert contents.chapters
    assert all(chapter.picture or chapter.answers for chapter in contents.chapters)
    told = [*contents.abstract, *(a.sentence for chapter in contents.chapters for a in chapter.answers)]
    told += [full_caption(picture) for picture in contents.pictures]
    assert not [sentence for sentence in told if re.search(r"\bB\b|two networks|two minima|the sharper", sentence)]


def test_every_figure_is_in_both_renderings(written: Report, source: str):
    named = re.findall(r"\{figures/([\w-]+)\.pdf\}", source)
    assert len(named) == len(set(named))
    assert sorted(named) == sorted(file.stem for file in (written.html.parent / "figures").glob("*.pdf"))
    text_of_page = written.html.read_text(encoding="utf-8")
    assert all(f'id="figure-{name}"' in text_of_page for name in named)


def test_every_formula_is_mathml_without_a_trace_of_latex(written: Report):
    formulas = re.findall(r"<math.*?</math>", written.html.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(formulas) > 20
    assert not [formula for formula in formulas if "\\" in unescape(formula) or "merror" in formula]


def test_the_order_of_the_items_does_not_matter(tmp_path: Path, without_latex: None):
    few = [one(name) for name in ("history B", "robustness B", "history A")]
    this, other = (report(items, tmp_path / str(k)) for k, items in enumerate((few, few[::-1])))
    assert this.tex.read_bytes() == other.tex.read_bytes()
    assert this.html.read_bytes() == other.html.read_bytes()


def test_a_claim_of_ones_own_stands_with_the_derived_ones():
    own = Claim("The minimum is flat", "slope", 0.25, (0.1, 0.4), detail="Measured by eye.")
    derived = Catalogue([one("spectrum A")]).claims()
    contents = document(Catalogue([one("spectrum A")]), [*derived, own], "", {})
    (table,) = (block for block in contents.blocks() if isinstance(block, ClaimTable))
    assert table.claims == (*derived, own)
    assert derived


def with_costly_measures() -> list[xr.Dataset]:
    """Every result, and one named as the measures of sharpness that need a transformer, or minutes."""
    sharpness = one("further sharpness").copy(deep=True)
    names = ["llc", "geodesic_worst", *sharpness["measure"].to_numpy()[2:]]
    return [*every(), sharpness.assign_coords(measure=names)]


def test_every_work_of_the_bibliography_is_cited_and_every_citation_is_a_work():
    contents = document(Catalogue(with_costly_measures()), [], "", {})
    assert set(contents.cited) == set(contents.bibliography)


def test_a_topic_of_the_theory_is_printed_once_and_for_the_kinds_present_only():
    def topics(datasets: list[xr.Dataset]) -> list[str]:
        (theory,) = (s for s in document(Catalogue(datasets), [], "", {}).sections if s.title == "Theory")
        return [block.title for block in theory.blocks if isinstance(block, Section)]

    objective = "Objective, gradient and Hessian"
    assert topics([one("robustness A")]) == [objective, "Weight noise"]
    everything = topics(with_costly_measures())
    assert len(everything) == len(set(everything))
    assert set(everything) == {objective} | {topic.title for kind in kinds().values() for topic in kind.theory()}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "at least one Dataset"),
        ([xr.Dataset()], "kind None"),
        ([xr.Dataset(attrs={"kind": "volume"})], "kind 'volume'"),
        (["surface"], "str is neither"),
    ],
)
def test_items_that_are_no_datasets_are_refused_before_anything_is_written(
    items: list[object], message: str, tmp_path: Path
):
    with pytest.raises(InputError, match=message):
        report(items, tmp_path / "new")  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("here")
    with refused(OutputError, match="Choose another folder"):
        report([one("line")], tmp_path / "file" / "report")


def test_without_latex_the_message_says_how_to_get_the_pdf(written: Report):
    assert written.pdf is None
    assert "apt install latexmk texlive-latex-recommended lmodern" in written.message
    assert "\n" not in written.message


@pytest.mark.usefixtures("_unrendered")
def test_a_failure_leaves_the_older_report_as_it_was(
    tmp_path: Path, without_latex: None, monkeypatch: pytest.MonkeyPatch
):
    report([one("line")], tmp_path, title="the older one")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def broken(*arguments: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(latex, "write_figures", broken)
    with pytest.raises(RuntimeError, match="disk is full"):
        report([one("robustness A")], tmp_path, title="the newer one")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.usefixtures("_unrendered")
def test_a_pdf_of_an_older_report_goes_with_it(tmp_path: Path, without_latex: None):
    (tmp_path / "report.pdf").write_bytes(b"%PDF of another day")
    assert report([one("line")], tmp_path).pdf is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figures", "report.html", "report.tex"]


@pytest.mark.usefixtures("_unrendered")
def test_a_latex_error_is_told_in_one_line_and_the_page_is_there_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 12, b"reading\n! Undefined control sequence.\n", b"")

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", fails)
    made_report = report([one("line")], tmp_path)
    assert made_report.pdf is None
    assert "! Undefined control sequence." in made_report.message
    assert made_report.html.is_file()


def test_special_characters_survive_in_the_latex_source(source: str):
    title = re.search(r"\\title\{(.*)\}\n", source)
    assert title is not None
    assert title[1] == escape(SPECIAL)
    assert r"a\_\allowbreak{}b 100 \% \& \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{}" in title[1]
    assert "[U+4E2D]" in title[1]
    assert source.count(r"\end{document}") == 1


@pytest.mark.parametrize(
    ("given", "set_as"), [("--", "-{}-"), ("''", "'{}'"), ("a\tb", "a b"), ("ﬁ", "fi"), ("Ł", "Ł")]
)
def test_characters_that_would_run_together_or_fail_are_kept_apart(given: str, set_as: str):
    assert escape(given) == set_as


@pytest.mark.needs("latex", "poppler")
def test_the_latex_source_compiles_as_it_stands_and_the_special_characters_print(written: Report, tmp_path: Path):
    for name in ("report.tex", "figures"):
        origin = written.html.parent / name
        (shutil.copytree if origin.is_dir() else shutil.copy)(origin, tmp_path / name)
    made_pdf, message = latex.compile_pdf(tmp_path)
    assert made_pdf, message
    log = (tmp_path / "report.log").read_text(errors="replace")
    assert "Overfull" not in log
    assert "undefined" not in log.lower().replace("undefined references", "")
    words = subprocess.run(
        ["pdftotext", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True
    ).stdout
    shown = " ".join(words.split())
    assert "root:" not in shown
    special = ("a_b 100 % & #1 $x$ {y}", "\\end{document}", "\\input{/etc/passwd}", "<script>alert(1)</script>")
    for part in (*special, "λ ± [U+4E2D]", "--set"):
        assert part in shown


@pytest.mark.needs("latex", "poppler")
def test_with_latex_a_report_of_few_datasets_has_its_pdf_whose_text_stays_text(
    tmp_path: Path, fonttype: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(style.RC, "pdf.fonttype", fonttype)
    made_report = report([one("barrier"), one("robustness A")], tmp_path)
    assert made_report.pdf is not None
    assert made_report.pdf.read_bytes().startswith(b"%PDF")
    fonts = subprocess.run(["pdffonts", made_report.pdf], capture_output=True, text=True, check=True).stdout
    assert "DejaVuSans" in fonts
    assert "Type 3" not in fonts
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figures", "report.html", "report.pdf", "report.tex"]


def test_prose_is_split_into_words_mathematics_and_citations():
    assert text("As $L$ [@li2018] shows") == ("As ", Math("L"), " ", Cite("li2018"), " shows")
