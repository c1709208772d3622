"""Groups written down, printed and read again; permutations of tensors against plain loops; what a bad spec is told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from oracles.refusals import refused
from torch import Tensor

from lossatlas.connectivity.symmetry.symmetries import Group, Symmetries
from lossatlas.errors import InputError

SHAPES = {
    "fc1.weight": (4, 3),
    "fc1.bias": (4,),
    "fc2.weight": (2, 12),
    "packed": (12, 2),
    "grouped": (6, 3, 2),
    "joined": (2, 7),
    "square": (4, 4),
}


def tensors(names: list[str]) -> dict[str, Tensor]:
    """Every entry another number, so that each can be told from all others."""
    return {name: torch.arange(float(np.prod(SHAPES[name]))).reshape(SHAPES[name]) for name in names}


def parsed(**spec: tuple[str | None, ...]) -> Symmetries:
    return Symmetries.parse({name.replace("__", "."): axes for name, axes in spec.items()}, SHAPES)


def test_unit_p_of_i_of_each_tensor_comes_to_place_i() -> None:
    of = parsed(fc1__weight=("a", None), fc1__bias=("a",))
    p = torch.tensor([2, 0, 3, 1])
    given = tensors(list(of.axes))
    found = of.permuted(given, {"a": p})
    for i in range(4):
        assert found["fc1.bias"][i] == given["fc1.bias"][p[i]]
        assert torch.equal(found["fc1.weight"][i], given["fc1.weight"][p[i]])


def test_a_channel_that_was_flattened_moves_as_a_block_of_its_pixels() -> None:
    of = parsed(fc1__weight=("a", None), fc2__weight=(None, "a 3"))
    given, p = tensors(list(of.axes)), of.random(3)["a"]
    found = of.permuted(given, {"a": p})["fc2.weight"]
    for i, pixel in itertools.product(range(4), range(3)):
        assert torch.equal(found[:, 3 * i + pixel], given["fc2.weight"][:, 3 * p[i] + pixel])


def test_a_block_may_also_be_the_inner_one() -> None:
    of = parsed(fc1__weight=("a", None), fc2__weight=(None, "3 a"))
    given, p = tensors(list(of.axes)), of.random(3)["a"]
    found = of.permuted(given, {"a": p})["fc2.weight"]
    for i, pixel in itertools.product(range(4), range(3)):
        assert torch.equal(found[:, 4 * pixel + i], given["fc2.weight"][:, 4 * pixel + p[i]])


def test_a_group_on_both_axes_of_a_square_moves_rows_and_columns() -> None:
    of = parsed(square=("a", "a"))
    given, p = tensors(["square"]), of.random(1)["a"]
    found = of.permuted(given, {"a": p})["square"]
    for i, j in itertools.product(range(4), range(4)):
        assert found[i, j] == given["square"][p[i], p[j]]


def test_the_parts_of_a_sum_move_apart_and_a_number_stays() -> None:
    of = parsed(fc1__bias=("a",), joined=(None, "a + 3"))
    given, p = tensors(list(of.axes)), of.random(2)["a"]
    found = of.permuted(given, {"a": p})["joined"]
    assert torch.equal(found[:, :4], given["joined"][:, :4][:, p])
    assert torch.equal(found[:, 4:], given["joined"][:, 4:])


def test_the_dimensions_of_a_head_go_with_it_each_head_in_its_own_order() -> None:
    of = parsed(packed=("h=3 d@h", None))
    assert of.groups == {"h": Group("h", 3), "d@h": Group("d@h", 4, "h")}
    given, p = tensors(["packed"]), of.random(5)
    assert p["d@h"].shape == (3, 4)
    found = of.permuted(given, p)["packed"]
    for j, i in itertools.product(range(3), range(4)):
        assert torch.equal(found[4 * j + i], given["packed"][4 * p["h"][j] + p["d@h"][j, i]])


def test_the_inputs_of_a_grouped_convolution_are_ordered_by_the_block_of_the_output() -> None:
    of = parsed(grouped=("g=2 e@g", "d@g", None))
    given, p = tensors(["grouped"]), of.random(4)
    found = of.permuted(given, p)["grouped"]
    for j, out, into in itertools.product(range(2), range(3), range(3)):
        old = given["grouped"][3 * p["g"][j] + p["e@g"][j, out], p["d@g"][j, into]]
        assert torch.equal(found[3 * j + out, into], old)


def test_a_group_two_deep_is_ordered_by_both_of_its_outer_ones_on_another_axis() -> None:
    shapes = {"weight": (8, 2), "units": (2,), "blocks": (2,), "whole": (8,)}
    spec = {"weight": ("g f@g e@f@g", "d@f@g"), "units": ("g",), "whole": ("g f@g e@f@g",)}
    of = Symmetries.parse({**spec, "weight": ("g=2 f@g=2 e@f@g=2", "d@f@g=2")}, shapes)
    weight, p = torch.arange(16.0).reshape(8, 2), of.random(6)
    found = of.permuted({"weight": weight}, p)["weight"]
    for j, k, out, into in itertools.product(range(2), repeat=4):
        g, f = p["g"][j], p["f@g"][j, k]
        old = weight[4 * g + 2 * f + p["e@f@g"][j, k, out], p["d@f@g"][j, k, into]]
        assert found[4 * j + 2 * k + out, into] == old


def test_tensors_that_no_group_moves_are_handed_through() -> None:
    of, other = parsed(fc1__bias=("a",)), torch.ones(3)
    assert of.permuted({"other": other}, of.random(0))["other"] is other


def test_the_identity_leaves_every_tensor_as_it_is() -> None:
    of = parsed(packed=("h=3 d@h", None), grouped=("g=2 e@g", "d@g", None))
    given = tensors(list(of.axes))
    found = of.permuted(given, of.identity())
    assert all(torch.equal(found[name], given[name]) for name in given)


def test_random_permutations_are_permutations_and_the_same_for_the_same_seed() -> None:
    of = parsed(fc1__bias=("a",), packed=("h=3 d@h", None))
    first, again, other = of.random(0), of.random(0), of.random(1)
    for name, p in first.items():
        size = of.groups[name].size
        assert torch.equal(p.sort(-1).values, torch.arange(size).expand_as(p))
        assert torch.equal(p, again[name])
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_every_permutation_of_a_group_is_drawn_about_equally_often() -> None:
    of = parsed(fc1__bias=("a",))
    counts = np.zeros(24)
    order = {p: i for i, p in enumerate(itertools.permutations(range(4)))}
    for seed in range(2400):
        counts[order[tuple(of.random(seed)["a"].tolist())]] += 1
    # chi-squared with 23 degrees of freedom: 49.7 is its 99.9 % point
    assert ((counts - 100) ** 2 / 100).sum() < 49.7


def test_what_is_printed_can_be_read_again() -> None:
    of = parsed(
        fc1__weight=("a", None), fc2__weight=(None, "a 3"), packed=("h=3 d@h", None), grouped=("g=2 e@g", "d@g", None)
    )
    again = Symmetries.parse(of.spec, SHAPES)
    assert again.groups == of.groups
    assert again.axes == of.axes
    for name in of.axes:
        assert f"\n{name} " in f"\n{of}"


def test_the_printed_table_says_why_units_stay_in_order() -> None:
    of = Symmetries.parse({"fc1.bias": ("a",)}, SHAPES, pinned=("sort has no rule",))
    assert str(of).splitlines() == ["fc1.bias  a", "kept in order: sort has no rule"]


def test_sizes_are_told_from_the_other_axes_whatever_the_order_of_the_lines() -> None:
    of = parsed(fc2__weight=(None, "a pixels"), joined=(None, "a + b"), fc1__bias=("a",))
    assert {name: group.size for name, group in of.groups.items()} == {"a": 4, "pixels": 3, "b": 3}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"fc9.weight": ("a", None)}, "'fc9.weight'"),
        ({"fc1.weight": ("a",)}, r"'fc1.weight'.*2 entries"),
        ({"fc1.weight": "a"}, r"'fc1.weight'.*2 entries"),
        ({"fc1.weight": ("a", 3)}, r"'fc1.weight'.*axis 3"),
        ({"fc1.weight": ("a +", None)}, r"'fc1.weight'.*'a \+'"),
        ({"fc1.weight": ("", None)}, r"'fc1.weight'.*axis ''"),
        ({"fc1.weight": ("a@", None)}, r"'fc1.weight'.*'a@'"),
        ({"fc1.weight": ("0 a", None)}, r"'fc1.weight'.*factor"),
        ({"fc1.weight": ("a", None), "square": (None, "a 2")}, "'square' 8 long"),
        ({"fc1.weight": ("3 a", None)}, "'fc1.weight'"),
        ({"fc1.weight": ("5 + a", None)}, "'fc1.weight'"),
        ({"fc1.weight": ("a b", None)}, "'fc1.weight'"),
        ({"fc1.weight": ("a", None), "fc1.bias": ("d@b",)}, "'d@b' lies within 'b'"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_and_the_tensor_named(spec: dict[str, tuple[str]], message: str) -> None:
    with refused(InputError, match=message):
        Symmetries.parse(spec, SHAPES)


def test_an_inner_group_on_a_tensor_without_its_outer_one_is_refused() -> None:
    spec = {"packed": ("h=3 d@h", None), "fc1.bias": ("d@h",)}
    with pytest.raises(InputError, match=r"fc1\.bias"):
        Symmetries.parse(spec, SHAPES)
