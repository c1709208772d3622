"""What one batch yields at one point: losses and metrics, for each example where the loss allows it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lossatlas.errors import DataError, InputError
from lossatlas.model.data.batches import Batches, copied, describe
from lossatlas.model.inputs import applied, require_one_way
from lossatlas.model.loss.criteria import Criterion, Watch, warn_of_broadcast
from lossatlas.model.loss.divisors import Divisor, shared_divisor, uneven_inside, weighted_values
from lossatlas.model.loss.forms import elsewhere, flat, per_example, places_at_outputs, places_at_targets
from lossatlas.model.loss.kinds import Kind, Place, is_nearly_either, is_shared_mean, kind_of, places_at_parameters
from lossatlas.model.loss.metrics import Metric, automatic, checked, measured, weight_key
from lossatlas.model.loss.reduction import (
    CONTRAST,
    MEAN,
    STATED,
    STATED_SUM,
    SUM,
    VALUES,
    Observed,
    counter,
    counts_in,
    entries_in,
    observed,
    quietly,
    refuse_ambiguous,
    refuse_open_layout,
    refuse_uncertain,
    require_repeated,
    settle_layout,
    several,
    sized,
    typical,
    warn_of_weights,
)

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Seen:
    """The batch that is looked at, its number of examples, and the model's outputs on it."""

    n: int
    batch: Any
    outputs: Any
    targets: Any


class Supervised:
    """``loss(model(inputs), targets)`` and metrics on batches ``(inputs, targets)``.

    The form with a value for each example is found once, by what it must reproduce: the loss that was given, on the
    targets of every batch and at several outputs. ``model/loss/reduction.py`` says of what a loss is a mean.
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
        self._divide: Callable[[Any], float] | None = None
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
        self.settle_form(model, batches)
        n, batch = typical(batches, lambda one: self.plain(model, one))
        seen = Seen(n, batch, self.outputs(model, batch), self.targets(batch))
        before = copied((seen.outputs, seen.targets))  # a loss may write into them
        found = observed(lambda: self._loss(seen.outputs, seen.targets), model)
        self._require_repeated(model, found, *before)
        warn_of_broadcast(found.watch)
        if found.value.ndim and (found.value.numel() > 1 or n == 1):
            self._settle_values(model, found.value, seen, batches)
        else:
            self._settle_mean(model, found, seen, batches)
        self._metrics_apart = self._metrics_apart or self._weighted or batches.weight_given
        self._settle_metrics(found.watch.criterion(found.value), seen, batches)

    def __call__(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        outputs, targets = self.outputs(model, batch), self.targets(batch)
        if self._divide is not None:
            found = {"loss": self._loss(outputs, targets).mean() / self._divide(batch)}
        else:
            found = self._weighted_loss(outputs, targets) if self._weighted else {"loss": self.losses(outputs, targets)}
        assert self._metrics != "auto", "probe() settles the metrics"
        for name, metric in self._metrics.items():
            values = measured(name, metric(outputs, targets))
            if self._metrics_apart and len(values) == 1:  # the loss's weights are none of a metric's
                count = 1.0 if values[name].ndim else float(self.rows(targets) or 1)
                values[weight_key(name)] = torch.full_like(values[name], count)
            found |= values
        return found

    def settle_form(self, model: nn.Module, batches: Batches) -> None:
        """``InputError`` where batches can be read in two ways."""
        require_one_way(model, map(_pair, batches))
        settle_layout(batches)

    def outputs(self, model: nn.Module, batch: Any) -> Any:
        """f_theta(x), the model's own outputs."""
        return applied(model, _pair(batch)[0])

    def targets(self, batch: Any) -> Any:
        """y, what the loss takes beside the outputs."""
        return _pair(batch)[1]

    def with_targets(self, batch: Any, targets: Any) -> Any:
        """The batch with other targets."""
        return _pair(batch)[0], targets

    def rows(self, targets: Any) -> int | None:
        """How many examples have these targets, as far as their length tells."""
        return len(targets) if isinstance(targets, Tensor) and targets.ndim else None

    def plain(self, model: nn.Module, batch: Any) -> Tensor:
        """What the loss itself returns."""
        return self._loss(self.outputs(model, batch), self.targets(batch))

    def losses(self, outputs: Any, targets: Any) -> Tensor:
        """l(f, y): one value an example, or the mean over the batch where the loss has no value for one."""
        if self._divide is not None:
            raise InputError(
                "This takes the loss of outputs and targets alone, and weight= takes the batch, by which a sum is "
                "divided: divide it in the loss, as in total / n."
            )
        if self._weighted:
            return self._weighted_loss(outputs, targets)["loss"]
        return flat((self._each or self._loss)(outputs, targets))

    def _weighted_loss(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        values, weights = weighted_values(lambda: self._loss(outputs, targets), self.rows(targets))
        return {"loss": values, weight_key("loss"): weights}

    def _settle_values(self, model: nn.Module, whole: Tensor, seen: Seen, batches: Batches) -> None:
        self.returns_values, self.reduction = True, VALUES
        if len(whole) == seen.n:
            return
        if len(whole) != self.rows(seen.targets):
            raise InputError(f"The loss has shape {tuple(whole.shape)}: return a mean (0-d) or one value an example.")
        length = lambda batch: self.rows(self.targets(batch)) or 0  # noqa: E731
        batches.settle(size=length, weigh=length)

    def _require_repeated(self, model: nn.Module, found: Observed, outputs: Any, targets: Any) -> None:
        """Called plainly, also at other outputs: what keeps something between calls shows before forms are tried."""
        with quietly():
            with contextlib.suppress(Exception):  # outside of the loss's domain
                self._loss(*copied((next(elsewhere(outputs), outputs), targets)))
            require_repeated(found.value, observed(lambda: self._loss(outputs, targets), model).value)

    def _settle_mean(self, model: nn.Module, found: Observed, seen: Seen, batches: Batches) -> None:
        loss = _scalar(self._loss) if found.value.ndim else self._loss
        criterion = None if batches.weight_given else found.watch.mean(found.value)
        divisor = None if criterion is None else self._divisor(model, criterion, seen.batch, batches)
        if criterion is None and (shared := self._shared(model, loss, found, seen, batches)) is not None:
            self._metrics_apart, self.reduction = True, shared.settle_whole()
            return
        form = None
        if divisor is None or not divisor.uneven():
            form = per_example(loss, seen.outputs, seen.targets, lambda: map(self.targets, batches))
        if form is not None:
            self._settle_form(*form, seen, batches, told=criterion is not None)
        elif divisor is not None and self._kind(model, loss, seen, batches)[0] in (None, "mean"):
            self._weighted, self.reduction = True, divisor.settle()
        else:
            self._settle_other(model, loss, found, seen, batches)

    def _shared(self, model: nn.Module, loss: Loss, found: Observed, seen: Seen, batches: Batches) -> Divisor | None:
        """What several criteria divide by, where the loss is a mean by it."""
        if batches.weight_given or found.draws:
            return None
        divisor = shared_divisor(found.watch, seen.batch, batches, lambda batch: self.plain(model, batch))
        if divisor is None or not is_shared_mean(self._kind(model, loss, seen, batches)[1]):
            return None
        return divisor

    def _settle_form(self, form: Loss, kind: str, seen: Seen, batches: Batches, *, told: bool) -> None:
        self._each = form
        if kind == "sum":
            self._settle_sum(form, seen, batches)
        elif batches.weight_given:
            self.reduction = STATED
        elif not told:
            refuse_ambiguous([entries_in(self.targets(batch), n) for n, batch in sized(batches)])

    def _settle_sum(self, each: Loss, seen: Seen, batches: Batches) -> None:
        """A sum over rows is divided by the number of examples, which have the same number of rows each."""
        if self._is_divided_by_weight(batches):
            return
        self.reduction, rows, n = SUM, len(each(seen.outputs, seen.targets)), seen.n
        if rows == n:
            return
        if any(self.rows(self.targets(one)) not in (None, m * rows // n) for m, one in sized(batches)) or rows % n:
            raise InputError(
                f"The loss is a sum over {rows} rows of a batch of {n} examples, and other batches have other numbers "
                "of rows: return one value an example, or state examples=lambda batch: ..."
            )
        self._each = lambda outputs, targets: each(outputs, targets) * (rows // n)

    def _is_divided_by_weight(self, batches: Batches) -> bool:
        """Whether a sum is divided by what ``weight=`` states rather than by the number of examples."""
        if not batches.weight_given:
            refuse_open_layout(batches)
        if not batches.weight_given or batches.weights == [float(n) for n in batches.sizes]:
            return False
        self._divide, self.reduction = batches.weigh, STATED_SUM
        return True

    def _settle_other(self, model: nn.Module, loss: Loss, found: Observed, seen: Seen, batches: Batches) -> None:
        kind, places = (None, []) if found.draws else self._kind(model, loss, seen, batches)
        if kind == "sum" and self._is_divided_by_weight(batches):
            return
        if kind == "sum":
            self.reduction, count = SUM, counter(seen.outputs, seen.targets, seen.n, self._sized(batches))
            self._each = lambda outputs, targets: loss(outputs, targets) / count(outputs, targets)
            return
        refuse_uncertain("mean" if batches.weight_given and kind is not None else kind, found)
        if batches.weight_given:
            self.reduction = STATED
            return
        counts = [(entries_in(self.targets(b), n) if kind == "mean" else counts_in(b, n)) for n, b in sized(batches)]
        refuse_ambiguous(counts)
        watch = found.watch
        uneven = watch.uneven or (
            kind == "mean" and uneven_inside(watch, seen.batch, batches, lambda batch: self.plain(model, batch))
        )
        if watch.broadcast is None and (uneven or (kind != "mean" and is_nearly_either(places))):
            warn_of_weights(batches)
        if uneven or not (kind == "mean" or found.draws):
            self._keep_batches(batches)

    def _kind(self, model: nn.Module, loss: Loss, seen: Seen, batches: Batches) -> tuple[Kind | None, list[Place]]:
        """By outputs and all targets; by the model on parts of batches where outputs are not cut as the batch is."""
        places = places_at_outputs(loss, seen.outputs, seen.targets, seen.n)
        if (kind := kind_of(places)) not in (None, "neither"):
            places += places_at_targets(loss, seen.outputs, seen.n, self._sized(batches))
            return kind_of(places), places
        step = lambda at, one: loss(self.outputs(at, one), self.targets(one))  # noqa: E731
        whole = places_at_parameters(model, step, [(seen.n, seen.batch), *several(batches)[1:]])
        apart = kind_of(whole)
        return (apart, whole) if kind is None or apart not in (None, "neither") else (kind, places)

    def _divisor(self, model: nn.Module, criterion: Criterion, batch: Any, batches: Batches) -> Divisor:
        def seen(batch: Any) -> Criterion | None:
            with Watch() as watch:
                value = self.plain(model, batch)
            return watch.criterion(value)

        return Divisor(criterion, batch, batches, seen)

    def _keep_batches(self, batches: Batches) -> None:
        self.depends_on_batch, self.reduction = True, CONTRAST
        batches.settle(uncut=CONTRAST)

    def _settle_metrics(self, criterion: Criterion | None, seen: Seen, batches: Batches) -> None:
        if self._metrics == "auto":
            self._metrics = self._automatic(criterion, seen, batches)
        for name, metric in self._metrics.items():
            with Watch() as watch:
                found = metric(seen.outputs, seen.targets)
            warn_of_broadcast(watch)
            checked(name, found, self.rows(seen.targets))

    def _automatic(self, criterion: Criterion | None, seen: Seen, batches: Batches) -> dict[str, Metric]:
        return automatic(self._loss, criterion, seen.outputs, seen.targets, [self.targets(one) for one in batches])

    def _sized(self, batches: Batches) -> Iterator[tuple[int, Any]]:
        return ((m, self.targets(one)) for m, one in sized(batches))


def _scalar(loss: Loss) -> Loss:
    """The same loss as a 0-d tensor, where it has one entry."""
    return lambda outputs, targets: loss(outputs, targets).mean()


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    raise DataError(
        f"A batch must be a pair (inputs, targets), got {describe(batch)}: "
        "for other batches use Objective.from_step(model, step, batches), or its outputs= and loss=."
    )


def _module_copied(call: Any, point: Tensor) -> Any:
    return copy.deepcopy(call).to(point) if isinstance(call, nn.Module) else call
