"""One browser and one page for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import pages
from browser.chromium import Browser, chromium

from lossatlas.report import html

WINDOW = 1250, 700


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.render(pages.document()), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.size(*WINDOW)
        yield browser


@pytest.fixture
def browser(session: Browser, page: Path) -> Iterator[Browser]:
    """The page, opened once for all. Whatever a test does there: no message of the console, no request."""
    if session.run("location.href") != page.as_uri():
        session.open(page)
    session.size(*WINDOW)
    session.prefer("light")
    yield session
    assert session.messages == []
    assert {address.partition(":")[0] for address in session.requests} <= {"file", "data", "blob"}
    assert [address for address in session.requests if address.startswith("file:")] == [page.as_uri()]
