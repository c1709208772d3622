"""The store: rows come back bit for bit, blocks are whole or absent, and a folder of something else is refused."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from oracles.refusals import assert_refused

from lossatlas.errors import OutputError
from lossatlas.surfaces.store import BLOCK, Store

IDENTITY = {"model": "abc", "tol": None, "axes": [0.1, 1e-300], "seed": 3, "span": {"alpha": (1.0, 2.0)}}
COLUMNS = ["loss", "loss_stderr"]
POINTS = np.arange(BLOCK) * 7


def opened(folder: Path, identity: dict | None = None, columns: list[str] | None = None) -> Store:
    return Store(folder, IDENTITY if identity is None else identity, COLUMNS if columns is None else columns)


def rows(n: int = BLOCK, seed: int = 0) -> np.ndarray:
    """Numbers of all sizes, with every kind that float64 has."""
    draw = np.random.default_rng(seed)
    found = draw.standard_normal((n, 2)) * 10.0 ** draw.integers(-300, 300, (n, 2))
    special = [np.nan, np.inf, -np.inf, -0.0, 5e-324, 0.1 + 0.2, np.nextafter(1, 2)]
    found.reshape(-1)[: len(special)] = special
    return found


def filled(folder: Path) -> Path:
    with opened(folder) as store:
        store.write(0, POINTS, rows())
        store.write(1, np.arange(5), rows(5, seed=1))
    return folder


def same_bits(a: np.ndarray | None, b: np.ndarray) -> bool:
    return a is not None and a.dtype == np.float64 and np.ascontiguousarray(a).tobytes() == b.tobytes()


def read(folder: Path, block: int = 0, points: np.ndarray = POINTS) -> np.ndarray | None:
    with opened(folder) as store:
        return store.read(block, points)


def test_rows_come_back_bit_for_bit_in_the_same_store_and_in_a_later_one(tmp_path):
    with opened(tmp_path / "s") as store:
        store.write(0, POINTS, rows())
        assert same_bits(store.read(0, POINTS), rows())
    assert same_bits(read(tmp_path / "s"), rows())


def test_a_block_shorter_than_the_others_comes_back_with_its_own_length(tmp_path):
    filled(tmp_path / "s")
    assert same_bits(read(tmp_path / "s", 1, np.arange(5)), rows(5, seed=1))


def test_a_block_of_one_point_with_the_index_zero_is_there(tmp_path):
    with opened(tmp_path / "s") as store:
        store.write(4, np.array([0]), np.array([[np.nan, np.nan]]))
        assert same_bits(store.read(4, np.array([0])), np.array([[np.nan, np.nan]]))


def test_a_block_that_was_never_written_is_none(tmp_path):
    filled(tmp_path / "s")
    assert read(tmp_path / "s", 2) is None
    assert read(tmp_path / "s", 100_000) is None


def test_a_block_written_again_holds_the_later_rows(tmp_path):
    filled(tmp_path / "s")
    with opened(tmp_path / "s") as store:
        store.write(0, POINTS, rows(seed=9))
    assert same_bits(read(tmp_path / "s"), rows(seed=9))


@pytest.mark.parametrize(
    ("block", "points"),
    [(0, POINTS + 1), (0, POINTS[::-1]), (1, np.arange(6)), (1, np.arange(1, 6)), (1, POINTS)],
    ids=["others", "another order", "one more", "shifted", "as many as a block holds"],
)
def test_other_points_than_are_stored_are_refused(tmp_path, block, points):
    filled(tmp_path / "s")
    assert_refused(OutputError, lambda: read(tmp_path / "s", block, points), f"block {block}", "other points")


def test_notes_are_added_and_read_back(tmp_path):
    with opened(tmp_path / "s") as store:
        assert store.notes == {}
        store.note(plan="plain loop", count=3)
        store.note(count=4, also=[1.5, None])
    with opened(tmp_path / "s") as store:
        assert store.notes == {"plan": "plain loop", "count": 4, "also": [1.5, None]}


def test_notes_leave_the_blocks_alone(tmp_path):
    filled(tmp_path / "s")
    with opened(tmp_path / "s") as store:
        store.note(plan="x")
    assert same_bits(read(tmp_path / "s"), rows())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 4}, ["seed is 3 there, 4 here"]),
        ({"tol": 0.01}, ["tol is None there, 0.01 here"]),
        ({"axes": [0.1, 2e-300]}, ["axes is [0.1, 1e-300] there"]),
        ({"added": 1}, ["added is None there, 1 here"]),
        ({"model": "x", "seed": 4}, ["model is 'abc' there, 'x' here"]),
    ],
    ids=lambda value: "+".join(value),
)
def test_a_store_of_something_else_is_refused_with_the_difference(tmp_path, change, words):
    filled(tmp_path / "s")
    assert_refused(OutputError, lambda: opened(tmp_path / "s", IDENTITY | change), "another surface", *words)
    assert same_bits(read(tmp_path / "s"), rows()), "the refusal gives the lock back and leaves the rows"


def test_an_identity_with_a_key_less_is_another(tmp_path):
    filled(tmp_path / "s")
    less = {key: value for key, value in IDENTITY.items() if key != "seed"}
    assert_refused(OutputError, lambda: opened(tmp_path / "s", less), "seed is 3 there, None here")


@pytest.mark.parametrize(
    "columns",
    [["loss", "accuracy"], ["loss_stderr", "loss"], ["loss"], ["loss", "loss_stderr", "accuracy"]],
    ids="+".join,
)
def test_other_columns_are_refused_with_the_difference(tmp_path, columns):
    filled(tmp_path / "s")
    assert_refused(OutputError, lambda: opened(tmp_path / "s", columns=columns), "columns", str(columns))


def test_a_second_opener_is_refused_while_the_first_is_open(tmp_path):
    with opened(tmp_path / "s") as store:
        assert_refused(OutputError, lambda: opened(tmp_path / "s"), "in use")
        store.write(0, POINTS, rows())
    assert same_bits(read(tmp_path / "s"), rows())


def test_an_error_inside_gives_the_lock_back(tmp_path):
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "s"):
        raise KeyboardInterrupt
    opened(tmp_path / "s").close()


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "s").write_text("hello")
    assert_refused(OutputError, lambda: opened(tmp_path / "s"), str(tmp_path / "s"))


def truncate(place: Path) -> None:
    text = (place / "zarr.json").read_text()
    (place / "zarr.json").write_text(text[: len(text) // 2])


def chunks(place: Path) -> list[Path]:
    return [file for file in (place / "c").rglob("*") if file.is_file()]


def each_chunk(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(place: Path) -> None:
        for chunk in chunks(place):
            chunk.write_bytes(change(chunk.read_bytes()))

    return damage


def array_of(**options: object) -> Callable[[Path], None]:
    return lambda place: zarr.create_array(store=place, overwrite=True, **({"shape": (3,), "dtype": "i1"} | options))


def replaced_by_a_file(place: Path) -> None:
    shutil.rmtree(place)
    place.write_text("hello")


FOREIGN: dict[str, Callable[[Path], object]] = {
    "half its description": truncate,
    "no description": lambda place: (place / "zarr.json").unlink(),
    "an empty description": lambda place: (place / "zarr.json").write_text(""),
    "a file": replaced_by_a_file,
    "an empty folder": lambda place: (shutil.rmtree(place), place.mkdir()),
    "a group": lambda place: zarr.create_group(place, overwrite=True),
    "an array of somebody's": array_of(),
    "an identity that is a number": array_of(attributes={"identity": 5}),
    "an array of another shape": array_of(attributes={"identity": IDENTITY, "columns": COLUMNS, "notes": {}}),
    "half of each chunk": each_chunk(lambda data: data[: len(data) // 2]),
    "empty chunks": each_chunk(lambda data: b""),
    "noise for chunks": each_chunk(lambda data: b"noise" * 50),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_damaged_or_foreign_is_refused_with_its_place(tmp_path, name):
    place = filled(tmp_path / "s") / "points.zarr"
    FOREIGN[name](place)
    assert_refused(OutputError, lambda: read(tmp_path / "s"), str(tmp_path / "s"), "folder")


def test_a_chunk_that_cannot_be_written_is_said_and_nothing_is_lost(tmp_path):
    with opened(filled(tmp_path / "s")) as store:
        (tmp_path / "s" / "points.zarr" / "c" / "2").write_text("a file where a folder should be")
        assert_refused(OutputError, lambda: store.write(2, POINTS, rows()), "cannot be written", "kept")
        assert same_bits(store.read(0, POINTS), rows())


def test_a_note_that_cannot_be_written_is_said(tmp_path):
    with opened(filled(tmp_path / "s")) as store:
        description = tmp_path / "s" / "points.zarr" / "zarr.json"
        description.unlink()
        (description / "folder").mkdir(parents=True)
        assert_refused(OutputError, lambda: store.note(plan="x"), "cannot be written")


WRITER = """
import sys, itertools, numpy as np
from lossatlas.surfaces.store import BLOCK, Store

with Store(sys.argv[1], {"a": 1}, ["loss", "loss_stderr"]) as store:
    for block in itertools.count():
        points = np.arange(BLOCK) + BLOCK * block
        store.write(block, points, np.random.default_rng(block).standard_normal((BLOCK, 2)))
"""


def written_by_now(folder: Path) -> int:
    return sum(1 for file in (folder / "points.zarr").glob("c/*/0/0"))


def test_a_run_that_is_killed_while_it_writes_leaves_whole_blocks_only(tmp_path):
    folder = tmp_path / "s"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)]) as writer:
        deadline = time.monotonic() + 120
        while written_by_now(folder) < 20 and writer.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert_refused(OutputError, lambda: Store(folder, {"a": 1}, COLUMNS), "in use")
        writer.send_signal(signal.SIGKILL)
    blocks = written_by_now(folder)
    assert blocks >= 20
    with Store(folder, {"a": 1}, COLUMNS) as store:
        for block in range(blocks):
            points = np.arange(BLOCK) + BLOCK * block
            assert same_bits(store.read(block, points), np.random.default_rng(block).standard_normal((BLOCK, 2)))
        assert store.read(blocks, np.arange(BLOCK)) is None
        store.write(blocks, POINTS, rows())
        assert same_bits(store.read(blocks, POINTS), rows())
