"""The loss and the accuracy over a whole data set, with their standard errors over examples."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from lossatlas.errors import DataError, InputError
from lossatlas.zoo.batches import Batches

Loss: TypeAlias = Callable[..., Tensor]


@torch.no_grad()
def measured(model: nn.Module, loss: Loss, batches: Batches) -> tuple[dict[str, float], int]:
    """Mean loss and accuracy over all examples in eval mode, with standard errors, and the number of examples."""
    model.eval()
    losses, hits = [], []
    for inputs, targets in batches:
        outputs = model(inputs)
        check_labels(outputs, targets)
        losses.append(_each_loss(loss, outputs, targets))
        if _has_labels(outputs, targets):
            hits.append((outputs.argmax(1) == targets).double())
    if not losses:
        raise DataError("The data to measure on gave no batch: give at least one, at every pass.")
    (mean, stderr), (accuracy, accuracy_stderr) = _mean(losses), _mean(hits)
    values = {
        "loss": mean,
        "loss_stderr": stderr,
        "accuracy": accuracy,
        "accuracy_stderr": accuracy_stderr,
    }
    return values, sum(len(part) for part in losses)


def _mean(parts: list[Tensor]) -> tuple[float, float]:
    """The mean over all entries and its standard error; NaN of fewer than one, or two."""
    values = torch.cat(parts) if parts else torch.empty(0)
    stderr = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return (values.mean().item() if len(values) else math.nan), stderr


def _each_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of each example (N,), in float64."""
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        unreduced = copy.copy(loss)
        unreduced.reduction = cast(Any, "none")
        each = unreduced(outputs, targets)
    elif "reduction" in inspect.signature(loss).parameters:
        each = loss(outputs, targets, reduction="none")
    else:
        each = torch.stack([loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))])
    means: Tensor = each.reshape(len(targets), -1).double().mean(1)
    whole: Tensor = loss(outputs, targets).double()
    if not torch.isclose(means.mean(), whole, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise InputError(
            f"The loss of a batch, {whole.item():g}, is not the mean over its examples, {means.mean().item():g}:"
            ' give a loss with reduction="mean" and without class weights.'
        )
    return means


def _has_labels(outputs: Tensor, targets: Tensor) -> bool:
    return outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point()


def check_labels(outputs: Tensor, targets: Tensor) -> None:
    if not _has_labels(outputs, targets):
        return
    low, high = (int(bound) for bound in targets.aminmax())
    if low < 0 or high >= outputs.shape[1]:
        raise DataError(
            f"The targets run from {low} to {high}, but the network has {outputs.shape[1]} outputs:"
            f" give class labels from 0 to {outputs.shape[1] - 1}, or a network with more outputs."
        )
