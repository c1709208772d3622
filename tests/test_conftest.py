"""A part that is absent skips its tests, and fails them where LOSSATLAS_REQUIRE promises the part."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.fixture
def outcome(tmp_path):
    """Run one marked test where no program exists, with LOSSATLAS_REQUIRE as given; return what pytest prints."""
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = needs\n")
    (tmp_path / "test_one.py").write_text("import pytest\n@pytest.mark.needs('latex')\ndef test(): pass\n")

    def run(required: str) -> str:
        environment = {**os.environ, "PATH": str(tmp_path), "LOSSATLAS_REQUIRE": required}
        command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    return run


def test_an_absent_part_skips_with_its_remedy(outcome):
    printed = outcome("")
    assert "1 skipped" in printed
    assert "latex is absent: apt install texlive-latex-recommended" in printed


def test_an_absent_part_that_is_promised_fails(outcome):
    printed = outcome("chromium, latex")
    assert "1 error" in printed
    assert "LOSSATLAS_REQUIRE lists it" in printed


def test_an_unknown_part_is_refused(outcome):
    assert "LOSSATLAS_REQUIRE names ['latx']" in outcome("latx")
