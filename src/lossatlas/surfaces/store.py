"""Blocks of evaluated points on disk: one block is one chunk, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from lossatlas.errors import OutputError
from lossatlas.results.files import make_folder

BLOCK = 32  # points in a block: what an interruption can cost
_MOST = 2**20  # blocks: the array's nominal length, of which only written chunks take space


class Store:
    """Rows of numbers in blocks, numbered in the order in which they are evaluated, which is the same in every run.

    ``identity`` says what is stored; a folder that holds anything else is refused, and so is one that another process
    has open. ``notes`` are written once and read back on resuming. zarr renames a finished chunk into place, so a block
    is there or is not. ``len(columns)`` numbers a point, as float64: a resumed run has them bit for bit.

    Raises ``OutputError`` for a folder of something else, in use, or that cannot be written.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], columns: Sequence[str]) -> None:
        self.path = make_folder(Path(path))
        self._lock = FileLock(self.path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"{self.path} is in use by another process: wait for it, or choose another folder."
            ) from None
        try:
            self._open(json.loads(json.dumps(dict(identity))), list(columns))
        except BaseException:
            self.close()
            raise

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted when the store was made."""
        noted: Any = self._array.attrs["notes"]
        return dict(noted)

    def note(self, **notes: Any) -> None:
        """Add to the notes."""
        try:
            self._array.attrs["notes"] = self.notes | notes
        except OSError as error:
            raise self._unwritable(error) from error

    def read(self, block: int, points: NDArray[np.intp]) -> NDArray[np.float64] | None:
        """The rows of block number ``block`` for these points, or None where it was never written."""
        try:
            stored = np.asarray(self._array[block])
        except Exception as error:  # whatever a damaged chunk makes the decoder raise
            raise OutputError(
                f"{self.path}: block {block} is damaged: remove the folder, or choose another."
            ) from error
        if np.isnan(stored[0, 0]):
            return None
        rows = stored[: len(points)]
        if not np.array_equal(rows[:, 0], points):
            raise OutputError(
                f"{self.path}: block {block} holds other points than are asked for: choose another folder."
            )
        return rows[:, 1:]

    def write(self, block: int, points: NDArray[np.intp], rows: NDArray[np.float64]) -> None:
        chunk = np.full((BLOCK, rows.shape[1] + 1), np.nan)
        chunk[: len(points), 0], chunk[: len(points), 1:] = points, rows
        try:
            self._array[block] = chunk
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path} cannot be written ({error.strerror}): what it holds is kept.")

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, identity: dict[str, Any], columns: list[str]) -> None:
        import zarr  # takes a moment, and few surfaces are stored

        place, shape = self.path / "points.zarr", (_MOST, BLOCK, len(columns) + 1)
        identity |= {"columns": columns}
        if not place.exists():
            self._array = zarr.create_array(
                store=place,
                shape=shape,
                chunks=(1, *shape[1:]),
                dtype="float64",
                fill_value=np.nan,
                attributes={"identity": identity, "notes": {}},
            )
            return
        try:
            self._array = zarr.open_array(store=place, mode="r+")
            noted: Any = self._array.attrs["identity"]
            held = dict(noted)
        except Exception as error:  # whatever a damaged file makes the reader raise
            raise OutputError(
                f"{place} cannot be read as a store of points: remove it, or choose another folder."
            ) from error
        if differing := [key for key in {**identity, **held} if held.get(key) != identity.get(key)]:
            key = differing[0]
            raise OutputError(
                f"{self.path} holds another surface ({key} is {held.get(key)!r} there, {identity.get(key)!r} here): "
                "choose another folder, or remove it."
            )
        if self._array.shape != shape or self._array.dtype != np.dtype("float64"):
            raise OutputError(f"{place} is no store of points: remove it, or choose another folder.")
