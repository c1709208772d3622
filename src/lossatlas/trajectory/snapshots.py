"""A recording on disk: snapshots as safetensors, and ``history.jsonl`` with one line a step."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lossatlas.errors import CheckpointError, OutputError
from lossatlas.model.checkpoints import read_state
from lossatlas.results.files import make_folder, replacing

HISTORY = "history.jsonl"
SNAPSHOTS = "step-*.safetensors"


def snapshot_file(folder: Path, step: int) -> Path:
    """The file of the snapshot at ``step``."""
    return folder / f"step-{step:08d}.safetensors"


def step_of(file: Path) -> int:
    """The step of a snapshot's file."""
    return int(file.stem.removeprefix("step-"))


def read_point(file: Path) -> Tensor:
    """theta ``(n,)`` of a snapshot, in the order of the parameters that its Recorder listed."""
    state = read_state(file)
    with safe_open(file, "pt") as opened:
        listed = (opened.metadata() or {}).get("parameters")
    if listed is None:
        raise CheckpointError(f"{file} was not written by a Recorder: it does not list its parameters.")
    return torch.cat([state[name].reshape(-1) for name in json.loads(listed)])


def read_history(file: Path) -> list[dict[str, float]]:
    """What each recorded step stated; the half of a line that a killed run can leave is dropped."""
    rows = file.read_text().splitlines(keepends=True) if file.is_file() else []
    try:
        return [json.loads(row) for row in rows if row.endswith("\n")]
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file} has a line that is no JSON ({error}): delete that line.") from error


def recording_folder(folder: str | Path, resume: bool) -> Path:
    """The folder, made where it is missing; ``OutputError`` where it holds another recording."""
    path = make_folder(Path(folder))
    (path / HISTORY).touch()
    if not resume and any(path.glob(SNAPSHOTS)):
        raise OutputError(
            f"{folder} holds a recording already: choose another folder, or pass resume=True to continue it."
        )
    return path


def drop_from(folder: Path, step: int) -> None:
    """Delete the snapshots and the history at ``step`` and later."""
    for file in folder.glob(SNAPSHOTS):
        if step_of(file) >= step:
            file.unlink()
    history = folder / HISTORY
    kept = [json.dumps(row) + "\n" for row in read_history(history) if row["step"] < step]
    with replacing(history) as temporary:
        temporary.write_text("".join(kept))
