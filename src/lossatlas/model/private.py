"""A copy of the caller's model, which nothing that is done to it reaches, in another type and on another device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.copies import copied_in_parts
from lossatlas.model.data.containers import cast_type
from lossatlas.model.failures import explain_copy
from lossatlas.model.scripted import Scripted

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself of one that is data parallel or compiled."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    inner: nn.Module = getattr(model, "_orig_mod", model)  # torch.compile keeps the module itself there
    return inner


def private_copy(model: nn.Module) -> nn.Module:
    """A copy that shares no tensor and no module with ``model``; ``InputError`` where there is none."""
    return private_copy_and_shared(model)[0]


def private_copy_and_shared(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The copy, and in words what it shares with ``model`` since that cannot be copied (locks, files, generators)."""
    model, shared = unwrapped(model), list[str]()
    try:
        own: nn.Module = copy.deepcopy(model, _memo(model))
    except Exception as error:
        try:
            own, shared = copied_in_parts(model, _memo(model))
        except Exception:
            raise explain_copy(model, error) from error
    if {id(module) for module in own.modules()} & {id(module) for module in model.modules()}:
        raise InputError("The model's __deepcopy__ gives the model itself, or parts of it: leave it to copy.deepcopy.")
    _unwrap_parts(own)
    return own, shared


def _memo(model: nn.Module) -> dict[int, Any]:
    """What ``deepcopy`` is to find already copied: what it would refuse, or would not copy as a model needs it."""
    memo = _with_shared_storage(model, _detached_attributes(model))
    inside = set[int]()  # of scripts, which are copied whole
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule) and id(module) not in inside:
            inside.update(map(id, module.modules()))
            memo[id(module)] = Scripted(copy.deepcopy(module), module, memo)
    return memo


def _unwrap_parts(model: nn.Module) -> None:
    """Compiled parts as the modules that they were made from: the same function, with derivatives of every order."""
    for module in list(model.modules()):
        for name, part in module._modules.items():
            if part is not None and "_orig_mod" in part._modules:
                module._modules[name] = part._modules["_orig_mod"]


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
