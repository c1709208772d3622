"""What the page on models shows is run, and its table is what its script finds."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
RUN = re.findall(r"(?<!-->\n)```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_examples_of_the_page_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = dict[str, Any]()
    for code in RUN:
        exec(compile(code, "docs/models.md", "exec"), names)
    assert len(RUN) == 4
    assert names["barrier"].attrs["kind"] == "barrier"
    assert names["head"].n_parameters == 170


@pytest.mark.slow
def test_every_family_is_analysed_as_the_table_says() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "models.py"))
    assert len(list(script["families"]())) >= 16
    written, found = (list(script["rows"](text)) for text in (PAGE, script["table"]()))
    absent = script["missing"]()
    if absent:
        print(f"not compared, since {', '.join(absent)} is not installed: its pretrained networks")
    without_notes = [[re.sub(r" \(\d+\)$", "", cell) for cell in row] for row in written]
    measured = [[re.sub(r" \(\d+\)$", "", cell) for cell in row] for row in found]
    assert measured == [row for row in without_notes if not absent or "pretrained" not in row[0]]
