"""Files of weights: read without running code, written whole or not at all."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lossatlas.errors import CheckpointError
from lossatlas.model.candidates import only_state
from lossatlas.model.parameters import first_of
from lossatlas.results.files import replacing

_PATTERNS = ("*.safetensors.index.json", "*.safetensors", "*.bin.index.json", "*model*.bin")  # in a folder, in order
_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.")
# Folders that hold parts of weights which only their own tools join.
_PARTS = {
    ".metadata": "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, file)",
    "zero_to_fp32.py": "python zero_to_fp32.py . model.bin, in the folder",
}
_REASONS = {
    "DTensor": "holds parts of distributed tensors: save whole ones, by torch.distributed.checkpoint.state_dict."
    "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))",
    "TorchScript": "is a TorchScript archive: save the state_dict() of what torch.jit.load gives",
}


class _Unread:
    """What stands for an object of a class that is not loaded: nothing of the class is imported or run."""

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def contents_of(source: object) -> tuple[object, str, str | None]:
    """What a module, a mapping or a file holds; what it is called in a message; the key that its path ends with."""
    if isinstance(source, nn.Module):
        return source.state_dict(), f"the {type(source).__name__} that was given", None
    if isinstance(source, str | Path):
        path, key = _located(source)
        return read_contents(path), str(source), key
    return source, f"the {type(source).__name__} that was given", None


def read_state(path: str | Path) -> Mapping[str, Tensor]:
    """The named tensors of a file or a folder, as ``read_contents`` takes them, that holds one state.

    Raises
    ------
    CheckpointError : as ``read_contents``; it holds no state, or several.
    """
    return only_state(read_contents(Path(path)), str(path))


def read_contents(path: Path) -> object:
    """What a file or a folder of weights holds, as tensors, numbers, text and containers of them.

    A file is ``.safetensors``, an index of such (``*.index.json``), or one by ``torch.save``, which is opened with
    ``weights_only=True``: objects of other classes than PyTorch's are left unread. A folder holds one of them.

    Raises
    ------
    CheckpointError : no such file; a Git-LFS pointer; a truncated or foreign file; one shard of several.
    """
    path = _file_in(path) if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}: give a .safetensors or .pt file, or a folder with one.")
    if _SHARD.search(path.name):
        raise CheckpointError(f"{path} is one shard of several: give its folder, or the *.index.json file beside it.")
    return _shards(path) if path.name.endswith(".index.json") else _read_file(path)


def _located(source: str | Path) -> tuple[Path, str | None]:
    """The path and, where it is given as ``path:key``, the key."""
    head, colon, key = str(source).rpartition(":")
    if colon and key and not Path(source).exists() and Path(head).exists():
        return Path(head), key
    return Path(source), None


def _file_in(folder: Path) -> Path:
    for name, how in _PARTS.items():
        if (folder / name).exists():
            raise CheckpointError(f"{folder} holds its weights in parts: join them first, by {how}.")
    for pattern in _PATTERNS:
        if len(found := sorted(folder.glob(pattern))) > 1:
            raise CheckpointError(
                f"{folder} holds several files of weights: give one, {first_of(list(map(str, found)))}."
            )
        if found:
            return found[0]
    raise CheckpointError(f"There is no checkpoint in the folder {folder}: give a .safetensors or .pt file.")


def _shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names, which lie beside it."""
    try:
        where: dict[str, str] = dict(json.loads(index.read_text())["weight_map"])
        files = sorted({index.with_name(Path(file).name) for file in where.values()})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} is no index of shards ({error}): give the folder that it came in.") from error
    if absent := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(f"{index} names shards that are not beside it: fetch {first_of(absent)}.")
    found = {name: tensor for file in files for name, tensor in only_state(_read_file(file), str(file)).items()}
    if differing := sorted(found.keys() ^ where.keys()):
        raise CheckpointError(f"{index} and its shards differ in {first_of(differing)}: fetch all of them anew.")
    return found


def _read_file(path: Path) -> object:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{path} is a Git-LFS pointer, not the weights themselves: run `git lfs pull`.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with safe_globals(_unread_classes(path)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        raise CheckpointError(f"{path} {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """Why a file cannot be read, and what to do."""
    text = " ".join(str(error).split())
    for word, reason in _REASONS.items():
        if word in text:
            return reason
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL (\S+)", text)
        what = f" (it names {named[1]}, which is not run)" if named else ""
        return f"holds more than tensors, or is no file of weights{what}: save model.state_dict() anew"
    return f"cannot be read as weights ({text[:120]}): it may be truncated; save it anew"


def _unread_classes(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """An empty class for each that ``weights_only`` does not know and the file names: options, paths, schedules."""
    try:
        unknown = get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError):  # the form before PyTorch 1.6, or no such file
        unknown = ["argparse.Namespace"]
    of_objects = [name for name in unknown if not name.startswith("torch.distributed.")]
    return [(type(name.rpartition(".")[2], (_Unread,), {}), name) for name in of_objects]


def write_state(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """``state`` as a safetensors file, renamed into place when it is complete."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=dict(metadata or {}))
