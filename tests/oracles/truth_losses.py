"""Problems of every kind of loss, of reductions and of shapes of outputs and targets, on small networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracles.architectures import Written
from oracles.truth import N, Problem

POSITIONS, CLASSES = 5, 3
WEIGHTS = torch.tensor([0.2, 1.0, 3.5])


def drawn(*shape: int, seed: int = 1) -> Tensor:
    """Normal numbers in float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 2) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def whole(below: int, *shape: int, seed: int = 4) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def ignored(targets: Tensor, number: int, many: int = 5) -> Tensor:
    """Some targets replaced, in the first half more than in the second."""
    order = torch.randperm(targets.numel(), generator=torch.Generator().manual_seed(6))
    order = order[order < targets.numel() * 2 // 3][:many]
    return targets.flatten().index_fill(0, order, number).view_as(targets)


def mlp(outputs: int = CLASSES, inputs: int = 4) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs))


def ending(last: Callable[[Tensor], Any], outputs: int = CLASSES, inputs: int = 4) -> Callable[[], nn.Module]:
    """An MLP and what is made of its outputs."""
    return lambda: Written(lambda m, x: last(m.body(x)), body=mlp(outputs, inputs)())


def pairs(targets: Tensor, *shape: int) -> Callable[[], Any]:
    return lambda: (drawn(*(shape or (N, 4))), targets)


X = (N, 4)
LABELS, SIGNS = whole(CLASSES, N), 2.0 * whole(2, N) - 1
SOFT, REAL, COUNTS, BITS = drawn(N, 3).softmax(1), drawn(N, 3, seed=5), whole(4, N, 1).float(), whole(2, N, 3).float()
SKEWED = torch.cat([torch.full((4,), -100), LABELS[4:]])  # a batch of nothing but ignored targets
TOKENS, PIXELS = whole(CLASSES, N, POSITIONS), whole(CLASSES, N, 3, 2)


def classes(name: str, loss: Any, targets: Tensor = LABELS, **options: Any) -> Problem:
    return Problem(name, mlp(), loss, pairs(targets), **options)


CE = [
    classes("ce", F.cross_entropy),
    classes("ce of a module", nn.CrossEntropyLoss()),
    classes("ce summed", nn.CrossEntropyLoss(reduction="sum"), divisor=N),
    classes("ce summed by hand", lambda o, t: F.cross_entropy(o, t, reduction="none").sum(), divisor=N),
    classes("ce of each", nn.CrossEntropyLoss(reduction="none")),
    classes("ce with class weights", nn.CrossEntropyLoss(weight=WEIGHTS)),
    classes("ce with class weights, a function", lambda o, t: F.cross_entropy(o, t, weight=WEIGHTS.to(o))),
    classes("ce with class weights, summed", nn.CrossEntropyLoss(weight=WEIGHTS, reduction="sum"), divisor=N),
    classes("ce with ignored targets", nn.CrossEntropyLoss(), ignored(LABELS, -100)),
    classes("ce with ignored targets summed", nn.CrossEntropyLoss(ignore_index=1, reduction="sum"), divisor=N),
    classes("ce with a batch all ignored", F.cross_entropy, SKEWED),
    classes("ce smoothed", nn.CrossEntropyLoss(label_smoothing=0.1)),
    classes("ce smoothed, weighted, ignored", nn.CrossEntropyLoss(WEIGHTS, ignore_index=2, label_smoothing=0.2)),
    classes("ce of soft targets", F.cross_entropy, SOFT),
    classes("ce of soft targets with class weights", nn.CrossEntropyLoss(WEIGHTS), SOFT),
    classes("nll", lambda o, t: F.nll_loss(o.log_softmax(1), t)),
    classes("nll with weights", lambda o, t: F.nll_loss(o.log_softmax(1), t, weight=WEIGHTS.to(o))),
    classes(
        "focal by hand",
        lambda o, t: (lambda c: ((1 - (-c).exp()) ** 2 * c).mean())(F.cross_entropy(o, t, reduction="none")),
    ),
    classes(
        "ce and a penalty on the logits",
        lambda o, t: F.cross_entropy(o, t, weight=WEIGHTS.to(o)) + 0.1 * o.square().mean(),
        expected="either",
    ),
    classes(
        "class weights by hand",
        lambda o, t: (lambda w: (w * F.cross_entropy(o, t, reduction="none")).sum() / w.sum())(WEIGHTS.to(o)[t]),
        expected="either",
    ),
    classes("margins of classes", nn.MultiMarginLoss(margin=0.7)),
    classes(
        "class weights left in float32",
        lambda o, t: F.cross_entropy(o, t, weight=WEIGHTS),
        expected="either",
        truth=lambda f, b: F.cross_entropy(f(b[0]), b[1], weight=WEIGHTS.double()),
    ),
]

BINARY = [
    Problem("bce of one logit", mlp(1), nn.BCEWithLogitsLoss(), pairs(whole(2, N, 1).float())),
    Problem(
        "bce of one flat logit",
        ending(lambda o: o[:, 0], 1),
        F.binary_cross_entropy_with_logits,
        pairs(whole(2, N).float()),
    ),
    Problem(
        "bce squeezed in the loss",
        mlp(1),
        lambda o, t: F.binary_cross_entropy_with_logits(o.squeeze(1), t.to(o)),
        pairs(whole(2, N)),
    ),
    Problem("bce with pos_weight", mlp(3), nn.BCEWithLogitsLoss(pos_weight=WEIGHTS), pairs(BITS)),
    Problem("bce with weights", mlp(3), nn.BCEWithLogitsLoss(weight=WEIGHTS), pairs(BITS)),
    Problem("bce of many labels summed", mlp(3), nn.BCEWithLogitsLoss(reduction="sum"), pairs(BITS), divisor=N),
    Problem("bce of probabilities", ending(torch.sigmoid), nn.BCELoss(), pairs(BITS)),
    Problem("soft margin", ending(lambda o: o[:, 0], 1), nn.SoftMarginLoss(), pairs(SIGNS)),
    Problem("soft margin of many labels", mlp(3), nn.MultiLabelSoftMarginLoss(), pairs(BITS)),
    Problem(
        "hinge by hand", ending(lambda o: o[:, 0], 1), lambda o, t: F.relu(1 - o * t).square().mean(), pairs(SIGNS)
    ),
]

NUMBERS = [
    Problem("mse of a column", mlp(1), F.mse_loss, pairs(drawn(N, 1))),
    Problem("mse of a vector", mlp(3), nn.MSELoss(), pairs(REAL)),
    Problem("mse summed", mlp(3), nn.MSELoss(reduction="sum"), pairs(REAL), divisor=N),
    Problem("mse of each", mlp(3), nn.MSELoss(reduction="none"), pairs(REAL)),
    Problem("mse flat", ending(lambda o: o[:, 0], 1), F.mse_loss, pairs(drawn(N))),
    Problem("mse that broadcasts", mlp(1), F.mse_loss, pairs(drawn(N)), expected="told"),
    Problem(
        "square error by hand, that broadcasts",
        mlp(1),
        lambda o, t: ((o - t) ** 2).mean(),
        pairs(drawn(N)),
        expected="told",
    ),
    Problem("mse over dims", mlp(3), lambda o, t: ((o - t) ** 2).sum(1).mean(), pairs(REAL)),
    Problem("half the square, summed", mlp(3), lambda o, t: 0.5 * ((o - t) ** 2).sum(), pairs(REAL), divisor=N),
    Problem("rmse", mlp(3), lambda o, t: F.mse_loss(o, t).sqrt(), pairs(REAL), expected="either"),
    Problem("huber", mlp(3), nn.HuberLoss(delta=0.4), pairs(REAL)),
    Problem("smooth l1", mlp(3), nn.SmoothL1Loss(beta=0.3), pairs(REAL)),
    Problem("l1", mlp(3), nn.L1Loss(), pairs(REAL)),
    Problem("log cosh", mlp(3), lambda o, t: (o - t).cosh().log().mean(), pairs(REAL)),
    Problem("poisson", mlp(1), nn.PoissonNLLLoss(), pairs(COUNTS)),
    Problem("poisson, full, summed", mlp(1), nn.PoissonNLLLoss(full=True, reduction="sum"), pairs(COUNTS), divisor=N),
    Problem("gaussian", mlp(2), lambda o, t: F.gaussian_nll_loss(o[:, :1], t, o[:, 1:].exp()), pairs(drawn(N, 1))),
    Problem(
        "gaussian of a tuple",
        ending(lambda o: (o[:, :1], o[:, 1:].exp()), 2),
        lambda o, t: nn.GaussianNLLLoss()(o[0], t, o[1]),
        pairs(drawn(N, 1)),
    ),
    Problem(
        "quantiles", mlp(3), lambda o, t: (lambda e: torch.maximum(e * 0.9, e * -0.1).mean())(t - o), pairs(drawn(N, 1))
    ),
    Problem("kl batchmean", ending(lambda o: o.log_softmax(1)), nn.KLDivLoss(reduction="batchmean"), pairs(SOFT)),
    Problem("kl summed", ending(lambda o: o.log_softmax(1)), nn.KLDivLoss(reduction="sum"), pairs(SOFT), divisor=N),
    Problem("weighted mse by hand", mlp(1), lambda o, t: (t[:, 1:] * (o - t[:, :1]) ** 2).mean(), pairs(uniform(N, 2))),
    Problem(
        "cox, of the batch",
        mlp(1),
        lambda o, t: (o.logcumsumexp(0) - o).mul(t).mean(),
        pairs(whole(2, N, 1).float()),
        whole=False,
        expected="either",
    ),
]


def _info_nce(o: Any, t: Tensor) -> Tensor:
    scores = F.normalize(o, dim=1) @ F.normalize(t, dim=1).T / 0.3
    return F.cross_entropy(scores, torch.arange(len(o)))


def _batch_hard(e: Tensor, y: Tensor) -> Tensor:
    d, same = (e[:, None] - e[None]).square().sum(-1), y[:, None] == y[None]
    return F.relu(torch.where(same, d, 0 * d).amax(1) - torch.where(same, d + 1e6, d).amin(1) + 0.5).mean()


def _supervised(e: Tensor, y: Tensor) -> Tensor:
    scores = (F.normalize(e, dim=1) @ F.normalize(e, dim=1).T / 0.5).fill_diagonal_(-1e9)
    same = (y[:, None] == y[None]).to(e).fill_diagonal_(0)
    return -(scores.log_softmax(1) * same).sum(1).div(same.sum(1).clamp(min=1)).mean()


def _dice(o: Tensor, t: Tensor) -> Tensor:
    p = o.sigmoid()
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def _triple(m: Any, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return m.body(a), m.body(b), m.body(c)


class Views(nn.Module):
    """One network on several inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()()

    def forward(self, *views: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(self.body, views))


def views(count: int, targets: Tensor = LABELS) -> Callable[[], Any]:
    return lambda: (tuple(drawn(N, 4, seed=20 + i) for i in range(count)), targets)


OF_BATCHES = [
    Problem("in-batch negatives", mlp(), _info_nce, pairs(REAL), whole=False),
    Problem("batch-hard triplets", mlp(), _batch_hard, pairs(LABELS), whole=False),
    Problem("supervised contrast", mlp(), _supervised, pairs(LABELS), whole=False),
    Problem("dice of the batch", mlp(), _dice, pairs(BITS), whole=False, expected="either"),
    Problem(
        "dice of each", mlp(), lambda o, t: torch.stack([_dice(a, b) for a, b in zip(o, t, strict=True)]), pairs(BITS)
    ),
    Problem(
        "correlation of the batch",
        mlp(1),
        lambda o, t: 1 - F.cosine_similarity(o - o.mean(0), t - t.mean(0), dim=0).mean(),
        pairs(drawn(N, 1)),
        whole=False,
    ),
    Problem("triplets of three views", Views, lambda o, t: F.triplet_margin_loss(*o, margin=0.8), views(3)),
    Problem("cosine of two views", Views, lambda o, t: F.cosine_embedding_loss(*o, t), views(2, SIGNS)),
    Problem(
        "ranking of two views",
        Views,
        lambda o, t: F.margin_ranking_loss(o[0][:, 0], o[1][:, 0], t, 0.3),
        views(2, SIGNS),
    ),
    Problem(
        "distance of two views",
        Views,
        lambda o, t: F.hinge_embedding_loss((o[0] - o[1]).abs().sum(1), t),
        views(2, SIGNS),
    ),
]


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


Z = (N, POSITIONS, 4)
HOLES = ignored(TOKENS, -100, 17)
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

LOSSES = [*CE, *BINARY, *NUMBERS, *OF_BATCHES, *SHAPES]
