"""A gradient or curvature of another function than the value's is refused when it is first asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import DerivativeWarning, InputError

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        s = torch.sigmoid(x)
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        x, s = ctx.saved_tensors
        return g * (s + x * s * (1 - s))


class Curved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Swish.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def test_a_saved_intermediate_has_a_gradient_and_no_curvature() -> None:
    torch.manual_seed(0)
    o = la.Objective(nn.Sequential(nn.Linear(4, 6), Curved(), nn.Linear(6, 3)), F.cross_entropy, (X, Y))
    assert bool(o.gradient().isfinite().all())
    with pytest.raises(InputError, match=r"curvature is not.*Swish"):
        o.hvp(torch.ones(o.n_parameters))


@pytest.mark.parametrize("check", [True, "warn"])
def test_a_detached_target_has_values_and_its_gradient_is_refused_or_warned_of(check: Any) -> None:
    torch.manual_seed(0)
    o = la.Objective(nn.Linear(4, 3), lambda f, y: (f - 2 * f.detach()).square().mean(1), (X, Y), check=check)
    assert o.value() > 0
    with pytest.raises(InputError) if check is True else pytest.warns(DerivativeWarning):
        o.gradient()


def test_a_network_with_kinks_passes_and_what_was_done_is_told() -> None:
    torch.manual_seed(0)
    o = la.Objective(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3)), F.cross_entropy, (X, Y))
    o.hvp(o.gradient())
    assert "self-check of the gradient: agrees" in o.explain()
    assert "self-check of the curvature: agrees" in o.explain()
