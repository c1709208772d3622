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
from lossatlas.study.config import StudyConfig, read_yaml

_CONFIG = "study.yaml"


class StudyFolder:
    """``study.yaml`` (the whole configuration), ``results/*.nc``, ``networks/``, and the report.

    Nothing is written before ``locked``. Raises ``OutputError`` when the folder holds something else, or another study.
    """

    def __init__(self, path: Path, config: StudyConfig) -> None:
        self.path = path
        self.results = path / "results"
        self.computed = 0  # results, since the folder was opened
        self._settings = config.model_dump(mode="json")
        self._check()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in the folder; the lock goes with the process, however it ends. ``OutputError`` where it is in use."""
        make_folder(self.path)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                self._check()  # again: another process may have been first
                self._start()
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

    def _check(self) -> None:
        """The folder holds this study, or nothing."""
        file = self.path / _CONFIG
        if file.is_file():
            _same(self.path, read_yaml(file), self._settings)
        elif self.path.is_dir() and any(not each.name.startswith(".") for each in self.path.iterdir()):
            raise OutputError(f"{self.path} holds files but no {_CONFIG}: choose an empty or a new folder with --out.")

    def _start(self) -> None:
        if not (self.path / _CONFIG).is_file():
            with replacing(self.path / _CONFIG) as temporary:
                temporary.write_text(yaml.safe_dump(self._settings, sort_keys=False))
        make_folder(self.results)
        for unfinished in self.results.glob(".*"):  # what a killed writer left
            unfinished.unlink()


def _same(path: Path, there: object, here: object) -> None:
    difference = next(_differences(there, here, ""), None)
    if difference is not None:
        key, old, new = difference
        raise OutputError(
            f"{path} holds another study ({key} is {old!r} there, {new!r} now): choose another --out, or delete it."
        )


def _differences(there: object, here: object, key: str) -> Iterator[tuple[str, object, object]]:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in [*here, *sorted(there.keys() - here.keys(), key=str)]:
            yield from _differences(there.get(name), here.get(name), f"{key}.{name}".lstrip("."))
    elif there != here:
        yield key, there, here
