"""What is no function of theta is refused when the objective is made; what a caller holds stays as it is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import InputError

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x) / (1 + 0.1 * self.calls)


def test_a_model_that_counts_its_calls_is_refused_with_the_attribute() -> None:
    with pytest.raises(InputError, match=r"and then .*the model.calls changed"):
        la.Objective(Counting(), F.cross_entropy, (X, Y))


def test_a_penalty_on_the_model_that_was_given_is_refused_with_its_name() -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(InputError, match=r"'weight' of the model that was given.*from_step"):
        la.Objective(model, lambda f, y: F.cross_entropy(f, y) + model.weight.square().sum(), (X, Y))


def test_an_embedding_that_bounds_its_norms_leaves_points_alone() -> None:
    model = nn.Sequential(nn.Embedding(5, 4, max_norm=1.0), nn.Flatten(), nn.Linear(8, 3))
    model[0].weight.data.mul_(9)
    o = la.Objective(model, F.cross_entropy, (torch.arange(24).view(12, 2) % 5, Y))
    point, own = 2 * torch.ones(o.n_parameters), o.point.clone()
    assert o.value(point) == o.value(point)
    assert o.value() == o.value()
    assert bool((point == 2).all())
    assert torch.equal(o.point, own)
