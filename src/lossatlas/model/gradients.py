"""Models and losses that differentiate while they are evaluated: PINNs, forces, gradient penalties."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Tensors = dict[str, Tensor]


def called_with_gradients(call: Callable[[Tensors], Any], tensors: Tensors, moving: Collection[str]) -> Any:
    """``call(tensors)`` with gradients on inside, and with none in what it returns where they are off outside.

    ``moving`` names the tensors that may be differentiated by; where gradients are on already, they are as they come.
    """
    if torch.is_grad_enabled():
        return call(tensors)
    with torch.inference_mode(False), torch.enable_grad():
        leaves = {name: _leaf(tensor) if name in moving else tensor for name, tensor in tensors.items()}
        return tree_map(lambda value: value.detach() if isinstance(value, Tensor) else value, call(leaves))


def _leaf(tensor: Tensor) -> Tensor:
    plain = tensor.clone() if tensor.is_inference() else tensor.detach()
    return plain.requires_grad_() if plain.is_floating_point() or plain.is_complex() else plain
