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
from pathlib import Path

import pytest

import lossatlas

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "lossatlas"

# docs/map.md draws the same picture. A file imports files of its own room and of rooms that are listed before it.
ROOMS = [
    "errors.py",
    "results",
    "drawing",
    "model",
    "evaluation",
    "objective.py",
    "geometry",
    "curvature",
    "surfaces",
    "trajectory",
    "connectivity",
    "robustness",
    "sharpness",
    "published",
    "report",
    "plot.py",
    "zoo",  # the core never imports it, by its place here
    "study",
    "commands.py",
    "cli.py",
    "__init__.py",  # the front page
    "__main__.py",
]
SUBJECTS = {"curvature", "surfaces", "trajectory", "connectivity", "robustness", "sharpness", "published"}
# What shows results imports, besides the show of its own subject and of lower ones.
SHOWN_WITH = {"errors.py", "results", "drawing"}

FILES = sorted(SOURCE.rglob("*.py"))


def room(file: Path) -> str:
    """The first part of a file's place: ``zoo`` for ``zoo/fit.py``, ``cli.py`` for itself."""
    return file.relative_to(SOURCE).parts[0]


def shows(file: Path) -> bool:
    """Whether a file belongs to the ``show`` of a subject."""
    parts = file.relative_to(SOURCE).parts
    return len(parts) > 1 and parts[1] in ("show", "show.py")


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


def test_every_file_is_in_a_room():
    homeless = [str(f.relative_to(SOURCE)) for f in FILES if room(f) not in ROOMS]
    assert not homeless, f"give these files a room here and in docs/map.md: {homeless}"


def test_the_map_names_every_room():
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    missing = [name for name in ROOMS if not name.startswith("__") and name.removesuffix(".py") not in text]
    assert not missing, missing


def test_a_file_imports_its_own_room_and_lower_ones_only():
    pairs = [(file, target) for file in FILES for target in imports(file) if room(target) != room(file)]
    wrong = [(f, t) for f, t in pairs if ROOMS.index(room(t)) > ROOMS.index(room(f)) and not _version(t)]
    assert not wrong, [f"{f.relative_to(SOURCE)} -> {t.relative_to(SOURCE)}" for f, t in wrong]


def _version(target: Path) -> bool:
    """The front page holds the version, which the command line prints; it loads nothing else by itself."""
    return target == SOURCE / "__init__.py"


def test_what_shows_results_knows_results_and_drawing_and_lower_shows_only():
    wrong = [
        f"{file.relative_to(SOURCE)} -> {target.relative_to(SOURCE)}"
        for file in FILES
        if shows(file)
        for target in imports(file)
        if not (room(target) in SHOWN_WITH or shows(target) or target.name == "__init__.py")
    ]
    assert not wrong, wrong


def test_a_verb_and_its_show_meet_in_the_dataset_only():
    wrong = [
        f"{file.relative_to(SOURCE)} -> {target.relative_to(SOURCE)}"
        for file in FILES
        if room(file) in SUBJECTS - {"published"} and not shows(file)
        for target in imports(file)
        if shows(target)
    ]
    assert not wrong, wrong


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
        "model/parameters.py",
        "objective.py",
        "connectivity/barrier.py",
        "geometry/curves.py",
        "geometry/regions.py",
    }


# What verbs return, and the errors: their docstrings say what they hold, those of the verbs the rest.
RETURNED = {"LossAtlasError", "Verdict", "Evaluation", "Eigenpairs", "TraceEstimate", "DiagonalEstimate", "Report"}
RETURNED |= {"Connection", "Aligned", "Merged", "Repaired"}
OURS = {"Operator", "Claim", "save", "load", "export", "report"}  # no paper is the source of these


@pytest.mark.parametrize("name", sorted(lossatlas.__all__))
def test_a_public_name_is_there_and_documented(name):
    assert name in dir(lossatlas)
    thing = getattr(lossatlas, name)
    text = inspect.getdoc(thing) or ""
    assert text.strip(), f"lossatlas.{name} has no docstring"
    if name not in RETURNED and not inspect.ismodule(thing):
        for section in ("Raises", "Examples", ">>>"):
            assert section in text, f"the docstring of lossatlas.{name} has no {section}"
        assert name in OURS or "Source" in text, f"the docstring of lossatlas.{name} names no source"


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
        [sys.executable, "-c", script + tail],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests" / "oracles")},
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("MODULES ")[2].split())


SLOW_TO_IMPORT = {"torch", "xarray", "matplotlib", "sklearn", "scipy", "plotly", "pandas", "netCDF4"}


def test_the_help_of_the_command_line_imports_nothing_slow():
    code = "sys.argv = ['lossatlas', '--help']; from lossatlas.cli import main; main()"
    assert modules_after(code) & SLOW_TO_IMPORT == set()


def test_importing_the_package_imports_nothing_slow():
    assert modules_after("import lossatlas") & (SLOW_TO_IMPORT | {"numpy"}) == set()


def modules_that_show() -> list[str]:
    """All that makes up the presentation: results, drawing, the subjects' shows, the report."""
    files = [f for f in FILES if shows(f) or room(f) in ("results", "drawing", "report", "plot.py")]
    names = [".".join(["lossatlas", *f.relative_to(SOURCE).with_suffix("").parts]) for f in files]
    return [name.removesuffix(".__init__") for name in names]


def test_the_presentation_works_where_torch_cannot_be_imported():
    assert "torch" not in modules_after(f"import no_torch; no_torch.refuse(); import {', '.join(modules_that_show())}")


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
