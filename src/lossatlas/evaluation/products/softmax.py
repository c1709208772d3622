"""The Hessian of a cross-entropy in its logits in closed form: H_f u = w (p u - p p' u), row by row, in pieces.

Autograd's way keeps several tensors of the size of the logits, which for language models are the largest ones; this
keeps the logits and a number a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lossatlas.evaluation.products.terms import Form, Losses, Terms, of_this_form, recognised

LARGE = 2**20  # logits of a batch: for fewer, finding out costs more than it saves
PIECE = 2**20  # logits that are computed with at a time, in the caches of a CPU, and at most in the piece that is compared
AGREEMENT = 1e-3


def softmax_slope(losses: Losses, at: Tensor, targets: Any) -> Tensor | None:
    """What has in ``at``, the outputs, the derivative that the gradient of the mean loss has; None: not this loss.

    The loss must be c sum_t -log softmax(f_t)[y_t] with one c for all examples: in its values on a piece of the batch
    at several outputs and targets, in its second derivative there, and on the whole at the data's own targets.
    """
    indices = isinstance(targets, Tensor) and not targets.is_floating_point()
    if at.numel() < LARGE or at.dtype not in (torch.float32, torch.float64) or not indices:
        return None
    with torch.no_grad():
        form = _form(losses, at.detach(), targets)
        found = None if form is None else _weights(losses, form, at.detach(), targets)
    if form is None or found is None:
        return None
    slope: Tensor = _Slope.apply(at, *found, form.axis)  # type: ignore[no-untyped-call]
    return slope


class _Slope(torch.autograd.Function):
    """A gradient whose derivative alone is wanted: its own values are not computed."""

    @staticmethod
    def forward(ctx: Any, at: Tensor, logsumexp: Tensor, weights: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(at, logsumexp, weights)
        ctx.axis = axis
        return at.new_zeros(1).expand(at.shape)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None, None, None]:
        at, logsumexp, weights = ctx.saved_tensors
        return bent(at, logsumexp, weights, u, ctx.axis), None, None, None


def bent(f: Tensor, logsumexp: Tensor, weights: Tensor, u: Tensor, axis: int) -> Tensor:
    """w_t (p_t u_t - p_t p_t' u_t), p_t = exp(f_t - logsumexp_t), of the shape of ``f``."""
    result = torch.empty_like(f, memory_format=torch.contiguous_format)
    rows = [tensor.movedim(axis, -1) for tensor in (result, f, u)]
    columns = [tensor.reshape(rows[0].shape[:-1])[..., None] for tensor in (logsumexp, weights)]
    for place in _places(rows[0]):
        out, at, given, total, weight = (tensor[place] for tensor in (*rows, *columns))
        p = (at - total).exp_().mul_(weight)
        torch.mul(p, given, out=out)
        inner = out.sum(-1, keepdim=True).div_(torch.where(weight != 0, weight, 1))
        out.addcmul_(p, inner, value=-1)
    return result


def _places(rows: Tensor) -> Iterator[tuple[slice, ...]]:
    """Cuts of ``(n, ..., classes)`` into pieces, along the second axis too where an example is larger than one."""
    n, each = len(rows), rows[0].numel()
    second = rows.shape[1] if rows.ndim > 2 else 1
    step = max(1, PIECE // each)
    inner = max(1, PIECE * second // each)
    for start in range(0, n, step):
        for place in range(0, second, inner):
            yield (slice(start, start + step), *((slice(place, place + inner),) if rows.ndim > 2 else ()))


def _form(losses: Losses, f: Tensor, targets: Tensor) -> Form | None:
    """The form of logits of classes that the loss has on a piece of the batch."""
    if len(targets) != len(f):
        return None
    piece, own = _piece(f, targets)
    try:
        terms = recognised(losses, piece, own)
        if terms is None or not terms.form.logits or terms.form.axis is None or not bool(terms.form.kept.any()):
            return None
        return terms.form if _agrees(losses, terms, piece, own) else None
    except Exception:  # of a loss that takes whole batches only
        return None


def _piece(f: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The examples with the most targets that are indices, and of very large ones their first positions."""
    count = max(1, LARGE // f[0].numel())
    known = (targets >= 0).reshape(len(targets), -1).sum(1)
    chosen = known.argsort(descending=True, stable=True)[:count]
    length = max(2, PIECE // f[0, 0].numel()) if f[0].numel() > PIECE and targets.shape[:2] == f.shape[:2] else None
    return (f[chosen], targets[chosen]) if length is None else (f[chosen, :length], targets[chosen, :length])


def _agrees(losses: Losses, terms: Terms, f: Tensor, targets: Tensor) -> bool:
    """Whether autograd's second derivative of the piece's mean loss is the closed form."""
    u = torch.randn(f.shape, generator=torch.Generator().manual_seed(0)).to(f)
    with torch.enable_grad():
        at = f.clone().requires_grad_()
        (slope,) = torch.autograd.grad(losses(at.clone(), targets).mean(), at, create_graph=True)
        (expected,) = torch.autograd.grad(slope, at, u)
    axis, rows = terms.form.axis, terms.form.rows(f)
    n = len(terms.coefficients)
    weights = (terms.form.kept.reshape(n, -1) * terms.coefficients[:, None] / n).flatten()
    found = bent(f, rows.logsumexp(1), weights.to(f), u, axis if axis is not None else 1)
    return bool((found - expected).norm() <= AGREEMENT * expected.norm())


def _weights(losses: Losses, form: Form, f: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
    """logsumexp and the weight of each row in the mean loss, where the data's own targets have the loss expected."""
    form, classes = of_this_form(form, f, targets)
    rows = f.movedim(form.axis or 0, -1)
    logsumexp = torch.empty(rows.shape[:-1]).to(f)
    for place in _places(rows):
        logsumexp[place] = rows[place].logsumexp(-1)
    own = rows.gather(-1, classes.reshape(logsumexp.shape)[..., None])[..., 0]
    terms = (logsumexp - own).flatten().double() * form.kept
    values = losses(f.clone(), targets).double()
    if values.ndim != 1 or len(terms) % len(values):
        return None
    sums = terms.reshape(len(values), -1).sum(1)
    c = (values * sums).sum() / (sums * sums).sum().clamp(min=torch.finfo(torch.float64).tiny)
    if not c > 0 or not bool(((values - c * sums).abs() <= 1e-4 * values.abs().mean()).all()):
        return None
    return logsumexp.flatten(), (form.kept * c / len(values)).to(f)
