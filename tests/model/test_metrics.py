"""The accuracy where it certainly is one, none elsewhere, and ratios of sums with their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossatlas.errors import InputError, ReductionWarning
from lossatlas.objective import Objective

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 4, generator=GENERATOR)
Y = torch.randint(0, 3, (40,), generator=GENERATOR)
BITS = (torch.rand(40, 3, generator=GENERATOR) > 0.5).float()


def model(m):
    torch.manual_seed(m)
    return nn.Linear(4, m)


def logit_loss(o, t):
    return F.binary_cross_entropy_with_logits(o.squeeze(1), t.float())


def focal(o, t):
    return ((1 - o.softmax(1).gather(1, t[:, None])[:, 0]) ** 2 * F.cross_entropy(o, t, reduction="none")).mean()


def pinball(o, t):
    apart = t[:, None] - o
    return torch.maximum(torch.tensor([0.1, 0.5, 0.9]) * apart, torch.tensor([-0.9, -0.5, -0.1]) * apart).mean(1)


ACCURACIES = {
    "classes": (F.cross_entropy, 3, Y, lambda o: o.argmax(1) == Y),
    "a loss of one's own for classes": (focal, 3, Y, lambda o: o.argmax(1) == Y),
    "one logit": (logit_loss, 1, (Y > 0).long(), lambda o: (o[:, 0] > 0) == (Y > 0)),
    "several labels": (F.binary_cross_entropy_with_logits, 3, BITS, lambda o: (o > 0) == (BITS > 0)),
}


@pytest.mark.parametrize("name", ACCURACIES)
def test_the_accuracy_is_the_share_of_right_predictions(name):
    loss, m, targets, right = ACCURACIES[name]
    metrics = Objective(model(m), loss, (X, targets), batch_size=7).evaluate().metrics
    assert metrics["accuracy"][0] == pytest.approx(right(model(m)(X)).float().mean().item(), rel=1e-6)


NONE = {
    "numbers": (F.mse_loss, 3, BITS),
    "counts": (lambda o, t: F.poisson_nll_loss(o, t[:, None].float()), 1, Y),
    "one column with classes": (F.cross_entropy, 1, torch.zeros(40).long()),
    "targets that are no classes": (lambda o, t: ((o - t[:, None]) ** 2).mean(), 3, Y),
    "outputs that are distances": (lambda o, t: o.gather(1, t[:, None]).mean(), 3, Y),
    "soft labels": (F.binary_cross_entropy_with_logits, 3, 0.5 * BITS),
    "quantiles of counts": (pinball, 3, Y),
    "values of actions": (lambda o, t: ((o.gather(1, t[:, None]) - 1) ** 2).mean(1), 3, Y),
    "one of several classes, or labels": (F.binary_cross_entropy_with_logits, 3, F.one_hot(Y, 3).float()),
}


@pytest.mark.parametrize("name", NONE)
def test_there_is_no_accuracy_where_it_is_not_certain(name):
    loss, m, targets = NONE[name]
    assert Objective(model(m), loss, (X, targets)).evaluate().metrics == {}


@pytest.mark.parametrize("size", [1, 4, 12])
@pytest.mark.parametrize("last", [True, False])
def test_the_accuracy_of_positions_is_over_those_that_the_loss_does_not_ignore(last, size):
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model(3)

        def forward(self, x):
            return self.inner(x) if last else self.inner(x).movedim(-1, 1)

    def loss(o, t):
        return F.cross_entropy(o.flatten(0, 1), t.flatten(), ignore_index=255) if last else criterion(o, t)

    criterion = nn.CrossEntropyLoss(ignore_index=255)
    x, t = torch.randn(12, 5, 4), torch.randint(0, 3, (12, 5))
    t[torch.rand(12, 5) < 0.4] = 255
    kept, found = t != 255, model(3)(x).argmax(-1)
    o = Objective(Positions(), loss, (x, t), batch_size=size)
    assert o.evaluate().metrics["accuracy"][0] == pytest.approx((found == t)[kept].float().mean().item(), rel=1e-6)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_pair_of_sums_and_counts_is_a_ratio_with_its_error(size):
    def overlap(o, t):
        one, other = o.argmax(1) == 1, t == 1
        return (one & other), (one | other)

    o = Objective(model(3), F.cross_entropy, (X, Y), metrics={"iou": overlap}, batch_size=size)
    sums, counts = (part.double() for part in overlap(model(3)(X), Y))
    ratio = (sums.sum() / counts.sum()).item()
    error = (40 / 39 * ((sums - ratio * counts) ** 2).sum()).sqrt() / counts.sum()
    np.testing.assert_allclose(o.evaluate().metrics["iou"], (ratio, error.item()), rtol=1e-9)


def test_a_ratio_can_be_given_for_whole_batches():
    def overlap(o, t):
        return ((o.argmax(1) == 1) & (t == 1)).sum(), ((o.argmax(1) == 1) | (t == 1)).sum()

    o = Objective(model(3), F.cross_entropy, (X, Y), metrics={"iou": overlap}, batch_size=7)
    sums, counts = overlap(model(3)(X), Y)
    assert o.evaluate().metrics["iou"][0] == pytest.approx((sums / counts).item())


def test_class_weights_of_the_loss_are_none_of_the_accuracy():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 30.0, 2.0]))
    o = Objective(model(3), loss, (X, Y), batch_size=7)
    right = (model(3)(X).argmax(1) == Y).double()
    expected = (right.mean().item(), right.std().item() / 40**0.5)
    np.testing.assert_allclose(o.evaluate().metrics["accuracy"], expected, rtol=1e-6)


@pytest.mark.parametrize("value", [torch.zeros(3), 0.5, (torch.zeros(40), torch.zeros(3)), (torch.zeros(40),) * 3])
def test_what_is_no_metric_is_refused_with_what_may_be_returned(value):
    with pytest.raises(InputError, match=r"metric 'mine' gave .* return .*sums, counts"):
        Objective(model(3), F.cross_entropy, (X, Y), metrics={"mine": lambda o, t: value})


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"loss": lambda o, t: o[:, 0]}, "cannot be called 'loss'"),
        ("accuracy", "give a dict"),
        (["accuracy"], "'auto'"),
    ],
)
def test_metrics_that_are_none_are_refused(metrics, said):
    with pytest.raises(InputError, match=said):
        Objective(model(3), F.cross_entropy, (X, Y), metrics=metrics)


def test_a_metric_that_compares_all_examples_with_all_is_warned_of():
    o, y = model(1), torch.rand(40)
    with pytest.warns(ReductionWarning, match=r"\(40, 1\) and \(40,\)"):
        Objective(o, lambda o, t: F.mse_loss(o[:, 0], t), (X, y), metrics={"mae": lambda o, t: (o - t).abs().mean(1)})
