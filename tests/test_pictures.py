"""The pictures of the README are drawn by its script, small and on white."""

from __future__ import annotations

import io
import re
import runpy
from pathlib import Path

import measured
import numpy as np
import pytest
from PIL import Image

import lossatlas as la

ROOT = Path(__file__).parents[1]
SHOWN = re.findall(r'<img src="([^"]+)"', (ROOT / "README.md").read_text())
MOST = 80_000  # bytes


def is_small_and_on_white(content: bytes) -> bool:
    with Image.open(io.BytesIO(content)) as opened:
        pixels = np.asarray(opened.convert("RGBA"))
    white = (pixels == 255).all(axis=2)  # opaque, too
    return len(content) <= MOST and bool(white[[0, 0, -1, -1], [0, -1, 0, -1]].all()) and 0.1 < white.mean() < 0.95


@pytest.mark.parametrize("picture", SHOWN)
def test_a_picture_of_the_readme_is_small_and_on_white(picture: str) -> None:
    assert is_small_and_on_white((ROOT / picture).read_bytes())


def test_the_script_draws_every_picture_of_the_readme_from_a_study(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for name, dataset in measured.results().items():
        la.save(dataset, tmp_path / "results" / f"{name}.nc")
    script = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
    script["main"](tmp_path, tmp_path / "pictures")
    drawn = sorted((tmp_path / "pictures").iterdir())
    assert [file.name for file in drawn] == sorted(Path(picture).name for picture in SHOWN)
    assert all(is_small_and_on_white(file.read_bytes()) for file in drawn)


def test_a_folder_without_a_study_is_refused_with_the_remedy(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
    with pytest.raises(SystemExit, match="make demo"):
        script["main"](tmp_path, tmp_path / "pictures")
