"""The command line: one thin command a verb. Heavy imports wait until a command runs.

Exit codes: 0 done; 2 the input; 3 a missing tool that was asked for; 4 a numerical failure; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from lossatlas import __version__, errors
from lossatlas.commands import Quiet, bars, command, possible
from lossatlas.errors import LossAtlasError
from lossatlas.results.discovery import verbs

if TYPE_CHECKING:
    from lossatlas.report import Report

app = cyclopts.App(
    name="lossatlas",
    help="The geometry of neural-network loss landscapes: maps, curvature, trajectories, barriers, and a report.",
    version=__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # guarded() answers it, and says what is kept
)


def main() -> None:
    """Run the command line; every foreseen failure is one line on stderr and an exit code.

    Threads that wait do so passively, unless ``OMP_WAIT_POLICY`` is set: spinning beside another busy process made two
    threads 2.6 to 2.9 times slower than one. OpenMP reads it when PyTorch is loaded, which commands do when they run.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(guarded(lambda: app(exit_on_error=False, print_error=False, help_on_error=False)))


@app.command
def study(
    *,
    preset: Annotated[
        str, Parameter(help="digits (embedded data), fashion or mnist (the two student projects' settings)")
    ] = "digits",
    config: Annotated[Path | None, Parameter(help="a YAML file that changes the preset")] = None,
    set_: Annotated[
        list[str] | None,
        Parameter(
            name="--set", help="key=value, may be repeated: --set train.epochs=3", negative="", consume_multiple=False
        ),
    ] = None,
    out: Annotated[Path | None, Parameter(help="the study's folder; runs/PRESET by default")] = None,
    show_config: Annotated[bool, Parameter(help="print the resolved configuration and stop", negative="")] = False,
    quiet: Quiet = False,
) -> None:
    """Train networks on real data, measure their landscape, and report. Interrupted, it goes on where it was."""
    from lossatlas.study.config import resolve

    resolved = resolve(preset, config, set_ or ())
    if show_config:
        import yaml

        print(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False), end="")
        return
    from lossatlas.study.run import run

    _print_report(run(resolved, out or Path("runs") / resolved.preset, progress=bars(quiet), say=_say))


for _kind in verbs().values():
    if possible(_kind):
        app.command(command(_kind), name=_kind.verb_name)


@app.command
def report(
    folder: Annotated[Path, Parameter(help="a folder with results (*.nc), or a study's folder")],
    /,
    *,
    title: Annotated[str, Parameter(help="of the report")] = "Loss landscape report",
    pdf: Annotated[bool, Parameter(help="insist on report.pdf: fail where no LaTeX is installed", negative="")] = False,
    quiet: Quiet = False,
) -> None:
    """report.html and report.tex (report.pdf where LaTeX is installed) from the results in a folder."""
    from lossatlas.errors import InputError, MissingToolError
    from lossatlas.report import report as write_report
    from lossatlas.results.files import load

    found = sorted({*folder.glob("[!.]*.nc"), *folder.glob("results/[!.]*.nc")})
    files = [file for file in found if file.name != "study.nc"]  # which holds all of them once more
    if not files:
        raise InputError(f"{folder} holds no results (*.nc): run a command that measures, or study, first.")
    written = write_report([load(file) for file in files], folder, title=title, progress=bars(quiet))
    _print_report(written)
    if pdf and written.pdf is None:
        raise MissingToolError(written.message)


@app.command
def doctor(*, quiet: Quiet = False) -> None:
    """What is installed, what is missing, and what each missing part is for."""
    import shutil
    from importlib.metadata import version

    import torch

    threads = torch.get_num_threads()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none (the CPU is used)"
    rows = [("lossatlas", __version__), ("torch", f"{version('torch')}, {threads} threads"), ("GPU", device)]
    rows.append(
        ("LaTeX", shutil.which("latexmk") or "none: report.tex is written, report.pdf is not (install latexmk)")
    )
    rows += [(name, _dataset_place(name)) for name in ("mnist", "fashion-mnist", "cifar10")]
    for name, value in rows:
        print(f"{name:14s} {value}")


def _dataset_place(name: str) -> str:
    from lossatlas.zoo import find

    place = find(name)
    return str(place) if place else "not on this disk: downloaded when first asked for (or set LOSSATLAS_DATA)"


def _say(line: str) -> None:
    print(line, flush=True)  # a run of minutes is watched through pipes and log files too


def _print_report(written: Report) -> None:
    for name in ("html", "tex", "pdf"):
        path = getattr(written, name)
        if path is not None:
            print(f"report.{name}: {path}")
    if written.message:
        print(written.message)


def guarded(command: Callable[[], object]) -> int:
    """Run a command; the exit code, with one line on stderr where it failed."""
    warnings.showwarning = _show_warning
    try:
        command()
    except LossAtlasError as error:
        return _fail(str(error), error.exit_code)
    except cyclopts.CycloptsError as error:
        return _fail(" ".join(str(error).split()), 2)
    except OSError as error:  # a full disk, a file system that went away
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted; a study, or a surface with --store, goes on where it was with the same command", 130)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"lossatlas: error: {message}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if category.__module__ == errors.__name__:  # lossatlas's own: what a result says of itself
        print(f"lossatlas: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
