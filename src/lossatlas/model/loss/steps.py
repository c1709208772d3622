"""What one batch yields where a step computes the loss with the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.data.batches import Batches, copied, tensors_in
from lossatlas.model.loss.criteria import Criterion, Watch, floating, warn_of_broadcast
from lossatlas.model.loss.divisors import Divisor, shared_divisor, uneven_inside
from lossatlas.model.loss.forms import flat
from lossatlas.model.loss.kinds import (
    Kind,
    Place,
    is_nearly_either,
    is_shared_mean,
    kind_of,
    places_at_parameters,
    taker,
)
from lossatlas.model.loss.reduction import (
    CONTRAST,
    MEAN,
    STATED,
    STATED_SUM,
    SUM,
    VALUES,
    Observed,
    counts_in,
    observed,
    quietly,
    refuse_ambiguous,
    refuse_open_layout,
    refuse_uncertain,
    require_repeated,
    several,
    sized,
    typical,
    warn_of_weights,
)


class StepLoss:
    """``step(model, batch)``: the mean loss of a batch, or one value an example; for batches of any kind."""

    def __init__(self, step: Callable[[nn.Module, Any], Tensor]) -> None:
        self._step = step
        self._divide: Callable[[Any], float] | None = None
        self.depends_on_batch = self.returns_values = False
        self.reduction = MEAN

    def probe(self, model: nn.Module, batches: Batches) -> None:
        """Settle on what the loss of a batch is a mean of."""
        n, batch = typical(batches, lambda one: self._step(model, one))
        before = copied(batch)  # a step may write into its batch
        seen = observed(lambda: self._step(model, batch), model)
        with quietly():
            require_repeated(seen.value, observed(lambda: self._step(model, before), model).value)
        if self._compares_all(model, (n, batch), seen.watch):
            warn_of_broadcast(seen.watch)
        if seen.value.ndim and (seen.value.numel() > 1 or n == 1):
            self._settle_values(model, batches)
        else:
            self._settle_mean(model, seen, (n, batch), batches)

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
        self.returns_values = settle_counts(counts, batches)

    def _compares_all(self, model: nn.Module, sized_batch: tuple[int, Any], watch: Watch) -> bool:
        """Whether tensors broadcast at another number of examples too, where a constant's length does not."""
        taken = taker(*reversed(sized_batch)) if watch.broadcast is not None and sized_batch[0] > 2 else None
        if taken is None:
            return watch.broadcast is not None
        try:
            with quietly(), Watch() as fewer:
                self._step(model, taken(torch.arange(sized_batch[0] - 1)))
        except Exception:  # whatever a user's step raises on few examples
            return True
        if fewer.broadcast is None:
            watch.broadcast = None
        return fewer.broadcast is not None

    def _settle_mean(self, model: nn.Module, seen: Observed, batch: tuple[int, Any], batches: Batches) -> None:
        loss = lambda at, one: self._value(at, one).mean()  # noqa: E731 - the same as 0-d, where it has one entry
        pieces = [] if seen.draws else [batch, *several(batches)[1:]]
        places = places_at_parameters(model, self._value if seen.value.ndim == 0 else loss, pieces)
        if batches.weight_given:
            self._settle_stated(kind_of(places), seen, batches)
        elif (criterion := seen.watch.mean(seen.value)) is not None:
            self._settle_criterion(model, criterion, (batch[1], places), batches)
        elif (divisor := self._shared(model, seen.watch, batch[1], batches)) is not None and is_shared_mean(places):
            self.reduction = divisor.settle_whole()
        else:
            self._settle_other(model, seen, (batch[1], places), batches)

    def _settle_stated(self, kind: Kind | None, seen: Observed, batches: Batches) -> None:
        """A sum is divided by the weight that is stated."""
        refuse_uncertain(None if kind is None else "mean", seen)
        self.reduction = STATED
        if kind == "sum":
            self._divide, self.reduction = batches.weigh, STATED_SUM

    def _settle_criterion(
        self, model: nn.Module, criterion: Criterion, looked: tuple[Any, list[Place]], batches: Batches
    ) -> None:
        kind = kind_of(looked[1])
        divisor = Divisor(criterion, looked[0], batches, lambda batch: self._seen(model, batch))
        batches.settle(size=divisor.size)
        uneven = divisor.uneven()
        if kind in (None, "mean"):
            self.reduction = divisor.settle_whole() if uneven else self.reduction
            return
        if uneven or is_nearly_either(looked[1]):
            warn_of_weights(batches)
        self._keep_batches(batches)

    def _settle_other(
        self, model: nn.Module, seen: Observed, looked: tuple[Any, list[Place]], batches: Batches
    ) -> None:
        (batch, places), watch = looked, seen.watch
        kind = kind_of(places)
        refuse_uncertain(kind, seen)
        counts = [counts_in(one, n) for n, one in sized(batches)]
        refuse_ambiguous(counts, constant=kind is None and not seen.draws)
        if kind == "sum":
            refuse_open_layout(batches)
            self._divide, self.reduction = batches.size, SUM
            return
        uneven = watch.uneven or (
            kind == "mean" and uneven_inside(watch, batch, batches, lambda one: self.plain(model, one))
        )
        if watch.broadcast is None and (uneven or (kind == "neither" and is_nearly_either(places))):
            warn_of_weights(batches)
        if uneven or kind == "neither":
            self._keep_batches(batches)

    def _shared(self, model: nn.Module, watch: Watch, batch: Any, batches: Batches) -> Divisor | None:
        return shared_divisor(watch, batch, batches, lambda one: self._step(model, one))

    def _keep_batches(self, batches: Batches) -> None:
        self.depends_on_batch, self.reduction = True, CONTRAST
        batches.settle(uncut=CONTRAST)

    def _seen(self, model: nn.Module, batch: Any) -> Criterion | None:
        with Watch() as watch:
            value = self._step(model, batch)
        return watch.criterion(value)


def settle_counts(counts: list[int], batches: Batches) -> bool:
    """Whether the loss has other numbers of values than the batches have rows: then each value is an example."""
    if counts == batches.sizes:
        return False
    if not batches.weight_given and not batches.examples_given:
        _refuse_means(counts, batches)
    batches.settle(values=counts)
    return True


def _refuse_means(counts: list[int], batches: Batches) -> None:
    """``InputError`` for as many values from every batch as nothing in it has, as from one mean a device."""
    same = len(set(counts)) == 1 and len(set(batches.sizes)) > 1
    if same and not all(any(t.ndim and len(t) == counts[0] for t in tensors_in(batch)) for batch in batches):
        raise InputError(
            f"The step returns {counts[0]} values for batches of {batches.sizes[:3]} examples (one mean a device?): "
            "return their mean, one value an example, or state weight=lambda batch: ..., what they are a mean of."
        )
