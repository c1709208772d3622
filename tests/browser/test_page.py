"""The report as a browser sees it: headless Chromium runs the page's scripts."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import measured
import pytest

from lossatlas.report import report

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--virtual-time-budget=20000",
    "--enable-logging=stderr",
    "--v=0",
    "--dump-dom",
]


@pytest.mark.needs("chromium")
def test_the_page_draws_its_interactive_figures_without_an_error(tmp_path: Path) -> None:
    page = report([measured.results()[name] for name in ("plane", "barrier")], tmp_path / "out").html
    seen = subprocess.run(
        ["chromium", *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert len(re.findall(r'class="[^"]*\bjs-plotly-plot\b', seen.stdout)) == 1  # the class of a figure that is drawn
    assert "<canvas" in seen.stdout
    assert "<math" in seen.stdout
    for complaint in ("Uncaught", "Refused to", "Failed to load"):
        assert complaint not in seen.stderr
