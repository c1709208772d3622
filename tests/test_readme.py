"""What the README shows is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lossatlas import cli
from lossatlas.cli import app

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for language, code in BLOCKS
    if language == "sh"
    for line in code.splitlines()
    if line.startswith("lossatlas ")
]


def test_the_python_examples_run_to_a_report_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in PYTHON[:-1]:
        exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "atlas" / "report.html").is_file()


def test_the_file_for_ones_own_model_is_the_one_in_examples_and_has_fifteen_lines_of_code() -> None:
    example = (ROOT / "examples" / "digits_objective.py").read_text()
    assert example.endswith(PYTHON[-1])
    assert len([line for line in PYTHON[-1].splitlines() if line.strip()]) <= 16


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:60])
def test_every_command_line_is_understood(command: list[str]) -> None:
    app.parse_args(command, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("verb", ["surface", "spectrum", "robustness"])
def test_the_commands_on_the_example_file_run(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = [list(command) for command in COMMANDS if command[0] == verb]
    command[command.index("--out") + 1] = str(tmp_path)
    faster = {"surface": ["--steps", "3"], "spectrum": ["--tol", "0.1"], "robustness": ["--draws", "2"]}[verb]
    assert cli.guarded(lambda: app([*command, *faster], exit_on_error=False, print_error=False)) == 0
    assert (tmp_path / f"{verb}.nc").is_file()
