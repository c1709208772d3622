"""The kinds, found where they are defined: in ``show.py`` (or ``show/``) of each subject, and in installed packages.

A package of one's own adds kinds by an entry point of the group ``lossatlas.kinds`` that names a module with ``KINDS``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from lossatlas.errors import ConfigError, InputError
from lossatlas.results import chapters
from lossatlas.results.kind import Kind
from lossatlas.results.mistakes import suggestion

if TYPE_CHECKING:
    import xarray as xr

GROUP = "lossatlas.kinds"


@functools.cache
def kinds() -> dict[str, Kind]:
    """Name -> kind, in the order of the report: by chapter, first the one that opens it, then as subjects list them."""
    found = [kind for module in _modules() for kind in importlib.import_module(module).KINDS]
    names = [kind.name for kind in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"Two kinds are called {min(twice)!r}: rename the one that is not part of lossatlas.")
    return {kind.name: kind for kind in sorted(found, key=lambda kind: (chapters.place(kind.chapter), not kind.opens))}


def kind_of(dataset: xr.Dataset) -> Kind:
    """The kind of a Dataset. Raises ``InputError`` where it is none of ours."""
    name = dataset.attrs.get("kind")
    if name not in kinds():
        raise InputError(
            f"A Dataset of kind {name!r} is no result of lossatlas; attrs['kind'] must be one of: "
            f"{', '.join(sorted(kinds()))}."
        )
    return kinds()[name]


def verbs() -> dict[str, Kind]:
    """The verbs of the command line and of studies, by their names -> the kind that each belongs to."""
    return {kind.verb_name: kind for kind in kinds().values() if kind.verb is not None}


def verb_of(name: str) -> Kind:
    """The kind whose verb has this name. Raises ``ConfigError`` where there is none."""
    if name not in verbs():
        known = ", ".join(sorted(verbs()))
        raise ConfigError(f"There is no verb {name!r}{suggestion(name, verbs())}: choose one of {known}.")
    return verbs()[name]


def _modules() -> Iterator[str]:
    """The modules that define kinds. Found by their files, since importing a package may be slow."""
    root = Path(__file__).parent.parent
    folders = {path.parent for path in root.glob("*/show.py")} | {
        path.parents[1] for path in root.glob("*/show/__init__.py")
    }
    yield from (f"lossatlas.{folder.name}.show" for folder in sorted(folders))
    yield from sorted(point.value for point in entry_points(group=GROUP))
