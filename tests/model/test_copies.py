"""Copies of models that ``copy.deepcopy`` refuses: what is shared, what is not, and that it is told."""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from oracles.truth_wrapped import NotCopied, RefusesCopies
from torch import nn

from lossatlas.model.private import private_copy, private_copy_and_shared
from lossatlas.objective import Objective

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


def test_what_cannot_be_copied_is_shared_and_told_and_all_else_is_copied():
    given = NotCopied()
    own, shared = private_copy_and_shared(given)
    assert own.places is given.places
    assert own.kept["lock"] is given.kept["lock"]
    assert own.kept["scale"][0] is not given.kept["scale"][0]
    assert own.kept["scale"][0].equal(given.kept["scale"][0])
    assert shared == ["'places' of the model itself (a generator)", "'kept' of the model itself (a lock)"]
    assert "since it cannot be copied: 'places'" in Objective(given, F.cross_entropy, (X, Y)).explain()


def test_a_module_that_refuses_copies_is_copied_attribute_by_attribute():
    given = RefusesCopies().train()
    given.body[0].body[0].weight.requires_grad_(False)
    own = private_copy(given)
    assert type(own) is RefusesCopies
    assert own.training
    for (name, parameter), (other, mine) in zip(given.named_parameters(), own.named_parameters(), strict=True):
        assert name == other
        assert parameter.equal(mine)
        assert parameter.requires_grad == mine.requires_grad
        assert parameter.data_ptr() != mine.data_ptr()


def test_a_lock_deep_inside_an_object_that_refers_to_itself_is_found():
    class Client:
        def __init__(self):
            self.lock, self.itself, self.weights = threading.Lock(), self, [torch.ones(2)]

    given = nn.Linear(4, 3)
    given.client = Client()
    own, shared = private_copy_and_shared(given)
    assert own.client.lock is given.client.lock
    assert own.client.itself is own.client
    assert own.client.weights[0] is not given.client.weights[0]
    assert shared == ["'client' of the model itself (a lock)"]


def test_what_can_be_copied_is_shared_with_nothing():
    assert private_copy_and_shared(nn.Linear(4, 3))[1] == []
    assert "cannot be copied" not in Objective(nn.Linear(4, 3), F.cross_entropy, (X, Y)).explain()


def test_compiled_parts_are_the_modules_that_they_were_made_from():
    given = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    state = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    given[0] = torch.compile(given[0], backend="eager")
    o = Objective(given, F.cross_entropy, (X, Y))
    assert [entry.name for entry in o.space] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert all(o.point_of(one).equal(o.point) for one in (given, given.state_dict(), state))
