"""Of what a loss is a mean: L against the criterion on all data, whatever the batches, and what is refused."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossatlas.errors import InputError, ReductionWarning
from lossatlas.model.data.examples import examples_in
from lossatlas.objective import Objective

CLASS_WEIGHTS = torch.tensor([1.0, 30.0, 0.5])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(*shape, seed=1):
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed))


def model(n=4, m=3, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(n, m)


X, Y = draw(40, 4), classes(40).sort()[0]  # sorted: a first batch of one class tells nothing
IGNORED = torch.where(torch.arange(40) % 5 > 1, Y, -100)
IGNORED[30:37] = -100  # a whole batch of 7
SEQUENCE = draw(12, 5, 4)
TOKENS = torch.where(draw(12, 5, seed=3) > 0, classes(12, 5), -1)


def flattened(o, t):
    return F.cross_entropy(o.flatten(0, 1), t.flatten(), ignore_index=-1)


CRITERIA = {
    "class weights, a module": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), X, Y),
    "class weights, partial": (functools.partial(F.cross_entropy, weight=CLASS_WEIGHTS, label_smoothing=0.1), X, Y),
    "class weights, a lambda": (lambda o, t: F.nll_loss(o.log_softmax(1), t, weight=CLASS_WEIGHTS), X, Y),
    "ignored targets": (F.cross_entropy, X, IGNORED),
    "ignored and weighted": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), X, IGNORED),
    "targets that the loss shifts": (lambda o, t: F.cross_entropy(o, t - 1, ignore_index=-101), X, IGNORED + 1),
    "tokens": (flattened, SEQUENCE, TOKENS),
    "positive weight": (nn.BCEWithLogitsLoss(pos_weight=CLASS_WEIGHTS), X, F.one_hot(Y, 3).float()),
    "weighted squares": (
        lambda o, t: F.mse_loss(o, t, weight=(1 + t**2).detach()),
        X,
        draw(40, 3, seed=5),
    ),
}


@pytest.mark.parametrize("size", [1, 3, 7, 64])
@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_is_the_criterion_on_all_data_at_any_batch_size(name, size):
    loss, x, y = CRITERIA[name]
    if "shifts" in name:
        y = torch.where(y == -99, -100, y)
    net = model().double()
    o = Objective(net, loss_in_double(loss), (x.double(), doubled(y)), batch_size=size)
    whole = loss_in_double(loss)(net(x.double()), doubled(y))
    assert o.value() == pytest.approx(whole.item(), rel=1e-12)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(whole, list(net.parameters()))])
    torch.testing.assert_close(o.gradient(), expected, rtol=1e-10, atol=1e-12)


def doubled(y):
    return y.double() if y.is_floating_point() else y


def loss_in_double(loss):
    if isinstance(loss, nn.Module):
        return type(loss)(**{k: v.double() for k, v in loss.named_buffers()})
    if isinstance(loss, functools.partial):
        return functools.partial(loss.func, **{**loss.keywords, "weight": CLASS_WEIGHTS.double()})
    if loss is CRITERIA["class weights, a lambda"][0]:
        return lambda o, t: F.nll_loss(o.log_softmax(1), t, weight=CLASS_WEIGHTS.double())
    return loss


def test_products_with_the_hessian_are_those_of_the_criterion_on_all_data():
    net = model().double()
    loss = nn.CrossEntropyLoss(weight=CLASS_WEIGHTS.double())
    o = Objective(net, loss, (X.double(), IGNORED), batch_size=7)
    names = [name for name, _ in net.named_parameters()]

    def whole(theta):
        tensors = dict(zip(names, [theta[:12].view(3, 4), theta[12:]], strict=True))
        return loss(torch.func.functional_call(net, tensors, (X.double(),)), IGNORED)

    dense = torch.autograd.functional.hessian(whole, o.point)
    v = draw(o.n_parameters, seed=9).double()
    torch.testing.assert_close(o.hvp(v), dense @ v, rtol=1e-9, atol=1e-12)


def test_weighted_examples_have_the_standard_error_of_a_ratio():
    o = Objective(model(), nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), (X, Y), batch_size=7)
    values, weights = F.cross_entropy(model()(X), Y, reduction="none").detach().double(), CLASS_WEIGHTS[Y].double()
    mean = (weights @ values / weights.sum()).item()
    stderr = (40 / 39 * (weights**2 * (values - mean) ** 2).sum()).sqrt() / weights.sum()
    assert o.evaluate().loss_stderr == pytest.approx(stderr.item(), rel=1e-5)


def test_a_subset_and_mini_batches_of_a_weighted_criterion_have_its_weights():
    criterion, net = nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), model()
    o = Objective(net, criterion, (X, Y), batch_size=7)
    rows = torch.tensor([0, 3, 22, 39, 38])
    assert o.examples(rows).value() == pytest.approx(criterion(net(X[rows]), Y[rows]).item(), rel=1e-6)
    weights, batches = o.batches.shuffled(7, seed=0)
    means = [w * criterion(net(x), y).item() for w, (x, y) in zip(weights, batches, strict=True)]
    assert np.mean(means) == pytest.approx(criterion(net(X), Y).item(), rel=1e-6)


def test_a_step_that_returns_a_criterion_is_weighted_by_what_it_divides_by():
    batches = [{"ids": x, "labels": y} for x, y in zip(SEQUENCE.split(5), TOKENS.split(5), strict=True)]

    def shifted(net, batch):  # as language models do
        return flattened(net(batch["ids"])[:, :-1], batch["labels"][:, 1:])

    o = Objective.from_step(model(), shifted, batches)
    assert o.value() == pytest.approx(shifted(model(), {"ids": SEQUENCE, "labels": TOKENS}).item(), rel=1e-6)
    assert o.n_examples == 12


def test_a_step_that_returns_values_has_as_many_examples():
    def batch(graphs):
        return {"x": torch.ones(sum(graphs), 4), "of": torch.repeat_interleave(torch.tensor(graphs))}

    def step(net, batch):
        n = int(batch["of"].max()) + 1
        h = torch.zeros(n).index_add(0, batch["of"], net(batch["x"])[:, 0] * torch.arange(len(batch["x"])))
        return h**2

    batches = [batch([3, 3]), batch([1, 1, 4]), batch([5])]
    o = Objective.from_step(model(), step, batches)
    expected = torch.cat([step(model(), one) for one in batches])
    assert o.n_examples == 6
    assert o.value() == pytest.approx(expected.mean().item(), rel=1e-6)
    torch.testing.assert_close(o.example_losses().float(), expected.detach())


SUMS = {
    "tuple": (lambda o, t: ((o[0] - t) ** 2).sum() + o[1].pow(2).sum(), lambda h: (h, h[:, :1])),
    "dict": (lambda o, t: ((o["a"] - t) ** 2).sum(), lambda h: {"a": h}),
    "no form of its own": (lambda o, t: ((o - t) ** 2).sum() if o.sum().item() < 1e9 else o.sum(), lambda h: h),
}


@pytest.mark.parametrize("size", [1, 7, 40])
@pytest.mark.parametrize("name", SUMS)
def test_a_sum_over_any_outputs_is_divided_by_the_number_of_examples(name, size):
    loss, outputs = SUMS[name]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, x):
            return outputs(self.inner(x))

    t = draw(40, 3, seed=4)
    o = Objective(Net(), loss, (X, t), batch_size=size)
    assert o.value() == pytest.approx(loss(outputs(model()(X)), t).item() / 40, rel=1e-6)


def test_a_sum_over_flattened_positions_is_a_mean_over_examples_of_sums():
    net = nn.Sequential(model(), nn.Flatten(0, 1))
    t, criterion = classes(12, 5), nn.CrossEntropyLoss(reduction="sum")
    batches = [(x, y.flatten()) for x, y in zip(SEQUENCE.split(5), t.split(5), strict=True)]
    o = Objective(net, criterion, batches)
    whole = criterion(net(SEQUENCE), t.flatten()) / 12
    assert (o.n_examples, o.value()) == (12, pytest.approx(whole.item(), rel=1e-6))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(whole, list(net.parameters()))])
    torch.testing.assert_close(o.gradient(), gradient)


def hard(e, y):
    d, same = (e[:, None] - e[None]).pow(2).sum(-1), y[:, None] == y[None]
    return F.relu(torch.where(same, d, 0 * d).amax(1) - torch.where(same, d + 1e6, d).amin(1) + 0.5).mean()


def test_a_loss_that_is_zero_at_the_trained_point_is_looked_at_elsewhere():
    y = torch.arange(48) % 3
    net = nn.Linear(3, 3)
    net.weight.data.copy_(torch.eye(3))
    x = 4 * F.one_hot(y).float() + 0.1 * draw(48, 3)
    o = Objective(net, hard, (x, y))
    assert hard(net(x), y).item() == 0
    other = draw(o.n_parameters, seed=5) * 0.1
    expected = hard(x @ other[:9].view(3, 3).T + other[9:], y).item()
    assert o.value(other) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match=r"cannot be cut anew, since .*depends on the batch"):
        o.examples(torch.arange(5))


def contrast(net, batch):
    z = F.normalize(net(batch[0])) @ F.normalize(net(batch[1])).T / 0.2
    return F.cross_entropy(z, torch.arange(len(z)))


def test_a_contrastive_step_keeps_its_batches():
    data = [(v, v + 0.1) for v in draw(64, 4).split(16)]
    o = Objective.from_step(model(), contrast, data)
    weights, batches = o.batches.shuffled(64, seed=0)
    assert [len(batch[0]) for batch in batches] == [16] * 4
    assert weights == [1.0] * 4
    assert o.batches.recut(32) is None


def test_one_column_against_one_target_each_is_a_warning_that_names_both_shapes():
    def squares(o, t):
        return ((o - t) ** 2).mean()

    with pytest.warns(ReductionWarning, match=r"\(40, 1\) and \(40,\)"):
        Objective(model(m=1), squares, (X, X[:, 0]))
    Objective(model(m=1), squares, (X, X[:, :1]))


def test_a_weighted_mean_that_is_written_by_hand_is_a_warning_with_the_remedy():
    def weighted(o, t):
        w = CLASS_WEIGHTS[t]
        return (w * F.cross_entropy(o, t, reduction="none")).sum() / w.sum()

    y = classes(40)
    with pytest.warns(ReductionWarning, match="weight=lambda batch"):
        Objective(model(), weighted, (X, y), batch_size=7)
    o = Objective(model(), weighted, (X, y), batch_size=7, weight=lambda batch: CLASS_WEIGHTS[batch[1]].sum().item())
    assert o.value() == pytest.approx(weighted(model()(X), y).item(), rel=1e-6)
    assert o.n_examples == 40


def test_a_mean_over_tokens_or_sequences_is_refused_with_the_choices():
    def step(net, batch):  # a mean over tokens that no criterion shows
        return (net(batch["x"]).logsumexp(-1) * (batch["labels"] >= 0)).sum() / (batch["labels"] >= 0).sum()

    batches = [{"x": SEQUENCE[:, :t], "labels": TOKENS[:, :t]} for t in (5, 3)]
    with pytest.raises(InputError, match=r"open over what.*weight=lambda batch"):
        Objective.from_step(model(), step, batches)
    Objective.from_step(model(), step, batches, weight=lambda batch: float((batch["labels"] >= 0).sum()))


def test_examples_are_counted_by_targets_and_stated_where_lists_leave_it_open():
    assert examples_in((torch.zeros(5, 3, 2), torch.zeros(3))) == 3
    assert examples_in((torch.zeros(3, 5, 2), torch.zeros(15))) == 3
    assert examples_in((torch.zeros(7, 2), torch.zeros(2))) == 2  # nodes and graphs
    with pytest.raises(InputError, match="examples=lambda batch"):
        examples_in({"images": [torch.zeros(3, 4, 4), torch.zeros(3, 5, 5)], "y": torch.zeros(2)})
    o = Objective(model(), F.cross_entropy, (X, Y), examples=lambda batch: 2 * len(batch[1]))
    assert o.n_examples == 80


ROOT = lambda o, t: F.mse_loss(o, t).sqrt()  # noqa: E731


@pytest.mark.parametrize("size", [1, 5, 12])
def test_a_function_of_a_mean_is_a_warning_even_where_every_batch_is_one_example(size):
    with pytest.warns(ReductionWarning, match="L depends on the batch size"):
        Objective(model(), ROOT, (X[:12], X[:12, :3]), batch_size=size)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_a_mean_plus_a_sum_is_refused_with_the_choices_and_taken_as_it_is_with_a_weight(size):
    def half(o, t):
        return F.mse_loss(o, t) + 0.1 * o.square().sum()

    data = (X[:12], X[:12, :3])
    with pytest.raises(InputError, match=r"make both a mean or both a sum, or state weight=lambda batch"):
        Objective(model(), half, data, batch_size=size)
    o = Objective(model(), half, data, batch_size=size, weight=lambda batch: len(batch[0]))
    parts = [half(model()(x), t).item() * len(x) for x, t in zip(*(d.split(size) for d in data), strict=True)]
    assert o.value() == pytest.approx(sum(parts) / 12, rel=1e-5)


def test_a_rest_of_one_example_with_flattened_positions_counts_as_one():
    net = nn.Sequential(model(), nn.Flatten(0, 1))
    t = classes(11, 5)
    batches = [(x, y.flatten()) for x, y in zip(SEQUENCE[:11].split(5), t.split(5), strict=True)]
    o = Objective(net, nn.CrossEntropyLoss(reduction="sum"), batches)
    assert o.n_examples == 11
    assert o.value() == pytest.approx(F.cross_entropy(net(SEQUENCE[:11]), t.flatten(), reduction="sum").item() / 11)


def test_what_is_only_tried_does_not_warn_and_what_the_loss_itself_warns_of_does():
    def loud(o, t):
        if len(o) == 12:
            warnings.warn("of the loss itself", UserWarning, stacklevel=1)
        return F.kl_div(o.log_softmax(1), t, reduction="batchmean") + 0 * o.std(0).nan_to_num().sum()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Objective(model(), loud, (X[:12], X[:12, :3].softmax(1)), check=False)
    assert [str(one.message) for one in caught] == ["of the loss itself"]


REDUCTIONS = {
    "a mean over examples": F.cross_entropy,
    "a sum, divided by the number of examples": lambda o, t: F.cross_entropy(o, t, reduction="sum"),
    "one value an example": lambda o, t: F.cross_entropy(o, t, reduction="none"),
    "the mean of cross_entropy, which divides by ": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
}


@pytest.mark.parametrize("text", REDUCTIONS)
def test_the_objective_tells_of_what_its_loss_is_a_mean(text):
    assert f"loss: {text}" in Objective(model(), REDUCTIONS[text], (X, classes(40))).explain()


def test_a_sum_is_divided_by_the_weight_that_is_stated_for_pairs_and_steps_alike():
    def total(o, t):
        return F.cross_entropy(o, t, reduction="sum")

    batches, net = list(zip(X.split(15), Y.split(15), strict=True)), model()
    for weigh in (lambda batch: len(batch[1]), lambda batch: 2 * len(batch[1]) + 1):
        expected = total(net(X), Y).item() / sum(map(weigh, batches))
        pair = Objective(net, total, batches, weight=weigh)
        step = Objective.from_step(net, lambda m, b: total(m(b[0]), b[1]), batches, weight=weigh)
        assert [pair.value(), step.value()] == pytest.approx([expected] * 2, rel=1e-6)


def test_batches_with_other_tensors_before_the_targets_weigh_by_their_own():
    def step(net, batch):
        return F.cross_entropy(net(batch["x"]), batch["y"])

    first, later = {"x": X[:15], "y": Y[:15]}, {"x": X[15:], "ids": torch.arange(25) % 3 - 100, "y": Y[15:]}
    o = Objective.from_step(model(), step, [first, later])
    assert o.value() == pytest.approx(F.cross_entropy(model()(X), Y).item(), rel=1e-6)


def test_a_loss_that_keeps_a_running_mean_is_refused_and_what_it_keeps_stays_usable():
    kept = {"mean": torch.tensor(0.0)}

    def loss(o, t):
        found = F.cross_entropy(o, t)
        kept["mean"] = 0.9 * kept["mean"] + 0.1 * found.detach()
        return found - kept["mean"]

    with pytest.raises(InputError, match=r"and then .* at the same outputs"):
        Objective(model(), loss, (X, Y))
    assert kept["mean"].isfinite()
