"""Weight matching against all permutations of tiny networks, and against plain sums of products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from lossatlas.connectivity.matching import Solver, WeightMatching, assigned
from lossatlas.connectivity.symmetry.symmetries import Permutations, Symmetries

State = dict[str, Tensor]

CHAIN = {
    "fc1.weight": ("a", None),
    "fc1.bias": ("a",),
    "fc2.weight": ("b", "a"),
    "fc2.bias": ("b",),
    "fc3.weight": (None, "b"),
}
CHAIN_SHAPES = {"fc1.weight": (4, 2), "fc1.bias": (4,), "fc2.weight": (3, 4), "fc2.bias": (3,), "fc3.weight": (2, 3)}
RESIDUAL = {"inward": ("r", None), "first": ("s", "r"), "second": ("r", "s"), "square": ("r", "r")}
RESIDUAL_SHAPES = {"inward": (4, 1), "first": (3, 4), "second": (4, 3), "square": (4, 4)}
HEADS = {"query": ("h=3 k@h=2", None), "value": ("h v@h=2", None), "out": (None, "h v@h")}
HEADS_SHAPES = {"query": (6, 2), "value": (6, 2), "out": (2, 6)}
GROUPED = {"first": ("g=2 d@g", None), "second": ("g e@g", "d@g"), "head": (None, "g e@g")}
GROUPED_SHAPES = {"first": (6, 2), "second": (4, 3), "head": (2, 4)}
FAMILY = {
    "chain": (CHAIN, CHAIN_SHAPES),
    "residual": (RESIDUAL, RESIDUAL_SHAPES),
    "heads": (HEADS, HEADS_SHAPES),
    "grouped": (GROUPED, GROUPED_SHAPES),
}


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def everything(of: Symmetries) -> Iterator[Permutations]:
    """All permutations of all groups, a row for each unit of the outer one where a group lies within another."""
    choices = []
    for group in of.groups.values():
        rows = 1 if group.within is None else of.groups[group.within].size
        each = list(itertools.permutations(range(group.size)))
        shape = (group.size,) if group.within is None else (rows, group.size)
        choices.append([torch.tensor(rows_).reshape(shape) for rows_ in itertools.product(each, repeat=rows)])
    for chosen in itertools.product(*choices):
        yield dict(zip(of.groups, chosen, strict=True))


def inner(a: State, b: State) -> float:
    return sum(float(np.sum(a[name].numpy() * b[name].numpy())) for name in a)


def best_of_all(a: State, b: State, of: Symmetries) -> float:
    return max(inner(a, of.permuted(b, p)) for p in everything(of))


def with_restarts(matching: WeightMatching, count: int) -> float:
    starts = [matching.of.identity(), *(matching.of.random(seed) for seed in range(count))]
    return max(matching.improve(start, 0).agreement for start in starts)


@pytest.mark.parametrize("name", FAMILY)
def test_with_restarts_the_best_of_all_permutations_is_reached(name: str) -> None:
    spec, shapes = FAMILY[name]
    of = Symmetries.parse(spec, shapes)
    for seed in range(2):
        a, b = drawn(shapes, 2 * seed), drawn(shapes, 2 * seed + 1)
        best = with_restarts(WeightMatching(a, b, of), 30)
        assert best == pytest.approx(best_of_all(a, b, of), rel=1e-12)


@pytest.mark.parametrize("name", FAMILY)
def test_the_agreement_is_the_sum_of_products_of_all_tensors_that_move(name: str) -> None:
    spec, shapes = FAMILY[name]
    of = Symmetries.parse(spec, shapes)
    a, b = drawn(shapes, 0), drawn(shapes, 1)
    matching = WeightMatching(a, b, of)
    for seed in range(3):
        p = of.random(seed)
        assert matching.agreement(p) == pytest.approx(inner(a, of.permuted(b, p)), rel=1e-12)
        found = matching.improve(p, seed)
        assert found.agreement == pytest.approx(inner(a, of.permuted(b, found.permutations)), rel=1e-12)
        assert found.agreement >= matching.agreement(p)


@pytest.mark.parametrize("name", FAMILY)
def test_at_the_end_no_single_group_gains(name: str) -> None:
    """Against all permutations of one family of groups, with the others as they are."""
    spec, shapes = FAMILY[name]
    of = Symmetries.parse(spec, shapes)
    if name == "residual":  # a group on both axes of a square is a quadratic assignment, which one sweep does not solve
        spec = {tensor: axes for tensor, axes in spec.items() if tensor != "square"}
        shapes = {tensor: shape for tensor, shape in shapes.items() if tensor != "square"}
        of = Symmetries.parse(spec, shapes)
    a, b = drawn(shapes, 4), drawn(shapes, 5)
    found = WeightMatching(a, b, of).improve(of.random(9), 0)
    for root in of.roots():
        family = of.family(root.name)
        alone = Symmetries({n: of.groups[n] for n in family}, of.axes)
        best = max(inner(a, of.permuted(b, found.permutations | {n: p[n] for n in family})) for p in everything(alone))
        assert best == pytest.approx(found.agreement, rel=1e-12)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_permutation_is_found_back_exactly(name: str, seed: int) -> None:
    spec, shapes = FAMILY[name]
    of = Symmetries.parse(spec, shapes)
    a = drawn(shapes, 10)
    b = of.permuted(a, of.random(seed))
    matching = WeightMatching(a, b, of)
    ends = [matching.improve(of.random(start), start) for start in range(20)]
    best = max(ends, key=lambda end: end.agreement)
    assert all(torch.equal(tensor, a[tensor_name]) for tensor_name, tensor in of.permuted(b, best.permutations).items())
    assert best.agreement == pytest.approx(matching.bound, rel=1e-12)


def test_no_permutation_agrees_better_than_the_bound() -> None:
    of = Symmetries.parse(CHAIN, CHAIN_SHAPES)
    a, b = drawn(CHAIN_SHAPES, 0), drawn(CHAIN_SHAPES, 1)
    norms = [math.sqrt(inner(state, state)) for state in (a, b)]
    matching = WeightMatching(a, b, of)
    assert matching.bound == pytest.approx(norms[0] * norms[1], rel=1e-12)
    assert best_of_all(a, b, of) <= matching.bound


def test_tensors_that_no_group_moves_are_not_part_of_the_agreement() -> None:
    of = Symmetries.parse({"fc1.weight": ("a", None), "fc1.bias": ("a",)}, CHAIN_SHAPES)
    a, b = drawn(CHAIN_SHAPES, 0), drawn(CHAIN_SHAPES, 1)
    moved = ("fc1.weight", "fc1.bias")
    expected = sum(float((a[name] * b[name]).sum()) for name in moved)
    assert WeightMatching(a, b, of).agreement(of.identity()) == pytest.approx(expected, rel=1e-12)


def test_two_heads_are_compared_by_the_best_order_of_their_dimensions() -> None:
    """Against enumeration: max over heads p of sum_j max over q of sum_i T[j, i, p_j, q_i]."""
    of = Symmetries.parse({"w": ("h=3 d@h", None)}, {"w": (9, 1)})
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(3, 3, 3, 3, generator=generator, dtype=torch.float64)
    outer = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    found = assigned({"d@h": table, "h": outer}, of.groups["h"], of, Solver())

    def reached(heads: Tensor, dims: Tensor) -> float:
        return sum(
            float(outer[j, heads[j]]) + sum(float(table[j, i, heads[j], dims[j, i]]) for i in range(3))
            for j in range(3)
        )

    best = max(reached(p["h"], p["d@h"]) for p in everything(of))
    assert reached(found["h"], found["d@h"]) == pytest.approx(best, rel=1e-12)


def test_groups_that_are_left_out_stay_as_they_are() -> None:
    of = Symmetries.parse(CHAIN, CHAIN_SHAPES)
    matching = WeightMatching(drawn(CHAIN_SHAPES, 0), drawn(CHAIN_SHAPES, 1), of)
    start = of.random(3)
    found = matching.improve(start, 0, only=["a"]).permutations
    assert torch.equal(found["b"], start["b"])
    assert not torch.equal(found["a"], start["a"])


def test_the_start_and_the_tensors_are_left_as_they_were() -> None:
    of = Symmetries.parse(CHAIN, CHAIN_SHAPES)
    a, b, start = drawn(CHAIN_SHAPES, 0), drawn(CHAIN_SHAPES, 1), of.random(3)
    before = [{name: t.clone() for name, t in given.items()} for given in (a, b, start)]
    WeightMatching(a, b, of).improve(start, 0)
    assert all(torch.equal(t, then[name]) for given, then in zip((a, b, start), before, strict=True)
               for name, t in given.items())  # fmt: skip


def test_the_same_seed_gives_the_same_answer() -> None:
    of = Symmetries.parse(RESIDUAL, RESIDUAL_SHAPES)
    matching = WeightMatching(drawn(RESIDUAL_SHAPES, 0), drawn(RESIDUAL_SHAPES, 1), of)
    first, again = (matching.improve(of.identity(), 7) for _ in range(2))
    assert first.agreement == again.agreement
    assert all(torch.equal(p, again.permutations[name]) for name, p in first.permutations.items())


def test_calls_of_the_solver_are_counted() -> None:
    solver = Solver()
    assert solver.assign(torch.tensor([[0.0, 2.0], [3.0, 1.0]])).tolist() == [1, 0]
    solver.assign(torch.eye(3))
    assert solver.calls == 2


def test_complex_units_are_found_back_in_another_order():
    generator = torch.Generator().manual_seed(0)
    a = {
        "inward": torch.randn(6, 4, dtype=torch.complex64, generator=generator),
        "out": torch.randn(2, 6, generator=generator),
    }
    order = torch.randperm(6, generator=generator)
    # |b| is the same for all units: what tells them apart are the phases.
    a["inward"] = a["inward"] / a["inward"].abs()
    b = {"inward": a["inward"][order], "out": a["out"][:, order].sign()}
    matching = WeightMatching(
        a, b, Symmetries.parse({"inward": ("u", None), "out": (None, "u")}, {n: tuple(t.shape) for n, t in a.items()})
    )
    found = matching.improve(matching.of.identity(), seed=0)
    assert found.permutations["u"].tolist() == order.argsort().tolist()
    real = [torch.cat([t["inward"].real.flatten(), t["inward"].imag.flatten(), t["out"].flatten()]) for t in (a, b)]
    assert matching.agreement(matching.of.identity()) == pytest.approx(float(real[0] @ real[1]), rel=1e-5)
