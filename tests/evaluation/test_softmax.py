"""The closed form of a cross-entropy's Hessian in its logits, against autograd's."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from oracles.plain import columns, normal
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import lossatlas as la
from lossatlas.errors import InputError
from lossatlas.evaluation.products import linearised, softmax
from lossatlas.evaluation.products.softmax import softmax_slope

PLACES = torch.arange(12).reshape(6, 2) % 3
SOME = torch.where(torch.arange(12).reshape(6, 2) % 5 == 3, -100, PLACES)
CLASSES = torch.arange(6) % 3


def tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=-100)


def next_tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    return tokens(outputs[:, :-1], targets[:, 1:])


def focal(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = F.cross_entropy(outputs, targets, reduction="none")
    return (1 - (-losses).exp()) ** 2 * losses


def penalised(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none") + 0.1 * outputs.logsumexp(1) ** 2


RECOGNISED = {
    "classes": (F.cross_entropy, (3,), CLASSES),
    "a sum": (nn.CrossEntropyLoss(reduction="sum"), (3,), CLASSES),
    "half of it": (lambda o, t: 0.5 * F.cross_entropy(o, t), (3,), CLASSES),
    "an example ignored": (nn.CrossEntropyLoss(ignore_index=-1), (3,), torch.where(CLASSES == 2, -1, CLASSES)),
    "weighted classes": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 1.0]).double()), (3,), CLASSES),
    "classes in the middle": (F.cross_entropy, (3, 2), SOME),
    "tokens": (tokens, (2, 3), PLACES),
    "tokens, some ignored": (tokens, (2, 3), SOME),
    "next tokens": (next_tokens, (2, 3), PLACES),
    "next tokens, some ignored": (next_tokens, (4, 3), torch.where(torch.arange(24) % 7 == 3, -100, 1).reshape(6, 4)),
    "log-probabilities by the loss": (lambda o, t: F.nll_loss(o.log_softmax(1), t), (3,), CLASSES),
}
OTHERS = {
    "smoothed labels": (nn.CrossEntropyLoss(label_smoothing=0.1), (3,), CLASSES),
    "a penalty": (penalised, (3,), CLASSES),
    "focal": (focal, (3,), CLASSES),
    "class probabilities": (F.cross_entropy, (3,), normal(6, 3).softmax(1)),
    "squares": (F.mse_loss, (3,), normal(6, 3)),
}


def objective(loss, shape: tuple[int, ...], targets: Tensor) -> la.Objective:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, math.prod(shape)), nn.Unflatten(1, shape)).double()
    return la.Objective(model, loss, (normal(6, 2), targets), batch_size=4, check=False)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Small problems are taken as large ones and cut into pieces; whether the closed form was used, for each batch."""
    used = list[bool]()

    def seen(*args):
        slope = softmax_slope(*args)
        used.append(slope is not None)
        return slope

    monkeypatch.setattr(softmax, "LARGE", 1)
    monkeypatch.setattr(softmax, "PIECE", 9)
    monkeypatch.setattr(linearised, "softmax_slope", seen)
    return used


@pytest.mark.parametrize("problem", RECOGNISED)
def test_products_are_those_of_autograd(problem, small, monkeypatch):
    o = objective(*RECOGNISED[problem])
    found = columns(la.gauss_newton(o))
    assert small == [True, True]
    monkeypatch.setattr(softmax, "LARGE", 10**9)
    torch.testing.assert_close(found, columns(la.gauss_newton(o)), rtol=1e-10, atol=1e-14)
    assert small == [True, True, False, False]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own rules of forward mode
def test_large_logits_are_refused_to_a_trace_alone(small):
    o = objective(*RECOGNISED["classes"])
    form, batch, vector = linearised.GaussNewton(o.function), next(iter(o.batches)), normal(o.n_parameters)
    kept = form.kept(o.point, batch, 0)
    torch.testing.assert_close(form.direct(o.point, batch, 0, vector), kept(vector), rtol=1e-10, atol=1e-14)
    with pytest.raises(InputError, match="in closed form, piece by piece"):
        make_fx(lambda v: form.direct(o.point, batch, 0, v))(vector)


@pytest.mark.parametrize("problem", OTHERS)
def test_other_losses_are_left_to_autograd(problem, small):
    columns(la.gauss_newton(objective(*OTHERS[problem])))
    assert not any(small)


def test_the_weight_of_a_class_shows_although_one_row_alone_is_of_it():
    weight = torch.ones(30_000)
    weight[69] = 1.5
    f, targets = normal(70, 30_000).float().requires_grad_(), torch.arange(70)
    slopes = [softmax_slope(nn.CrossEntropyLoss(weight=w, reduction="none"), f, targets) for w in (None, weight)]
    plain, weighted = (torch.autograd.grad(slope, f, normal(70, 30_000, seed=1).float())[0] for slope in slopes)
    torch.testing.assert_close(weighted[:69], plain[:69])
    torch.testing.assert_close(weighted[69], 1.5 * plain[69])
    assert softmax_slope(nn.CrossEntropyLoss(reduction="none"), f[:30], targets[:30]) is None  # not worth it


def test_rows_that_are_certain_have_the_weight_of_the_others():
    f = 5 * normal(70, 30_000).float()
    f[:60].scatter_(1, torch.arange(60)[:, None], 60.0)  # p = 1 to all digits, and the others 1e-17 at most
    u = normal(70, 30_000, seed=1).float()
    slope = softmax_slope(lambda o, t: F.cross_entropy(o, t, reduction="none"), f.requires_grad_(), torch.arange(70))
    (found,) = torch.autograd.grad(slope, f, u)
    p = f.detach().double().softmax(1)
    truth = (p * u - p * (p * u).sum(1, keepdim=True)) / 70
    others = torch.ones_like(truth, dtype=torch.bool).scatter_(1, torch.arange(70)[:, None], False)
    off = torch.where(others, found.double() - truth, 0).norm(dim=1)
    assert bool((off <= 1e-4 * torch.where(others, truth, 0).norm(dim=1)).all())


def test_large_logits_give_the_same_product_in_pieces_and_leave_the_vector_as_it_was():
    f, u = normal(70, 30_000).requires_grad_(), normal(70, 30_000, seed=1)
    before = u.clone()
    slope = softmax_slope(lambda o, t: F.cross_entropy(o, t, reduction="none"), f, torch.arange(70))
    (found,) = torch.autograd.grad(slope, f, u)
    p = f.detach().softmax(1)
    torch.testing.assert_close(found, (p * u - p * (p * u).sum(1, keepdim=True)) / 70, rtol=1e-9, atol=1e-15)
    assert torch.equal(u, before)
