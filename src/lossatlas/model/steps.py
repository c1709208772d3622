"""What one batch yields where a step computes the loss with the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.batches import Batches, tensors_in
from lossatlas.model.criteria import Criterion, Watch, floating, warn_of_broadcast
from lossatlas.model.divisors import Divisor, uneven_inside
from lossatlas.model.forms import flat
from lossatlas.model.kinds import is_nearly_either, kind_of, places_at_parameters
from lossatlas.model.reduction import (
    CONTRAST,
    MEAN,
    STATED,
    SUM,
    VALUES,
    counts_in,
    refuse_ambiguous,
    refuse_uncertain,
    several,
    sized,
    typical,
    warn_of_weights,
)


class StepLoss:
    """``step(model, batch)``: the mean loss of a batch, or one value an example; for batches of any kind."""

    def __init__(self, step: Callable[[nn.Module, Any], Tensor]) -> None:
        self._step = step
        self._divide: Callable[[Any], int] | None = None
        self.depends_on_batch = self.returns_values = False
        self.reduction = MEAN

    def probe(self, model: nn.Module, batches: Batches) -> None:
        """Settle on what the loss of a batch is a mean of."""
        n, batch = typical(batches, lambda one: self._step(model, one))
        with Watch() as watch:
            value = floating(self._step(model, batch))
        warn_of_broadcast(watch)
        if value.ndim and (value.numel() > 1 or n == 1):
            self._settle_values(model, batches)
        elif batches.weight_given:
            self.reduction = STATED
        elif (criterion := watch.mean(value)) is not None:
            self._settle_criterion(model, criterion, (n, batch), batches)
        else:
            self._settle_other(model, watch, (n, batch), batches)

    def __call__(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        values = flat(self._value(model, batch))
        return {"loss": values if self._divide is None else values / self._divide(batch)}

    def plain(self, model: nn.Module, batch: Any) -> Tensor:
        """What the step itself returns."""
        return self._step(model, batch)

    def _value(self, model: nn.Module, batch: Any) -> Tensor:
        return floating(self._step(model, batch))

    def _settle_values(self, model: nn.Module, batches: Batches) -> None:
        counts = [len(flat(self._value(model, batch))) for batch in batches]
        self.reduction = VALUES
        if counts == batches.sizes:
            return
        if not batches.weight_given and not batches.examples_given:
            _refuse_means(counts, batches)
        self.returns_values = True
        batches.settle(values=counts)

    def _settle_criterion(
        self, model: nn.Module, criterion: Criterion, seen: tuple[int, Any], batches: Batches
    ) -> None:
        places = places_at_parameters(model, self._value, [seen, *several(batches)[1:]])
        kind = kind_of(places)
        divisor = Divisor(criterion, seen[1], batches, lambda batch: self._seen(model, batch))
        batches.settle(size=divisor.size)
        uneven = divisor.uneven(every=True)
        if kind in (None, "mean"):
            self.reduction = divisor.settle() if uneven else self.reduction
            return
        if uneven or is_nearly_either(places):
            warn_of_weights()
        self._keep_batches(batches)

    def _settle_other(self, model: nn.Module, watch: Watch, seen: tuple[int, Any], batches: Batches) -> None:
        places = places_at_parameters(
            model, lambda at, batch: self._value(at, batch).mean(), [seen, *several(batches)[1:]]
        )
        kind = kind_of(places)
        refuse_uncertain(kind, watch)
        refuse_ambiguous([counts_in(batch, n) for n, batch in sized(batches)], constant=kind is None)
        if kind == "sum":
            self._divide, self.reduction = batches.size, SUM
            return
        uneven = watch.uneven or (
            kind == "mean" and uneven_inside(watch, seen[1], batches, lambda batch: self.plain(model, batch))
        )
        if uneven or (kind == "neither" and is_nearly_either(places)):
            warn_of_weights()
        if uneven or kind == "neither":
            self._keep_batches(batches)

    def _keep_batches(self, batches: Batches) -> None:
        self.depends_on_batch, self.reduction = True, CONTRAST
        batches.settle(uncut=CONTRAST)

    def _seen(self, model: nn.Module, batch: Any) -> Criterion | None:
        with Watch() as watch:
            value = self._step(model, batch)
        return watch.criterion(value)


def _refuse_means(counts: list[int], batches: Batches) -> None:
    """``InputError`` for as many values from every batch as nothing in it has, as from one mean a device."""
    same = len(set(counts)) == 1 and len(set(batches.sizes)) > 1
    if same and not all(any(t.ndim and len(t) == counts[0] for t in tensors_in(batch)) for batch in batches):
        raise InputError(
            f"The step returns {counts[0]} values for batches of {batches.sizes[:3]} examples (one mean a device?): "
            "return their mean, one value an example, or state weight=lambda batch: ..., what they are a mean of."
        )
