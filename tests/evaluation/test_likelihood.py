"""Targets drawn from the model: their distribution, and the Fisher matrix that they make."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from oracles.plain import normal
from torch import Tensor, nn

import lossatlas as la
from lossatlas.curvature.operators import drawn_batches, matrix_products
from lossatlas.errors import InputError
from lossatlas.evaluation.products.likelihood import draw
from lossatlas.objective import Objective

SIGMAS = 4.5  # of a normal variable: beyond with a chance of 7e-6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def each_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def test_classes_come_as_often_as_the_softmax_says():
    logits, count = normal(4), 20_000
    drawn = draw(
        each_cross_entropy, logits.expand(count, 4), torch.zeros(count, dtype=torch.int64), generator()
    ).targets
    chances = logits.softmax(0)
    shares = torch.bincount(drawn, minlength=4) / count
    assert bool(((shares - chances).abs() < SIGMAS * (chances * (1 - chances) / count).sqrt()).all())


@pytest.mark.parametrize("shape", [(20_000, 1), (20_000,)])
def test_zeros_and_ones_come_as_often_as_the_sigmoid_says(shape):
    def losses(f: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(f, y, reduction="none").flatten()

    drawn = draw(losses, torch.full(shape, 0.7, dtype=torch.float64), torch.zeros(shape), generator()).targets
    chance = 1 / (1 + math.exp(-0.7))
    assert drawn.shape == shape
    assert drawn.dtype == torch.float32
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert abs(float(drawn.mean()) - chance) < SIGMAS * math.sqrt(chance * (1 - chance) / shape[0])


@pytest.mark.parametrize(("scale", "variance"), [(0.5, 1.0), (2.0, 0.25)])
def test_numbers_have_the_variance_that_the_loss_implies(scale, variance):
    f = normal(10_000, 2)
    drawn = draw(lambda o, t: scale * ((o - t) ** 2).sum(1), f, torch.zeros_like(f), generator()).targets
    noise = drawn - f
    assert abs(float(noise.mean())) < SIGMAS * math.sqrt(variance / noise.numel())
    assert abs(float((noise**2).mean()) - variance) < SIGMAS * variance * math.sqrt(2 / noise.numel())
    assert abs(float((noise[:, 0] * noise[:, 1]).mean())) < SIGMAS * variance / math.sqrt(len(noise))


def perceptron(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, outputs)).double()


def per_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).sum(1)


PROBLEMS = {
    "cross-entropy": (F.cross_entropy, 3, torch.arange(24) % 3),
    "mean squared error": (F.mse_loss, 2, normal(24, 2)),
    "squared error summed over outputs": (per_output, 2, normal(24, 2)),
    "half the squared error": (lambda o, t: 0.5 * F.mse_loss(o, t), 1, normal(24, 1)),
    "binary cross-entropy": (F.binary_cross_entropy_with_logits, 1, (torch.arange(24.0)[:, None] % 2).double()),
}


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if "cross-entropy" not in p])  # below, without chance
def test_the_sampled_fisher_matrix_tends_to_the_gauss_newton_matrix(problem):
    loss, outputs, targets = PROBLEMS[problem]
    objective = Objective(perceptron(outputs), loss, (normal(24, 5), targets), batch_size=24)
    vectors = normal(4, objective.n_parameters, seed=9)
    exact = (la.gauss_newton(objective).rows(vectors) * vectors).sum(1)
    seeds = range(30)
    forms = torch.stack([(la.fisher(objective, draws=8, seed=s).rows(vectors) * vectors).sum(1) for s in seeds])
    stderr = forms.std(0) / math.sqrt(len(forms))
    assert bool(((forms.mean(0) - exact).abs() < 5 * stderr).all())  # Student's t of 29: beyond with a chance of 3e-5
    assert bool((stderr < 0.1 * exact).all())  # or the bound above would say nothing


def _shaped(*shape: int) -> nn.Module:
    """Outputs ``(N, *shape)``."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, math.prod(shape), bias=False), nn.Unflatten(1, shape)).double()


def _tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    """As language models compute it."""
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=-100)


def _next_tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    return _tokens(outputs[:, :-1], targets[:, 1:])


BITS, SOFT = torch.tensor([[0.0, 1, 1], [1, 0, 1]]).double(), torch.tensor([[0.3, 0.7, 0.9], [0.2, 0.5, 1.0]]).double()
PLACES, CHANCES = torch.tensor([[0, 2], [1, 1]]), normal(2, 3).softmax(1)
SOME = torch.tensor([[0, -100], [1, 1]])  # an ignored one

MANY_TERMS = {
    "a mean of several outputs": (F.binary_cross_entropy_with_logits, (3,), BITS),
    "a sum of several outputs": (nn.BCEWithLogitsLoss(reduction="sum"), (3,), BITS),
    "soft targets of 0 or 1": (F.binary_cross_entropy_with_logits, (3,), SOFT),
    "positions": (F.cross_entropy, (3, 2), PLACES),
    "a sum over positions": (nn.CrossEntropyLoss(reduction="sum"), (3, 2), PLACES),
    "positions, one ignored": (nn.CrossEntropyLoss(ignore_index=-100), (3, 2), SOME),
    "tokens": (_tokens, (2, 3), PLACES),
    "tokens, one ignored": (_tokens, (2, 3), SOME),
    "next tokens": (_next_tokens, (3, 3), torch.tensor([[0, 2, 1], [1, 1, 0]])),
    "next tokens, one ignored": (_next_tokens, (3, 3), torch.tensor([[0, 2, -100], [1, 1, 0]])),
    "an example ignored": (nn.CrossEntropyLoss(ignore_index=-1), (3,), torch.tensor([-1, 2])),
    "half the cross-entropy": (lambda o, t: 0.5 * F.cross_entropy(o, t), (3,), torch.tensor([1, 2])),
    "class probabilities": (F.cross_entropy, (3,), CHANCES),
    "class probabilities at positions": (F.cross_entropy, (3, 1), CHANCES[:, :, None]),
    "log-probabilities": (lambda o, t: F.nll_loss(o.log_softmax(1), t), (3,), torch.tensor([1, 2])),
}


@pytest.mark.parametrize("problem", MANY_TERMS)
def test_the_mean_over_all_targets_that_can_be_drawn_is_the_gauss_newton_matrix(problem):
    loss, shape, targets = MANY_TERMS[problem]
    model = _shaped(*shape)
    objective = Objective(model, loss, (normal(2, 2), targets))
    (drawn,) = drawn_batches(objective)
    eye, total, mass = torch.eye(objective.n_parameters).double(), 0.0, 0.0
    for y, chance in _all_targets(model(drawn.batch[0]).detach(), targets, binary=targets is BITS or targets is SOFT):
        batch = drawn._replace(batch=(drawn.batch[0], y))
        total = total + chance * matrix_products(objective, "sampled_fisher", data=[batch])(eye)
        mass += chance
    assert mass == pytest.approx(1)
    torch.testing.assert_close(total, la.gauss_newton(objective).rows(eye), rtol=1e-10, atol=1e-14)


def _all_targets(logits: Tensor, targets: Tensor, *, binary: bool):
    """Every pattern and its chance."""
    if binary:
        for bits in itertools.product((0.0, 1.0), repeat=targets.numel()):
            y = torch.tensor(bits).double().reshape(targets.shape)
            yield y, float((y * logits.sigmoid() + (1 - y) * (-logits).sigmoid()).prod())
        return
    axis = 2 if logits.shape[1:] in ((2, 3), (3, 3)) else 1
    rows = logits.softmax(axis).movedim(axis, -1).reshape(-1, 3)
    if logits.shape[1:] == (3, 3):  # next tokens
        for y, chance in _all_targets(logits[:, :-1], targets[:, 1:], binary=False):
            yield torch.cat([targets[:, :1], y], 1), chance
        return
    ignored = targets.flatten() < 0 if not targets.is_floating_point() else torch.zeros(len(rows), dtype=torch.bool)
    for chosen in itertools.product(*[[-1] if skip else range(3) for skip in ignored.tolist()]):
        index = torch.tensor(chosen)
        chance = float(rows[~ignored, index[~ignored]].prod())
        if targets.is_floating_point():
            yield torch.eye(3).double()[index].reshape(targets.shape), chance
        else:
            yield torch.where(ignored, targets.flatten(), index).reshape(targets.shape), chance


def test_drawn_targets_have_the_form_of_the_data_and_keep_what_is_ignored():
    for loss, shape, targets in MANY_TERMS.values():
        y = drawn_batches(Objective(_shaped(*shape), loss, (normal(2, 2), targets)), draws=3)[2].batch[1]
        assert y.shape == targets.shape
        assert y.dtype == targets.dtype
        assert torch.equal(y < 0, targets < 0)
        assert y.is_floating_point() is False or set(y.unique().tolist()) <= {0.0, 1.0}


def test_many_terms_come_as_often_as_the_outputs_say():
    def losses(f: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy(f, y, reduction="none").mean(1)

    chances = torch.tensor([0.1, 0.5, 0.8]).double()
    drawn = draw(losses, chances.expand(20_000, 3), torch.zeros(20_000, 3).double(), generator())
    y = drawn.targets
    assert bool(((y.mean(0) - chances).abs() < SIGMAS * (chances * (1 - chances) / len(y)).sqrt()).all())
    assert abs(float(torch.corrcoef(y.T)[0, 1])) < SIGMAS / math.sqrt(len(y))
    torch.testing.assert_close(drawn.coefficients, torch.full((20_000,), 1 / 3).double())


def test_a_seed_fixes_the_draws_and_another_changes_them():
    loss, outputs, targets = PROBLEMS["cross-entropy"]
    objective = Objective(perceptron(outputs), loss, (normal(24, 5), targets), batch_size=10)
    first, again, other = (
        torch.cat([y.batch[1] for y in drawn_batches(objective, draws=3, seed=s)]) for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:24], first[24:48])  # each draw is another one


def test_draws_are_taken_at_the_point_that_is_given():
    model = nn.Linear(2, 2, bias=False).double()
    objective = Objective(model, F.cross_entropy, (torch.eye(2).double(), torch.tensor([0, 1])))
    certain = 1000 * torch.tensor([0.0, 1.0, 1.0, 0.0]).double()  # example i is of class 1 - i
    assert drawn_batches(objective.at(certain))[0].batch[1].tolist() == [1, 0]


def _focal(losses: Tensor) -> Tensor:
    return (1 - (-losses).exp()) ** 2 * losses


REFUSED = {
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), torch.arange(24) % 3),
    "absolute error": (F.l1_loss, normal(24, 3)),
    "outputs of unequal weight": (
        lambda o, t: ((o - t) ** 2 * torch.tensor([1.0, 2.0, 3.0])).sum(1),
        normal(24, 3),
    ),
    "another weight of ones": (
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 1.0, 3.0]).double()),
        (normal(24, 3) > 0).double(),
    ),
    "outputs of unequal weight, of 0 or 1": (
        nn.BCEWithLogitsLoss(weight=torch.tensor([1.0, 1.0, 3.0]).double()),
        (normal(24, 3) > 0).double(),
    ),
    "focal": (lambda o, t: _focal(F.cross_entropy(o, t, reduction="none")), torch.arange(24) % 3),
    "a penalty on the outputs": (
        lambda o, t: F.cross_entropy(o, t, reduction="none") + o.logsumexp(1) ** 2,
        torch.arange(24) % 3,
    ),
    "weighted classes": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]).double(), reduction="none"),
        torch.arange(24) % 3,
    ),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_a_loss_that_is_no_likelihood_is_refused(problem):
    loss, targets = REFUSED[problem]
    objective = Objective(perceptron(3), loss, (normal(24, 5), targets))
    with pytest.raises(InputError, match="Targets cannot be drawn for this loss"):
        la.fisher(objective)


def test_a_loss_that_is_quadratic_only_near_zero_is_refused():
    objective = Objective(perceptron(1), nn.HuberLoss(delta=5.0), (normal(4, 5), normal(4, 1)))
    with pytest.raises(InputError, match="Targets cannot be drawn"):
        la.fisher(objective)


def test_a_loss_with_one_value_a_batch_is_refused():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]).double())
    with pytest.raises(InputError):
        la.fisher(Objective(perceptron(3), loss, (normal(24, 5), torch.arange(24) % 3)))


def test_a_step_is_refused_since_it_keeps_its_outputs_to_itself():
    batches = [(normal(24, 5), torch.arange(24) % 3)]
    objective = Objective.from_step(perceptron(3), lambda m, b: F.cross_entropy(m(b[0]), b[1]), batches)
    with pytest.raises(InputError, match="outputs apart from the loss"):
        la.fisher(objective)


def test_drawing_leaves_the_generators_and_the_data_as_they_were():
    targets = torch.arange(24) % 3
    objective = Objective(perceptron(3), F.cross_entropy, (normal(24, 5), targets), batch_size=10)
    before, value = torch.get_rng_state(), objective.value()
    drawn_batches(objective, draws=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert objective.value() == value


class Scaling(nn.Module):
    """Halves its inputs in place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mul_(0.5))


def test_a_model_that_writes_into_its_inputs_does_not_change_the_drawn_batches():
    objective = Objective(Scaling().double(), F.cross_entropy, (normal(24, 5), torch.arange(24) % 3), batch_size=10)
    drawn = drawn_batches(objective)
    assert torch.equal(torch.cat([one.batch[0] for one in drawn]), normal(24, 5))
