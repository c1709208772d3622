"""A command for each verb, made from its kind's inputs and options. Heavy imports wait until a command runs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

from cyclopts import Parameter
from pydantic import ValidationError

from lossatlas.errors import ConfigError
from lossatlas.results.kind import Input, Kind, Options
from lossatlas.results.mistakes import explained

if TYPE_CHECKING:
    import xarray as xr
    from pydantic.fields import FieldInfo

    from lossatlas.objective import Objective

GIVEN = ("objective", "weights", "snapshots")  # by the user; what else a verb takes the command supplies itself
SUPPLIED = ("folder", "keep")
Out = Annotated[Path, Parameter(help="the folder for results; made if it does not exist")]
Quiet = Annotated[bool, Parameter(help="no progress bars", negative="")]


def possible(kind: Kind) -> bool:
    """Whether a command line can give all that the verb needs."""
    return kind.verb is not None and all(i.optional or i.type in (*GIVEN, *SUPPLIED) for i in kind.inputs)


def command(kind: Kind) -> Callable[..., None]:
    """``lossatlas VERB TARGET --out DIR ...``: the verb's results as files in the folder, its numbers on the screen."""

    def run(*inputs: Any, out: Path, quiet: bool = False, **given: Any) -> None:
        positional = [each for each in kind.inputs if each.type in GIVEN and not each.optional]
        values = dict(zip([each.name for each in positional], inputs, strict=True))
        values |= {each.name: given.pop(each.name, None) for each in kind.inputs if each.optional}
        _measure(kind, values, _options(kind, given), out, bars(quiet))

    parameters = [*map(_input, _in_order(kind)), _parameter("out", Out)]
    parameters += [_option(name, field) for name, field in kind.options.model_fields.items()]
    parameters.append(_parameter("quiet", Quiet, False))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = kind.help
    return run


def bars(quiet: bool) -> bool:
    """Progress bars are for people: none in a pipe or a log file."""
    return not quiet and sys.stderr.isatty()


def written(out: Path, name: str) -> str:
    """What is said once results are in a folder."""
    return f"{out / name}.nc, .png, .pdf are written; `lossatlas report {out}` makes a report of the folder."


def _in_order(kind: Kind) -> list[Input]:
    given = [each for each in kind.inputs if each.type in GIVEN]
    return sorted(given, key=lambda each: each.optional)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _input(given: Input) -> inspect.Parameter:
    kind = str if given.type == "objective" else Path
    if given.optional:
        names = Parameter(help=given.help, name=[f"--{given.name}", *(f"--{each}" for each in given.aliases)])
        return _parameter(given.name, Annotated[kind | None, names], None)
    name = "target" if given.type == "objective" else given.name
    annotation = Annotated[kind, Parameter(help=given.help)]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY, annotation=annotation)


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """One flag. A list is given with commas; a flag that is off by default has no negative."""
    names = [f"--{name.replace('_', '-')}", *([f"-{name}"] if len(name) == 1 else [])]
    several = get_origin(field.annotation) is tuple
    default = ",".join(f"{each:g}" for each in field.default) if several else field.default
    text = f"{field.description}, with commas" if several else field.description
    look = Parameter(help=text, name=names, negative="" if field.default is False else None)
    return _parameter(name, Annotated[str if several else field.annotation, look], default)  # type: ignore[valid-type]


def _options(kind: Kind, given: dict[str, Any]) -> Options:
    several = {name for name, field in kind.options.model_fields.items() if get_origin(field.annotation) is tuple}
    values = {name: _numbers(name, each) if name in several else each for name, each in given.items()}
    try:
        return kind.options.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explained(error, kind.options, "--")) from None


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--{name} {text!r} is no list of numbers: give them with commas, like 0,0.01,0.1.") from None


def _measure(kind: Kind, values: dict[str, Any], options: Options, out: Path, progress: bool) -> None:
    from lossatlas.results.files import make_folder

    inputs = {each.name: _read(each, values[each.name]) for each in kind.inputs if values.get(each.name) is not None}
    results: dict[str, xr.Dataset] = {}

    def keep(name: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        results[name] = _write(out, name, compute())
        return results[name]

    supplied = {"folder": out, "keep": keep}
    inputs |= {each.name: supplied[each.type] for each in kind.inputs if each.type in SUPPLIED}
    existed = out.exists()
    make_folder(out)
    try:
        assert kind.verb is not None, "possible() says so"
        found = kind.verb(**inputs, **dict(options), progress=progress)
        if not results:
            keep(kind.verb_name, lambda: found)
    finally:
        if not existed and not any(out.iterdir()):
            out.rmdir()  # nothing half-written stays behind
    _conclude(results, out)


def _read(given: Input, value: Any) -> Any:
    return _objective(value) if given.type == "objective" else value


def _objective(target: str) -> Objective:
    from lossatlas.study.target import load_objective

    objective = load_objective(target)
    objective.require_finite()
    return objective


def _write(out: Path, name: str, dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset and its main figure as files, and its numbers on the screen."""
    from lossatlas import plot
    from lossatlas.results.discovery import kind_of
    from lossatlas.results.files import replacing, save

    dataset = dataset.assign_attrs(name=name)
    save(dataset, out / f"{name}.nc")
    for suffix in (".png", ".pdf"):
        with replacing(out / f"{name}{suffix}") as temporary:
            plot.save(plot.figure(dataset), temporary, suffix.removeprefix("."))
    for sentence in kind_of(dataset).numbers(dataset):
        print(sentence, flush=True)
    return dataset


def _conclude(results: dict[str, xr.Dataset], out: Path) -> None:
    """What the results let one say, and where they are."""
    from lossatlas.results.catalogue import Catalogue

    for claim in Catalogue(results.values()).claims():
        print(claim.sentence, flush=True)
    print(written(out, next(iter(results)) if len(results) == 1 else "*"))
