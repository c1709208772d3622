"""What every test shares: quiet libraries, and the parts of the system that some tests need.

A test marked ``needs("latex")`` is skipped, with its reason, where LaTeX is absent. Where the environment variable
``LOSSATLAS_REQUIRE`` lists the part (``latex,chromium``), the test fails instead: no machine that promises a part
passes over its tests.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

# Before torch and matplotlib are imported, and for the processes that tests start: the workers share the cores, so each
# computes with one thread, and no figure opens a window.
for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")
os.environ.setdefault("MPLBACKEND", "agg")

import torch  # noqa: E402, after the threads are set
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

from lossatlas.drawing import style  # noqa: E402


def _programs(*names: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(name) for name in names)


PARTS: dict[str, tuple[Callable[[], bool], str]] = {
    "latex": (_programs("latexmk", "pdflatex"), "apt install texlive-latex-recommended lmodern latexmk"),
    "chromium": (_programs("chromium"), "apt install chromium"),
    "poppler": (_programs("pdftoppm", "pdftotext"), "apt install poppler-utils"),
    "ffmpeg": (_programs("ffmpeg"), "apt install ffmpeg"),
    "fashion-mnist": (Path("/usr/share/datasets/fashion-mnist").is_dir, "apt install dataset-fashion-mnist"),
}


def required() -> set[str]:
    """The parts that this machine promises to have."""
    return {part.strip() for part in os.environ.get("LOSSATLAS_REQUIRE", "").split(",") if part.strip()}


def pytest_configure() -> None:
    if unknown := required() - set(PARTS):
        raise pytest.UsageError(f"LOSSATLAS_REQUIRE names {sorted(unknown)}; the parts are {sorted(PARTS)}.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser's one test first: the workers take the files with the most tests first, and it would be the last."""
    items.sort(key=lambda item: "browser" not in item.path.parts)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for part in (part for marker in item.iter_markers("needs") for part in marker.args):
        is_there, remedy = PARTS[part]
        if is_there():
            continue
        if part in required():
            pytest.fail(f"{part} is absent, but LOSSATLAS_REQUIRE lists it: {remedy}", pytrace=False)
        pytest.skip(f"{part} is absent: {remedy}")


@pytest.fixture(autouse=True, scope="session")
def fonttype() -> Iterator[int]:
    """How a user's PDFs hold their fonts. Those of the tests hold them as drawings: to cut them takes half the time."""
    with pytest.MonkeyPatch.context() as patch:
        users = style.RC["pdf.fonttype"]
        patch.setitem(style.RC, "pdf.fonttype", 3)
        yield users


@pytest.fixture
def _unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, and their files are the smallest of their format: to write them takes most of the time of a
    test that looks at what stands beside them."""
    dot = io.BytesIO()
    Image.new("RGB", (1, 1)).save(dot, "png")

    def savefig(figure: Figure, target: str | Path | IO[bytes], *, format: str, **options: Any) -> None:  # noqa: A002
        smallest = {"pdf": b"%PDF", "png": dot.getvalue(), "svg": b"<svg/>"}[format]
        if isinstance(target, str | Path):
            Path(target).write_bytes(smallest)
        else:
            target.write(smallest)

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture(autouse=True)
def _gradients_are_left_on() -> Iterator[None]:
    """Nothing that runs under ``no_grad`` may leave it on: the next training would fail."""
    yield
    assert torch.is_grad_enabled(), "the test, or what it called, left gradients switched off"
