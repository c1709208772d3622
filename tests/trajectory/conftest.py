"""A small network trained for a few steps under a Recorder."""

from __future__ import annotations

import pytest
import torch
from oracles.members import BY_NAME
from torch import nn

from lossatlas.trajectory.recorder import Recorder


def _train(model: nn.Module, record: Recorder, steps: range, optimizer: torch.optim.Optimizer) -> None:
    member = BY_NAME["mlp-tanh"]
    inputs, targets = member.data()
    for step in steps:
        optimizer.zero_grad()
        loss = member.loss(model(inputs), targets)
        loss.backward()
        record(step, loss=loss.item())
        optimizer.step()


def _recorded(folder=None, steps: int = 7, **options) -> tuple[nn.Module, Recorder]:
    model = BY_NAME["mlp-tanh"].make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = Recorder(model, every=3, folder=folder, optimizer=optimizer, **options)
    _train(model, record, range(steps), optimizer)
    return model, record


@pytest.fixture
def train():
    """``train(model, record, steps, optimizer)``."""
    return _train


@pytest.fixture
def recorded():
    """``recorded(folder=None, steps=7, **options)``: the model and its Recorder, a snapshot every third step."""
    return _recorded
