"""A kind in a package of its own, one verb file and one show file, gets all that lossatlas' own kinds have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy"


def lossatlas(*arguments: str) -> str:
    """What the command line prints where the toy is installed (its folder is on the path)."""
    return printed_by(sys.executable, "-m", "lossatlas", *arguments)


def printed_by(*command: str) -> str:
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(TOY), "PATH": ""},  # without LaTeX, which takes seconds
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_toy_has_a_verb_file_and_a_show_file_of_sixty_lines() -> None:
    files = [file for file in (TOY / "lossatlas_toy").glob("*.py") if file.name != "__init__.py"]
    assert sorted(file.name for file in files) == ["show.py", "verb.py"]
    code = [line for file in files for line in file.read_text().splitlines() if line.strip()]
    assert len(code) <= 60


def test_it_has_a_command_with_its_options() -> None:
    assert "The length of the weights." in lossatlas("--help")
    assert "--power" in lossatlas("toy", "--help")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with the results of its command and of a study, and what each printed: one process for both."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.yaml").write_text("measure: {toy: {options: {power: 3}}}\n")
    settings = ["train.network=mlp", "train.options={widths: [4]}", "train.epochs=1", "train.seeds=[1, 2, 3]"]
    names = ("line", "surface", "trajectory", "spectrum", "power_fixed", "power_changing", "connect", "robustness")
    names += ("robustness_filter", "quantisation", "pruning", "basin", "sharpness", "invariance")
    settings += [f"measure.{name}=null" for name in names]
    study = ["study", "--config", f"{folder}/toy.yaml", "--out", f"{folder}/study", "--quiet"]
    study += [part for setting in settings for part in ("--set", setting)]
    command = ["toy", "examples/digits_objective.py:objective", "--out", str(folder), "--power", "1"]
    code = f"from lossatlas.cli import app\napp({command})\nprint('BETWEEN')\napp({study})"
    return folder, printed_by(sys.executable, "-c", code).split("BETWEEN")


def test_its_command_writes_numbers_claim_and_figure(measured: tuple[Path, list[str]]) -> None:
    folder, (printed, _) = measured
    assert ": length " in printed
    assert "Supported: the weights of the network are not 0" in printed
    assert (folder / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_measures_it_on_each_network_and_its_report_has_the_chapter(
    measured: tuple[Path, list[str]],
) -> None:
    folder, (_, printed) = measured
    assert [name for name in ("toy_a", "toy_b", "toy_c") if name in printed] == ["toy_a", "toy_b", "toy_c"]
    page = (folder / "study" / "report.html").read_text()
    for part in ("How long is theta?", "figure-lengths"):
        assert part in page
    assert all(f"The weights of network {label} are not 0" in page for label in "ABC")
