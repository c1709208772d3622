"""The state of a training run after a whole epoch, in one file that is replaced in one move."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lossatlas.errors import CheckpointError, InputError, OutputError
from lossatlas.model.checkpoints import write_state
from lossatlas.results.files import make_folder

FILE = "training.safetensors"
_HEADER = "training"


def save(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], run: Any
) -> None:
    """Write the weights, the optimiser's state, the settings and ``run`` (anything JSON can hold).

    Raises
    ------
    OutputError : the folder cannot be written.
    InputError : the optimiser keeps something else than tensors and plain values.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    values: dict[str, Any] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            elif value is None or isinstance(value, bool | int | float | str):
                values[f"{index}.{key}"] = value
            else:
                raise InputError(
                    f"{type(optimizer).__name__} keeps a {type(value).__name__} ({key!r}) that cannot be stored:"
                    " train without a folder, or with another optimiser."
                )
    header = {"settings": settings, "run": run, "optimizer": values}
    write_state(tensors, make_folder(folder) / FILE, {_HEADER: json.dumps(header)})


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]) -> Any:
    """Put the weights and the optimiser's state back and return ``run``; ``None`` where there is no checkpoint.

    Raises
    ------
    CheckpointError : the file is damaged.
    OutputError : the file belongs to a run with other settings.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    tensors, header = _read(path)
    _check_settings(folder, header["settings"], settings)
    model.load_state_dict(_below("model.", tensors))
    state: dict[int, dict[str, Any]] = {}
    for name, value in (_below("optimizer.", tensors) | header["optimizer"]).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return header["run"]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of a training run: remove it to train from the start."
        ) from error


def _check_settings(folder: Path, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    asked = json.loads(json.dumps(settings))
    differing = [name for name in asked if stored.get(name) != asked[name]]
    if differing:
        name = differing[0]
        raise OutputError(
            f"{folder} holds a training run with other settings ({name} {stored.get(name)!r} there,"
            f" {asked[name]!r} here): choose another folder, or remove {FILE} there."
        )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
