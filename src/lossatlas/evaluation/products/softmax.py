"""The Hessian of a cross-entropy in its logits in closed form: H_f u = w (p u - p p' u), row by row, in pieces.

Autograd's way keeps several tensors of the size of the logits, which for language models are the largest ones; this
keeps the logits and two numbers a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lossatlas.evaluation.products.terms import Indices, Losses, indices, targets_in
from lossatlas.model.data.containers import mapped

LARGE = 2**20  # logits of a batch: for fewer, finding out costs more than it saves
PIECE = 2**20  # logits that are computed with, or compared, at a time: they stay in a CPU's caches
AGREEMENT = 1e-3


def softmax_slope(losses: Losses, at: Tensor, targets: Any) -> Tensor | None:
    """What has in ``at``, the outputs, the derivative that the gradient of the mean loss has; None: not this loss.

    The loss must be sum_t -w_t log softmax(f_t)[y_t], whatever the weights are: its gradient is w_t p_t at all classes
    but y_t, for every row; and the Hessian is compared with autograd's on a piece of the batch.
    """
    if at.numel() < LARGE or at.dtype not in (torch.float32, torch.float64):
        return None
    for place, one in enumerate(targets_in(losses, targets)):
        target = one.tensor
        if target.is_floating_point() or target.layout is not torch.strided or target.shape[:1] != at.shape[:1]:
            continue
        cut = _cut(at, target)
        piece = cut(at.detach())
        own = next(itertools.islice(targets_in(losses, mapped(targets, cut)), place, None))
        few = {(some.axis, some.shift): some for some in indices(piece, own.tensor)}
        for rows in indices(at, target):  # a piece may have more axes that fit
            agrees = _agrees(own.losses, few[rows.axis, rows.shift], piece, own.tensor)
            found = _weights(one.losses, rows, at.detach(), target) if agrees else None
            if found is not None:
                slope: Tensor = _Slope.apply(at, *found, rows.axis)  # type: ignore[no-untyped-call]
                return slope
    return None


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
        return _bent(at, logsumexp, weights, u, ctx.axis), None, None, None


def _bent(f: Tensor, logsumexp: Tensor, weights: Tensor, u: Tensor, axis: int) -> Tensor:
    """w_t (p_t u_t - p_t p_t' u_t), p_t = exp(f_t - logsumexp_t), of the shape of ``f``."""
    result = torch.empty_like(f, memory_format=torch.contiguous_format)
    out, rows, given = (tensor.movedim(axis, -1) for tensor in (result, f, u))
    for place in _places(rows):
        p = (rows[place] - logsumexp[place]).exp_()
        torch.mul(p, given[place], out=out[place])
        out[place].addcmul_(p, out[place].sum(-1, keepdim=True), value=-1).mul_(weights[place])
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


def _cut(f: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """To the examples with the most targets that are indices, and of very large ones to their first positions."""
    count = max(1, PIECE // f[0].numel())
    known = (targets >= 0).reshape(len(targets), -1).sum(1)
    chosen = known.argsort(descending=True, stable=True)[:count]
    long = f[0].numel() > PIECE and targets.shape[:2] == f.shape[:2]
    length = max(2, PIECE // f[0, 0].numel()) if long else None

    def cut(tensor: Tensor) -> Tensor:
        if tensor.shape[:1] != f.shape[:1]:
            return tensor
        return tensor[chosen] if length is None or tensor.shape[:2] != f.shape[:2] else tensor[chosen, :length]

    return cut


def _agrees(losses: Losses, rows: Indices, f: Tensor, targets: Tensor) -> bool:
    """Whether autograd's second derivative of the mean loss is the closed form."""
    u = torch.randn(f.shape, generator=torch.Generator().manual_seed(0)).to(f)
    try:
        found = _weights(losses, rows, f, targets)
        with torch.enable_grad(), saved_tensors_hooks(_same, _same):
            at = f.clone().requires_grad_()
            (slope,) = torch.autograd.grad(losses(at.clone(), targets).mean(), at, create_graph=True)
            (expected,) = torch.autograd.grad(slope, at, u)
    except Exception:  # of a loss that takes whole batches only
        return False
    if found is None or not bool(expected.any()):
        return False
    return bool((_bent(f, *found, u, rows.axis) - expected).norm() <= AGREEMENT * expected.norm())


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _weights(losses: Losses, rows: Indices, f: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
    """logsumexp and w of each row, ``(..., 1)``, by the gradient of the mean loss; None where that is another."""
    # A caller that counts what its graph saves does not count what is gone at once.
    with torch.enable_grad(), saved_tensors_hooks(_same, _same):
        at = f.detach().requires_grad_()
        (slope,) = torch.autograd.grad(losses(at.clone(), targets).mean(), at)  # a loss may write into the outputs
    logits, slopes = f.movedim(rows.axis, -1), slope.movedim(rows.axis, -1)
    classes = torch.where(rows.kept, rows.given, 0).reshape(*logits.shape[:-1], 1)
    totals, weights = torch.empty(2, *classes.shape).to(f)
    for place in _places(logits):
        totals[place] = logits[place].logsumexp(-1, keepdim=True)
        p, g = ((logits[place] - totals[place]).exp_().double(), slopes[place].double())
        p, g = (tensor.scatter(-1, classes[place], 0.0) for tensor in (p, g))
        squares = (p * p).sum(-1, keepdim=True)
        w = (p * g).sum(-1, keepdim=True) / squares.clamp(min=torch.finfo(torch.float64).tiny)
        off = torch.linalg.vector_norm(g - w * p, dim=-1) > AGREEMENT * torch.linalg.vector_norm(g, dim=-1)
        if bool(off.any()) or not bool((w >= 0).all()):
            return None
        weights[place] = w.to(f)
    return totals, torch.where(rows.kept.reshape(classes.shape), weights, 0)
