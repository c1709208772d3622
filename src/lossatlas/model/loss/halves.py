"""What one batch yields where its outputs and its loss are two functions of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.data.batches import Batches, tensors_in
from lossatlas.model.data.containers import leading_size
from lossatlas.model.loss.criteria import Criterion
from lossatlas.model.loss.divisors import place_of
from lossatlas.model.loss.forms import flat
from lossatlas.model.loss.measures import Loss, Seen, Supervised
from lossatlas.model.loss.metrics import Metric, Result, automatic
from lossatlas.model.loss.reduction import VALUES
from lossatlas.model.loss.steps import StepLoss, settle_counts

Outputs = Callable[[Any, Any], Any]
_FORMS = "step(model, batch), or its two halves outputs=lambda model, batch: ... and loss=lambda outputs, batch: ..."


class Halves(Supervised):
    """``loss(outputs(model, batch), batch)`` and metrics of the same, for batches of any kind.

    The targets of a batch are the batch itself.
    """

    def __init__(
        self, outputs: Outputs, loss: Loss, metrics: Mapping[str, Metric] | Literal["auto"] | None = "auto"
    ) -> None:
        super().__init__(loss, metrics)
        self._outputs = outputs
        self._values_count = False  # each value of the loss is an example, whatever the length of the batch's tensors

    def settle_form(self, model: nn.Module, batches: Batches) -> None:
        """There is one way to call the model, which is given."""

    def outputs(self, model: nn.Module, batch: Any) -> Any:
        return self._outputs(model, batch)

    def targets(self, batch: Any) -> Any:
        return batch

    def with_targets(self, batch: Any, targets: Any) -> Any:
        return targets

    def rows(self, targets: Any) -> int | None:
        return (
            leading_size(targets)
            if not self._values_count and any(tensor.ndim for tensor in tensors_in(targets))
            else None
        )

    def _settle_values(self, model: nn.Module, whole: Tensor, seen: Seen, batches: Batches) -> None:
        self.returns_values, self.reduction = True, VALUES
        counts = [len(flat(self.plain(model, batch))) for batch in batches]
        self._values_count = settle_counts(counts, batches)

    def _automatic(self, criterion: Criterion | None, seen: Seen, batches: Batches) -> dict[str, Metric]:
        """Of the tensor of the batch that is the target of the criterion."""
        place = None if criterion is None else place_of(criterion.given["target"], seen.batch)
        if place is None:
            return {}
        found = [_tensor(place, batch) for batch in batches]
        metrics = automatic(self.given, criterion, seen.outputs, _tensor(place, seen.batch), found)
        return {name: partial(_of_tensor, metric, place) for name, metric in metrics.items()}


def measure_of(
    step: Callable[[Any, Any], Tensor] | None,
    outputs: Outputs | None,
    loss: Loss | None,
    metrics: Mapping[str, Metric] | Literal["auto"] | None,
) -> StepLoss | Halves:
    """A step, or its two halves; ``InputError`` for less, or both."""
    if callable(outputs) and callable(loss) and not isinstance(loss, type) and step is None:
        return Halves(outputs, loss, metrics)
    if not callable(step) or outputs is not None or loss is not None:
        names = {"step": step, "outputs": outputs, "loss": loss}
        given = ", ".join(f"{name}={type(one).__name__}" for name, one in names.items() if one is not None)
        raise InputError(f"from_step was given {given or 'no function'}: give {_FORMS}, and batches=.")
    if metrics not in ("auto", None):
        raise InputError(f"A step gives no outputs that metrics could be of: give its two halves instead, {_FORMS}.")
    return StepLoss(step)


def _tensor(place: int, batch: Any) -> Any:
    tensors: Iterator[Tensor] = tensors_in(batch)
    return list(tensors)[place]


def _of_tensor(metric: Metric, place: int, outputs: Any, batch: Any) -> Result:
    return metric(outputs, _tensor(place, batch))
