"""Problems of losses of single examples: of classes, of 0 and 1, of numbers, with every reduction."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracles.truth import N, Problem
from oracles.truth_data import (
    BITS,
    COUNTS,
    LABELS,
    REAL,
    SIGNS,
    SKEWED,
    SOFT,
    WEIGHTS,
    drawn,
    ending,
    ignored,
    mlp,
    pairs,
    uniform,
    whole,
)


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


LOSSES = [*CE, *BINARY, *NUMBERS]
