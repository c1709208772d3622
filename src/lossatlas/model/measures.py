"""What one batch yields at one point: losses and metrics, for each example where the loss allows it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from lossatlas.errors import DataError, InputError
from lossatlas.model.batches import describe, leading_size

Loss = Callable[[Any, Any], Tensor]
Metric = Callable[[Any, Any], Tensor]


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


def samples_of(measured: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Sample]:
    """What was measured on batches with these weights, joined: a value an example where every batch has one."""
    return {name: _joined([one[name] for one in measured], weights) for name in measured[0]}


def _joined(parts: list[Tensor], weights: Sequence[float]) -> Sample:
    if all(part.ndim and len(part) == weight for part, weight in zip(parts, weights, strict=True)):
        values = torch.cat(parts).double().cpu()
        return Sample(values, torch.ones_like(values), "examples")
    means = torch.stack([part.double().mean().cpu() for part in parts])
    return Sample(means, torch.tensor(weights, dtype=torch.float64), "batches")


class Supervised:
    """``loss(model(inputs), targets)`` and metrics on batches ``(inputs, targets)``.

    The loss of each example is found once and must reproduce the loss that was given, on the targets of every batch:
    the same loss with ``reduction="none"``, or the loss of every example alone (``torch.vmap``). A loss that sums over
    the batch is averaged instead, so that L is always a mean over examples. A loss that is neither (contrastive,
    weighted by class, with ignored labels) keeps one value a batch.
    """

    def __init__(self, loss: Loss, metrics: Mapping[str, Metric] | Literal["auto"] | None) -> None:
        self._loss = loss
        self._metrics: Mapping[str, Metric] | Literal["auto"] = {} if metrics is None else metrics
        self._each: Loss | None = None

    @property
    def given(self) -> Loss:
        """The loss as it was given."""
        return self._loss

    def probe(self, model: nn.Module, batches: Iterable[Any]) -> None:
        """Settle on the form of the loss and on the metrics."""
        first = next(iter(batches))
        inputs, targets = _pair(first)
        outputs = _apply(model, inputs)
        whole = _tensor(self._loss(outputs, targets))
        if whole.ndim and len(whole) not in (1, leading_size(first)):
            raise InputError(f"The loss has shape {tuple(whole.shape)}: return a mean (0-d) or one value an example.")
        self._each = _given(self._loss) if whole.ndim else _per_example(self._loss, outputs, targets, batches)
        if self._metrics == "auto":
            self._metrics = {"accuracy": accuracy} if _is_classification(outputs, targets) else {}
        for name, metric in self._metrics.items():
            _check_metric(name, metric(outputs, targets), targets)

    def __call__(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        outputs, targets = self.outputs(model, batch), _pair(batch)[1]
        measured = {"loss": self.losses(outputs, targets)}
        assert self._metrics != "auto", "probe() settles the metrics"
        return measured | {name: _flat(metric(outputs, targets)) for name, metric in self._metrics.items()}

    def outputs(self, model: nn.Module, batch: Any) -> Any:
        """f_theta(x), the model's own outputs."""
        return _apply(model, _pair(batch)[0])

    def losses(self, outputs: Any, targets: Any) -> Tensor:
        """l(f, y): one value an example, or the mean over the batch where the loss has no value for one."""
        return (self._each or self._loss)(outputs, targets)


class StepLoss:
    """``step(model, batch)``: the mean loss of a batch, or one value an example; for batches of any kind."""

    def __init__(self, step: Callable[[nn.Module, Any], Tensor]) -> None:
        self._step = step

    def probe(self, model: nn.Module, batches: Iterable[Any]) -> None:
        _tensor(self._step(model, next(iter(batches))))

    def __call__(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {"loss": _flat(_tensor(self._step(model, batch)))}


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest output over axis 1 is the target class, else 0; the mean over positions, if there are any.

    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    tensor([1., 0.])
    """
    return _flat((outputs.argmax(1) == targets).float())


def _per_example(loss: Loss, outputs: Any, targets: Any, batches: Iterable[Any]) -> Loss | None:
    for form in _forms(loss):
        # One batch is not enough: a class with another weight, or an ignored label, may first come in a later one.
        if _holds(form, loss, outputs, targets) and all(
            _holds(form, loss, _again(outputs, later), later) for _, later in map(_pair, batches)
        ):
            return form
    return None


def _holds(form: Loss, loss: Loss, outputs: Any, targets: Any) -> bool:
    try:
        each, whole = form(outputs, targets), loss(outputs, targets)
    except Exception:  # whatever a user's loss raises in a form that it was not written for
        return False
    return each.ndim == 1 and _reproduces(each, whole)


def _again(outputs: Any, targets: Any) -> Any:
    """The first batch's outputs, as many as there are targets: a loss knows classes and ignored labels by these."""
    if isinstance(outputs, Tensor) and isinstance(targets, Tensor) and targets.ndim and outputs.ndim:
        return outputs[torch.arange(len(targets), device=outputs.device) % len(outputs)]
    return outputs


def _given(loss: Loss) -> Loss:
    return lambda outputs, targets: _flat(loss(outputs, targets))


def _forms(loss: Loss) -> list[Loss]:
    forms: list[Loss] = []
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        unreduced = copy.copy(loss)
        unreduced.reduction = cast(Any, "none")
        forms.append(lambda o, t: _flat(unreduced(o, t)))
    elif not isinstance(loss, nn.Module):
        forms.append(lambda o, t: _flat(cast(Any, loss)(o, t, reduction="none")))
    alone = torch.vmap(lambda o, t: loss(o.unsqueeze(0), t.unsqueeze(0)))
    return [*forms, _as_one_function(lambda o, t: _flat(alone(o, t)))]


def _as_one_function(form: Loss) -> Loss:
    """``form`` as a function that a ``TorchFunctionMode`` sees whole: the tensors inside vmap mean nothing outside."""

    def whole(outputs: Any, targets: Any) -> Tensor:
        if has_torch_function((outputs, targets)):
            result: Tensor = handle_torch_function(whole, (outputs, targets), outputs, targets)
            return result
        return form(outputs, targets)

    return whole


def _reproduces(each: Tensor, whole: Tensor) -> bool:
    totals = torch.stack([each.double().mean(), each.double().sum()])
    value = whole.double().mean()
    if not bool(torch.isfinite(value)):
        return not bool(torch.isfinite(totals).any())
    return bool(torch.isclose(totals, value.expand(2), rtol=1e-4, atol=1e-7).any())


def _flat(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    raise DataError(
        f"A batch must be a pair (inputs, targets), got {describe(batch)}: "
        "for other batches use Objective.from_step(model, step, batches)."
    )


def _apply(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def _tensor(loss: object) -> Tensor:
    if isinstance(loss, Tensor) and loss.is_floating_point():
        return loss
    raise InputError(
        f"The loss is a {type(loss).__name__}, not a floating-point tensor: "
        "return a tensor (for an output object, its .loss)."
    )


def _is_classification(outputs: Any, targets: Any) -> bool:
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and not targets.is_floating_point()
        and outputs.ndim >= 2
        and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    )


def _check_metric(name: str, value: object, targets: Any) -> None:
    n = len(targets) if isinstance(targets, Tensor) and targets.ndim else None
    if not isinstance(value, Tensor) or (value.ndim and n is not None and value.shape[0] != n):
        got = tuple(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"The metric {name!r} gave {got}: return a tensor with one value an example, or a 0-d mean.")
