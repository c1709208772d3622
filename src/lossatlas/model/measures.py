"""What one batch yields at one point: losses and metrics, for each example where the loss allows it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lossatlas.errors import DataError, InputError
from lossatlas.model.batches import Batches, describe, tensors_in
from lossatlas.model.criteria import Criterion, Watch, floating, warn_of_broadcast
from lossatlas.model.divisors import Divisor, uneven_inside, weighted_values
from lossatlas.model.forms import flat, per_example, places_at_outputs, places_at_targets
from lossatlas.model.inputs import applied, require_one_way
from lossatlas.model.kinds import Kind, Place, is_nearly_either, kind_of, places_at_parameters
from lossatlas.model.metrics import Metric, automatic, checked, measured, weight_key
from lossatlas.model.reduction import (
    CONTRAST,
    MEAN,
    STATED,
    SUM,
    VALUES,
    counts_in,
    entries_in,
    refuse_ambiguous,
    refuse_uncertain,
    settle_layout,
    several,
    sized,
    typical,
    warn_of_weights,
)

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class _Seen:
    """The batch that is looked at, its number of examples, and the model's outputs on it."""

    n: int
    batch: Any
    outputs: Any

    @property
    def targets(self) -> Any:
        return _pair(self.batch)[1]


class Supervised:
    """``loss(model(inputs), targets)`` and metrics on batches ``(inputs, targets)``.

    The form with a value for each example is found once, by what it must reproduce: the loss that was given, on the
    targets of every batch and at several outputs. ``model/reduction.py`` says of what a loss is a mean.
    """

    def __init__(self, loss: Loss, metrics: Mapping[str, Metric] | Literal["auto"] | None) -> None:
        self._loss = loss
        if metrics not in ("auto", None) and not isinstance(metrics, Mapping):
            raise InputError(
                f"metrics is {metrics!r}: give a dict {{name: metric(outputs, targets)}}, None, or 'auto' for the "
                "accuracy where targets are classes."
            )
        self._metrics: Mapping[str, Metric] | Literal["auto"] = {} if metrics is None else metrics
        self._each: Loss | None = None
        self._weighted = self._metrics_apart = False
        self.depends_on_batch = self.returns_values = False
        self.reduction = MEAN

    @property
    def given(self) -> Loss:
        """The loss as it was given."""
        return self._loss

    def copied_to(self, point: Tensor) -> Supervised:
        """The same with copies of its own of a loss and of metrics that are modules, on the point's device and type."""
        other = copy.copy(self)
        other._loss = _module_copied(self._loss, point)
        if self._metrics != "auto":
            other._metrics = {name: _module_copied(metric, point) for name, metric in self._metrics.items()}
        return other

    def probe(self, model: nn.Module, batches: Batches) -> None:
        """Settle on the form of the loss, on what it is a mean of, and on the metrics."""
        require_one_way(model, map(_pair, batches))
        settle_layout(batches)
        n, batch = typical(batches, lambda one: self.plain(model, one))
        seen = _Seen(n, batch, self.outputs(model, batch))
        with Watch() as watch:
            whole = floating(self._loss(seen.outputs, seen.targets))
        warn_of_broadcast(watch)
        if whole.ndim and (whole.numel() > 1 or n == 1):
            self._settle_values(whole, seen, batches)
        else:
            self._settle_mean(model, watch, whole, seen, batches)
        self._metrics_apart = self._weighted or batches.weight_given
        self._settle_metrics(watch.criterion(whole), seen, batches)

    def __call__(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        outputs, targets = self.outputs(model, batch), _pair(batch)[1]
        found = self._weighted_loss(outputs, targets) if self._weighted else {"loss": self.losses(outputs, targets)}
        assert self._metrics != "auto", "probe() settles the metrics"
        for name, metric in self._metrics.items():
            values = measured(name, metric(outputs, targets))
            if self._metrics_apart and len(values) == 1:  # the loss's weights are none of a metric's
                count = 1.0 if values[name].ndim else float(_rows(targets) or 1)
                values[weight_key(name)] = torch.full_like(values[name], count)
            found |= values
        return found

    def outputs(self, model: nn.Module, batch: Any) -> Any:
        """f_theta(x), the model's own outputs."""
        return applied(model, _pair(batch)[0])

    def plain(self, model: nn.Module, batch: Any) -> Tensor:
        """What the loss itself returns."""
        return self._loss(self.outputs(model, batch), _pair(batch)[1])

    def losses(self, outputs: Any, targets: Any) -> Tensor:
        """l(f, y): one value an example, or the mean over the batch where the loss has no value for one."""
        if self._weighted:
            return self._weighted_loss(outputs, targets)["loss"]
        return flat((self._each or self._loss)(outputs, targets))

    def _weighted_loss(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        values, weights = weighted_values(lambda: self._loss(outputs, targets), _rows(targets))
        return {"loss": values, weight_key("loss"): weights}

    def _settle_values(self, whole: Tensor, seen: _Seen, batches: Batches) -> None:
        self.returns_values, self.reduction = True, VALUES
        if len(whole) == seen.n:
            return
        if len(whole) != _rows(seen.targets):
            raise InputError(f"The loss has shape {tuple(whole.shape)}: return a mean (0-d) or one value an example.")
        batches.settle(size=lambda batch: len(batch[1]), weigh=lambda batch: len(batch[1]))

    def _settle_mean(self, model: nn.Module, watch: Watch, whole: Tensor, seen: _Seen, batches: Batches) -> None:
        loss = _scalar(self._loss) if whole.ndim else self._loss
        criterion = None if batches.weight_given else watch.mean(whole)
        divisor = None if criterion is None else self._divisor(model, criterion, seen.batch, batches)
        found = None
        if divisor is None or not divisor.uneven():
            found = per_example(loss, seen.outputs, seen.targets, lambda: (_pair(one)[1] for one in batches))
        if found is not None:
            self._settle_form(*found, seen, batches, told=criterion is not None)
        elif divisor is not None and self._kind(model, loss, seen, batches)[0] in (None, "mean"):
            self._weighted, self.reduction = True, divisor.settle()
        else:
            self._settle_other(model, loss, watch, seen, batches)

    def _settle_form(self, form: Loss, kind: str, seen: _Seen, batches: Batches, *, told: bool) -> None:
        self._each = form
        if kind == "sum":
            self._settle_sum(form, seen, batches)
        elif batches.weight_given:
            self.reduction = STATED
        elif not told:
            refuse_ambiguous([entries_in(_pair(batch)[1], n) for n, batch in sized(batches)])

    def _settle_sum(self, each: Loss, seen: _Seen, batches: Batches) -> None:
        """A sum over rows is divided by the number of examples, which have the same number of rows each."""
        self.reduction, rows, n = SUM, len(each(seen.outputs, seen.targets)), seen.n
        if rows == n:
            return
        if any(_rows(_pair(one)[1]) not in (None, m * rows // n) for m, one in sized(batches)) or rows % n:
            raise InputError(
                f"The loss is a sum over {rows} rows of a batch of {n} examples, and other batches have other numbers "
                "of rows: return one value an example, or state examples=lambda batch: ..."
            )
        self._each = lambda outputs, targets: each(outputs, targets) * (rows // n)

    def _settle_other(self, model: nn.Module, loss: Loss, watch: Watch, seen: _Seen, batches: Batches) -> None:
        kind, places = self._kind(model, loss, seen, batches)
        if kind == "sum":
            self.reduction, count = SUM, self._counter(seen, batches)
            self._each = lambda outputs, targets: loss(outputs, targets) / count(outputs, targets)
            return
        if batches.weight_given:
            self.reduction = STATED
            return
        refuse_uncertain(kind, watch)
        counts = [(entries_in(_pair(b)[1], n) if kind == "mean" else counts_in(b, n)) for n, b in sized(batches)]
        refuse_ambiguous(counts)
        uneven = watch.uneven or (
            kind == "mean" and uneven_inside(watch, seen.batch, batches, lambda batch: self.plain(model, batch))
        )
        if watch.broadcast is None and (uneven or (kind != "mean" and is_nearly_either(places))):
            warn_of_weights()
        if uneven or kind != "mean":
            self._keep_batches(batches)

    def _kind(self, model: nn.Module, loss: Loss, seen: _Seen, batches: Batches) -> tuple[Kind | None, list[Place]]:
        """By outputs and all targets; by the model on parts of batches where outputs are not cut as the batch is."""
        places = places_at_outputs(loss, seen.outputs, seen.targets, seen.n)
        if (kind := kind_of(places)) not in (None, "neither"):
            targets = ((m, _pair(one)[1]) for m, one in sized(batches))
            places += places_at_targets(loss, seen.outputs, seen.n, targets)
            return kind_of(places), places
        step = lambda at, one: loss(self.outputs(at, one), _pair(one)[1])  # noqa: E731
        whole = places_at_parameters(model, step, [(seen.n, seen.batch), *several(batches)[1:]])
        apart = kind_of(whole)
        return (apart, whole) if kind is None or apart not in (None, "neither") else (kind, places)

    def _counter(self, seen: _Seen, batches: Batches) -> Callable[[Any, Any], int]:
        """The number of examples of a batch from the length of its targets, or of its outputs if it has none."""
        own, n = next(tensors_in(seen.targets), None), seen.n
        rows = len(next(tensors_in(seen.outputs)) if own is None else own)

        def count(outputs: Any, targets: Any) -> int:
            return len(next(tensors_in(outputs if own is None else targets))) * n // rows

        if rows % n or (own is not None and any(count(None, _pair(one)[1]) != m for m, one in sized(batches))):
            raise InputError(
                "The loss is a sum, and its targets do not tell the number of examples that it is to be divided by: "
                "return a mean over the batch, or one value an example."
            )
        return count

    def _divisor(self, model: nn.Module, criterion: Criterion, batch: Any, batches: Batches) -> Divisor:
        def seen(batch: Any) -> Criterion | None:
            with Watch() as watch:
                value = self.plain(model, batch)
            return watch.criterion(value)

        return Divisor(criterion, batch, batches, seen)

    def _keep_batches(self, batches: Batches) -> None:
        self.depends_on_batch, self.reduction = True, CONTRAST
        batches.settle(uncut=CONTRAST)

    def _settle_metrics(self, criterion: Criterion | None, seen: _Seen, batches: Batches) -> None:
        if self._metrics == "auto":
            self._metrics = automatic(self._loss, criterion, seen.outputs, seen.targets, list(map(_pair, batches)))
        for name, metric in self._metrics.items():
            with Watch() as watch:
                found = metric(seen.outputs, seen.targets)
            warn_of_broadcast(watch)
            checked(name, found, _rows(seen.targets))


def _scalar(loss: Loss) -> Loss:
    """The same loss as a 0-d tensor, where it has one entry."""
    return lambda outputs, targets: loss(outputs, targets).mean()


def _rows(targets: Any) -> int | None:
    return len(targets) if isinstance(targets, Tensor) and targets.ndim else None


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    raise DataError(
        f"A batch must be a pair (inputs, targets), got {describe(batch)}: "
        "for other batches use Objective.from_step(model, step, batches)."
    )


def _module_copied(call: Any, point: Tensor) -> Any:
    return copy.deepcopy(call).to(point) if isinstance(call, nn.Module) else call
