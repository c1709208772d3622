from __future__ import annotations

import gzip
import re
import shutil
from base64 import b64decode
from pathlib import Path

import measured
import pytest

import lossatlas as la
from lossatlas.report import report
from lossatlas.report.downloads import file_stem
from lossatlas.results.exporting import csv_text


def packed(page: Path) -> dict[str, bytes]:
    """What a page holds for its script, by key."""
    found = re.findall(r'<script type="text/plain" id="([^"]+)">([^<]+)<', page.read_text(encoding="utf-8"))
    assert len(dict(found)) == len(found), "a key stands twice"
    return {key: gzip.decompress(b64decode(text)) for key, text in found}


def test_a_page_holds_each_figure_as_the_paper_has_it_and_each_dataset_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    datasets = [measured.results()[name] for name in ("line", "robustness A")]
    made = report(datasets, tmp_path)
    held = packed(made.html)
    for figure in (tmp_path / "figures").iterdir():
        assert held[f"pdf-{figure.stem}"] == figure.read_bytes()
    assert {key for key in held if key.startswith("nc-")} == {f"nc-{d.attrs['id']}" for d in datasets}
    for dataset in datasets:
        (tmp_path / "one.nc").write_bytes(held[f"nc-{dataset.attrs['id']}"])
        assert la.load(tmp_path / "one.nc").equals(dataset)
        assert held[f"csv-{dataset.attrs['id']}"].decode() == csv_text(dataset, 9)
    assert "plotly" not in held  # nothing on this page can be moved


def test_a_file_is_named_by_what_every_system_takes() -> None:
    hostile = measured.results()["plane"].assign_attrs(network=r"<script>alert(1)</script>\input{/etc/passwd}_%&# λ")
    assert re.fullmatch(r"surface-script-alert-1-script-input-etc-passwd-_-\w{16}", file_stem(hostile))
    assert file_stem(hostile.assign_attrs(name="surface_a")) == "surface_a"
