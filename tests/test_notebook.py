"""The notebook is run as it stands, on smaller settings."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "experiments.ipynb"
SMALL = """
dataset, network = "digits", "mlp"
epochs, snapshot_every = 2, 5
steps = 5
examples = 100
folder = "atlas"
"""


def test_the_notebook_runs_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # without LaTeX, which takes its time
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    names = {line.partition("=")[0].strip() for line in settings.source.splitlines()}
    assert names == {line.partition("=")[0].strip() for line in SMALL.strip().splitlines()}
    settings.source = SMALL
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    page = (tmp_path / "atlas" / "report.html").read_text()
    printed = "".join(o.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs)
    for claim in ("the sharper network generalises worse", "network A and network B differ in sharpness"):
        assert claim in printed, claim
        assert claim[1:] in page, claim
    assert 'id="figure-trajectory"' in page


def test_the_notebook_writes_no_attribute_by_hand() -> None:
    assert "attrs" not in NOTEBOOK.read_text()


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
