"""What one batch yields at one point: losses and metrics, for each example where the loss allows it."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossatlas.errors import DataError, InputError, ReductionWarning
from lossatlas.model.batches import Batches, describe, refill, tensors_in
from lossatlas.model.forms import flat, kind_by_size, kinds_of_parts, length, like_weighted_mean, per_example
from lossatlas.model.inputs import applied, require_one_way
from lossatlas.model.metrics import Metric, accuracy, automatic, checked, measured, weight_key
from lossatlas.model.reduction import (
    Criterion,
    Watch,
    counts_in,
    place_of,
    proportional,
    refuse_ambiguous,
    sizer,
    warn_of_broadcast,
    weigher,
    weighted_values,
)

__all__ = ["Loss", "Metric", "Sample", "StepLoss", "Supervised", "accuracy", "samples_of"]

Loss = Callable[[Any, Any], Tensor]

_CONTRAST = "the loss of a batch is none of its examples alone (it depends on the batch)"


@dataclass(frozen=True)
class Sample:
    """Values x_1 .. x_m of one quantity with weights w_1 .. w_m, over examples or (``over``) over batches.

    ``mean`` = sum w x / sum w, and ``stderr`` is the standard error of that mean when the m values are independent
    draws: sqrt(m / (m - 1) sum w^2 (x - mean)^2) / sum w, which is sd / sqrt(m) for equal weights.
    """

    values: Tensor
    weights: Tensor
    over: Literal["examples", "batches"]

    @property
    def mean(self) -> float:
        return float(self.weights @ self.values / self.weights.sum())

    @property
    def stderr(self) -> float:
        m = len(self.values)
        if m < 2:
            return math.nan
        spread = torch.linalg.vector_norm(self.weights * (self.values - self.mean))
        return math.sqrt(m / (m - 1)) * float(spread / self.weights.sum())

    def combined(self, other: Sample, weight: float) -> Sample:
        """x + weight y, example by example: the errors of differences come out right, since both share the examples."""
        return Sample(self.values + weight * other.values, self.weights, self.over)


def samples_of(found: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Sample]:
    """What was measured on batches with these weights, joined: a value an example where every batch has one.

    Beside values x_1 .. x_m of a batch there can be weights v_1 .. v_m (``weight_key``), for which the mean over the
    batch of the x_i is that of y_i = x_i sum(v) / (m v_i) with the weights v_i: then the sample has the y_i and v_i.
    """
    weighed = {weight_key(name) for name in found[0]}
    return {
        name: _weighed([one[name] for one in found], [one[weight_key(name)] for one in found])
        if weight_key(name) in found[0]
        else _joined([one[name] for one in found], weights)
        for name in found[0]
        if name not in weighed
    }


def _joined(parts: list[Tensor], weights: Sequence[float]) -> Sample:
    if all(part.ndim and len(part) == weight for part, weight in zip(parts, weights, strict=True)):
        values = torch.cat(parts).double().cpu()
        return Sample(values, torch.ones_like(values), "examples")
    means = torch.stack([part.double().mean().cpu() for part in parts])
    return Sample(means, torch.tensor(weights, dtype=torch.float64), "batches")


def _weighed(parts: list[Tensor], weights: list[Tensor]) -> Sample:
    over: Literal["examples", "batches"] = "examples" if all(part.ndim for part in parts) else "batches"
    pairs = [(x.double().cpu().reshape(-1), v.double().cpu().reshape(-1)) for x, v in zip(parts, weights, strict=True)]
    values = [torch.where(v > 0, x * v.sum() / (len(v) * torch.where(v > 0, v, 1)), 0) for x, v in pairs]
    return Sample(torch.cat(values), torch.cat([v for _, v in pairs]), over)


class Supervised:
    """``loss(model(inputs), targets)`` and metrics on batches ``(inputs, targets)``.

    The form with a value for each example is found once, by what it must reproduce: the loss that was given, on the
    targets of every batch and at several outputs. ``model/reduction.py`` says of what a loss is a mean.
    """

    def __init__(self, loss: Loss, metrics: Mapping[str, Metric] | Literal["auto"] | None) -> None:
        self._loss = loss
        self._metrics: Mapping[str, Metric] | Literal["auto"] = {} if metrics is None else metrics
        self._each: Loss | None = None
        self._weighted = self._metrics_apart = False
        self.depends_on_batch = self.returns_values = False
        self.reduction = "a mean over examples"

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
        first = next(iter(batches))
        inputs, targets = _pair(first)
        require_one_way(model, map(_pair, batches))
        outputs = applied(model, inputs)
        with Watch() as watch:
            whole = _tensor(self._loss(outputs, targets))
        warn_of_broadcast(watch)
        if whole.ndim:
            self._settle_values(whole, targets, batches)
        else:
            self._settle_mean(model, watch, whole, outputs, first, batches)
        self._metrics_apart = self._weighted or batches.weight_given
        self._settle_metrics(watch.criterion(whole), outputs, targets, batches)

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
        return (self._each or self._loss)(outputs, targets)

    def _weighted_loss(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        values, weights = weighted_values(lambda: self._loss(outputs, targets), _rows(targets))
        return {"loss": values, weight_key("loss"): weights}

    def _settle_values(self, whole: Tensor, targets: Any, batches: Batches) -> None:
        self._each = lambda outputs, targets: flat(self._loss(outputs, targets))
        m = len(whole)
        self.returns_values = m != 1 or batches.sizes[0] == 1
        if m in (1, batches.sizes[0]):
            return
        if m != _rows(targets):
            raise InputError(f"The loss has shape {tuple(whole.shape)}: return a mean (0-d) or one value an example.")
        batches.settle(size=lambda batch: len(batch[1]), weigh=lambda batch: len(batch[1]))

    def _settle_mean(
        self, model: nn.Module, watch: Watch, whole: Tensor, outputs: Any, first: Any, batches: Batches
    ) -> None:
        targets, criterion = _pair(first)[1], watch.mean(whole)
        divisor = None if criterion is None or batches.weight_given else self._divisor(model, criterion, first, batches)
        found = None
        if divisor is None or not divisor.uneven():
            found = per_example(self._loss, outputs, targets, lambda: (_pair(batch)[1] for batch in batches))
        if found is not None:
            self._each, kind = found
            if kind == "sum":
                self._settle_sum(outputs, targets, batches)
        elif divisor is not None:
            self._weighted, self.reduction = True, divisor.settle()
            if kind_by_size(self._loss, outputs, targets) != "mean":
                self._keep_batches(batches)
        else:
            self._settle_other(outputs, targets, batches, watch)

    def _divisor(self, model: nn.Module, criterion: Criterion, first: Any, batches: Batches) -> Divisor:
        def seen(batch: Any) -> Criterion | None:
            with Watch() as watch:
                value: Tensor = self._loss(self.outputs(model, batch), _pair(batch)[1])
            return watch.criterion(value)

        return Divisor(criterion, first, batches, seen)

    def _settle_sum(self, outputs: Any, targets: Any, batches: Batches) -> None:
        """A sum over rows is divided by the number of examples, which have the same number of rows each."""
        assert self._each is not None
        self.reduction = "a sum, divided by the number of examples"
        each, rows, n = self._each, len(self._each(outputs, targets)), batches.sizes[0]
        if rows == n:
            return
        if any(_rows(_pair(batch)[1]) not in (None, size * rows // n) for size, batch in _sized(batches)) or rows % n:
            raise InputError(
                f"The loss is a sum over {rows} rows of a batch of {n} examples, and other batches have other numbers "
                "of rows: return one value an example, or state examples=lambda batch: ..."
            )
        self._each = lambda outputs, targets: each(outputs, targets) * (rows // n)

    def _settle_other(self, outputs: Any, targets: Any, batches: Batches, watch: Watch) -> None:
        kind = kind_by_size(self._loss, outputs, targets)
        if kind == "sum":
            self.reduction = "a sum, divided by the number of examples"
            self._each = lambda outputs, targets: self._loss(outputs, targets) / (length((outputs, targets)) or 1)
        if kind is not None or batches.weight_given:
            return
        refuse_ambiguous([counts_in(batch, size) for size, batch in _sized(batches)])
        if watch.broadcast is None and like_weighted_mean(self._loss, outputs, targets):
            _warn_of_weights()
        self._keep_batches(batches)

    def _keep_batches(self, batches: Batches) -> None:
        self.depends_on_batch, self.reduction = True, _CONTRAST
        batches.settle(uncut=_CONTRAST)

    def _settle_metrics(self, criterion: Criterion | None, outputs: Any, targets: Any, batches: Batches) -> None:
        if self._metrics == "auto":
            self._metrics = automatic(self._loss, criterion, outputs, targets, list(map(_pair, batches)))
        for name, metric in self._metrics.items():
            checked(name, metric(outputs, targets), _rows(targets))


class StepLoss:
    """``step(model, batch)``: the mean loss of a batch, or one value an example; for batches of any kind."""

    def __init__(self, step: Callable[[nn.Module, Any], Tensor]) -> None:
        self._step = step
        self._divide: Callable[[Any], int] | None = None
        self.depends_on_batch = self.returns_values = False
        self.reduction = "a mean over examples"

    def probe(self, model: nn.Module, batches: Batches) -> None:
        """Settle on what the loss of a batch is a mean of."""
        first = next(iter(batches))
        with Watch() as watch:
            value = _tensor(self._step(model, first))
        warn_of_broadcast(watch)
        if value.ndim:
            self._settle_values(model, batches)
        elif not batches.weight_given:
            self._settle_mean(model, watch.mean(value), first, batches)

    def __call__(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        values = flat(_tensor(self._step(model, batch)))
        return {"loss": values if self._divide is None else values / self._divide(batch)}

    def plain(self, model: nn.Module, batch: Any) -> Tensor:
        """What the step itself returns."""
        return self._step(model, batch)

    def _settle_values(self, model: nn.Module, batches: Batches) -> None:
        counts = [len(flat(_tensor(self._step(model, batch)))) for batch in batches]
        if set(counts) == {1} or counts == batches.sizes:  # one value a batch is its mean
            return
        self.returns_values, self.reduction = True, "one value an example"
        batches.settle(values=counts)

    def _settle_mean(self, model: nn.Module, criterion: Criterion | None, first: Any, batches: Batches) -> None:
        kind = self._kind(model, first, batches.sizes[0])
        if criterion is not None:
            divisor = Divisor(criterion, first, batches, lambda batch: self._seen(model, batch))
            batches.settle(size=divisor.size)
            if divisor.uneven(every=True):
                self.reduction = divisor.settle()
        else:
            if kind == "sum":
                self._divide, self.reduction = batches.size, "a sum, divided by the number of examples"
            refuse_ambiguous([counts_in(batch, size) for size, batch in _sized(batches)])
        if kind == "neither":
            self.depends_on_batch, self.reduction = True, _CONTRAST
            batches.settle(uncut=_CONTRAST)

    def _seen(self, model: nn.Module, batch: Any) -> Criterion | None:
        with Watch() as watch:
            value = self._step(model, batch)
        return watch.criterion(value)

    def _kind(self, model: nn.Module, batch: Any, n: int) -> Literal["mean", "sum", "neither"] | None:
        """From the loss of two parts of a batch, also with the parameters moved; None where it cannot be cut."""
        tensors = list(tensors_in(batch))
        if n < 2 or any(t.layout is not torch.strided or t.ndim == 0 or len(t) != n for t in tensors):
            return None
        cut, run = (n + 2) // 3, _Step(model, self._step)
        pieces = [[t[one] for t in tensors] for one in (slice(n), slice(cut), slice(cut, n))]
        found: list[set[str]] = []
        for scale in (0.0, 0.3):
            moved = _moved(model, scale)
            calls = [lambda p=p, at=moved: functional_call(run, at, (_with(batch, p),)) for p in pieces]
            kinds = kinds_of_parts(calls, [cut, n - cut])
            if kinds is None:
                return "neither"
            found += [kinds] if kinds not in (set(), {"zero"}) else []
        common = set.intersection(*found) if found else set()
        return "mean" if "mean" in common else "sum" if "sum" in common else "neither"


def _with(batch: Any, tensors: list[Tensor]) -> Any:
    return refill(batch, iter([t.clone() for t in tensors]))


class _Step(nn.Module):
    """A step as a module, whose parameters ``functional_call`` can replace."""

    def __init__(self, model: nn.Module, step: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._step = step

    def forward(self, batch: Any) -> Tensor:
        return self._step(self.model, batch)


class Divisor:
    """What a criterion of PyTorch's divides by on each batch: W_b.

    Where its targets are one of the batch's tensors they are counted there, else ``seen`` runs the loss on a batch.
    """

    def __init__(
        self, criterion: Criterion, first: Any, batches: Batches, seen: Callable[[Any], Criterion | None]
    ) -> None:
        self._criterion, self._batches, self._seen = criterion, batches, seen
        place = place_of(criterion.given["target"], first)
        self._weigh, self.size = weigher(criterion, place), sizer(place)
        self._weights: list[float] | None = None

    def uneven(self, *, every: bool = False) -> bool:
        """Whether some examples weigh more than others; looked at where that is cheap, or always (``every``).

        Where the loss must run for it, the per-example form tells as well, unless a batch is one example.
        """
        if self._weigh is None and not every and max(self._batches.sizes) > 1:
            return False
        weighted = self._criterion.by_class and self._criterion.given["weight"] is not None
        return weighted or not proportional(self.weights(), self._batches.sizes)

    def weights(self) -> list[float]:
        """W_b of every batch."""
        if self._weights is None:
            self._weights = [self._of(batch, size) for size, batch in _sized(self._batches)]
        return self._weights

    def settle(self) -> str:
        """Give the batches their weights; what was found, in words."""
        name, weights = self._criterion.function.__name__, self.weights()
        uncut = None if self._weigh else f"the targets of {name} are not a tensor of the batch"
        self._batches.settle(weigh=self._weigh, weights=None if self._weigh else weights, uncut=uncut)
        return f"the mean of {name}, which divides by {sum(weights):g} in all"

    def _of(self, batch: Any, size: int) -> float:
        try:
            if self._weigh is not None:
                return self._weigh(batch)
            criterion = self._seen(batch)
        except Exception:  # of the user's loss on this batch: it comes again, and is told, where the batch is evaluated
            return float(size)
        if criterion is None:
            raise InputError(
                "The loss calls a criterion of PyTorch's on some batches only: state weight=lambda batch: ..., what "
                "the batch's loss is a mean of."
            )
        return float(criterion.weights().sum())


def _moved(model: nn.Module, scale: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def noise(p: Tensor) -> Tensor:
        return torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)

    return {
        f"model.{name}": p + scale * (0.1 + p.abs().mean()) * noise(p) if p.is_floating_point() else p
        for name, p in model.named_parameters()
    }


def _warn_of_weights() -> None:
    warnings.warn(
        "The loss of a batch is not the mean of its examples' losses and lies between them, as where examples are "
        "weighted or ignored: L then depends on the batch size. State weight=lambda batch: ..., what the loss divides "
        "by, or return one value an example.",
        ReductionWarning,
        stacklevel=2,
    )


def _sized(batches: Batches) -> list[tuple[int, Any]]:
    return list(zip(batches.sizes, batches, strict=True))


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


def _tensor(loss: object) -> Tensor:
    if isinstance(loss, Tensor) and loss.is_floating_point():
        return loss
    raise InputError(
        f"The loss is a {type(loss).__name__}, not a floating-point tensor: "
        "return a tensor (for an output object, its .loss)."
    )
