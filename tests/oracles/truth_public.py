"""Problems after public training code: what a mean is taken of, by hand and by parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oracles.truth import N, Problem
from oracles.truth_data import (
    BITS,
    CLASSES,
    HOLES,
    LABELS,
    POSITIONS,
    REAL,
    TOKENS,
    WEIGHTS,
    X,
    Z,
    drawn,
    ending,
    mlp,
    pairs,
)

LATE = LABELS.index_fill(0, torch.arange(8, 11), -100)  # ignored in later batches only
LATE_TOKENS = torch.cat([TOKENS[:9], torch.where(torch.arange(POSITIONS) > 1, -100, TOKENS[9:])])
LENGTHS = torch.tensor([5, 3, 4, 5, 2, 5, 1, 4, 3, 5, 2, 4])


def records(targets: Tensor = LABELS, *shape: int) -> Callable[[], Any]:
    return lambda: {"x": drawn(*(shape or X)), "y": targets}


def told(name: str, loss: Any, targets: Tensor = LABELS, **options: Any) -> Problem:
    return Problem(name, mlp(), loss, pairs(targets), expected="told of batches", **options)


def refused(name: str, loss: Any, **options: Any) -> Problem:
    return Problem(name, mlp(), loss, records(), expected="refused", step=True, **options)


def _smoothed(o: Tensor, t: Tensor) -> Tensor:
    """With padding, as sequence models are trained."""
    logs, padding = -o.log_softmax(-1), t[..., None] == -100
    one, every = (
        logs.gather(-1, t.clamp(min=0)[..., None]).masked_fill(padding, 0),
        logs.mean(-1, keepdim=True).masked_fill(padding, 0),
    )
    return (0.9 * one + 0.1 * every).sum() / (~padding).sum()


def _dice(o: Tensor, t: Tensor, axis: int) -> Tensor:
    p, t = o.sigmoid().flatten(axis), t.flatten(axis)
    return (1 - (2 * (p * t).sum(axis) + 1) / (p.sum(axis) + t.sum(axis) + 1)).mean()


def _chain(o: Tensor, t: Tensor) -> Tensor:
    """The log-likelihood of a path under a linear chain without transitions."""
    z = o[:, 0]
    for i in range(1, o.shape[1]):
        z = torch.logsumexp(z[:, :, None] + o[:, i][:, None], 1)
    return z.logsumexp(1) - o.gather(2, t[..., None])[..., 0].sum(1)


def _token_mean(m: Any, b: Any) -> Tensor:
    kept = b["y"] >= 0
    each = F.cross_entropy(m(b["x"]).movedim(-1, 1), b["y"].clamp(min=0), reduction="none")
    return (each * kept).sum() / kept.sum()


def _sequence_mean(m: Any, b: Any) -> Tensor:
    kept = b["y"] >= 0
    each = F.cross_entropy(m(b["x"]).movedim(-1, 1), b["y"].clamp(min=0), reduction="none")
    return ((each * kept).sum(1) / kept.sum(1).clamp(min=1)).mean()


def _graphs(data: Any, size: int) -> list[Any]:
    """Graphs of ``LENGTHS`` nodes, ``size`` of them a batch."""
    found = []
    for i in range(0, N, size):
        n, start = LENGTHS[i : i + size], int(LENGTHS[:i].sum())
        of = torch.repeat_interleave(torch.arange(len(n)), n)
        found.append({"x": data["x"][start : start + len(of)], "of": of, "y": data["y"][i : i + size]})
    return found


def _of_graphs(m: Any, b: Any, reduction: str = "mean") -> Tensor:
    o = m(b["x"])
    return F.cross_entropy(o.new_zeros(len(b["y"]), CLASSES).index_add(0, b["of"], o), b["y"], reduction=reduction)


def graphs(name: str, step: Any, **options: Any) -> Problem:
    of = torch.repeat_interleave(torch.arange(N), LENGTHS)
    data = lambda: {"x": drawn(len(of), 4), "of": of, "y": LABELS}  # noqa: E731
    return Problem(name, mlp(), step, data, step=True, split=_graphs, **options)


def _devices(m: Any, b: Any) -> Tensor:
    """A mean of each of two devices."""
    each = F.cross_entropy(m(b["x"]), b["y"], reduction="none")
    return torch.stack([part.mean() for part in each.tensor_split(2)])


def _penalty(m: Any) -> Tensor:
    return 0.01 * sum(p.square().sum() for p in m.parameters())


MEANS = [
    Problem(
        "l2 beside a mean", mlp(), lambda m, b: F.cross_entropy(m(b["x"]), b["y"]) + _penalty(m), records(), step=True
    ),
    Problem("a coefficient", mlp(), lambda m, b: 0.25 * F.cross_entropy(m(b["x"]), b["y"]), records(), step=True),
    Problem("a mean and a constant", mlp(), lambda o, t: F.cross_entropy(o, t) + 3, pairs(LABELS)),
    Problem(
        "class weights in a plain mean",
        mlp(),
        lambda o, t: (WEIGHTS.to(o)[t] * F.cross_entropy(o, t, reduction="none")).mean(),
        pairs(LABELS),
    ),
    Problem("smoothed with padding, full", mlp(), _smoothed, pairs(TOKENS, *Z)),
    Problem("a mean over each sequence", mlp(), _sequence_mean, records(HOLES, *Z), step=True),
    Problem("dice of each image", mlp(), lambda o, t: _dice(o, t, 1), pairs(BITS)),
    Problem("a chain", mlp(), lambda o, t: _chain(o, t).mean(), pairs(TOKENS, *Z)),
    graphs("graphs, a criterion", _of_graphs),
    Problem(
        "focal, flattened in the loss",
        ending(lambda o: o.flatten(0, 1)),
        lambda o, t: F.cross_entropy(o, t.flatten(), reduction="none").square().mean(),
        pairs(TOKENS, *Z),
    ),
    Problem(
        "time first, flattened, by hand",
        ending(lambda o: o.transpose(0, 1)),
        lambda o, t: F.cross_entropy(o.flatten(0, 1), t.T.flatten(), reduction="none").square().mean(),
        pairs(TOKENS, *Z),
    ),
    Problem(
        "an auxiliary mean from the model",
        ending(lambda o: (o, o.square().mean())),
        lambda o, t: F.cross_entropy(o[0], t) + 0.1 * o[1],
        pairs(LABELS),
    ),
]
SUMS = [
    Problem("a chain summed", mlp(), lambda o, t: _chain(o, t).sum(), pairs(TOKENS, *Z), divisor=N),
    Problem(
        "time first, flattened, summed",
        ending(lambda o: o.transpose(0, 1).flatten(0, 1)),
        lambda o, t: F.cross_entropy(o, t.T.flatten(), reduction="sum"),
        pairs(TOKENS, *Z),
        divisor=N,
    ),
    Problem("a sum of shape (1,)", mlp(1), lambda o, t: (o - t).square().sum(0), pairs(drawn(N, 1)), divisor=N),
    Problem(
        "an auxiliary sum from the model",
        ending(lambda o: (o, o.square().sum())),
        lambda o, t: F.cross_entropy(o[0], t, reduction="sum") + 0.1 * o[1],
        pairs(LABELS),
        divisor=N,
    ),
    graphs("graphs summed", lambda m, b: _of_graphs(m, b, "sum"), expected="refused"),
]
NEITHER = [
    refused("a sum and l2", lambda m, b: F.cross_entropy(m(b["x"]), b["y"], reduction="sum") + _penalty(m)),
    refused("a mean and a small sum", lambda m, b: F.cross_entropy(o := m(b["x"]), b["y"]) + 1e-3 * o.abs().sum()),
    graphs("graphs, by hand", lambda m, b: _of_graphs(m, b, "none").square().mean(), expected="either"),
    Problem("means of two devices", mlp(), _devices, records(), step=True, expected="either"),
    Problem("a token mean by hand", mlp(), _token_mean, records(HOLES, *Z), step=True, expected="told of batches"),
    Problem(
        "a token mean by hand, padded late",
        mlp(),
        _token_mean,
        records(LATE_TOKENS, *Z),
        step=True,
        expected="told of batches",
    ),
    Problem("smoothed with padding", mlp(), _smoothed, pairs(LATE_TOKENS, *Z), expected="told of batches"),
    Problem(
        "ignored late, a coefficient",
        mlp(),
        lambda m, b: 0.5 * F.cross_entropy(m(b["x"]), b["y"]),
        records(LATE),
        step=True,
    ),
    told("root of a mean", lambda o, t: F.cross_entropy(o, t).sqrt()),
    told("norm of all", lambda o, t: (o - t).norm(), REAL),
    told("dice of the batch and a mean", lambda o, t: F.mse_loss(o, t) + _dice(o, t, 0), BITS),
    told("the hardest half", lambda o, t: F.cross_entropy(o, t, reduction="none").topk((len(t) + 1) // 2)[0].mean()),
    told(
        "class weights from the batch",
        lambda o, t: F.cross_entropy(o, t, 1 / t.bincount(minlength=CLASSES).clamp(min=1).to(o)),
    ),
    Problem(
        "sigmoids of all pairs",
        mlp(),
        lambda o, t: -F.logsigmoid((o @ t.T) * (2 * torch.eye(len(o)).to(o) - 1)).sum() / len(o),
        pairs(REAL),
        whole=False,
        expected="either",
    ),
]
PUBLIC = [*MEANS, *SUMS, *NEITHER]
