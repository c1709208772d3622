"""What the README shows is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import lossatlas as la
from lossatlas import cli
from lossatlas.cli import app

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
PACKAGE = {code.split()[1].rstrip(":"): code for code in PYTHON if code.startswith("# norms/")}  # file -> its text
(OWN_MODEL,) = [code for code in PYTHON if "def objective()" in code]
SESSION = [code for code in PYTHON if code not in (OWN_MODEL, *PACKAGE.values())]
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for language, code in BLOCKS
    if language == "sh"
    for line in code.splitlines()
    if line.startswith("lossatlas ")
]


class Session(NamedTuple):
    """The folder in which the session was typed as it stands, and the names that it left."""

    folder: Path
    names: dict[str, Any]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder, names = tmp_path_factory.mktemp("session"), dict[str, Any]()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PATH", "")  # without LaTeX, which takes most of the time
        for code in SESSION:
            exec(compile(code, "README.md", "exec"), names)
    return Session(folder, names)


def test_the_session_ends_in_a_report_with_the_trajectory_on_its_plane(session: Session) -> None:
    for page in ("report.html", "report.tex"):
        text = (session.folder / "atlas" / page).read_text()
        assert "The trajectory of network A" in text
    assert 'id="figure-trajectory"' in (session.folder / "atlas" / "report.html").read_text()


def test_the_figure_of_trajectory_and_plane_has_a_point_for_each_snapshot(session: Session) -> None:
    trajectory = session.names["trajectory"]
    axes = la.plot.figure(trajectory, session.names["pca"]).axes[0]
    drawn = np.vstack([np.asarray(collection.get_offsets()) for collection in axes.collections])
    for snapshot in np.stack([trajectory["alpha"], trajectory["beta"]], axis=1):
        assert np.isclose(drawn, snapshot).all(axis=1).any()


def test_its_report_has_the_claims_that_compare_two_labelled_networks(session: Session) -> None:
    page = (session.folder / "atlas" / "report.html").read_text()
    assert "The sharper network generalises worse" in page
    assert "Network A and network B differ in sharpness" in page
    assert re.search(r"Of the two networks, the sharper one \(network [AB]\) loses more under weight noise", page)


def test_the_report_of_the_paths_has_the_claims_that_compare_them(session: Session) -> None:
    page = (session.folder / "connected" / "report.html").read_text()
    for path in ("The Bezier curve", "The line after alignment"):
        assert f"{path} crosses a lower barrier of the loss than the straight line" in page


def test_the_saved_surface_is_read_back(session: Session) -> None:
    surface = la.load(session.folder / "surface.nc")
    assert {name: surface.attrs[name] for name in ("network", "directions", "normalisation", "seed")} == {
        "network": "A",
        "directions": "random",
        "normalisation": "filter",
        "seed": 0,
    }


def test_the_package_with_a_measurement_of_ones_own_has_a_command_and_a_part_of_the_report(tmp_path: Path) -> None:
    for file, code in PACKAGE.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(code)
    (entry_points,) = re.findall(r"(\[lossatlas.kinds\]) (.*)", PACKAGE["norms/show.py"])
    (tmp_path / "norms-1.dist-info").mkdir()
    (tmp_path / "norms-1.dist-info" / "entry_points.txt").write_text("\n".join(entry_points))
    out = str(tmp_path / "out")
    without_latex = os.environ | {"PYTHONPATH": str(tmp_path), "PATH": ""}
    commands = (["norm", "examples/digits_objective.py:objective", "--out", out], ["report", out])
    one_process = f"from lossatlas.cli import app\nfor each in {commands}: app(each)"
    subprocess.run([sys.executable, "-c", one_process], env=without_latex, check=True, cwd=ROOT)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How large are the weights?" in page
    assert 'id="figure-norms"' in page


def test_the_file_for_ones_own_model_is_the_one_in_examples_and_has_fifteen_lines_of_code() -> None:
    example = (ROOT / "examples" / "digits_objective.py").read_text()
    assert example.endswith(OWN_MODEL)
    assert len([line for line in OWN_MODEL.splitlines() if line.strip()]) <= 16


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:60])
def test_every_command_line_is_understood(command: list[str]) -> None:
    app.parse_args(command, exit_on_error=False, print_error=False)


STUDIES = [command for command in COMMANDS if command[0] == "study" and "my.yaml" not in command]


@pytest.mark.parametrize("command", STUDIES, ids=lambda command: " ".join(command)[:60])
def test_every_setting_of_a_study_is_one(command: list[str]) -> None:
    assert cli.guarded(lambda: app([*command, "--show-config"], exit_on_error=False, print_error=False)) == 0


FASTER = {
    "surface": ["--steps", "3"],
    "spectrum": ["--tol", "0.1", "--steps", "5", "--trace-tol", "0.5"],
    "robustness": ["--draws", "2"],
}


@pytest.mark.parametrize("verb", FASTER)
def test_the_commands_on_the_example_file_run(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = [list(command) for command in COMMANDS if command[0] == verb]
    command[command.index("--out") + 1] = str(tmp_path)
    faster = {
        "surface": ["--steps", "3"],
        "spectrum": ["--tol", "0.1", "--steps", "5", "--trace-tol", "0.5"],
        "robustness": ["--draws", "2"],
    }[verb]
    assert cli.guarded(lambda: app([*command, *faster], exit_on_error=False, print_error=False)) == 0
    assert (tmp_path / f"{verb}.nc").is_file()
