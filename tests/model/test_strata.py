"""Stratified subsets: how they are drawn, what they estimate, and how much they leave unknown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.members import BATCH, BY_NAME
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.data.strata import Strata, stratified
from lossatlas.objective import Objective

SIZES = {3: 150, -1: 90, 7: 40, 0: 20}  # 300 examples of four classes, whatever their names
SEEDS = range(300)


def population() -> tuple[Tensor, Tensor]:
    """Labels in mixed order, and one value an example whose mean and spread depend on its class."""
    draw = np.random.default_rng(5)
    labels = draw.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    values = 0.3 * labels + draw.gamma(2.0, 1.0 + 0.1 * (labels + 1))
    return torch.from_numpy(labels), torch.from_numpy(values)


LABELS, VALUES = population()


def estimate(strata: Strata, values: Tensor = VALUES) -> float:
    drawn = values[strata.indices]
    return float(strata.weights @ drawn / strata.weights.sum())


def true_error(count: dict[int, int]) -> float:
    """The closed form over repeated draws, with each class's own variance (Cochran 1977, 5.6)."""
    variance = 0.0
    for label, total in SIZES.items():
        own, n = VALUES[label == LABELS].numpy(), count[label]
        variance += (total / 300) ** 2 * (1 - n / total) * own.var(ddof=1) / n
    return float(np.sqrt(variance))


def counts(strata: Strata) -> dict[int, int]:
    drawn = LABELS[strata.indices].tolist()
    return {label: drawn.count(label) for label in SIZES}


def test_each_class_is_drawn_by_its_share_and_no_example_twice():
    strata = stratified(LABELS, 60, 0)
    assert counts(strata) == {3: 30, -1: 18, 7: 8, 0: 4}
    assert strata.indices.tolist() == sorted(set(strata.indices.tolist()))
    assert strata.totals.tolist() == [90, 20, 150, 40], "the classes in order: -1, 0, 3, 7"
    assert torch.equal(torch.tensor([-1, 0, 3, 7])[strata.labels], LABELS[strata.indices])


@pytest.mark.parametrize("count", [8, 9, 31, 60, 299, 300])
def test_the_weights_of_a_class_sum_to_its_size(count):
    strata = stratified(LABELS, count, 1)
    sums = {label: float(strata.weights[LABELS[strata.indices] == label].sum()) for label in SIZES}
    assert sums == pytest.approx(SIZES)
    assert float(strata.weights.sum()) == pytest.approx(300)
    assert abs(len(strata.indices) - count) <= 2 * len(SIZES)
    assert min(counts(strata).values()) >= 2


def test_all_examples_leave_nothing_unknown():
    strata = stratified(LABELS, 300, 4)
    assert strata.indices.tolist() == list(range(300))
    assert strata.weights.tolist() == [1.0] * 300
    assert strata.stderr(VALUES) == 0
    assert estimate(strata) == pytest.approx(float(VALUES.mean()), rel=1e-12)


def test_the_draw_is_a_function_of_the_seed():
    one, again, other = (stratified(LABELS, 60, seed) for seed in (2, 2, 3))
    assert torch.equal(one.indices, again.indices)
    assert not torch.equal(one.indices, other.indices)


def test_a_draw_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    stratified(LABELS, 60, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_estimate_is_unbiased_and_its_error_is_that_of_the_closed_form():
    drawn = [stratified(LABELS, 60, seed) for seed in SEEDS]
    estimates = np.array([estimate(strata) for strata in drawn])
    error = true_error(counts(drawn[0]))
    assert abs(estimates.mean() - float(VALUES.mean())) < 4 * error / np.sqrt(len(SEEDS))
    assert estimates.std(ddof=1) == pytest.approx(error, rel=0.15)  # over 300 draws it is known to 4 %
    variances = [strata.stderr(VALUES[strata.indices]) ** 2 for strata in drawn]
    assert np.mean(variances) == pytest.approx(error**2, rel=0.1)


def test_a_weighted_mean_that_ignored_the_classes_would_be_off():
    """Two of twenty are more than the share of the smallest class: the plain mean over a small draw is biased."""
    drawn = [stratified(LABELS, 8, seed) for seed in SEEDS]
    spread = true_error(counts(drawn[0])) / np.sqrt(len(SEEDS))
    plain = np.mean([float(VALUES[strata.indices].mean()) for strata in drawn])
    assert abs(np.mean([estimate(strata) for strata in drawn]) - float(VALUES.mean())) < 4 * spread
    assert abs(plain - float(VALUES.mean())) > 4 * spread


@pytest.mark.parametrize("count", [60, 150])
def test_nineteen_intervals_of_twenty_hold_the_mean_over_all_data(count):
    inside = 0
    for seed in SEEDS:
        strata = stratified(LABELS, count, seed)
        half = 1.96 * strata.stderr(VALUES[strata.indices])
        inside += abs(estimate(strata) - float(VALUES.mean())) <= half
    assert 0.91 <= inside / len(SEEDS) <= 0.985  # 95 % +- three standard errors of a share of 300, and few of a class


def test_a_class_of_one_is_always_drawn_and_adds_no_error():
    labels = torch.tensor([0] * 50 + [1])
    strata = stratified(labels, 10, 0)
    assert 50 in strata.indices.tolist()
    values = torch.zeros(51, dtype=torch.float64)
    values[50] = 100.0
    assert strata.stderr(values[strata.indices]) == 0
    assert estimate(strata, values) == pytest.approx(100 / 51)


@pytest.mark.parametrize("count", [7, 301, 0, -5, True, 60.0, "60", None])
def test_a_count_that_cannot_be_drawn_is_refused(count):
    with pytest.raises(InputError) as caught:
        stratified(LABELS, count, 0)
    assert f"subset={count}" in str(caught.value)
    assert "from 8 (two a class) to 300" in str(caught.value)


def test_all_of_the_examples_may_be_asked_for_where_classes_have_one_each():
    strata = stratified(torch.tensor([4, 1, 9]), 3, 0)
    assert strata.indices.tolist() == [0, 1, 2]


# Of an objective


def classes(batch_size: int = BATCH) -> tuple[nn.Module, Objective]:
    member = BY_NAME["mlp-tanh"]
    model = member.make(torch.float64)
    return model, Objective(model, member.loss, member.data(torch.float64, 90), batch_size=batch_size)


def test_a_subset_is_the_objective_on_the_examples_that_were_drawn():
    model, o = classes()
    part, strata = o.subset(21, seed=3)
    inputs, targets = BY_NAME["mlp-tanh"].data(torch.float64, 90)
    assert part.n_examples == len(strata.indices)
    assert torch.equal(part.batches.labels(), targets[strata.indices])
    with torch.no_grad():
        each = F.cross_entropy(model(inputs), targets, reduction="none")
    np.testing.assert_allclose(part.example_losses(), each[strata.indices], rtol=1e-12)
    assert o.n_examples == 90
    assert part.provenance()["data_fingerprint"] != o.provenance()["data_fingerprint"]


def test_a_subset_of_all_examples_is_the_objective():
    _, o = classes()
    part, strata = o.subset(90)
    assert part.value() == pytest.approx(o.value(), rel=1e-14)
    assert strata.weights.tolist() == [1.0] * 90


def test_subsets_of_an_objective_estimate_its_loss():
    _, o = classes()
    values, estimates = o.example_losses(), []
    for seed in range(100):
        _, strata = o.subset(21, seed=seed)
        estimates.append(estimate(strata, values))
    assert np.mean(estimates) == pytest.approx(o.value(), abs=4 * np.std(estimates) / 10)


REFUSED = {
    "numbers for targets": lambda: Objective(
        BY_NAME["regression"].make(), F.mse_loss, BY_NAME["regression"].data(), batch_size=BATCH
    ),
    "dictionaries": lambda: Objective.from_step(
        BY_NAME["mlp-tanh"].make(),
        lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"]),
        [{"x": x, "y": y} for x, y in BY_NAME["mlp-tanh"].batches()],
    ),
    "weights of one's own": lambda: Objective.from_step(
        BY_NAME["mlp-tanh"].make(),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        BY_NAME["mlp-tanh"].batches(),
        weight=lambda batch: 1.0,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_subset_of_data_without_classes_is_refused_with_the_remedy(name):
    with pytest.raises(InputError, match=r"give .*data as"):
        REFUSED[name]().subset(10)


def test_data_that_are_not_kept_have_no_subset(monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.batches.KEEP_BYTES", 0)
    _, o = classes()
    assert o.batches.labels() is None
    with pytest.raises(InputError, match="in memory"):
        o.subset(21)
