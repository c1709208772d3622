"""A copy of the caller's model, which nothing that is done to it reaches, in another type and on another device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.data.containers import cast_type
from lossatlas.model.failures import explain_copy

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself of one that is data parallel or compiled."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    inner: nn.Module = getattr(model, "_orig_mod", model)  # torch.compile keeps the module itself there
    return inner


def private_copy(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with ``model``; ``InputError`` where there is none."""
    model = unwrapped(model)
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise InputError(
            "The model is a TorchScript module (torch.jit), whose parameters cannot be exchanged: "
            "give the Python module that it was made from, with model.load_state_dict(scripted.state_dict())."
        )
    try:
        own: nn.Module = copy.deepcopy(model, _with_shared_storage(model, _detached_attributes(model)))
    except Exception as error:
        raise explain_copy(model, error) from error
    if {id(module) for module in own.modules()} & {id(module) for module in model.modules()}:
        raise InputError("The model's __deepcopy__ gives the model itself, or parts of it: leave it to copy.deepcopy.")
    return own


def converted(module: nn.Module, device: torch.device | str | None, dtype: torch.dtype | None) -> nn.Module:
    """The module there, with real numbers in ``dtype`` and complex ones in the type of the same precision."""
    moved: nn.Module = module.to(device=device)._apply(lambda tensor: tensor.to(cast_type(tensor, dtype)))
    return moved


def _with_shared_storage(model: nn.Module, memo: dict[int, Any]) -> dict[int, Any]:
    """The memo with copies of the parameters in it, with which views of them stay views of their copies.

    ``deepcopy`` of a parameter by itself has a storage that nothing else shares, so that a view that the model keeps
    would no more move with it, and nothing would tell.
    """
    for parameter in model.parameters():
        if type(parameter) is nn.Parameter:
            memo[id(parameter)] = nn.Parameter(copy.deepcopy(parameter.detach(), memo), parameter.requires_grad)
    return memo


def _detached_attributes(model: nn.Module) -> dict[int, Any]:
    """A memo for ``deepcopy``: without graphs that a forward pass has left, and of what has no storage to be copied."""
    left = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    own = [value for value in [*left, *model.buffers()] if value.grad_fn is not None or value.layout in _COMPRESSED]
    return {id(value): value.detach().clone() for value in own}
