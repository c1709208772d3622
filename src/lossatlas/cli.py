"""The command line: one thin command a verb. Heavy imports wait until a command runs.

Exit codes: 0 done; 2 the input; 3 a missing tool that was asked for; 4 a numerical failure; 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from lossatlas import __version__
from lossatlas.errors import ConvergenceWarning, LossAtlasError

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.geometry.regions import Region
    from lossatlas.objective import Objective
    from lossatlas.report import Report

app = cyclopts.App(
    name="lossatlas",
    help="The geometry of neural-network loss landscapes: maps, curvature, roads, barriers, and an honest report.",
    version=__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # guarded() answers it, and says what is kept
)

Target = Annotated[
    str, Parameter(help="path/to/file.py:function or package.module:function, which returns an Objective")
]
Out = Annotated[Path, Parameter(help="the folder for results; made if it does not exist")]
Quiet = Annotated[bool, Parameter(help="no progress bars", negative="")]


def main() -> None:
    """Run the command line; every foreseen failure is one line on stderr and an exit code."""
    sys.exit(guarded(lambda: app(exit_on_error=False, print_error=False, help_on_error=False)))


@app.command
def study(
    *,
    preset: Annotated[
        str, Parameter(help="digits (embedded data), fashion (the second seed) or mnist (the first)")
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
    """Train two networks on real data, measure their landscape, and report. Interrupted, it goes on where it was."""
    from lossatlas.study.config import resolve

    resolved = resolve(preset, config, set_ or ())
    if show_config:
        import yaml

        print(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False), end="")
        return
    from lossatlas.study.run import run

    _print_report(run(resolved, out or Path("runs") / resolved.preset, progress=_bars(quiet), say=_say))


@app.command
def surface(
    target: Target,
    /,
    *,
    out: Out,
    dims: Annotated[Literal[1, 2, 3], Parameter(help="a line, a plane or a volume")] = 2,
    steps: Annotated[int, Parameter(help="points on each axis; an odd number has the model on the grid")] = 25,
    span: Annotated[
        float | None, Parameter(help="half-width of each axis, in lengths of the direction; 1 for random axes")
    ] = None,
    axes: Annotated[
        Literal["random", "hessian"], Parameter(help="random directions, or the Hessian's extreme eigenvectors")
    ] = "random",
    norm: Annotated[Literal["filter", "layer", "model"], Parameter(help="how random axes are scaled")] = "filter",
    one_d: Annotated[Literal["zero", "scale"] | None, Parameter(help="biases and norms: held fixed, or varied")] = None,
    spacing: Annotated[Literal["linear", "log"], Parameter(help="of the points on random axes")] = "linear",
    seed: Annotated[int, Parameter(help="of the random axes")] = 0,
    planes: Annotated[int, Parameter(help="so many random draws of the axes, with their mean and spread")] = 1,
    tol: Annotated[
        float | None, Parameter(help="relative error that 95 % of the pixels are to keep; without it all are evaluated")
    ] = None,
    subset: Annotated[int | None, Parameter(help="evaluate on about so many examples, drawn class by class")] = None,
    by_class: Annotated[bool, Parameter(help="the loss of each class too", negative="")] = False,
    store: Annotated[Path | None, Parameter(help="a folder of evaluated points, from which it goes on")] = None,
    quiet: Quiet = False,
) -> None:
    """The loss on a line, plane or volume through the model: in full, or to a stated accuracy."""

    def compute(objective: Objective) -> xr.Dataset:
        import lossatlas as la

        if axes == "hessian":
            ends = la.spectrum(objective, 1, vectors=True, seed=seed)
            regions = [la.eigen_plane(ends, span=span, steps=steps)]
        else:
            width = 1.0 if span is None else span
            makers: dict[int, Callable[..., Region]] = {1: la.line, 2: la.plane, 3: la.volume}
            draws = [
                la.random_directions(objective, dims, seed=seed + i, norm=norm, one_d=one_d) for i in range(planes)
            ]
            regions = [makers[dims](objective.point, *draw, span=width, steps=steps, spacing=spacing) for draw in draws]
        found = la.surface(
            objective,
            regions if len(regions) > 1 else regions[0],
            tol=tol,
            subset=subset,
            by_class=by_class,
            store=store,
            progress=_bars(quiet),
        )
        return found.assign_attrs(directions="Hessian axes" if axes == "hessian" else "random", seed=seed)

    _check_axes(axes, dims, planes)
    _measure("surface", target, out, compute)


def _check_axes(axes: str, dims: int, planes: int) -> None:
    from lossatlas.errors import ConfigError

    if axes == "hessian" and (dims != 2 or planes != 1):
        raise ConfigError("--axes hessian is one plane: leave out --dims and --planes.")
    if planes < 1:
        raise ConfigError(f"--planes {planes}: give at least 1.")


@app.command
def spectrum(
    target: Target,
    /,
    *,
    out: Out,
    k: Annotated[int, Parameter(name=["-k", "--k"], help="eigenvalues at each end")] = 10,
    tol: Annotated[float, Parameter(help="relative residual to reach")] = 1e-3,
    max_products: Annotated[int | None, Parameter(help="Hessian-vector products to spend at most")] = None,
    steps: Annotated[int, Parameter(help="Lanczos steps of the density")] = 80,
    probes: Annotated[int, Parameter(help="random vectors of the density")] = 4,
    trend: Annotated[bool, Parameter(help="the largest eigenvalue on subsets of the data too")] = True,
    layers: Annotated[bool, Parameter(help="the spectrum of each layer's block too")] = False,
    parameters: Annotated[str | None, Parameter(help="a glob: only these parameters vary")] = None,
    seed: Annotated[int, Parameter(help="of the random vectors")] = 0,
) -> None:
    """The Hessian's spectrum: both ends with residuals and standard errors, trace, density."""

    def compute(objective: Objective) -> xr.Dataset:
        import lossatlas as la

        part = objective if parameters is None else objective.restricted(parameters)
        return la.spectrum(
            part,
            k,
            tol=tol,
            max_products=max_products,
            steps=steps,
            probes=probes,
            trend=trend,
            layers=layers,
            seed=seed,
        )

    _measure("spectrum", target, out, compute)


@app.command
def connect(
    target: Target,
    a: Annotated[Path, Parameter(help="weights of the one model (.safetensors or .pt)")],
    b: Annotated[Path, Parameter(help="weights of the other")],
    /,
    *,
    out: Out,
    align: Annotated[
        Literal["weights", "activations", "none"], Parameter(help="rename b's hidden units so that it is near to a")
    ] = "weights",
    symmetries: Annotated[
        Path | None,
        Parameter(help="a YAML file: tensor -> the group of units along each axis, for a model that cannot be traced"),
    ] = None,
    curve: Annotated[Literal["bezier", "chain", "none"], Parameter(help="train a path of low loss")] = "none",
    bends: Annotated[int, Parameter(help="of the curve")] = 1,
    epochs: Annotated[int | None, Parameter(help="of the curve's training; by default 3,000 steps in all")] = None,
    learning_rate: Annotated[float, Parameter(help="of the curve's training")] = 1e-3,
    test: Annotated[str | None, Parameter(help="an Objective on other data, where all is measured too")] = None,
    definition: Annotated[Literal["entezari", "frankle", "draxler"], Parameter(help="of the barrier")] = "entezari",
    steps: Annotated[int, Parameter(help="points on each path, before refinement")] = 25,
    plane_steps: Annotated[int, Parameter(help="points on each axis of the plane with the paths; 0 for none")] = 0,
    batch_norm: Annotated[
        Literal["frozen", "recompute", "batch"] | None,
        Parameter(help="statistics along the paths; recomputed by default"),
    ] = None,
    seed: Annotated[int, Parameter(help="of alignment, curve and bootstrap")] = 0,
    quiet: Quiet = False,
) -> None:
    """Are two trained models connected? Barriers on the line, the line after alignment, and a curve."""
    from lossatlas.errors import InputError
    from lossatlas.geometry import curves
    from lossatlas.model.checkpoints import make_folder
    from lossatlas.study.pair import Wanted, answers, verdicts

    kinds = {"bezier": curves.Bezier, "chain": curves.PolygonalChain}
    wanted = Wanted(
        method=None if align == "none" else align,
        symmetries=None if symmetries is None else _yaml(symmetries),
        curve=None if curve == "none" else kinds[curve](bends=bends),
        definition=definition,
        steps=steps,
        epochs=epochs,
        learning_rate=learning_rate,
        plane_steps=plane_steps,
        seed=seed,
        batch_norm=batch_norm,
    )
    objective, other = _objective(target), None if test is None else _objective(test)
    if objective.point_of(a).equal(objective.point_of(b)):
        raise InputError(f"{a} and {b} are the same point: give the weights of two different models.")
    existed = out.exists()
    make_folder(out)
    results = {}
    try:
        for name, dataset in answers(objective, a, b, wanted, out, test=other, progress=_bars(quiet)):
            _write(out, name, dataset, last=False)
            results[name] = dataset
    finally:
        if not existed and not any(out.iterdir()):
            out.rmdir()  # nothing half-written stays behind
    for sentence in verdicts(results):
        _say(sentence)
    _say(_written(out, "*"))


@app.command
def robustness(
    target: Target,
    /,
    *,
    out: Out,
    sigmas: Annotated[str, Parameter(help="standard deviations of the noise, with commas")] = "0,0.01,0.02,0.05,0.1",
    relative: Annotated[
        Literal["none", "filter"], Parameter(help="absolute noise, or relative to filter norms")
    ] = "none",
    draws: Annotated[int, Parameter(help="draws of the noise")] = 10,
    seed: Annotated[int, Parameter(help="of the draws")] = 0,
    quiet: Quiet = False,
) -> None:
    """Loss and accuracy under Gaussian weight noise, with standard errors."""
    values = _numbers(sigmas)

    def compute(objective: Objective) -> xr.Dataset:
        import lossatlas as la

        return la.robustness(objective, values, relative=relative, draws=draws, seed=seed, progress=_bars(quiet))

    _measure("robustness", target, out, compute)


@app.command
def trajectory(
    snapshots: Annotated[Path, Parameter(help="the folder of a Recorder")],
    /,
    *,
    out: Out,
    target: Annotated[str | None, Parameter(help="an Objective, for the loss along the road and on its plane")] = None,
    steps: Annotated[int, Parameter(help="points on each axis of the principal plane")] = 25,
    quiet: Quiet = False,
) -> None:
    """Principal components of a training run's snapshots beside random-walk nulls, and the loss on their plane."""
    from lossatlas.model.checkpoints import make_folder
    from lossatlas.trajectory.trajectory import Trajectory

    road = Trajectory.load(snapshots)
    objective = _objective(target) if target is not None else None
    _write(make_folder(out), "trajectory", road.analyse(objective, progress=_bars(quiet)))
    if objective is not None:
        import lossatlas as la

        plane = la.surface(objective, road.plane(steps=steps), progress=_bars(quiet))
        _write(out, "road", plane.assign_attrs(directions="principal components"))


@app.command
def report(
    folder: Annotated[Path, Parameter(help="a folder with results (*.nc), or a study's folder")],
    /,
    *,
    title: Annotated[str, Parameter(help="of the report")] = "Loss landscape report",
    pdf: Annotated[bool, Parameter(help="insist on report.pdf: fail where no LaTeX is installed", negative="")] = False,
) -> None:
    """report.html and report.tex (report.pdf where LaTeX is installed) from the results in a folder."""
    import xarray as xr

    from lossatlas.errors import InputError, MissingToolError
    from lossatlas.report import report as write_report

    found = sorted({*folder.glob("[!.]*.nc"), *folder.glob("results/[!.]*.nc")})
    files = [file for file in found if file.name != "study.nc"]  # which holds all of them once more
    if not files:
        raise InputError(
            f"{folder} holds no results (*.nc): run surface, spectrum, connect, robustness or study first."
        )
    written = write_report([xr.load_dataset(file) for file in files], folder, title=title)
    _print_report(written)
    if pdf and written.pdf is None:
        raise MissingToolError(written.message)


@app.command
def doctor() -> None:
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


def _measure(name: str, target: str, out: Path, compute: Callable[[Objective], xr.Dataset]) -> None:
    from lossatlas.model.checkpoints import make_folder

    objective = _objective(target)
    objective.require_finite()
    existed = out.exists()
    make_folder(out)
    try:
        dataset = compute(objective)
    except BaseException:
        if not existed:
            out.rmdir()  # it is still empty: nothing half-written stays behind
        raise
    _write(out, name, dataset)


def _objective(target: str) -> Objective:
    from lossatlas.study.target import load_objective

    return load_objective(target)


def _yaml(file: Path) -> Any:
    import yaml

    from lossatlas.errors import ConfigError

    try:
        return yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read as YAML ({' '.join(str(error).split())}).") from None


def _write(out: Path, name: str, dataset: xr.Dataset, *, last: bool = True) -> None:
    from lossatlas import plot
    from lossatlas.model.checkpoints import replacing
    from lossatlas.report import observations
    from lossatlas.study.folder import save

    save(dataset.assign_attrs(name=name), out / f"{name}.nc")
    for suffix in (".png", ".pdf"):
        with replacing(out / f"{name}{suffix}") as temporary:
            plot.save(plot.figure(dataset), temporary, suffix.removeprefix("."))
    for sentence in getattr(observations, str(dataset.attrs["kind"]))(dataset):
        print(sentence)
    if last:
        print(_written(out, name))


def _written(out: Path, name: str) -> str:
    return f"{out / name}.nc, .png, .pdf are written; `lossatlas report {out}` makes a report of the folder."


def _bars(quiet: bool) -> bool:
    """Progress bars are for people: none in a pipe or a log file."""
    return not quiet and sys.stderr.isatty()


def _say(line: str) -> None:
    print(line, flush=True)  # a run of minutes is watched through pipes and log files too


def _print_report(written: Report) -> None:
    for name in ("html", "tex", "pdf"):
        path = getattr(written, name)
        if path is not None:
            print(f"report.{name}: {path}")
    if written.message:
        print(written.message)


def _numbers(text: str) -> list[float]:
    from lossatlas.errors import ConfigError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--sigmas {text!r} is no list of numbers: give them with commas, like 0,0.01,0.1.") from None


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
    if issubclass(category, ConvergenceWarning):
        print(f"lossatlas: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
