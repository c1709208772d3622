"""The spectrum of each layer: its block of the dense Hessian, the other parameters fixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import plain
from oracles.members import BATCH, BY_NAME, MEMBERS, Member
from torch import Tensor

import lossatlas as la
from lossatlas.objective import Objective

K = 3


def blocks(member: Member, dense: Tensor) -> dict[str, np.ndarray]:
    """Module name -> its diagonal block of the Hessian, from the names of the model's own parameters."""
    positions: dict[str, list[int]] = {}
    at = 0
    for name, parameter in plain.trainable(member.make()):
        module = name.rpartition(".")[0] or name
        positions.setdefault(module, []).extend(range(at, at + parameter.numel()))
        at += parameter.numel()
    return {module: dense[rows][:, rows].numpy() for module, rows in positions.items()}


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_each_layer_has_the_eigenvalues_and_the_trace_of_its_block(member):
    model, data = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, data, batch_size=BATCH)
    found = la.spectrum(o, K, tol=1e-9, layers=True, trend=False, density=False)
    truth = blocks(member, plain.hessian(model, member.loss, data))
    assert found["layer"].values.tolist() == list(truth)
    assert found["layer_eigenvalue"].dims == ("layer", "end", "rank")
    for name, block in truth.items():
        one, values = found.sel(layer=name), np.linalg.eigvalsh(block)
        kept = min(K, len(values))
        scale = np.abs(values).max()
        np.testing.assert_allclose(
            one["layer_eigenvalue"].sel(end="top")[:kept], values[::-1][:kept], atol=1e-8 * scale
        )
        np.testing.assert_allclose(one["layer_eigenvalue"].sel(end="bottom")[:kept], values[:kept], atol=1e-8 * scale)
        assert one["layer_eigenvalue"].sel(end="top")[kept:].isnull().all()
        assert (one["layer_residual"].sel(end="top")[:kept] <= 2e-9 * scale).all()
        assert int(one["layer_size"]) == len(values)
        error = abs(float(one["layer_trace"]) - values.sum())
        assert error <= 4 * float(one["layer_trace_stderr"]) + 1e-8 * scale
    assert int(found["layer_size"].sum()) == o.n_parameters


def test_the_layers_are_those_of_the_point_that_is_given():
    member = BY_NAME["mlp-tanh"]
    model, data = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, data)
    theta = o.point + 0.3
    found = la.spectrum(o.at(theta), 1, tol=1e-9, layers=True, trend=False, density=False)
    dense = plain.hessian(plain.at(model, theta), member.loss, data)
    for name, block in blocks(member, dense).items():
        values = np.linalg.eigvalsh(block)
        np.testing.assert_allclose(
            found["layer_eigenvalue"].sel(layer=name)[:, 0], values[[-1, 0]], atol=1e-8 * values[-1]
        )


def test_the_largest_eigenvalue_of_a_layer_is_at_most_that_of_all():
    """Cauchy's interlacing: a block's largest eigenvalue is no larger, its smallest no smaller."""
    member = BY_NAME["attention"]
    o = Objective(member.make(torch.float64), member.loss, member.data(torch.float64))
    found = la.spectrum(o, 1, tol=1e-8, trace_tol=1e-7, layers=True, trend=False, density=False)
    top, bottom = found["eigenvalue"].to_numpy()[:, 0]
    assert (found["layer_eigenvalue"].sel(end="top") <= top * (1 + 1e-8)).all()
    assert (found["layer_eigenvalue"].sel(end="bottom") >= bottom - 1e-8 * top).all()
    assert float(found["layer_trace"].sum()) == pytest.approx(float(found["trace"]), rel=1e-6)
