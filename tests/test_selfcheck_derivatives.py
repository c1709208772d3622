"""A gradient or curvature of another function than the value's is refused when it is first asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles.truth_models import Swish
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lossatlas as la
from lossatlas.errors import ConvergenceWarning, DerivativeWarning, InputError
from lossatlas.evaluation import derivative_check, looked

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


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
    assert "is not that of the loss" in o.provenance()["derivatives"]


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(6, 5, padding_idx=0), nn.Linear(5, 3)
        nn.init.normal_(self.table.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).mean(1))


def test_a_padding_row_that_the_loss_depends_on_is_refused_and_other_parameters_are_not() -> None:
    o = la.Objective(Padded(), F.cross_entropy, (torch.arange(84).view(12, 7) % 6, Y))
    assert bool(o.restricted("head.*").gradient().any())
    with pytest.raises(InputError, match=r"differs for table\.weight .*padding_idx=None"):
        o.gradient()


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.reentrant = nn.Linear(4, 6), nn.Linear(6, 3), reentrant

    def forward(self, x: Tensor) -> Tensor:
        body = checkpoint(lambda z: self.body(z).tanh(), x, use_reentrant=self.reentrant)
        return self.head(body)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_is_off_while_the_model_is_evaluated_and_on_again_after(reentrant: bool) -> None:
    model = Checkpointed(reentrant)
    o = la.Objective(model, F.cross_entropy, (X, Y))
    hidden = F.linear(X, model.body.weight, model.body.bias).tanh()
    F.cross_entropy(model.head(hidden), Y).backward()
    assert o.gradient().allclose(torch.cat([p.grad.flatten() for p in model.parameters()]), atol=1e-7)
    calls = []
    model.body.register_forward_hook(lambda *_: calls.append(1))
    model(X.clone().requires_grad_()).sum().backward()
    assert len(calls) == 2  # forward, and again in the backward pass


def test_a_network_with_kinks_passes_and_what_was_done_is_told() -> None:
    torch.manual_seed(0)
    o = la.Objective(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3)), F.cross_entropy, (X, Y))
    o.hvp(o.gradient())
    assert "self-check of the gradient: agrees" in o.explain()
    assert "self-check of the curvature: agrees" in o.explain()


class Counted(nn.Linear):
    """Counts the examples that it is called with."""

    examples = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.examples += len(x)
        return super().forward(x)


def test_few_examples_are_looked_at_in_few_passes_where_a_pass_is_costly() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 4096), torch.arange(64) % 3
    o = la.Objective(nn.Sequential(Counted(4096, 64), nn.ReLU(), nn.Linear(64, 3)), F.cross_entropy, (x, y))
    assert o.batches.uncut is None  # which is asked of the model once
    Counted.examples = 0
    o.hvp(torch.ones(o.n_parameters))
    assert Counted.examples <= 64 + 5 * 4  # the product's own; of both checks: a value, three gradients and a product
    assert "self-check of the curvature: agrees" in o.explain()


class Far(nn.Module):
    """Rows that are not used make theta long, so that steps that suit its length cross many kinks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(5000, 8)
        self.table.weight.data.mul_(300)
        self.wide = nn.Sequential(nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(x + 1e-6 * self.table.weight[0, :4])


def test_kinks_cost_the_check_no_further_passes() -> None:
    o = la.Objective(Far(), F.cross_entropy, (X, Y))
    o.hvp(torch.ones(o.n_parameters))
    assert "self-check of the gradient: agrees, 3 passes" in o.explain()
    assert "self-check of the curvature: agrees, 1 passes" in o.explain()


@pytest.mark.parametrize(
    ("limit", "told"), [(10**9, "in float64"), (7 * 10**6, "in float32"), (55 * 10**5, "not tried")]
)
def test_a_spectrum_within_a_memory_has_its_derivatives_checked_within_it(limit: int, told: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 12_000), nn.Tanh(), nn.Linear(12_000, 3, bias=False))
    o = la.Objective(model, F.cross_entropy, (X, Y))
    assert 60 * o.n_parameters < 7 * 10**6 < 80 * o.n_parameters
    with pytest.warns(ConvergenceWarning, match="not reached"):
        la.spectrum(o, 1, max_products=4, trace=False, density=False, trend=False, max_memory=limit, progress=False)
    said = [line for line in o.explain().splitlines() if line.startswith("self-check of the ")]
    assert [told in line for line in said] == [True, True], said


@pytest.mark.parametrize(
    ("bytes_each", "told"),
    [(2 * 80, "in float64"), (2 * 79, r"in float32, since float64 takes about"), (2 * 59, "not tried, it takes about")],
)
def test_by_default_the_check_takes_half_of_the_memory_that_is_free(
    bytes_each: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    o = la.Objective(nn.Linear(4, 3), F.cross_entropy, (X, Y))
    monkeypatch.setattr(derivative_check, "free_bytes", lambda device: bytes_each * o.n_parameters)
    o.hvp(torch.ones(o.n_parameters))
    said = [line for line in o.explain().splitlines() if line.startswith("self-check of the ")]
    assert [told in line for line in said] == [True, True], said


def test_numbers_of_many_parameters_stay_in_their_type_and_decide_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looked, "EXACT", 1)
    monkeypatch.setattr(derivative_check, "free_bytes", lambda device: 2 * 70 * 51)
    torch.manual_seed(0)
    o = la.Objective(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), F.cross_entropy, (X, Y))
    o.hvp(torch.ones(o.n_parameters))
    assert "self-check of the curvature: agrees" in o.explain()
    assert "in float32" in o.explain()
