"""KFAC by curvlinops, which is seldom installed."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossatlas as la
from lossatlas.errors import InputError, MissingToolError

needs_curvlinops = pytest.mark.skipif(not importlib.util.find_spec("curvlinops"), reason="curvlinops is not installed")


def objective(examples: int, loss=F.cross_entropy) -> la.Objective:
    torch.manual_seed(0)
    data = torch.randn(examples, 4, dtype=torch.float64), torch.randint(3, (examples,))
    return la.Objective(nn.Linear(4, 3, bias=False).double(), loss, data)


@needs_curvlinops
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_one_layer_and_one_example_are_the_gauss_newton_matrix_itself():
    o = objective(1)
    unit = torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(la.kfac(o) @ unit, la.gauss_newton(o) @ unit, rtol=1e-10, atol=1e-12)


@needs_curvlinops
def test_a_loss_that_it_does_not_know_is_refused():
    with pytest.raises(InputError, match="cross-entropy"):
        la.kfac(objective(5, lambda outputs, targets: outputs.square().mean()))


@pytest.mark.skipif(bool(importlib.util.find_spec("curvlinops")), reason="curvlinops is installed")
def test_without_curvlinops_the_message_says_what_to_install():
    with pytest.raises(MissingToolError, match=r"lossatlas\[kfac\]"):
        la.kfac(objective(5))
