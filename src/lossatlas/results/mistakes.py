"""What is wrong with given options, in one line, with what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError


def explained(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """The first mistake, where it is (``prefix`` says where the model is), and what would be right."""
    first = error.errors()[0]
    where = prefix + ".".join(str(part) for part in first["loc"])
    more = f" ({error.error_count() - 1} more mistakes)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        fields = _fields(model, first["loc"][:-1])
        known = f": choose one of {', '.join(fields)}" if fields else ""
        return f"Unknown key {where!r}{_meant(where, fields, model)}{known}{more}."
    message = first["msg"].removeprefix("Value error, ")
    if not where or first["type"] == "value_error":
        return f"{message[0].upper()}{message[1:]}{more}."
    return f"{where} = {first['input']!r} is wrong: {message[0].lower()}{message[1:]}{more}."


def suggestion(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'spectrum'?)"`` where a known name is spelt alike, else nothing.

    >>> suggestion("spectrm", ["surface", "spectrum"])
    " (did you mean 'spectrum'?)"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _fields(model: Any, place: tuple[int | str, ...]) -> list[str]:
    """The fields of the model at ``place``."""
    for part in place:
        fields = getattr(model, "model_fields", {})
        model = fields[part].annotation if part in fields else None
    return list(getattr(model, "model_fields", ()))


def _meant(where: str, fields: Iterable[str], model: type[BaseModel]) -> str:
    """A field of the same part that is spelt alike, or one of that very name in another part."""
    last = where.rpartition(".")[2]
    parts = {f"{part}.{name}": name for part in model.model_fields for name in _fields_of(model, part)}
    elsewhere = [key for key, name in parts.items() if name == last]
    return f" (did you mean {elsewhere[0]!r}?)" if elsewhere else suggestion(last, fields)


def _fields_of(model: type[BaseModel], part: str) -> list[str]:
    return list(getattr(model.model_fields[part].annotation, "model_fields", ()))
