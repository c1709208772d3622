"""The Hessian in the activations of a layer, against dense Hessians of the rest of the network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from oracles.plain import normal
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import InputError

X, Y = normal(5, 4), torch.arange(5) % 3


def model(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *middle, nn.Linear(6, 3)).double()


def objective(network: nn.Module, loss=F.cross_entropy, **options) -> la.Objective:
    return la.Objective(network, loss, (X, Y), **options)


def dense(rest, activations: Tensor, loss=F.cross_entropy) -> Tensor:
    """The Hessian of the mean loss in all activations, flattened."""
    shape = activations.shape
    return torch.autograd.functional.hessian(lambda a: loss(rest(a.reshape(shape)), Y), activations.detach().flatten())


@pytest.mark.parametrize(("layer", "cut"), [("0", 1), ("1", 2), ("", 3)])
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}])
def test_it_is_the_dense_hessian_of_the_mean_loss(layer, cut, options):
    network = model()
    H = la.activation_hessian(objective(network, **options), layer)
    truth = dense(network[cut:], network[:cut](X))
    torch.testing.assert_close(H @ torch.eye(H.n).double(), truth, rtol=1e-10, atol=1e-14)


def test_trace_and_largest_eigenvalue_are_the_mean_and_the_largest_of_the_examples():
    network = model()
    H = la.activation_hessian(objective(network), "1")
    hidden = network[:2](X).detach()
    own = [
        torch.autograd.functional.hessian(lambda a, y=y: F.cross_entropy(network[2](a), y), a)
        for a, y in zip(hidden, Y, strict=True)
    ]
    assert la.trace(H).value == pytest.approx(float(torch.stack([h.trace() for h in own]).mean()), rel=1e-9)
    largest = max(float(torch.linalg.eigvalsh(h)[-1]) for h in own) / 5
    assert float(la.top_eigenpairs(H, 1, tol=1e-9).values[0]) == pytest.approx(largest, rel=1e-8)


def test_ignored_targets_and_batches_keep_their_weights():
    loss, y = nn.CrossEntropyLoss(ignore_index=1), Y
    network = model()
    H = la.activation_hessian(la.Objective(network, loss, (X, y), batch_size=2), "1")
    truth = dense(network[2:], network[:2](X), loss)
    torch.testing.assert_close(H @ torch.eye(H.n).double(), truth, rtol=1e-10, atol=1e-14)


def test_statistics_of_the_batch_couple_its_examples():
    network = model(nn.BatchNorm1d(6))
    H = la.activation_hessian(objective(network, batch_norm="batch"), "1")
    network.train()
    truth = dense(network[2:], network[:2](X))
    assert float(truth[:6, 6:].abs().max()) > 1e-4
    torch.testing.assert_close(H @ torch.eye(H.n).double(), truth, rtol=1e-9, atol=1e-13)
    with pytest.raises(InputError, match="recompute"):
        la.activation_hessian(objective(network, batch_norm="recompute"), "1")


def test_what_follows_in_place_and_what_memory_allows_change_nothing():
    network = model()
    network[1] = nn.ReLU(inplace=True)
    o = objective(network, batch_size=2)
    eye = torch.eye(30).double()
    truth = dense(lambda a: network[2](a.relu()), network[:1](X))
    for memory in (0, None):
        H = la.activation_hessian(o, "0", max_memory=memory)
        for _ in range(2):
            torch.testing.assert_close(H @ eye, truth, rtol=1e-10, atol=1e-14)
    assert not network[0]._forward_hooks


def test_a_step_has_activations_too():
    network = model()
    step = la.Objective.from_step(network, lambda m, b: F.cross_entropy(m(b[0]), b[1]), [(X, Y)])
    H = la.activation_hessian(step, "0")
    torch.testing.assert_close(H @ torch.eye(H.n).double(), dense(network[1:], network[:1](X)), rtol=1e-10, atol=1e-14)


class Odd(nn.Module):
    """A layer called twice, one whose output is not used, one that returns a tuple, one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.unused, self.never = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.recurrent = nn.LSTM(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.recurrent(self.twice(self.twice(x)))[0]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("twise", r"no module 'twise' \(did you mean 'twice'\?\): choose one of 'twice', 'unused'"),
        ("twice", "called 2 times"),
        ("never", "called 0 times"),
        ("recurrent", "one tensor of floating-point numbers"),
        ("unused", "does not depend on the output of 'unused'"),
    ],
)
def test_a_layer_that_has_no_such_hessian_is_refused_with_the_way_out(layer, message):
    with pytest.raises(InputError, match=message):
        la.trace(la.activation_hessian(objective(Odd().double()), layer))
