"""Law: on the problems of other Hessian libraries all five quantities are right, or refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from oracles.truth import SIZES, Outcome, Problem, outcome
from oracles.truth_data import LABELS, N, drawn
from oracles.truth_peers import CUTS, PEERS, DictLike, curvature, cut, dict_like
from torch import nn

PRODUCT = list(itertools.product((torch.float64, torch.float32), CUTS))
TABLE = PEERS[::7]  # a step that is prime to the number of each ingredient: all of them are met


def faults(problem: Problem, dtype: torch.dtype, sizes: tuple[int, ...]) -> list[str]:
    found: list[Outcome] = [outcome(problem, dtype, sizes), curvature(problem, dtype, sizes)]
    return [fault for one in found for fault in one.faults("right")]


def test_a_batch_of_one_example_whose_positions_are_flattened_is_right():
    (problem,) = [p for p in PEERS if p.name == "linear, positions flattened, mse, sum"]
    assert faults(problem, torch.float64, (1, 6)) == []


@pytest.mark.parametrize("first", range(8))
def test_value_gradient_hessian_gauss_newton_and_trace_are_right_on_every_ingredient(first):
    chosen = {p: PRODUCT[i % len(PRODUCT)] for i, p in enumerate(TABLE) if i % 8 == first}
    found = {p.name: faults(p, *made) for p, made in chosen.items()}
    assert {name: fault for name, fault in found.items() if fault} == {}


def test_the_table_meets_every_ingredient():
    names = [set(column) for column in zip(*(p.name.split(", ") for p in PEERS), strict=True)]
    assert [set(column) for column in zip(*(p.name.split(", ") for p in TABLE), strict=True)] == names


@pytest.mark.slow
@pytest.mark.parametrize("problem", PEERS, ids=lambda p: p.name)
def test_they_are_right_on_the_full_product(problem):
    found = {str(made): faults(problem, *made) for made in PRODUCT}
    assert {where: fault for where, fault in found.items() if fault} == {}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_dict_like_inputs_are_right_or_refused(reduction):
    loss = nn.CrossEntropyLoss(reduction=reduction)
    labels = LABELS[:7]
    problem = Problem(
        "dict-like",
        DictLike,
        loss,
        lambda: (drawn(7, 4), labels),
        truth=lambda f, batch: loss(f({"x": batch[0]}), batch[1]) / (7 if reduction == "sum" else 1),
        split=lambda data, sizes: list(map(dict_like, cut(data, sizes))),
    )
    assert outcome(problem, torch.float64, (3, 4)).faults("either") == []


def test_dict_like_batches_of_a_step_are_right():
    problem = Problem(
        "dict-like, of a step",
        DictLike,
        lambda model, batch: nn.functional.cross_entropy(model(batch), batch["y"]),
        lambda: {"x": drawn(N, 4), "y": LABELS},
        step=True,
    )
    assert [outcome(problem, torch.float64, size).faults("right") for size in SIZES] == [[], [], []]
