"""H = G + R against dense matrices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from oracles.plain import columns
from torch import nn

import lossatlas as la
from lossatlas.errors import InputError


def objective(activation: nn.Module, loss=F.cross_entropy) -> la.Objective:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), activation, nn.Linear(5, 3)).double()
    inputs = torch.randn(40, 6, dtype=torch.float64)
    targets = torch.randint(3, (40,)) if loss is F.cross_entropy else torch.randn(40, 3, dtype=torch.float64)
    return la.Objective(model, loss, (inputs, targets), batch_size=16)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU()])
def test_norms_and_cosine_are_those_of_the_dense_matrices_within_their_errors(activation):
    o = objective(activation)
    hessian, part = columns(la.hessian(o)), columns(la.gauss_newton(o))
    found = la.gauss_newton_split(o, 3, probes=40)
    truth = {
        "frobenius_hessian": hessian.norm(),
        "frobenius_gauss_newton": part.norm(),
        "frobenius_residual": (hessian - part).norm(),
        "cosine": (hessian * part).sum() / (hessian.norm() * part.norm()),
    }
    for name, value in truth.items():
        error = float(found[f"{name}_stderr"])
        assert abs(float(found[name]) - float(value)) <= 4 * error, name
        assert 0 < error < 0.2 * float(value), name


def test_traces_and_curvatures_along_the_leading_eigenvectors_are_exact_for_small_networks():
    o = objective(nn.Tanh())
    hessian, part = columns(la.hessian(o)), columns(la.gauss_newton(o))
    values, vectors = torch.linalg.eigh(hessian)
    found = la.gauss_newton_split(o, 3, tol=1e-8)
    assert float(found["trace_hessian"]) == pytest.approx(float(hessian.trace()), rel=1e-10)
    assert float(found["trace_residual"]) == pytest.approx(float((hessian - part).trace()), rel=1e-8)
    top = vectors[:, -3:].flip(1)
    assert found["curvature_hessian"].to_numpy() == pytest.approx(values[-3:].flip(0).numpy(), rel=1e-8)
    assert found["curvature_gauss_newton"].to_numpy() == pytest.approx(
        torch.einsum("ik,ij,jk->k", top, part, top).numpy(), rel=1e-5
    )


def test_the_traces_of_both_agree_for_a_piecewise_linear_network():
    found = la.gauss_newton_split(objective(nn.ReLU()))
    assert float(found["trace_residual"]) == pytest.approx(0, abs=1e-12)
    assert float(found["trace_hessian_stderr"]) == 0


def test_a_model_that_is_linear_in_its_weights_has_no_residual():
    torch.manual_seed(0)
    data = torch.randn(30, 6, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    found = la.gauss_newton_split(la.Objective(nn.Linear(6, 2).double(), F.mse_loss, data), 2)
    assert float(found["frobenius_residual"]) == pytest.approx(0, abs=1e-12)
    assert float(found["cosine"]) == pytest.approx(1, abs=1e-12)


def test_one_probe_and_a_step_are_refused():
    with pytest.raises(InputError, match="at least 2"):
        la.gauss_newton_split(objective(nn.ReLU()), probes=1)
    o = la.Objective.from_step(nn.Linear(2, 1), lambda model, batch: model(batch).pow(2).mean(), [torch.ones(3, 2)])
    with pytest.raises(InputError, match="outputs apart from the loss"):
        la.gauss_newton_split(o, 1)
