"""Files of weights: read without running code, written whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lossatlas.errors import CheckpointError
from lossatlas.results.files import replacing

_PREFIXES = ("module.", "_orig_mod.")
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_state(path: str | Path) -> Mapping[str, Tensor]:
    """The named tensors of a ``.safetensors`` file or of a file by ``torch.save`` (opened with ``weights_only=True``).

    A training checkpoint that holds the weights under ``state_dict``, ``model_state_dict`` or ``model`` is unwrapped.

    Raises
    ------
    CheckpointError : no such file; a Git-LFS pointer; a truncated or foreign file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}: give a .safetensors or .pt file.")
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{path} is a Git-LFS pointer, not the weights themselves: run `git lfs pull`.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return _unwrap(torch.load(path, map_location="cpu", weights_only=True), path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is no file of weights: save model.state_dict() anew."
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{path} cannot be read as weights ({reason}): it may be truncated; save it anew."
        ) from error


def write_state(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """``state`` as a safetensors file, renamed into place when it is complete."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=dict(metadata or {}))


def state_of(source: nn.Module | Mapping[str, Tensor] | str | Path) -> Mapping[str, Tensor]:
    """Named tensors from a module, a state dict or a file."""
    if isinstance(source, nn.Module):
        return source.state_dict()
    return source if isinstance(source, Mapping) else read_state(source)


def without_wrappers(state: Mapping[str, Tensor], expected: Collection[str]) -> Mapping[str, Tensor]:
    """``state`` without ``_orig_mod.`` (compiled, also parts), and ``module.`` (data parallel) where no name fits."""
    state = {name if name in expected else name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    if any(name in expected for name in state):
        return state
    return {_bare(name): tensor for name, tensor in state.items()}


def _bare(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _unwrap(loaded: object, path: Path) -> Mapping[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if isinstance(loaded, Mapping) and loaded and all(isinstance(v, Tensor) for v in loaded.values()):
        return loaded
    raise CheckpointError(f"{path} holds a {type(loaded).__name__} that is no state dict: save model.state_dict().")
