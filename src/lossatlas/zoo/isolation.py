"""What training borrows and gives back: the model's place and mode, its buffers, the global random streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from lossatlas.errors import InputError
from lossatlas.model.data.batches import preserved_rng, seed_generators


@contextmanager
def prepared(model: nn.Module, device: str | torch.device | None, channels_last: bool) -> Iterator[torch.device]:
    """The model on ``device`` in the memory format asked for; afterwards where and in the mode it was, no gradients."""
    home = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    try:
        place = home if device is None else _moved(model, device)
        if channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        yield place
    finally:
        if channels_last:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if device is not None:
            model.to(home)
        for module, training in modes:
            module.training = training
        model.zero_grad()


def _moved(model: nn.Module, device: str | torch.device) -> torch.device:
    try:
        return next(model.to(device).parameters()).device
    except (RuntimeError, AssertionError) as error:  # an AssertionError where torch was built without that device
        reason = str(error).partition("\n")[0]
        raise InputError(f"The model cannot be moved to {device} ({reason}): give another device.") from error


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Leave the buffers (BatchNorm's running statistics) as they are before the block."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


@contextmanager
def random_numbers(seed: int, epoch: int, device: torch.device, order: int | None = None) -> Iterator[None]:
    """All global random streams (torch, NumPy, Python) start from (seed, epoch), and afterwards are where they were.

    With ``order`` they start from (seed, epoch, order), as ``restart`` starts them.
    """
    with preserved_rng(device):
        restart(seed, epoch, device, order)
        yield


def restart(seed: int, epoch: int, device: torch.device, order: int | None = None) -> None:
    """Start all global random streams from (seed, epoch), or from (seed, epoch, order)."""
    # A spawn key and not a third number: NumPy takes [1, 2] and [1, 2, 0] for the same seed.
    key = () if order is None else (order,)
    number = int(np.random.SeedSequence([seed, epoch], spawn_key=key).generate_state(1)[0])
    seed_generators(number, device)
