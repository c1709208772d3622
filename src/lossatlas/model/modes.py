"""The mode that a model is evaluated in, BatchNorm apart, which has a policy of its own."""

from __future__ import annotations

import re
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from lossatlas.errors import InputError
from lossatlas.model.scripted import is_one_of, name_of

Mode = Literal["eval", "train", "dropout"]

_WORDS = {"train": "training mode, dropout off", "dropout": "training mode, dropout on"}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DROP_INSIDE = (nn.MultiheadAttention, nn.RNN, nn.LSTM, nn.GRU)  # by an argument of their own
_DROPS = re.compile(r"drop|stochastic_?depth", re.IGNORECASE)


def require_mode(mode: str) -> None:
    """``InputError`` for a mode that there is not."""
    if mode not in ("eval", *_WORDS):
        raise InputError(f"mode={mode!r} is unknown: choose 'eval', 'train' or 'dropout'.")


def in_words(mode: Mode) -> str:
    """What a result says of the mode; empty for evaluation mode."""
    return _WORDS.get(mode, "")


def put_into(module: nn.Module, mode: Mode) -> None:
    """The model into ``mode``: BatchNorm stays in evaluation mode, and under ``"train"`` what drops at random too."""
    if mode == "eval":
        module.eval()
        return
    module.train()
    for part in module.modules():
        if is_batch_norm(part) or (mode == "train" and _drops(part)):
            part.eval()


def is_batch_norm(part: nn.Module) -> bool:
    """Whether a module is a BatchNorm, or a script made from one."""
    return isinstance(part, BatchNorm) or is_one_of(part, _BATCH_NORMS)


def _drops(part: nn.Module) -> bool:
    """Dropout of every kind, as layers without parts are called (DropPath, StochasticDepth), attention, recurrence."""
    alone = next(part.children(), None) is None
    return is_one_of(part, _DROP_INSIDE) or (alone and _DROPS.search(name_of(part)) is not None)
