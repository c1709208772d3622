"""Law: the objective is true, or it refuses. There is no third outcome."""

from __future__ import annotations

import pytest
import torch
from oracles.architectures import drawn as drawn_model
from oracles.programs import Programmed, program
from oracles.truth import SIZES, N, Problem, outcome
from oracles.truth_batches import OF_BATCHES
from oracles.truth_data import drawn
from oracles.truth_families import FAMILIES
from oracles.truth_losses import LOSSES
from oracles.truth_models import KNOWN_NETWORKS, MODELS
from oracles.truth_public import PUBLIC
from oracles.truth_shapes import SHAPES
from oracles.truth_wrapped import WRAPPED

import lossatlas as la

OF_LOSSES = [*LOSSES, *OF_BATCHES, *SHAPES, *PUBLIC]
EVERY_MODEL = [*MODELS, *WRAPPED, *FAMILIES]
PROBLEMS = [*OF_LOSSES, *EVERY_MODEL]
EVERY = [(dtype, size) for dtype in (torch.float64, torch.float32) for size in SIZES]
QUICK = [(torch.float64, size) for size in SIZES] + [(torch.float32, SIZES[-1])]
OF_MODELS = [
    (torch.float64, SIZES[-1]),
    (torch.float32, SIZES[0]),
]  # in which batches there are is the losses' question
FALSE_ALARMS = 500


def each(problems: list[Problem]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("problem", problems, ids=lambda p: p.name)


def assert_true_or_refused(problem: Problem, products: list[tuple[torch.dtype, int]]) -> None:
    faults = {
        f"{dtype}, batches of {size}": outcome(problem, dtype, size).faults(problem.expected_at(size))
        for dtype, size in products
    }
    assert {where: found for where, found in faults.items() if found} == {}


@each(OF_LOSSES)
def test_value_gradient_and_hessian_are_those_of_all_the_data_or_refused(problem):
    assert_true_or_refused(problem, QUICK)


@each(EVERY_MODEL)
def test_so_they_are_for_models_of_every_kind(problem):
    assert_true_or_refused(problem, OF_MODELS)


@pytest.mark.slow
@each(PROBLEMS)
def test_the_same_in_both_types_at_every_batch_size(problem):
    assert_true_or_refused(problem, EVERY)


@pytest.mark.parametrize("index", range(3))
def test_every_known_network_is_right_at_one_of_the_batch_sizes(index):
    for problem in KNOWN_NETWORKS[index::3]:
        assert outcome(problem, torch.float64, SIZES[index]).faults("right") == [], problem.name


@pytest.mark.slow
@pytest.mark.parametrize("problem", KNOWN_NETWORKS, ids=lambda p: p.name)
def test_every_known_network_is_right_in_both_types_at_all_batch_sizes(problem):
    assert_true_or_refused(problem, EVERY)


def test_the_family_is_large_and_most_of_it_must_be_right():
    names = [problem.name for problem in [*PROBLEMS, *KNOWN_NETWORKS]]
    assert len(set(names)) == len(names) >= 60
    assert sum(problem.expected == "right" for problem in PROBLEMS) > 0.7 * len(PROBLEMS)


def check(seed: int) -> None:
    """A network made at random passes the check at construction and at its first derivatives."""
    data = (drawn(N, 3).double(), torch.arange(N) % 2)
    o = la.Objective(
        drawn_model(Programmed(program(seed)), seed), torch.nn.functional.cross_entropy, data, batch_size=5
    )
    o.value(), o.gradient(), o.hvp(o.point)


@pytest.mark.parametrize("seed", range(30))
def test_a_valid_program_raises_no_alarm(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(30, FALSE_ALARMS, 47))
def test_many_more_valid_programs_raise_no_alarm(first):
    for seed in range(first, min(first + 47, FALSE_ALARMS)):
        check(seed)
