"""The spectrum of a Hessian: both ends, the solver's error and the data's, and real digits against dense algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BATCH, MEMBERS
from oracles.quadratic import quadratic, symmetric
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import ConvergenceWarning, InputError
from lossatlas.objective import Objective


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_both_ends_are_those_of_the_dense_hessian(member):
    model, data = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, data, batch_size=BATCH)
    truth = np.linalg.eigvalsh(plain.hessian(model, member.loss, data).numpy())
    found = la.spectrum(o, 2, tol=1e-6)
    scale = abs(truth).max()
    np.testing.assert_allclose(found["eigenvalue"].sel(end="top"), truth[::-1][:2], atol=1e-6 * scale)
    np.testing.assert_allclose(found["eigenvalue"].sel(end="bottom"), truth[:2], atol=1e-6 * scale)
    assert found["rank"].values.tolist() == [1, 2]
    assert found.attrs["converged"] == 1


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_in_float32_the_residual_bounds_the_distance_to_the_float64_spectrum(member):
    data = member.data()
    o = Objective(member.make(), member.loss, data, batch_size=BATCH)
    truth = np.linalg.eigvalsh(plain.hessian(member.make(), member.loss, data).numpy())
    pairs = la.top_eigenpairs(la.hessian(o), 2, tol=1e-3)
    dense = plain.hessian(member.make(), member.loss, data)
    vectors = pairs.vectors.double()
    residuals = (vectors @ dense - pairs.values[:, None] * vectors).norm(dim=1)
    assert (residuals <= pairs.residuals).all()
    nearest = np.abs(pairs.values.numpy()[:, None] - truth).min(axis=1)
    assert (nearest <= pairs.residuals.numpy()).all()


def test_the_ends_may_meet():
    matrix, _ = symmetric([3.0, 1.0, -2.0])
    o = quadratic(matrix, torch.zeros(4, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    for k in (1, 2, 3):
        found = la.spectrum(o, k)["eigenvalue"]
        np.testing.assert_allclose(found.sel(end="top"), [3, 1, -2][:k], atol=1e-12)
        np.testing.assert_allclose(found.sel(end="bottom"), [-2, 1, 3][:k], atol=1e-12)
    with pytest.raises(InputError, match="between 1 and 3"):
        la.spectrum(o, 4)


def test_the_data_sampling_error_is_that_of_the_batches_curvatures():
    member = MEMBERS[1]
    model = member.make(torch.float64)
    o = Objective(model, member.loss, member.data(torch.float64), batch_size=BATCH)
    found = la.spectrum(o, 1, tol=1e-10)
    dense = [plain.hessian(model, member.loss, batch) for batch in member.batches(torch.float64)]
    weights = np.array([9, 9, 5]) / 23
    whole = sum(w * h for w, h in zip(weights, dense, strict=True))
    for end, column in (("top", -1), ("bottom", 0)):
        vector = torch.linalg.eigh(whole).eigenvectors[:, column]
        forms = np.array([float(vector @ h @ vector) for h in dense])
        spread = weights * (forms - weights @ forms)
        expected = math.sqrt(1.5 * float(spread @ spread))
        assert float(found["eigenvalue_stderr"].sel(end=end)[0]) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(
        la.spectrum(Objective(model, member.loss, member.data(torch.float64)), 1)["eigenvalue_stderr"]
    ).all()


def test_the_spectrum_can_be_taken_at_another_point():
    member = MEMBERS[1]
    model, data = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, data)
    theta = o.point + 0.3
    truth = np.linalg.eigvalsh(plain.hessian(plain.at(model, theta), member.loss, data).numpy())
    found = la.spectrum(o, 1, point=theta, tol=1e-8)["eigenvalue"]
    np.testing.assert_allclose(found.values[:, 0], [truth[-1], truth[0]], rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_vectors_that_are_asked_for_are_eigenvectors_at_the_point(dtype):
    matrix, q = symmetric([5.0, 3.0, 0.5, -1.0, -4.0])
    center, w = torch.arange(5.0, dtype=torch.float64), torch.linspace(-1, 1, 5, dtype=torch.float64)
    o = quadratic(matrix.to(dtype), center.to(dtype).expand(3, 5), w.to(dtype))
    found = la.spectrum(o, 2, vectors=True)
    assert found["eigenvector"].dims == ("end", "rank", "parameter")
    assert found["eigenvector"].dtype == np.float32
    vectors = found["eigenvector"].values.reshape(4, 5)
    truth = q.T.numpy()[[0, 1, 4, 3]]  # the two largest, the two smallest
    np.testing.assert_allclose(abs((vectors * truth).sum(axis=1)), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert torch.equal(torch.from_numpy(found["point"].values), w.to(dtype))
    gradient = (matrix @ (w - center)).numpy()
    np.testing.assert_allclose(found["slope"].values.ravel(), vectors @ gradient, atol=1e-4)
    assert found.attrs["loss"] == pytest.approx(float((w - center) @ matrix @ (w - center) / 2), rel=1e-6)


def test_the_vectors_are_of_the_point_that_was_given():
    member = MEMBERS[1]
    model, data = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, data)
    theta = o.point + 0.3
    found = la.spectrum(o, 1, point=theta, tol=1e-8, vectors=True)
    moved = plain.at(model, theta)
    dense = plain.hessian(moved, member.loss, data)
    vectors = torch.from_numpy(found["eigenvector"].values[:, 0]).double()
    values = torch.from_numpy(found["eigenvalue"].values)
    torch.testing.assert_close(vectors @ dense, values * vectors, rtol=0, atol=1e-6 * float(values.abs().max()))
    assert torch.equal(torch.from_numpy(found["point"].values), theta)
    assert found.attrs["loss"] == pytest.approx(o.value(theta), rel=1e-12)


def test_no_vectors_are_kept_unless_asked_for():
    matrix, _ = symmetric([3.0, 1.0, -2.0])
    o = quadratic(matrix, torch.zeros(4, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    found = la.spectrum(o, 1)
    assert set(found.data_vars) == {"eigenvalue", "residual", "eigenvalue_stderr"}
    assert "loss" not in found.attrs


def test_a_spectrum_that_misses_its_tolerance_says_so():
    member = MEMBERS[1]
    o = Objective(member.make(), member.loss, member.data())
    with pytest.warns(ConvergenceWarning):
        found = la.spectrum(o, 2, tol=1e-9, max_products=5)
    assert found.attrs["converged"] == 0
    assert found.attrs["products"] == 5
    assert found.attrs["tol"] == 1e-9


@pytest.fixture(scope="module")
def digits():
    """A 64-12-10 perceptron, 910 parameters, trained a little on real digits; all in float64."""
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.from_numpy(images / 16), torch.from_numpy(labels).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    def by_hand(theta: Tensor) -> Tensor:
        first, bias, second, last = theta.split([768, 12, 120, 10])
        hidden = torch.tanh(inputs @ first.view(12, 64).T + bias)
        logits = hidden @ second.view(10, 12).T + last
        return (logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]).mean()

    theta = plain.flat(model)
    o = Objective(model, F.cross_entropy, (inputs, targets), batch_size=500)
    return o, by_hand, theta, plain.dense_hessian(by_hand, theta)


def relative(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def test_on_digits_loss_gradient_and_products_match_the_dense_hessian_to_1e_8(digits):
    o, by_hand, theta, dense = digits
    assert o.n_parameters == 910
    assert o.value() == pytest.approx(float(by_hand(theta)), rel=1e-12)
    point = theta.clone().requires_grad_()
    assert relative(o.gradient(), torch.autograd.grad(by_hand(point), point)[0]) < 1e-8
    vectors = torch.randn(3, 910, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert relative(o.hvp(vectors), vectors @ dense) < 1e-8


def test_on_digits_the_ten_leading_eigenvalues_match_the_dense_hessian_to_1e_8(digits):
    o, _, _, dense = digits
    truth = torch.linalg.eigvalsh(dense).flip(0)[:10]
    pairs = la.top_eigenpairs(la.hessian(o), 10, tol=1e-8)
    assert float(((pairs.values - truth) / truth).abs().max()) < 1e-8
    residuals = (pairs.vectors @ dense - pairs.values[:, None] * pairs.vectors).norm(dim=1)
    assert (residuals <= pairs.residuals).all()
    assert pairs.products < 300
