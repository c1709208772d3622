"""Activation checkpointing, which is off while lossatlas evaluates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint


class _Reentrant:
    """In place of the function that forgets its activations."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


def _other(_: Any, preserve: bool, contexts: Callable[[], Any], *rest: Any, **named: Any) -> Iterator[None]:
    """In place of the hooks that do; what is to be in force meanwhile still is."""
    forward, _ = contexts()
    with forward:
        yield


# What torch.utils.checkpoint.checkpoint looks up when it is called, however that was imported. A release that has
# other names checkpoints as ever, and its gradients are refused.
_REPLACED = {"CheckpointFunction": _Reentrant, "_checkpoint_without_reentrant_generator": _other}


@contextmanager
def without_recomputation() -> Iterator[None]:
    """Activations are kept while inside.

    Checkpointing calls a part of the model again in the backward pass, when the parameters that it was called with are
    no more in their place: the gradient would be that of others. What it computes is the same without it.
    """
    before = {name: getattr(checkpoint, name) for name in _REPLACED if hasattr(checkpoint, name)}
    try:
        for name in before:
            setattr(checkpoint, name, _REPLACED[name])
        yield
    finally:
        for name, own in before.items():
            setattr(checkpoint, name, own)
