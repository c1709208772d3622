"""Problems of shapes of outputs and targets: positions, pixels, flattened ones, tuples, dicts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracles.truth import N, Problem
from oracles.truth_data import (
    HOLES,
    LABELS,
    PIXELS,
    POSITIONS,
    REAL,
    TOKENS,
    WEIGHTS,
    X,
    Z,
    drawn,
    ending,
    ignored,
    mlp,
    pairs,
    whole,
)


def _masked(o: Tensor, t: Tensor) -> Tensor:
    kept = (t >= 0).to(o)
    return (
        F.cross_entropy(o.flatten(0, 1), t.flatten().clamp(min=0), reduction="none") * kept.flatten()
    ).sum() / kept.sum()


def _flat_tokens(data: Any, size: int) -> list[Any]:
    return [(data[0][i : i + size], data[1][i * POSITIONS : (i + size) * POSITIONS]) for i in range(0, N, size)]


def _time_first(data: Any, size: int) -> list[Any]:
    return [(data[0][:, i : i + size], data[1][i : i + size]) for i in range(0, N, size)]


def _ctc(o: Tensor, t: Tensor) -> Tensor:
    lengths = torch.full((len(t),), o.shape[1]), torch.full((len(t),), t.shape[1])
    return F.ctc_loss(o.log_softmax(-1).transpose(0, 1), t, *lengths)


SHAPES = [
    Problem("a token each", ending(lambda o: o.transpose(1, 2)), F.cross_entropy, pairs(TOKENS, *Z)),
    Problem("a token each, ignored", ending(lambda o: o.transpose(1, 2)), F.cross_entropy, pairs(HOLES, *Z)),
    Problem(
        "a token each, flattened in the loss",
        mlp(),
        lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()),
        pairs(HOLES, *Z),
    ),
    Problem(
        "a token each, shifted",
        mlp(),
        lambda o, t: F.cross_entropy(o[:, :-1].flatten(0, 1), t[:, 1:].flatten(), ignore_index=0),
        pairs(TOKENS, *Z),
    ),
    Problem("a token each, masked by hand", mlp(), _masked, pairs(HOLES, *Z), expected="either"),
    Problem(
        "tokens summed",
        ending(lambda o: o.transpose(1, 2)),
        nn.CrossEntropyLoss(reduction="sum"),
        pairs(TOKENS, *Z),
        divisor=N,
    ),
    Problem(
        "outputs flattened, summed",
        ending(lambda o: o.flatten(0, 1)),
        lambda o, t: F.cross_entropy(o, t.flatten(), reduction="sum"),
        pairs(TOKENS, *Z),
        divisor=N,
    ),
    Problem(
        "outputs flattened, mean",
        ending(lambda o: o.flatten(0, 1)),
        lambda o, t: F.cross_entropy(o, t.flatten()),
        pairs(HOLES, *Z),
    ),
    Problem(
        "outputs and targets flattened, mean",
        ending(lambda o: o.flatten(0, 1)),
        F.cross_entropy,
        pairs(TOKENS.flatten(), *Z),
        split=_flat_tokens,
    ),
    Problem(
        "outputs and targets flattened, summed",
        ending(lambda o: o.flatten(0, 1)),
        nn.CrossEntropyLoss(reduction="sum"),
        pairs(TOKENS.flatten(), *Z),
        split=_flat_tokens,
        divisor=N,
    ),
    Problem(
        "time first",
        ending(lambda o: o.mean(0)),
        F.cross_entropy,
        lambda: (drawn(POSITIONS, N, 4), LABELS),
        split=_time_first,
    ),
    Problem(
        "a pixel each",
        lambda: nn.Conv2d(2, 3, 1),
        nn.CrossEntropyLoss(ignore_index=255),
        pairs(ignored(PIXELS, 255, 25), N, 2, 3, 2),
    ),
    Problem(
        "a pixel each, weighted", lambda: nn.Conv2d(2, 3, 1), nn.CrossEntropyLoss(WEIGHTS), pairs(PIXELS, N, 2, 3, 2)
    ),
    Problem(
        "a pixel each, weighted, summed",
        lambda: nn.Conv2d(2, 3, 1),
        nn.CrossEntropyLoss(WEIGHTS, reduction="sum"),
        pairs(PIXELS, N, 2, 3, 2),
        divisor=N,
    ),
    Problem(
        "a pixel each, bits",
        lambda: nn.Conv2d(2, 1, 3, padding=1),
        nn.BCEWithLogitsLoss(),
        pairs(whole(2, N, 1, 3, 2).float(), N, 2, 3, 2),
    ),
    Problem(
        "a pixel each, of each",
        lambda: nn.Conv2d(2, 3, 1),
        nn.CrossEntropyLoss(reduction="none"),
        pairs(PIXELS, N, 2, 3, 2),
    ),
    Problem(
        "images summed",
        lambda: nn.Conv2d(2, 2, 3, padding=1),
        nn.MSELoss(reduction="sum"),
        pairs(drawn(N, 2, 3, 2), N, 2, 3, 2),
        divisor=N,
    ),
    Problem("ctc", mlp(), _ctc, pairs(1 + whole(2, N, 2), *Z), expected="either"),
    Problem(
        "a tuple of outputs",
        ending(lambda o: (o, o.tanh())),
        lambda o, t: F.cross_entropy(o[0], t) + 0.1 * o[1].square().mean(),
        pairs(LABELS),
    ),
    Problem(
        "a tuple of outputs, summed",
        ending(lambda o: (o, o.tanh())),
        lambda o, t: F.cross_entropy(o[0], t, reduction="sum") + 0.1 * o[1].square().sum(),
        pairs(LABELS),
        divisor=N,
    ),
    Problem(
        "a dict of outputs",
        ending(lambda o: {"logits": o}),
        lambda o, t: F.cross_entropy(o["logits"], t, WEIGHTS.to(o["logits"])),
        pairs(LABELS),
    ),
    Problem(
        "a dict of outputs, summed",
        ending(lambda o: {"mean": o, "spread": o}),
        lambda o, t: (o["mean"] - t).square().sum() + o["spread"].square().sum(),
        pairs(REAL),
        divisor=N,
    ),
    Problem(
        "two kinds of targets",
        ending(lambda o: (o[:, :3], o[:, 3:]), 5),
        lambda o, t: F.cross_entropy(o[0], t[0]) + F.mse_loss(o[1], t[1]),
        lambda: (drawn(*X), (LABELS, drawn(N, 2))),
    ),
    Problem(
        "two kinds of targets, ignored",
        ending(lambda o: (o[:, :3], o[:, 3:]), 5),
        lambda o, t: F.cross_entropy(o[0], t[0], WEIGHTS.to(o[0])) + F.mse_loss(o[1], t[1]),
        lambda: (drawn(*X), (ignored(LABELS, -100), drawn(N, 2))),
        expected="either",
    ),
    Problem(
        "targets in a dict",
        ending(lambda o: (o[:, :3], o[:, 3:]), 5),
        lambda o, t: F.cross_entropy(o[0], t["class"], reduction="sum") + F.mse_loss(o[1], t["box"], reduction="sum"),
        lambda: (drawn(*X), {"class": LABELS, "box": drawn(N, 2)}),
        divisor=N,
    ),
]
