"""Whether a module that a point is read from computes what the objective's own model would at its point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.errors import DataError, LossAtlasError
from lossatlas.model.data.batches import copied, digest, preserved_rng
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.naming import Fit
from lossatlas.model.private import unwrapped

_PLAIN = (int, float, str, bool, list, tuple, dict, Tensor)


def other_attributes(function: FunctionalModel, model: nn.Module, fit: Fit, theta: Tensor, batch: Any) -> list[str]:
    """Classes and attributes that ``model`` has otherwise, where it has another loss too at ``theta``.

    Of ``model`` that part is meant, and compared with that part of the function's own, whose names ``fit``.

    No state dict holds them (a scale, an activation, a threshold), so a point does not bring them along. Where none
    differ nothing is evaluated; else one batch, twice, with the same tensors.
    """
    model = _part(model, fit.outer)
    own, given = _attributes(_part(function.module, fit.inner)), _attributes(model)
    differing = [name for name in own.keys() | given.keys() if own.get(name) != given.get(name)]
    if not differing or _alike(function, model, theta, batch):
        return []
    return sorted(differing)


def _alike(function: FunctionalModel, model: nn.Module, theta: Tensor, batch: Any) -> bool:
    try:
        module = function.module_from(model, theta)
        with torch.no_grad(), preserved_rng(theta.device):
            for name, parameter in function.module.named_parameters():
                if name not in {entry.name for entry in function.space}:
                    module.get_parameter(name).copy_(parameter)
            own = function.measure(function.tensors(theta), copied(batch), 0)["loss"].double().mean()
            found = function.measured_by(module, copied(batch), 0)["loss"].double().mean()
    except (LossAtlasError, RuntimeError):  # a model that fails there is not alike
        return False
    return bool(torch.isclose(own, found, rtol=1e-4, equal_nan=True))


def _part(model: nn.Module, path: str) -> nn.Module:
    for name in path.split(".")[:-1]:
        model = unwrapped(model).get_submodule(name)
    return unwrapped(model)


def _attributes(model: nn.Module) -> dict[str, str]:
    found = {}
    for path, module in model.named_modules():
        found[f"class of {path or 'the model'}"] = f"{type(module).__module__}.{type(module).__qualname__}"
        for key, value in vars(module).items():
            if not key.startswith("_") and key != "training":
                found[f"{path}.{key}" if path else key] = _shown(value)
    return found


def _shown(value: Any) -> str:
    if not isinstance(value, _PLAIN):
        return getattr(value, "__qualname__", type(value).__qualname__)  # functions by name, objects by class
    try:
        return digest(value)
    except DataError:  # it holds what cannot be compared
        return type(value).__qualname__
