"""Networks made at random: what is claimed of them holds, and a planted order is found back."""

from __future__ import annotations

import pytest
import torch
from oracles.architectures import objective_of
from oracles.programs import FURTHER, OPERATIONS, Operation, Programmed, program

import lossatlas as la
from lossatlas.connectivity.symmetry.states import network_outputs, network_state
from lossatlas.connectivity.symmetry.symmetries import Symmetries

FAST = range(120)
SLOW = range(120, 4000)
RECURRENT = range(25)  # 24 showed a wrong claim: numbers that add up entries in which others were in different orders
# Each once showed a wrong claim: of units compared across an outer group, of self-products, of sums seen as products.
KEPT = [238, 358, 412, 586, 860, 909, 934, 1050, 1052, 1088, 1114, 1131, 1133, 1166, 1173, 1194, 2888, 2960, 2039]


def require_true(steps: list[Operation]) -> Symmetries:
    """Six random orders of all units leave the outputs as they are, to 1e-11 in float64."""
    objective = objective_of(Programmed(steps), 3)
    found, state = la.symmetries(objective), network_state(objective)
    expected = torch.cat(list(network_outputs(objective, state)))
    for order in range(6):
        got = torch.cat(list(network_outputs(objective, found.permuted(state, found.random(order)))))
        assert float((got - expected).abs().max()) < 1e-11, f"{steps}\n{found}"
    shapes = {name: tensor.shape for name, tensor in state.items()}
    assert Symmetries.parse(found.spec, shapes).spec == found.spec
    return found


@pytest.mark.parametrize("seed", [*FAST, *KEPT])
def test_what_is_claimed_of_a_network_made_at_random_holds(seed: int) -> None:
    require_true(program(seed))


@pytest.mark.parametrize("seed", RECURRENT)
def test_what_is_claimed_of_a_network_with_recurrent_layers_and_look_ups_holds(seed: int) -> None:
    require_true(program(seed, further=True))


def test_most_of_these_networks_have_symmetries_so_that_something_is_claimed() -> None:
    found = [la.symmetries(objective_of(Programmed(program(seed)), 3)).groups for seed in range(40)]
    assert sum(map(bool, found)) >= 15


def test_every_operation_is_used() -> None:
    assert {step.operation for seed in FAST for step in program(seed)} == set(OPERATIONS)
    further = {step.operation for seed in RECURRENT for step in program(seed, further=True)}
    assert further >= set(FURTHER)


@pytest.mark.slow
@pytest.mark.parametrize("first", SLOW[::40])
def test_what_is_claimed_of_many_more_networks_holds(first: int) -> None:
    for seed in range(first, first + 40):
        require_true(program(seed))
        require_true(program(seed, further=True))


@pytest.mark.parametrize("seed", [1, 3, 6, 8, 12, 18, 21, 24, 30, 39])
def test_a_planted_order_is_found_back_in_a_network_made_at_random(seed: int) -> None:
    objective = objective_of(Programmed(program(seed)), 3)
    found, state = la.symmetries(objective), network_state(objective)
    assert found.groups
    aligned = la.align(objective, state, found.permuted(state, found.random(1)), restarts=3)
    assert torch.equal(aligned.point, objective.point)
