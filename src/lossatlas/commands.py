"""A command for each verb, made from its kind's inputs and options. Heavy imports wait until a command runs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from cyclopts import Parameter
from pydantic import ValidationError

from lossatlas.errors import ConfigError
from lossatlas.results.kind import Input, Kind, Options
from lossatlas.results.mistakes import Place, explained

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
    given_by_user = _given_by_user(kind)

    def run(*inputs: Any, out: Path, quiet: bool = False, **given: Any) -> None:
        values = dict(zip([each.name for each in given_by_user if not each.optional], inputs, strict=True))
        values |= {each.name: given.pop(each.name, None) for each in given_by_user if each.optional}
        _measure(kind, values, _options(kind, given), out, bars(quiet))

    parameters = [*map(_input, given_by_user), _parameter("out", Out)]
    parameters += [_option(name, field) for name, field in kind.options.model_fields.items()]
    parameters.append(_parameter("quiet", Quiet, False))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = kind.help
    return run


def bars(quiet: bool) -> bool:
    """Progress bars are for people: none in a pipe or a log file."""
    return not quiet and sys.stderr.isatty()


def _given_by_user(kind: Kind) -> list[Input]:
    """The inputs on the command line, those with a place of their own first."""
    given = [each for each in kind.inputs if each.type in GIVEN]
    return sorted(given, key=lambda each: each.optional)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _input(given: Input) -> inspect.Parameter:
    kind: Any = str if given.type == "objective" else Path
    if given.optional:
        names = Parameter(help=given.help, name=[f"--{given.name}", *(f"--{each}" for each in given.aliases)])
        return _parameter(given.name, Annotated[kind | None, names], None)
    name = "target" if given.name == "objective" else given.name
    annotation = Annotated[kind, Parameter(help=given.help)]
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY, annotation=annotation)


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """One flag. A list is given with commas; a flag that is off by default has no negative."""
    names = [_flag((name,)), *([f"-{name}"] if len(name) == 1 else [])]
    annotation, default, text = field.annotation, field.default, field.description or ""
    if _is_list(field):
        annotation, text = str | None if default is None else str, f"{text}, with commas".removeprefix(", ")
        default = None if default is None else _with_commas(default)
    look = Parameter(help=text, name=names, negative="" if default is False else None)
    default = inspect.Parameter.empty if field.is_required() else default
    return _parameter(name, Annotated[annotation, look], default)


def _flag(place: Place) -> str:
    """The flag of an option; its parts, the numbers of a list, have none of their own."""
    return f"--{place[0]}".replace("_", "-") if place else ""


def _is_list(field: FieldInfo) -> bool:
    return any(get_origin(each) is tuple for each in (field.annotation, *get_args(field.annotation)))


def _with_commas(several: Any) -> str:
    """As a user would type it; of an option without a default nothing."""
    parts = several if isinstance(several, tuple) else ()
    return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in parts)


def _options(kind: Kind, given: dict[str, Any]) -> Options:
    fields = kind.options.model_fields
    lists = [name for name, text in given.items() if _is_list(fields[name]) and text is not None]
    try:
        return kind.options.model_validate(given | {name: given[name].split(",") for name in lists})
    except ValidationError as error:
        name = str([*error.errors()[0]["loc"], ""][0])
        example = _with_commas(fields[name].default) if name in lists else ""
        hint = f" Give several with commas, like {example or '1,2'}." if name in lists else ""
        raise ConfigError(explained(error, kind.options, _flag) + hint) from None


def _measure(kind: Kind, values: dict[str, Any], options: Options, out: Path, progress: bool) -> None:
    results: dict[str, xr.Dataset] = {}

    def keep(name: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        results[name] = _write(out, name, compute())
        return results[name]

    with _folder(out):
        inputs = {each.name: _read(each, values[each.name]) for each in _given_by_user(kind)}
        supplied = {"folder": out, "keep": keep}
        inputs |= {each.name: supplied[each.type] for each in kind.inputs if each.type in SUPPLIED}
        given = {name: value for name, value in inputs.items() if value is not None}
        assert kind.verb is not None, "possible() says so"
        found = kind.verb(**given, **dict(options), progress=progress)
        if not results:
            keep(kind.verb_name, lambda: found)
    _tell_weights(results)
    _conclude(results, out)


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """A folder that can be written. Where it is new and nothing is written to it, nothing of it stays behind."""
    from lossatlas.results.files import make_folder

    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    try:
        yield
    finally:
        for folder in new:
            if not any(folder.iterdir()):
                folder.rmdir()


def _read(given: Input, value: Any) -> Any:
    return _objective(value) if given.type == "objective" and value is not None else value


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
    figure = plot.figure(dataset)
    for suffix in (".png", ".pdf"):
        with replacing(out / f"{name}{suffix}") as temporary:
            plot.save(figure, temporary, suffix.removeprefix("."))
    for number in kind_of(dataset).numbers(dataset):
        print(f"{number.of}: {number.name} {number.text}", flush=True)
    return dataset


def _tell_weights(results: dict[str, xr.Dataset]) -> None:
    """What was taken of the files of weights, where there was a choice."""
    for told in dict.fromkeys(dataset.attrs.get("weights") for dataset in results.values()):
        if told:
            print(f"weights: {told}", flush=True)


def _conclude(results: dict[str, xr.Dataset], out: Path) -> None:
    """What the results let one say, and where they are."""
    from lossatlas.results.catalogue import Catalogue

    for claim in Catalogue(results.values()).claims():
        print(claim.sentence, flush=True)
    written = out / (next(iter(results)) if len(results) == 1 else "*")
    print(f"{written}.nc, .png, .pdf are written; `lossatlas report {out}` makes a report of the folder.")
