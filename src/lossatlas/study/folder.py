"""A study's folder: one study, one writer, each result written whole and computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr
import yaml
from filelock import FileLock, Timeout

from lossatlas.errors import OutputError
from lossatlas.results.files import load, make_folder, replacing, save
from lossatlas.study.config import StudyConfig

_CONFIG = "study.yaml"


class StudyFolder:
    """``study.yaml`` (the whole configuration), ``results/*.nc``, ``networks/``, and the report.

    Raises ``OutputError`` when the folder cannot be written, holds something else, or another study.
    """

    def __init__(self, path: Path, config: StudyConfig) -> None:
        self.path = path
        self.computed = 0  # results, since the folder was opened
        settings = config.model_dump(mode="json")
        if (path / _CONFIG).is_file():
            _same(path, yaml.safe_load((path / _CONFIG).read_text()), settings)
        elif path.is_dir() and any(path.iterdir()):
            raise OutputError(f"{path} holds files but no {_CONFIG}: choose an empty or a new folder with --out.")
        self.results = make_folder(path / "results")
        if not (path / _CONFIG).is_file():
            with replacing(path / _CONFIG) as temporary:
                temporary.write_text(yaml.safe_dump(settings, sort_keys=False))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in the folder; the lock goes with the process, however it ends."""
        try:
            with FileLock(self.path / ".lock", timeout=0):
                for unfinished in self.results.glob(".*"):  # what a killed writer left
                    unfinished.unlink()
                yield
        except Timeout:
            raise OutputError(
                f"{self.path} is in use by another process: wait for it, or choose another --out."
            ) from None

    def once(self, name: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        """The result ``name``: read when it is there, else computed and written whole."""
        path = self.results / f"{name}.nc"
        if not path.is_file():
            save(compute().assign_attrs(name=name), path)
            self.computed += 1
        return load(path)


def _same(path: Path, there: object, here: object) -> None:
    difference = next(_differences(there, here, ""), None)
    if difference is not None:
        key, old, new = difference
        raise OutputError(
            f"{path} holds another study ({key} is {old!r} there, {new!r} now): choose another --out, or delete it."
        )


def _differences(there: object, here: object, key: str) -> Iterator[tuple[str, object, object]]:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in [*here, *(there.keys() - here.keys())]:
            yield from _differences(there.get(name), here.get(name), f"{key}.{name}".lstrip("."))
    elif there != here:
        yield key, there, here
