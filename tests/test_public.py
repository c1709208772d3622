"""The staircase of files, the public names, what is imported when, and what no file of the project may hold."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

import lossatlas

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "lossatlas"

# docs/map.md draws the same picture. A file imports strictly lower floors, or files of its own folder.
FLOORS: dict[int, list[str]] = {
    0: ["errors.py", "parameters.py", "batches.py", "provenance.py"],
    1: ["objective.py", "regions.py", "curves.py"],
    2: ["directions.py", "trajectory.py", "curvature/operators.py"],
    3: [
        "surface.py",
        "curvature/lanczos.py",
        "curvature/power.py",
        "curvature/spectrum.py",
        "connectivity/*",
        "robustness.py",
    ],
    4: ["plot/*", "claims.py", "report/*"],
    5: ["study.py"],
    6: ["cli.py"],
    7: ["__init__.py", "__main__.py", "curvature/__init__.py"],
}
BESIDE = {"zoo": ({"errors"}, {"study", "cli", "__init__"})}  # folder: what it may import, who may import it

FILES = sorted(SOURCE.rglob("*.py"))


def floor(file: Path) -> int | None:
    place = PurePosixPath(file.relative_to(SOURCE).as_posix())
    floors = [f for f, patterns in FLOORS.items() for pattern in patterns if _matches(place, pattern)]
    assert len(floors) <= 1, f"{place} stands on floors {floors}"
    return floors[0] if floors else None


def _matches(place: PurePosixPath, pattern: str) -> bool:
    return place.match(pattern) if "/" in pattern else str(place) == pattern


def beside(file: Path) -> str | None:
    top = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    return top if top in BESIDE else None


def imports(file: Path) -> Iterator[Path]:
    """The files of the package that ``file`` imports, at its top, inside functions and for type checking alike."""
    package = ["lossatlas", *file.relative_to(SOURCE).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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
    homeless = [str(f.relative_to(SOURCE)) for f in FILES if floor(f) is None and beside(f) is None]
    assert not homeless, f"give these files a floor here and in docs/map.md: {homeless}"


def test_a_file_imports_lower_floors_or_its_own_folder_only():
    wrong = [
        f"{file.relative_to(SOURCE)} -> {target.relative_to(SOURCE)}"
        for file in FILES
        for target in imports(file)
        if not _allowed(file, target)
    ]
    assert not wrong, wrong


def _allowed(file: Path, target: Path) -> bool:
    folder = file.parent if file.parent != SOURCE else None
    if target == file or target.parent == folder:
        return True
    stem = target.relative_to(SOURCE).with_suffix("").as_posix()
    if (own := beside(file)) is not None:
        return stem in BESIDE[own][0]
    if (other := beside(target)) is not None:
        return file.relative_to(SOURCE).with_suffix("").as_posix() in BESIDE[other][1]
    return floor(target) < floor(file)


def test_there_is_no_import_cycle():
    graph = {file: {target for target in imports(file) if target != file} for file in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(str(f.relative_to(SOURCE)) for f in error.args[1]))


def test_the_reader_of_imports_sees_every_form():
    """The tests above are worth what ``imports`` finds: a probe with each form of import."""
    probe = SOURCE / "connectivity" / "probe.py"
    text = (
        "import lossatlas.errors\nfrom lossatlas import parameters\nfrom ..objective import Objective\nfrom . import barrier\n"
        "def f():\n    from lossatlas.curves import Segment\n    import lossatlas.regions as r, os\n"
    )
    found = _imports_of(probe, text)
    assert found == {"errors", "parameters", "objective", "connectivity/barrier", "curves", "regions"}


def _imports_of(place: Path, text: str) -> set[str]:
    class Probe(type(place)):  # a file that is only in memory
        def read_text(self, *args: object, **options: object) -> str:
            return text

    return {found.relative_to(SOURCE).with_suffix("").as_posix() for found in imports(Probe(place))}


@pytest.mark.parametrize("name", sorted(lossatlas.__all__))
def test_a_public_name_is_there_and_documented(name):
    assert name in dir(lossatlas)
    thing = getattr(lossatlas, name)
    if inspect.ismodule(thing) or callable(thing):
        assert (inspect.getdoc(thing) or "").strip(), f"lossatlas.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lossatlas.no_such_name


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
    modules = [f.relative_to(SOURCE).with_suffix("").parts for f in FILES if floor(f) == 4]
    return [".".join(["lossatlas", *parts]).removesuffix(".__init__") for parts in modules]


@pytest.mark.parametrize("module", floor_four())
def test_plots_claims_and_reports_do_not_import_torch(module):
    assert "torch" not in modules_after(f"import {module}")


def project_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
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
            importlib.import_module(".".join(["lossatlas", *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"))
