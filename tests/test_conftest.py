"""A part that is absent skips its tests, and fails them where LOSSATLAS_REQUIRE promises the part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.fixture
def outcome(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Run one marked test where no program exists, with LOSSATLAS_REQUIRE as given; return what pytest prints."""
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers = needs\n")
    pytester.makepyfile(test_one="import pytest\n@pytest.mark.needs('latex')\ndef test(): pass\n")

    def run(required: str) -> str:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setenv("LOSSATLAS_REQUIRE", required)
        done = pytester.runpytest_inprocess("-rs", "-p", "no:cacheprovider", "-p", "no:xdist")
        return done.stdout.str() + done.stderr.str()

    return run


def test_an_absent_part_skips_with_its_remedy(outcome: Callable[[str], str]) -> None:
    printed = outcome("")
    assert "1 skipped" in printed
    assert "latex is absent: apt install texlive-latex-recommended" in printed


def test_an_absent_part_that_is_promised_fails(outcome: Callable[[str], str]) -> None:
    printed = outcome("chromium, latex")
    assert "1 error" in printed
    assert "LOSSATLAS_REQUIRE lists it" in printed


def test_an_unknown_part_is_refused(outcome: Callable[[str], str]) -> None:
    assert "LOSSATLAS_REQUIRE names ['latx']" in outcome("latx")
