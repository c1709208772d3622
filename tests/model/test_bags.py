"""``nn.EmbeddingBag`` by other operations: the values and first derivatives of PyTorch's own kernel."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from oracles import plain
from torch import nn

from lossatlas.model.bags import make_differentiable

ROWS = torch.tensor([[0, 3, 6, 2], [6, 6, 6, 6], [5, 1, 1, 6]])
FORMS = {
    "rows": (ROWS, None),
    "offsets": (ROWS.flatten(), torch.tensor([0, 2, 2, 7])),
    "one bag": (ROWS[0], torch.tensor([0])),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "sum"},
        {"mode": "mean"},
        {"mode": "mean", "padding_idx": 6},
        {"mode": "sum", "padding_idx": -1, "max_norm": 1.0},
        {"mode": "max"},
    ],
    ids=str,
)
def test_values_and_gradients_are_those_of_the_kernel(form, options: dict[str, Any]):
    indices, offsets = FORMS[form]
    kernel = nn.EmbeddingBag(7, 3, dtype=torch.float64, **options)
    own = copy.deepcopy(kernel)
    make_differentiable(own)
    along = plain.normal(len(kernel(indices, offsets)), 3)
    found = [(out := bag(indices, offsets), (out * along).sum().backward(), bag.weight.grad) for bag in (own, kernel)]
    assert found[0][0].allclose(found[1][0])
    assert found[0][2].allclose(found[1][2])


def test_weights_of_examples_and_a_last_offset_count():
    kernel = nn.EmbeddingBag(7, 3, mode="sum", include_last_offset=True, dtype=torch.float64)
    own = copy.deepcopy(kernel)
    make_differentiable(own)
    given = (ROWS.flatten(), torch.tensor([0, 5, 12]), plain.normal(12))
    assert own(*given).allclose(kernel(*given))
    assert own(*given).shape == (2, 3)


def test_a_copy_uses_its_own_weight():
    bag = nn.EmbeddingBag(7, 3)
    make_differentiable(bag)
    other = copy.deepcopy(bag)
    other.weight.data.zero_()
    assert not other(ROWS).any()
    assert bag(ROWS).any()
