"""What is wrong with given options, in one line, with what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

Place = tuple[int | str, ...]


def dotted(place: Place) -> str:
    """The name of a place inside a configuration.

    >>> dotted(("train", "seeds", 0))
    'train.seeds.0'
    """
    return ".".join(str(part) for part in place)


def explained(error: ValidationError, model: type[BaseModel], name: Callable[[Place], str] = dotted) -> str:
    """The first mistake, where it is (``name`` of its place), and what would be right."""
    first, others = error.errors()[0], error.error_count() - 1
    more = f" ({others} more mistake{'s' if others > 1 else ''})" if others else ""
    return f"{_sentence(first, model, name)}{more}."


def suggestion(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'spectrum'?)"`` where a known name is spelt alike, else nothing.

    >>> suggestion("spectrm", ["surface", "spectrum"])
    " (did you mean 'spectrum'?)"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _sentence(mistake: Mapping[str, Any], model: type[BaseModel], name: Callable[[Place], str]) -> str:
    where, kind = name(mistake["loc"]), mistake["type"]
    if kind == "extra_forbidden":
        return _unknown(mistake["loc"], model, name)
    if kind == "missing":
        return f"{where} is missing: give a value"
    if kind == "value_error":  # of a validator of ours
        message = mistake["msg"].removeprefix("Value error, ").rstrip(".")
        return f"{where}: {message}" if where else message
    return f"{where} = {mistake['input']!r} is wrong: {_remedy(mistake)}"


def _remedy(mistake: Mapping[str, Any]) -> str:
    """pydantic's message; where that speaks of types of Python, in words of a configuration."""
    context = mistake.get("ctx", {})
    own = {
        "tuple_type": "give a list",
        "dict_type": "give keys and values",
        "model_type": "give keys and values",
        "too_short": "give at least {min_length}",
        "too_long": "give at most {max_length}",
    }
    message = own.get(mistake["type"], "").format(**context) or mistake["msg"]
    return message[0].lower() + message[1:]


def _unknown(place: Place, model: type[BaseModel], name: Callable[[Place], str]) -> str:
    """An unknown key, and one of the same part that is spelt alike, or of that very name in another part."""
    fields, last = _fields(model, place[:-1]), str(place[-1])
    elsewhere = [(part, last) for part in model.model_fields if last in _fields(model, (part,))]
    alike = [(*place[:-1], each) for each in difflib.get_close_matches(last, fields, n=1)]
    meant = f" (did you mean {name([*elsewhere, *alike][0])!r}?)" if elsewhere or alike else ""
    return f"Unknown key {name(place)!r}{meant}: choose one of {', '.join(fields)}"


def _fields(model: Any, place: Place) -> list[str]:
    """The fields of the model at ``place``."""
    for part in place:
        model = _inside(_plain(model), part)
    return list(getattr(_plain(model), "model_fields", ()))


def _inside(outer: Any, part: int | str) -> Any:
    """The type of a field of a model, or of the values of a dictionary."""
    fields = getattr(outer, "model_fields", {})
    if part in fields:
        return fields[part].annotation
    return get_args(outer)[1] if get_origin(outer) is dict else None


def _plain(annotation: Any) -> Any:
    """``X`` for ``X | None``."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    return next(each for each in get_args(annotation) if each is not NoneType)
