"""Losses that are sums of negative log-likelihoods, recognised by their values: x_i = c_i sum_t -log p(y_t | f).

The terms t of example i are its positions or outputs. p is a softmax over classes or one chance of 0 or 1 an output,
from logits, log-probabilities or probabilities; targets are indices, one-hot rows or 0 and 1. No loss is known by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.model.data.containers import refill, tensors_in

Losses = Callable[[Tensor, Tensor], Tensor]
_LEAST = -100.0  # PyTorch's own bound on the logarithm of a probability
_PROBED = 1024  # terms: where there are fewer, more patterns of targets are tried


@dataclass(frozen=True)
class Target:
    """A tensor of the targets, the loss as a function of it, and targets that hold another one in its place."""

    losses: Losses
    tensor: Tensor
    within: Callable[[Tensor], Any]


def targets_in(losses: Callable[[Tensor, Any], Tensor], targets: Any) -> Iterator[Target]:
    """What may be a loss's targets: these, or each of the tensors of a batch that is handed over whole."""
    if isinstance(targets, Tensor):
        yield Target(losses, targets, lambda tensor: tensor)
        return
    tensors = list(tensors_in(targets))
    for place, own in enumerate(tensors):
        within = partial(_replaced, targets, tensors, place)
        yield Target(partial(_of_one, losses, within), own, within)


def _replaced(batch: Any, tensors: list[Tensor], place: int, tensor: Tensor) -> Any:
    return refill(batch, iter([*tensors[:place], tensor, *tensors[place + 1 :]]))


def _of_one(
    losses: Callable[[Tensor, Any], Tensor], within: Callable[[Tensor], Any], outputs: Tensor, tensor: Tensor
) -> Tensor:
    return losses(outputs, within(tensor))


@dataclass(frozen=True)
class Form:
    """Outputs as rows ``(terms, K)`` of log p, and targets as one of K values a term."""

    log_p: Callable[[Tensor], Tensor]  # of the outputs; each row of exp(log_p) sums to 1 where they are of this form
    milder: Callable[[Tensor], Tensor]  # other outputs of this form
    targets: Callable[[Tensor], Tensor]  # of the values chosen
    kept: Tensor  # (terms,): all but the targets that are no value, which a loss ignores
    logits: bool  # whether the outputs are the natural parameters of p
    axis: int | None = None  # of the classes; None for 0 or 1

    def unrolled(self, rows: Tensor, like: Tensor) -> Tensor:
        """``(terms, classes)`` in the shape of the outputs ``like``."""
        assert self.axis is not None, "the form is of classes"
        return rows.reshape(like.movedim(self.axis, -1).shape).movedim(-1, self.axis)


@dataclass(frozen=True)
class Terms:
    """A loss that is of this form at these outputs: c ``(examples,)``."""

    form: Form
    coefficients: Tensor


def recognised(losses: Losses, outputs: Tensor, targets: Tensor) -> Terms | None:
    """The form that the loss has in its values at several targets and outputs; None where it has none."""
    for form in _forms(outputs, targets):
        rows = form.log_p(outputs)
        if bool(torch.isfinite(rows).any(1).all()) and _normalised(rows):
            coefficients = _coefficients(losses, form, outputs, rows)
            if coefficients is not None:
                return Terms(form, coefficients)
    return None


def matches(losses: Losses, terms: Terms, outputs: Tensor, rows: Tensor, chosen: Tensor) -> bool:
    """Whether the loss of the values chosen is that of the terms."""
    found = losses(outputs, terms.form.targets(chosen)).double()
    expected = terms.coefficients.double() * _sums(terms.form, rows, chosen, len(found))
    scale = found.abs().clamp(min=float(found.abs().mean()))
    return bool(((found - expected).abs() <= _rtol(rows) * scale).all())


@dataclass(frozen=True)
class Indices:
    """Classes on an axis of the outputs, and the index of each term's; ``shift`` is 1 where it is the next position's.

    What is no index of a class is not ``kept``; language models have no target for their last position.
    """

    axis: int
    shift: int
    given: Tensor
    kept: Tensor


def indices(outputs: Tensor, targets: Tensor) -> Iterator[Indices]:
    """The ways in which targets can be the classes of the outputs, by their shapes."""
    for axis in _axes(outputs):
        classes = outputs.shape[axis]
        if targets.is_floating_point() or targets.numel() * classes != outputs.numel():
            continue
        for shift in (0, 1) if targets.shape == outputs.shape[:2] and axis == 2 else (0,):
            given = targets.roll(-1, 1) if shift else targets
            kept = (given >= 0) & (given < classes)
            if shift:
                kept[:, -1] = False
            yield Indices(axis, shift, given, kept)


def _axes(outputs: Tensor) -> tuple[int, ...]:
    return tuple(dict.fromkeys((1, outputs.ndim - 1))) if outputs.ndim > 1 else ()


def _forms(outputs: Tensor, targets: Tensor) -> Iterator[Form]:
    if targets.numel() == outputs.numel():
        kept = torch.ones(targets.numel(), dtype=torch.bool, device=outputs.device)
        for log_chances, milder, logits in _BINARY:
            yield Form(log_chances, milder, partial(_as_binary, like=targets), kept, logits)
    for found in indices(outputs, targets):
        kept = found.kept.flatten()
        values = partial(_as_indices, like=found.given, kept=kept, shift=found.shift)
        yield from _class_forms(found.axis, values, kept)
    for axis in _axes(outputs) if targets.is_floating_point() and targets.shape == outputs.shape else ():
        kept = torch.ones(outputs.numel() // outputs.shape[axis], dtype=torch.bool, device=outputs.device)
        yield from _class_forms(axis, partial(_as_one_hot, like=targets, axis=axis), kept)


def _class_forms(axis: int, values: Callable[[Tensor], Tensor], kept: Tensor) -> Iterator[Form]:
    for log_p, milder, logits in _CLASSES:
        yield Form(partial(_rows, log_p, axis), partial(milder, axis), values, kept, logits, axis)


def _rows(log_p: Callable[[int, Tensor], Tensor], axis: int, outputs: Tensor) -> Tensor:
    return log_p(axis, outputs).movedim(axis, -1).flatten(0, -2)


# log p of the outputs, other outputs of the same form, and whether these are logits.
_CLASSES: tuple[tuple[Callable[[int, Tensor], Tensor], Callable[[int, Tensor], Tensor], bool], ...] = (
    (lambda axis, f: f.log_softmax(axis), lambda axis, f: f / 2, True),
    (lambda axis, f: f, lambda axis, f: (f / 2).log_softmax(axis), False),
    (lambda axis, f: f.log().clamp(min=_LEAST), lambda axis, f: (f.log() / 2).softmax(axis), False),
)


def _of_chances(f: Tensor) -> Tensor:
    return torch.stack([torch.log1p(-f), f.log()], -1).flatten(0, -2).clamp(min=_LEAST)


_BINARY: tuple[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], bool], ...] = (
    (lambda f: F.logsigmoid(torch.stack([-f, f], -1)).flatten(0, -2), lambda f: f / 2, True),
    (_of_chances, lambda f: (f + 0.5) / 2, False),
)


def _as_binary(chosen: Tensor, like: Tensor) -> Tensor:
    return chosen.to(like.dtype).reshape(like.shape)


def _as_indices(chosen: Tensor, like: Tensor, kept: Tensor, shift: int) -> Tensor:
    values = torch.where(kept, chosen.to(like.dtype), like.flatten()).reshape(like.shape)
    return values.roll(1, 1) if shift else values


def _as_one_hot(chosen: Tensor, like: Tensor, axis: int) -> Tensor:
    moved = like.movedim(axis, -1)
    return F.one_hot(chosen, moved.shape[-1]).to(like.dtype).reshape(moved.shape).movedim(-1, axis).contiguous()


def _normalised(rows: Tensor) -> bool:
    totals = rows.logsumexp(1)
    return bool((totals.abs() <= _rtol(rows)).all())  # NaN, of no chance, is not


def _rtol(rows: Tensor) -> float:
    return max(1e-4, 8 * torch.finfo(rows.dtype).eps)


def _coefficients(losses: Losses, form: Form, outputs: Tensor, rows: Tensor) -> Tensor | None:
    """c with x = c s, s = sum_t -log p(y_t), for all patterns of targets tried and at milder outputs; None: none."""
    found, sums = [], []
    for chosen in _patterns(rows):
        try:
            values = losses(outputs, form.targets(chosen)).double()
        except Exception:  # of a loss that takes no targets of this form
            return None
        if values.ndim != 1 or len(rows) % len(values):
            return None
        found.append(values)
        sums.append(_sums(form, rows, chosen, len(values)))
    x, s = torch.stack(found), torch.stack(sums)
    norms = (s * s).sum(0)
    c = torch.where(norms > 0, (x * s).sum(0) / norms.clamp(min=torch.finfo(norms.dtype).tiny), 1.0)
    off = (x - c * s).abs() > _rtol(rows) * x.abs().amax(0)
    if bool(off.any()) or not bool((c > 0).all()):
        return None
    terms = Terms(form, c.to(rows.dtype))
    at = form.milder(outputs)
    return terms.coefficients if matches(losses, terms, at, form.log_p(at), chosen) else None


def _patterns(rows: Tensor) -> Iterator[Tensor]:
    """Values for all terms, other ones in every pattern."""
    terms, values = rows.shape
    start = torch.randint(values, (terms,), generator=torch.Generator().manual_seed(0)).to(rows.device)
    for step in range(min(values, max(3, _PROBED // max(terms, 1)))):
        yield (start + step) % values


def _sums(form: Form, rows: Tensor, chosen: Tensor, examples: int) -> Tensor:
    own = torch.where(form.kept, -rows.gather(1, chosen[:, None])[:, 0].double(), 0.0)
    return own.reshape(examples, -1).sum(1)
