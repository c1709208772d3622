"""Which kernels compute: the same for value and derivatives, and in the precision of their type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from lossatlas.model.scripted import is_one_of

RECURRENT = (nn.RNNBase, nn.RNN, nn.LSTM, nn.GRU)

Switch = tuple[Callable[[], Any], Callable[[Any], object], object]  # reads, sets, and the value without TF32


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No TF32 on a CUDA device while inside: PyTorch's convolutions round to 10 bits there unless they are told.

    Gradients of a ResNet-20 were 1 % off by it, and the agreement of two ways to compute one number is 1e-6.
    """
    if device.type != "cuda":
        yield
        return
    switches = _switches()
    before = [get() for get, _, _ in switches]
    for _, set_to, value in switches:
        set_to(value)
    try:
        yield
    finally:
        for (_, set_to, _), value in zip(switches, before, strict=True):
            set_to(value)


@contextmanager
def one_path(module: nn.Module) -> Iterator[None]:
    """Without kernels that are for some calls only, so that value and derivatives are of one function.

    The fast path of attention is for gradients off, and has other values at padding; cuDNN's recurrent networks have no
    derivative in eval mode.
    """
    fast, cudnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cudnn.enabled = cudnn and not any(is_one_of(m, RECURRENT) for m in module.modules())
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.backends.cudnn.enabled = cudnn


@contextmanager
def plain_recurrence(module: nn.Module) -> Iterator[None]:
    """LSTMs by their plain formula while inside.

    oneDNN's kernel has no forward mode, and a second derivative by it takes longer and keeps twice as much.
    """
    onednn: Any = torch.backends.mkldnn
    enabled, handles = onednn.enabled, []
    for lstm in (m for m in module.modules() if isinstance(m, nn.LSTM)):
        handles.append(lstm.register_forward_pre_hook(lambda *_: setattr(onednn, "enabled", False)))
        handles.append(lstm.register_forward_hook(lambda *_: setattr(onednn, "enabled", enabled), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _switches() -> list[Switch]:
    """What allows TF32. Newer PyTorch has other names for it, and the older ones cannot be read where both were set."""
    cudnn: Any = torch.backends.cudnn
    older: list[Switch] = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        _attribute(cudnn, "allow_tf32", False),
    ]
    try:
        _ = [get() for get, _, _ in older]
    except RuntimeError:
        newer: tuple[Any, ...] = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
        return [_attribute(owner, "fp32_precision", "ieee") for owner in newer]
    return older


def _attribute(owner: object, name: str, value: object) -> Switch:
    return partial(getattr, owner, name), partial(setattr, owner, name), value
