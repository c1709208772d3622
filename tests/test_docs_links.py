"""The documents point at what exists: files, headings, names of the library, files of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lossatlas
from lossatlas.results.discovery import GROUP

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")
HEADING = re.compile(r"^#+\s+(.*?)\s*#*$", re.MULTILINE)


def prose(document: Path) -> str:
    """The text without its fenced code."""
    return FENCED.sub("", document.read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """The anchors that a code host gives to the headings: lower case, punctuation dropped, spaces to hyphens."""
    headings = HEADING.findall(prose(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def path_in_project(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=path_in_project)
def test_every_link_inside_the_project_resolves(document):
    for link in LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", link):
            continue  # elsewhere: no network in the tests
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link} does not exist"
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=path_in_project)
def test_every_name_of_the_library_exists(document):
    """``la.name`` or ``la.zoo.name`` anywhere, code included; the group of the entry points is no name of Python."""
    text = document.read_text(encoding="utf-8").replace(GROUP, "")
    for name in re.findall(r"\b(?:la|lossatlas)\.((?:zoo\.|plot\.)?[A-Za-z_]\w*)\b(?!\.[a-z])", text):
        thing = lossatlas
        for part in name.split("."):
            assert hasattr(thing, part), f"lossatlas.{name} does not exist"
            thing = getattr(thing, part)


@pytest.mark.parametrize("document", [ROOT / "docs" / "studies.md", ROOT / "docs" / "map.md"], ids=path_in_project)
def test_every_file_that_is_named_exists(document):
    """A path in backquotes that ends like a file of the project is in the project, or under src/lossatlas."""
    for name in re.findall(
        r"`((?:src/|tests/|notebooks/|docs/|[a-z_]+/)[\w./-]*\.(?:py|ipynb|md|html|tex))`", prose(document)
    ):
        assert (ROOT / name).is_file() or (ROOT / "src" / "lossatlas" / name).is_file(), f"{name} does not exist"
