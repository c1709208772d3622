"""Subsets are cut only where each row of a batch is an example of its own; elsewhere the reason is told."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from oracles.refusals import refused
from torch import nn

from lossatlas import Objective
from lossatlas.errors import InputError

N = 8
X, Y = torch.randn(N, 5, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 3
ADJACENCY = torch.eye(N) + torch.roll(torch.eye(N), 1, 0)


class Layer(nn.Module):
    """A linear layer, and what ``mix`` does to its rows."""

    def __init__(self, mix, width=5):
        super().__init__()
        self.layer, self.mix = nn.Linear(width, 3), mix

    def forward(self, x, *more):
        return self.mix(self.layer(x), *more)


def objective(mix, inputs, width=5, **options):
    return Objective(Layer(mix, width), F.cross_entropy, [(inputs, Y)], **options)


TIED = {
    "an adjacency in the batch": (lambda: objective(lambda h, a: a @ h, (X, ADJACENCY)), "on two axes"),
    "a sparse adjacency": (lambda: objective(lambda h, a: a @ h, (X, ADJACENCY.to_sparse())), "sparse_coo"),
    "an adjacency in the model": (lambda: objective(lambda h: ADJACENCY @ h, X), "fails alone"),
    "edges in the batch": (lambda: objective(lambda h, e: h + h[e[0]].sum(), (X, torch.ones(2, 4).long())), "(2, 4)"),
    "rows that are normalised together": (lambda: objective(lambda h: h - h.mean(0), X), "depend on others"),
    "sums over earlier rows": (lambda: objective(lambda h: h.cumsum(0), X), "depend on others"),
    "texts beside": (lambda: objective(lambda h, texts: h, (X, ["a"] * N)), "more than tensors"),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", TIED)
def test_examples_that_are_not_apart_are_never_cut_and_the_reason_is_told(name):
    make, reason = TIED[name]
    tied = make()
    assert tied.batches.recut(2) is None
    with refused(InputError) as caught:
        tied.examples(torch.arange(3))
    assert reason in str(caught.value)


APART = {
    "rows": lambda: objective(lambda h: h, X),
    "as many columns as rows": lambda: objective(lambda h: h, torch.randn(N, N), N),
    "rows and their factors": lambda: objective(lambda h, factor: h * factor, (X, torch.rand(N, 1))),
    "as many columns as rows, with a mean loss": lambda: Objective(
        Layer(lambda h: h, N), lambda o, y: F.cross_entropy(o, y), (torch.randn(N, N), Y)
    ),
}


@pytest.mark.parametrize("name", APART)
def test_examples_that_are_apart_are_cut_and_their_losses_are_those_among_all(name):
    whole = APART[name]()
    chosen = torch.tensor([5, 0, 3])
    inputs, targets = whole.batches.kept()[0]
    inputs = tuple(t[chosen] for t in inputs) if isinstance(inputs, tuple) else (inputs[chosen],)
    module, _ = whole.function.parts(whole.point)
    expected = F.cross_entropy(module(*inputs), targets[chosen]).item()
    assert whole.examples(chosen).value() == pytest.approx(expected, rel=1e-6)


def test_batches_of_unequal_sizes_settle_it_without_the_model():
    calls = []
    two = [(X[:5], Y[:5]), (X[5:], Y[5:])]
    cut = Objective(Layer(lambda h: calls.append(len(h)) or h), F.cross_entropy, two)
    calls.clear()
    assert len(cut.batches.recut(4)) == 2
    assert not calls
