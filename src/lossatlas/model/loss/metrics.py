"""Metrics of a batch: what was asked for, or the accuracy where outputs and targets certainly are those of one.

A metric gives one value an example, a 0-d mean, or a pair ``(sums, counts)``, each an example or 0-d: then it is the
ratio sum_i s_i / sum_i c_i over the data, with the standard error of a ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.model.loss.criteria import BINARY, CLASSES, Criterion
from lossatlas.model.loss.forms import flat

Result = Tensor | tuple[Tensor, Tensor]
Metric = Callable[[Any, Any], Result]


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest output over axis 1 is the target class, else 0; the mean over positions, if there are any.

    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    tensor([1., 0.])
    """
    return flat((outputs.argmax(1) == targets).float())


def token_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The same for outputs ``(N, ..., C)`` with the classes on the last axis and targets ``(N, ...)``.

    >>> token_accuracy(torch.tensor([[[0.1, 0.9], [0.8, 0.2]]]), torch.tensor([[1, 1]]))
    tensor([0.5000])
    """
    return accuracy(outputs.movedim(-1, 1), targets)


def masked_accuracy(axis: int, ignored: int) -> Metric:
    """Right predictions and targets that count, an example: their ratio is the accuracy on what is not ignored."""

    def metric(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        kept = targets != ignored
        right = (outputs.argmax(axis) == targets) & kept
        return _sums(right), _sums(kept)

    return metric


def threshold_accuracy(threshold: float) -> Metric:
    """The share of an example's outputs that are on their target's side of the threshold, for targets 0 and 1.

    >>> threshold_accuracy(0.0)(torch.tensor([[2.0], [-1.0]]), torch.tensor([1, 1]))
    tensor([1., 0.])
    """

    def metric(outputs: Tensor, targets: Tensor) -> Tensor:
        return flat(((outputs > threshold).reshape(targets.shape) == (targets > 0.5)).float())

    return metric


def automatic(
    loss: Callable[[Any, Any], Tensor], criterion: Criterion | None, outputs: Any, targets: Any, found: Sequence[Any]
) -> dict[str, Metric]:
    """``{"accuracy": ...}`` where targets are classes, or 0 and 1, and the loss treats the outputs accordingly.

    ``found`` are the targets of all batches.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or not outputs.is_floating_point():
        return {}
    if criterion is not None and criterion.function in BINARY:
        metric = _binary(criterion, outputs, targets, found)
    elif targets.is_floating_point() or (criterion is not None and criterion.function not in CLASSES):
        metric = None
    else:
        metric = _of_classes(loss, criterion, outputs, targets, found)
    return {} if metric is None else {"accuracy": metric}


def checked(name: str, value: object, n: int | None) -> None:
    """``InputError`` where a metric gave something else than it may; ``n``: the number of examples."""
    if name == "loss" or name.endswith(weight_key("")):
        raise InputError(f"A metric cannot be called {name!r}, which is taken: give it another name.")
    parts = value if isinstance(value, tuple) else (value,)
    if len(parts) <= 2 and all(_is_metric(part, n, one=len(parts) == 1) for part in parts):
        return
    got = [tuple(part.shape) if isinstance(part, Tensor) else f"a {type(part).__name__}" for part in parts]
    raise InputError(
        f"The metric {name!r} gave {got[0] if len(got) == 1 else got}: return a tensor with one value an example, a "
        "0-d mean, or a pair (sums, counts) of such tensors."
    )


def measured(name: str, value: Result) -> dict[str, Tensor]:
    """The metric's values on a batch, with the weights of a ratio beside them (see ``samples_of``)."""
    if isinstance(value, Tensor):
        return {name: flat(value)}
    sums, counts = value[0].double(), value[1].double()
    share = counts.numel() / counts.sum().clamp(min=torch.finfo(counts.dtype).tiny)
    return {name: sums * share, weight_key(name): counts}


def weight_key(name: str) -> str:
    """Under which name the weights of a quantity's values are measured."""
    return f"{name} weight"


def _is_metric(part: object, n: int | None, *, one: bool) -> bool:
    if not isinstance(part, Tensor) or (part.ndim > 1 and not one):
        return False
    return not part.ndim or n is None or len(part) == n


def _binary(criterion: Criterion, outputs: Tensor, targets: Tensor, found: Sequence[Any]) -> Metric | None:
    seen = criterion.given["input"]
    same = seen.numel() == outputs.numel() == targets.numel() and torch.equal(seen.flatten(), outputs.flatten())
    if not same or not all(bool(((t == 0) | (t == 1)).all()) for t in found):
        return None
    if targets.ndim > 1 and targets.shape[1] > 1 and all(bool((t.sum(1) == 1).all()) for t in found):
        return None  # one of several classes, or labels of which each example happens to have one
    return threshold_accuracy(0.0 if criterion.function is BINARY[0] else 0.5)


def _of_classes(
    loss: Callable[[Any, Any], Tensor],
    criterion: Criterion | None,
    outputs: Tensor,
    targets: Tensor,
    found: Sequence[Any],
) -> Metric | None:
    axis = _class_axis(criterion, outputs, targets)
    if axis is None or outputs.shape[axis] < 2:
        return None
    ignored = None if criterion is None else criterion.given["ignore_index"]
    if ignored is not None and any(bool((t == ignored).any()) for t in found):
        return masked_accuracy(axis, ignored)
    if any(bool(((t < 0) | (t >= outputs.shape[axis])).any()) for t in found):
        return None
    if criterion is None and not _prefers_largest(loss, outputs, targets):
        return None
    return accuracy if axis == 1 else token_accuracy


def _class_axis(criterion: Criterion | None, outputs: Tensor, targets: Tensor) -> int | None:
    second = outputs.ndim >= 2 and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    last = outputs.ndim >= 3 and outputs.shape[:-1] == targets.shape
    if criterion is None:
        return 1 if second and not last else None
    seen = criterion.given["input"]
    if not torch.equal(criterion.given["target"].flatten(), targets.flatten()):
        return None
    if second and seen.shape == outputs.shape and torch.equal(seen, outputs):
        return 1
    classes = seen.shape[1] if seen.ndim > 1 else 0
    flattened = last and classes == outputs.shape[-1] and seen.numel() == outputs.numel()
    moved = seen if seen.ndim == 2 else seen.movedim(1, -1)
    return -1 if flattened and torch.equal(moved.flatten(), outputs.flatten()) else None


def _prefers_largest(loss: Callable[[Any, Any], Tensor], outputs: Tensor, targets: Tensor) -> bool:
    """Whether the loss falls where the target's output rises and where the others fall, whichever class is the target.

    Quantiles and ordinals are not alike for all classes; the value of an action does not depend on the others.
    """
    here = targets.long().unsqueeze(1)
    low, high = torch.zeros_like(outputs), torch.zeros_like(outputs).scatter(1, here, 1.0)
    others, wrong = high - 1, high.roll(1, 1)
    order = torch.arange(outputs.shape[1], device=outputs.device).roll(1)
    try:
        at_low, at_high, at_others, at_wrong, renamed = (
            float(loss(o, t).double().mean())
            for o, t in (
                (low, targets),
                (high, targets),
                (others, targets),
                (wrong, targets),
                (outputs[:, order], ((targets + 1) % outputs.shape[1]).to(targets)),
            )
        )
        own = float(loss(outputs, targets).double().mean())
    except Exception:  # whatever a user's loss raises on outputs that the model did not give
        return False
    return at_high < at_low < at_wrong and at_others < at_low and abs(renamed - own) <= 1e-4 * max(abs(own), 1e-3)


def _sums(values: Tensor) -> Tensor:
    return (values.flatten(1).sum(1) if values.ndim > 1 else values).float()
