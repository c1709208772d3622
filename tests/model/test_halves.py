"""A step as its two halves: what needs the outputs has them, and all is as with pairs (inputs, targets)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles.plain import columns, normal
from oracles.truth import cast
from oracles.truth_models import graph_problem, graphs
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import InputError
from lossatlas.evaluation.products import softmax

X, Y = normal(11, 4), torch.arange(11) % 3
WEIGHT = torch.tensor([1.0, 5.0, 2.0]).double()
CRITERIA = {
    "mean": F.cross_entropy,
    "values": nn.CrossEntropyLoss(reduction="none"),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted classes": nn.CrossEntropyLoss(weight=WEIGHT),
    "an ignored class": nn.CrossEntropyLoss(ignore_index=1),
    "squares": lambda f, y: F.mse_loss(f, F.one_hot(y, 3).double()),
}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()


def outputs(model: nn.Module, batch: Any) -> Tensor:
    return model(batch["x"])


def halves(criterion: Any = F.cross_entropy, **options: Any) -> la.Objective:
    """A mask that nothing depends on comes first: the targets are to be found."""
    batches = [
        {"x": x, "mask": torch.ones(len(x), dtype=torch.int64), "y": y}
        for x, y in zip(X.split(4), Y.split(4), strict=True)
    ]
    loss = lambda f, batch: criterion(f, batch["y"])  # noqa: E731
    return la.Objective.from_step(model(), batches=batches, outputs=outputs, loss=loss, **options)


def supervised(criterion: Any = F.cross_entropy) -> la.Objective:
    return la.Objective(model(), criterion, (X, Y), batch_size=4)


@pytest.mark.parametrize("name", CRITERIA)
def test_all_is_as_with_pairs(name):
    found, expected = halves(CRITERIA[name]), supervised(CRITERIA[name])
    v = normal(found.n_parameters)
    assert found.value() == pytest.approx(expected.value(), rel=1e-12)
    torch.testing.assert_close(found.gradient(), expected.gradient())
    for matrix in (la.hessian, la.gauss_newton):
        torch.testing.assert_close(matrix(found) @ v, matrix(expected) @ v)
    if name != "sum":
        torch.testing.assert_close(la.fisher(found, kind="empirical") @ v, la.fisher(expected, kind="empirical") @ v)
    if name in ("mean", "values"):
        torch.testing.assert_close(la.fisher(found, seed=3) @ v, la.fisher(expected, seed=3) @ v)
    if name != "squares":
        assert found.evaluate().metrics == expected.evaluate().metrics


@pytest.mark.parametrize("matrix", [la.hessian, la.gauss_newton])
def test_the_exact_diagonal_is_that_of_the_matrix(matrix):
    operator = matrix(halves())
    found = operator.exact_diagonal()
    torch.testing.assert_close(found.values, columns(operator).diagonal(), rtol=1e-8, atol=1e-12)


def test_units_in_another_order_are_aligned():
    o, permuted, order = halves(), model(), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        for name, axis in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
            own = permuted.get_parameter(name)
            own.copy_(own.index_select(axis, order))
    torch.testing.assert_close(la.align(o, o.point, permuted).point, o.point)


def test_points_are_evaluated_by_a_traced_graph():
    o = halves()
    evaluator = o.evaluator(o.point, normal(1, o.n_parameters), [(0.5,), (1.0,)], 100)
    found = evaluator((0.7,))["loss"].mean
    assert found == pytest.approx(supervised().value(o.point + 0.7 * normal(1, o.n_parameters)[0]), rel=1e-10)
    assert o.explain().startswith("prepared loop")


def test_metrics_take_outputs_and_the_batch():
    o = halves(metrics={"first": lambda f, batch: (f.argmax(1) == batch["y"]).double()})
    right = (model()(X).argmax(1) == Y).double().mean()
    assert o.evaluate().metrics["first"][0] == pytest.approx(float(right))


def test_large_logits_have_the_closed_form_with_next_tokens_in_a_dict(monkeypatch):
    monkeypatch.setattr(softmax, "LARGE", 1)
    monkeypatch.setattr(softmax, "PIECE", 9)
    ids = torch.arange(24).reshape(6, 4) % 3
    labels = torch.where(torch.arange(24).reshape(6, 4) % 5 == 3, -100, ids)
    torch.manual_seed(0)
    table = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3)).double()
    used: list[bool] = []
    plain_slope = softmax.softmax_slope
    monkeypatch.setattr(
        "lossatlas.evaluation.products.linearised.softmax_slope",
        lambda *given: used.append((found := plain_slope(*given)) is not None) or found,
    )

    def loss(f: Tensor, batch: Any) -> Tensor:
        return F.cross_entropy(f[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())

    o = la.Objective.from_step(
        table,
        batches=[{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}],
        outputs=lambda m, batch: m(batch["input_ids"]),
        loss=loss,
    )
    found = columns(la.gauss_newton(o))
    monkeypatch.setattr(softmax, "LARGE", 10**9)
    torch.testing.assert_close(found, columns(la.gauss_newton(o)), rtol=1e-10, atol=1e-14)
    assert used == [True, False]


def step(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"])


def test_less_than_a_step_and_more_than_one_are_refused():
    batches = [{"x": X, "y": Y}]
    for given in ({}, {"outputs": outputs}, {"loss": step}, {"step": step, "outputs": outputs, "loss": step}):
        with pytest.raises(InputError, match="its two halves"):
            la.Objective.from_step(model(), batches=batches, **given)
    with pytest.raises(InputError, match="no batches"):
        la.Objective.from_step(model(), step)
    with pytest.raises(InputError, match="metrics"):
        la.Objective.from_step(model(), step, batches, metrics={"a": lambda f, b: f})
    o = la.Objective.from_step(model(), step, batches)
    with pytest.raises(InputError, match=r"outputs=lambda.*loss=lambda"):
        la.gauss_newton(o) @ normal(o.n_parameters)


def test_a_batch_of_graphs_has_as_many_examples_as_its_loss_has_values() -> None:
    batches = [cast(graphs(i, min(i + 5, 12)), torch.float64) for i in (0, 5, 10)]
    network = graph_problem("graphs", "none").made(torch.float64)
    o = la.Objective.from_step(
        network,
        batches=batches,
        outputs=lambda model, batch: model(batch),
        loss=lambda f, batch: F.cross_entropy(f, batch["y"], reduction="none"),
    )
    with torch.no_grad():
        expected = sum(F.cross_entropy(network(b), b["y"], reduction="sum") for b in batches) / 12
    assert o.n_examples == 12
    assert o.value() == pytest.approx(float(expected), rel=1e-12)
    assert o.evaluate().metrics["accuracy"][0] == pytest.approx(
        sum(float((network(b).argmax(1) == b["y"]).sum()) for b in batches) / 12
    )
    assert float((la.gauss_newton(o) @ o.point).norm()) > 0
