"""Generators of random numbers that come back as they were, and that start where they are told."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def preserved_rng(device: torch.device | None = None) -> Iterator[None]:
    """Whatever runs inside, the generators of torch, numpy and random come back as they were.

    Iterating a ``DataLoader`` draws from torch's global generator even when it does not shuffle.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - a user's loader may draw from it
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def seed_generators(seed: int, device: torch.device) -> None:
    """Start torch's generators (of the CPU and of ``device``, no other device's) and those of numpy and random."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - a user's model may draw from it
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def has_drawn(device: torch.device) -> bool:
    """Whether any generator is not as ``seed_generators(0, device)`` leaves it; afterwards all are."""
    after = _states(device)
    seed_generators(0, device)
    return after != _states(device)


def _states(device: torch.device) -> tuple[Any, ...]:
    numpy: Any = np.random.get_state()  # noqa: NPY002 - a user's model may draw from it
    torchs = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    return random.getstate(), numpy[1].tobytes(), numpy[2:], *(state.numpy().tobytes() for state in torchs)
