"""The staircase of files, the public names, what is imported when, and what no file of the project may hold."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path, PurePosixPath

import pytest

import lossatlas

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "lossatlas"

# docs/map.md draws the same picture. A file imports files of lower floors, files of its own folder, and of its own
# floor those that are listed before it.
FLOORS: dict[int, list[str]] = {
    0: [
        "errors.py",
        "parameters.py",
        "batches.py",
        "checkpoints.py",
        "measures.py",
        "functional.py",
        "strata.py",
        "store.py",
        "interpolation.py",
    ],
    1: ["evaluation/*", "objective.py", "regions.py", "curves.py"],
    2: [
        "directions.py",
        "trajectory.py",
        "symmetry/*",
        "curvature/operators.py",
        "adaptive.py",
        "cells.py",
        "pictures.py",
    ],
    3: ["surface.py", "curvature/*", "connectivity/*", "robustness.py"],
    4: ["uncertainty.py", "plot/*", "claims/*", "report/*"],
    5: ["target.py", "study/*"],
    6: ["__init__.py", "cli.py", "__main__.py"],  # the front page, and its first user
}
# A folder: what it may import, who may import it.
BESIDE = {"zoo": ({"errors", "batches", "measures", "checkpoints"}, {"study", "cli", "__init__"})}

FILES = sorted(SOURCE.rglob("*.py"))


def place(file: Path) -> tuple[int, int] | None:
    """The floor of ``file`` and its position there: its own name counts before its folder's."""
    name = PurePosixPath(file.relative_to(SOURCE).as_posix())
    for wanted in (str(name), f"{name.parent}/*"):
        for floor, names in FLOORS.items():
            if wanted in names:
                return floor, names.index(wanted)
    return None


def top(file: Path) -> str:
    """The first part of a file's place: ``zoo`` for ``zoo/fit.py``, ``cli`` for ``cli.py``."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[Path]:
    """The files of the package that ``file`` imports, at its top, inside functions and for type checking alike."""
    return imports_in(file.read_text(encoding="utf-8"), file)


def imports_in(text: str, file: Path) -> Iterator[Path]:
    package = ["lossatlas", *file.relative_to(SOURCE).parent.parts]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{module}.{a.name}" if _file(f"{module}.{a.name}") else module for a in node.names]
        else:
            continue
        yield from (found for name in names if (found := _file(name)) is not None)


def _file(module: str) -> Path | None:
    first, *rest = module.split(".")
    if first != "lossatlas":
        return None
    path = SOURCE.joinpath(*rest)
    candidates = [path / "__init__.py", path.with_suffix(".py") if rest else path / "__init__.py"]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def test_every_file_stands_on_one_floor():
    homeless = [str(f.relative_to(SOURCE)) for f in FILES if place(f) is None and top(f) not in BESIDE]
    assert not homeless, f"give these files a floor here and in docs/map.md: {homeless}"


def test_the_map_names_every_file_and_folder_of_the_staircase():
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    names = {name.removesuffix("*") for floor in FLOORS.values() for name in floor if not name.startswith("__")}
    missing = sorted(name for name in names | {f"{folder}/" for folder in BESIDE} if name not in text)
    assert not missing, missing


def test_a_file_imports_lower_floors_or_its_own_folder_only():
    wrong = [
        f"{file.relative_to(SOURCE)} -> {target.relative_to(SOURCE)}"
        for file in FILES
        for target in imports(file)
        if not _allowed(file, target)
    ]
    assert not wrong, wrong


def _allowed(file: Path, target: Path) -> bool:
    if target == file or (target.parent == file.parent != SOURCE):
        return True
    if top(file) in BESIDE:
        return top(target) in BESIDE[top(file)][0]
    if top(target) in BESIDE:
        return top(file) in BESIDE[top(target)][1]
    return place(target) < place(file)


def test_there_is_no_import_cycle():
    graph = {file: {target for target in imports(file) if target != file} for file in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(str(f.relative_to(SOURCE)) for f in error.args[1]))


def test_the_reader_of_imports_sees_every_form():
    text = """
import os, lossatlas.errors
from lossatlas.model import parameters
from ..objective import Objective
from . import barrier
def f():
    from lossatlas.geometry.curves import Segment
    import lossatlas.geometry.regions as r
"""
    found = imports_in(text, SOURCE / "connectivity" / "probe.py")
    names = {file.relative_to(SOURCE).as_posix() for file in found}
    assert names == {
        "errors.py",
        "parameters.py",
        "objective.py",
        "connectivity/barrier.py",
        "curves.py",
        "regions.py",
    }


@pytest.mark.parametrize("name", sorted(lossatlas.__all__))
def test_a_public_name_is_there_and_documented(name):
    assert name in dir(lossatlas)
    thing = getattr(lossatlas, name)
    if inspect.ismodule(thing) or callable(thing):
        assert (inspect.getdoc(thing) or "").strip(), f"lossatlas.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lossatlas.no_such_name


def test_the_version_is_that_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert lossatlas.__version__ == project["version"]


def test_every_package_that_is_imported_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["kfac"]]
    declared = {re.match(r"[\w-]+", line)[0] for line in lines}
    nodes = [node for file in FILES for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    modules = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"lossatlas"}
    owners = {"curvlinops": ["curvlinops-for-pytorch"]} | packages_distributions()  # an extra, seldom installed
    used = {module: {owner.lower() for owner in owners[module]} for module in modules}
    assert not {module for module, packages in used.items() if not packages & declared}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after ``code``."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit as stop:\n    assert not stop.code\n"
    tail = "print('MODULES', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    done = subprocess.run(
        [sys.executable, "-c", script + tail], capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("MODULES ")[2].split())


SLOW_TO_IMPORT = {"torch", "xarray", "matplotlib", "sklearn", "scipy", "plotly", "pandas", "netCDF4"}


def test_the_help_of_the_command_line_imports_nothing_slow():
    code = "sys.argv = ['lossatlas', '--help']; from lossatlas.cli import main; main()"
    assert modules_after(code) & SLOW_TO_IMPORT == set()


def test_importing_the_package_imports_nothing_slow():
    assert modules_after("import lossatlas") & (SLOW_TO_IMPORT | {"numpy"}) == set()


def floor_four() -> list[str]:
    modules = [f.relative_to(SOURCE).with_suffix("").parts for f in FILES if (place(f) or (0,))[0] == 4]
    return [".".join(["lossatlas", *parts]).removesuffix(".__init__") for parts in modules]


def test_plots_claims_and_reports_do_not_import_torch():
    assert "torch" not in modules_after(f"import {', '.join(floor_four())}")


def project_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("this is not a git checkout: which files belong to the project is not known")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_path_of_one_machine():
    folders = ["work", "tmp/w", "root", "opt/wheels", "home"]  # spelt without the slashes that would match here
    pattern = re.compile("|".join(rf"(?<![\w.~}})*]){re.escape(f'/{folder}/')}" for folder in folders).encode())
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in project_files()
        for number, line in enumerate(file.read_bytes().split(b"\n"), start=1)
        if pattern.search(line)
    ]
    assert not found, found


def test_every_module_of_the_package_can_be_imported():
    for file in FILES:
        if file.name != "__main__.py":
            importlib.import_module(
                ".".join(["lossatlas", *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
            )
