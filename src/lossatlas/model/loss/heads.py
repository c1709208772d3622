"""Models that compute their own loss from labels, as those of ``transformers`` do: outputs and loss taken apart.

Which loss it is, and whether labels are those of the next position, is found by the model's own value, not by its
class. It is computed here from the logits, since the model's own may be rounded to float32, or keep more than it needs.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.errors import InputError, ReductionWarning
from lossatlas.model.data.batches import Batches, preserved_rng
from lossatlas.model.data.tokenised import IGNORED, Named
from lossatlas.model.loss.measures import Loss, Supervised
from lossatlas.model.loss.metrics import Metric
from lossatlas.model.private import private_copy, unwrapped

_MOVED = 0.1  # of the size of a tensor: at their own parameters two losses can have one value, as of logits that are 0
_AGREEMENT = 1e-3  # of the model's loss
_HALVES = (
    "give the two halves of a step, Objective.from_step(model, batches=batches, outputs=lambda model, batch: ..., "
    "loss=lambda outputs, batch: ...)"
)


def positions(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """The cross-entropy of ``logits`` ``(..., C)`` and ``targets`` ``(...)``, a mean over all that are not ignored."""
    terms = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction=reduction)
    if reduction != "none":
        return terms
    kept = (targets != IGNORED).reshape(len(targets), -1).sum(1)
    return terms.reshape(len(targets), -1).sum(1) / kept.clamp(min=1)


def numbers(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error of outputs of the form of the targets, or with an axis of length 1 more."""
    return F.mse_loss(outputs.reshape(targets.shape), targets)


def next_ones(labels: Tensor) -> Tensor:
    """``(N, T)``: at each position the label of the next one, and none at the last."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def own_ones(labels: Tensor) -> Tensor:
    """The labels as they are."""
    return labels


@dataclass(frozen=True)
class Kind:
    """A loss of logits and targets, and these of labels."""

    name: str
    loss: Loss
    targets: Callable[[Tensor], Tensor]


NEXT = Kind("the cross-entropy of the next position", positions, next_ones)
KINDS = (
    NEXT,
    Kind("the cross-entropy of each", positions, own_ones),
    Kind("the squared error", numbers, own_ones),
    Kind("the binary cross-entropy", F.binary_cross_entropy_with_logits, own_ones),
)


class Head(Supervised):
    """``loss(model(**inputs).logits, targets)`` on pairs ``(inputs, targets)``."""

    def __init__(self, loss: Loss, call: Call, metrics: Mapping[str, Metric] | Literal["auto"] | None) -> None:
        super().__init__(loss, metrics)
        self._call = call

    def settle_form(self, model: nn.Module, batches: Batches) -> None:
        """There is one way to call the model: by name."""

    def outputs(self, model: nn.Module, batch: Any) -> Any:
        return _part(self._call(model, batch[0]), "logits")


@dataclass(frozen=True)
class Call:
    """How a model is called: without the cache of keys and values, and with labels where it decodes them."""

    names: tuple[str, ...]
    decodes: bool
    options: Mapping[str, Any]

    def __call__(self, model: nn.Module, inputs: Named) -> Any:
        return model(**inputs, **self.options)


def call_of(model: nn.Module) -> Call:
    """By the model's signature and configuration; ``InputError`` where it takes no labels."""
    model = unwrapped(model)
    names = tuple(inspect.signature(model.forward).parameters)
    if "labels" not in names:
        raise InputError(f"{type(model).__name__}.forward takes no labels, so it has no loss of its own: {_HALVES}.")
    decodes = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    return Call(names, decodes, {"use_cache": False} if "use_cache" in names else {})


def pairing(kind: Kind, call: Call) -> Callable[[Named], tuple[Named, Tensor]]:
    """A batch by name -> inputs and targets."""

    def pair(batch: Named) -> tuple[Named, Tensor]:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        labels = labels_of(batch)
        return inputs | ({"labels": labels} if call.decodes else {}), kind.targets(labels)

    return pair


def labels_of(batch: Named) -> Tensor:
    """The labels, or the ids themselves wherever there is attention."""
    if "labels" in batch:
        return batch["labels"]
    if "input_ids" not in batch:
        raise InputError(f"A batch holds {sorted(batch)}: give input_ids and labels, or {_HALVES}.")
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    return ids if mask is None else torch.where(mask == 0, IGNORED, ids)


def kind_of_loss(model: nn.Module, call: Call, batch: Named) -> Kind:
    """The loss that has the value of the model's own, at moved parameters; ``InputError`` where none has."""
    own, logits, labels = _at_moved(model, call, batch)
    found = {kind: value for kind in KINDS if (value := _value(kind, logits, labels)) is not None}
    chosen = next((kind for kind, value in found.items() if abs(value - own) <= _AGREEMENT * abs(own)), None)
    if chosen is None:
        others = ", ".join(f"{kind.name} is {value:.6g}" for kind, value in found.items()) or "no loss takes them"
        raise InputError(f"The model's own loss is {own:.6g}, and of its logits and the labels {others}: {_HALVES}.")
    if "labels" not in batch and chosen is not NEXT:
        raise InputError(f"There are no labels, and {type(model).__name__} does not predict the next token: give them.")
    _warn_of_padding(batch)
    return chosen


@torch.no_grad()
def _at_moved(model: nn.Module, call: Call, batch: Named) -> tuple[float, Tensor, Tensor]:
    """The model's own loss, its logits and the labels."""
    moved = private_copy(model).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in moved.parameters():
        if parameter.is_floating_point():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(noise, alpha=_MOVED * (0.1 + float(parameter.abs().mean())))
    device = next(moved.parameters()).device
    given = {name: tensor.to(device) for name, tensor in ({"labels": labels_of(batch)} | batch).items()}
    with preserved_rng(device):
        result = call(moved, given)
    return float(_part(result, "loss")), _part(result, "logits").double(), given["labels"]


def _value(kind: Kind, logits: Tensor, labels: Tensor) -> float | None:
    try:
        return float(kind.loss(logits, kind.targets(labels.double() if labels.is_floating_point() else labels)))
    except Exception:  # of a loss that takes no labels of this form
        return None


def _part(result: Any, name: str) -> Tensor:
    part = result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)
    if not isinstance(part, Tensor):
        raise InputError(f"The model returns a {type(result).__name__} without {name}: {_HALVES}.")
    return part


def _warn_of_padding(batch: Named) -> None:
    mask, labels = batch.get("attention_mask"), batch.get("labels")
    if mask is None or labels is None or mask.shape != labels.shape:
        return
    if count := int(((mask == 0) & (labels != IGNORED)).sum()):
        warnings.warn(
            f"{count} labels of the first batch are at padding (attention_mask 0) and count in the loss, as in the "
            f"model's own: make them {IGNORED}.",
            ReductionWarning,
            stacklevel=4,
        )
