"""Lanczos on matrices whose spectrum is known, and the Hessian of real digits against its dense form."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from oracles.quadratic import symmetric
from torch import Tensor

import lossatlas as la
from lossatlas.curvature.operators import Operator
from lossatlas.errors import ConvergenceWarning, DirectionError, InputError

SPECTRA: dict[str, Tensor] = {
    "spread": torch.linspace(1, 60, 60),
    "indefinite": torch.linspace(-4, 6, 50),
    "outliers": torch.cat([torch.tensor([50.0, 30.0, 20.0, -5.0]), torch.linspace(0, 1, 76)]),
    "decaying": 10.0 ** -torch.arange(0, 8, 0.2),
    "clustered": torch.cat([torch.tensor([10.0, 9.9, 9.8]), torch.ones(10), torch.linspace(0, 0.5, 30)]),
    "low rank": torch.cat([torch.tensor([7.0, 3.0]), torch.zeros(50)]),
    "small numbers": 1e-20 * torch.arange(1, 30),
    "zero": torch.zeros(12),
    "identity": torch.ones(12),
    "one by one": torch.tensor([3.0]),
}
DISTINCT = ["spread", "indefinite", "outliers", "small numbers", "one by one"]
DTYPES = [torch.float32, torch.float64]


def operator(matrix: Tensor) -> Operator:
    return Operator(len(matrix), lambda rows: rows @ matrix, matrix.dtype, matrix.device)


def true_residuals(matrix: Tensor, pairs) -> Tensor:
    vectors = pairs.vectors.double()
    return (vectors @ matrix.double() - pairs.values[:, None] * vectors).norm(dim=1)


def expected(values: Tensor, k: int, which: str) -> np.ndarray:
    values = np.sort(values.double().numpy())
    return {"largest": values[::-1][:k], "smallest": values[:k], "magnitude": values[np.argsort(-abs(values))][:k]}[
        which
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("tol", [1e-2, 1e-5])
def test_the_true_residual_is_never_above_the_one_that_is_reported(name, which, dtype, tol):
    matrix = symmetric(SPECTRA[name])[0].to(dtype)
    for k in {1, min(3, len(matrix)), len(matrix)}:
        pairs = la.top_eigenpairs(operator(matrix), k, which=which, tol=tol)
        assert pairs.vectors.shape == (k, len(matrix))
        assert (true_residuals(matrix, pairs) <= pairs.residuals).all()
        assert pairs.converged.all()
        np.testing.assert_allclose(pairs.vectors.norm(dim=1), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("name", DISTINCT)
def test_the_eigenvalues_are_the_wanted_ones_in_their_order(name, which, dtype):
    values = SPECTRA[name]
    k = min(4, len(values))
    pairs = la.top_eigenpairs(operator(symmetric(values)[0].to(dtype)), k, which=which, tol=1e-6)
    error = np.abs(pairs.values.numpy() - expected(values, k, which))
    assert (error <= pairs.residuals.numpy() + 1e-6 * float(values.abs().max())).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
def test_there_are_no_ghosts(dtype):
    """Without reorthogonalisation the two outliers would come back as many copies."""
    values = torch.cat([torch.tensor([1000.0, 500.0]), torch.linspace(0, 1, 198)])
    pairs = la.top_eigenpairs(operator(symmetric(values)[0].to(dtype)), 10, tol=1e-4, max_products=200)
    assert pairs.values.diff().abs().min() > 1e-3
    np.testing.assert_allclose(pairs.values[:2], [1000, 500], rtol=1e-5)
    overlaps = pairs.vectors @ pairs.vectors.T
    np.testing.assert_allclose(overlaps, np.eye(10), atol=1e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("name", ["low rank", "zero", "identity"])
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_repeated_eigenvalues_are_all_found_when_the_krylov_space_is_exhausted(name, which):
    values = SPECTRA[name]
    pairs = la.top_eigenpairs(operator(symmetric(values)[0]), 5, which=which)
    np.testing.assert_allclose(pairs.values, expected(values, 5, which), atol=1e-12)
    assert pairs.products <= 12


def test_all_eigenvalues_of_a_matrix_with_repeated_ones():
    values = torch.tensor([5.0, 5.0, 5.0, 2.0, 2.0, 1.0, -1.0, -1.0])
    pairs = la.top_eigenpairs(operator(symmetric(values)[0]), 8)
    np.testing.assert_allclose(pairs.values, values, atol=1e-12)


def test_one_start_vector_shows_one_of_several_equal_eigenvalues_as_documented():
    values = torch.cat([torch.tensor([5.0, 5.0, 5.0, 1.0]), torch.linspace(0, 0.5, 40)])
    matrix = symmetric(values)[0]
    pairs = la.top_eigenpairs(operator(matrix), 2, tol=1e-3)
    assert float(pairs.values[0]) == pytest.approx(5, rel=1e-3)
    assert float(pairs.values[1]) == pytest.approx(1, rel=1e-2), "an eigenvalue, though not the second largest"
    assert (true_residuals(matrix, pairs) <= pairs.residuals).all()
    assert "several equal eigenvalues" in la.top_eigenpairs.__doc__


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
def test_too_few_products_warn_and_the_residuals_stay_true(dtype):
    matrix = symmetric(SPECTRA["spread"])[0].to(dtype)
    with pytest.warns(ConvergenceWarning, match="max_products"):
        pairs = la.top_eigenpairs(operator(matrix), 5, tol=1e-8, max_products=12)
    assert pairs.products == 12
    assert not pairs.converged.all()
    residuals = true_residuals(matrix, pairs)
    assert (residuals <= pairs.residuals).all()
    nearest = (pairs.values[:, None] - SPECTRA["spread"].double()).abs().min(dim=1).values
    assert (nearest <= pairs.residuals).all()
    assert (pairs.residuals > 1e-8 * pairs.values.abs())[~pairs.converged].all()


def test_a_warning_about_an_eigenvalue_of_zero_is_no_division_by_zero():
    matrix = symmetric(torch.cat([torch.zeros(30), torch.linspace(0, 1, 30)]))[0]
    with pytest.warns(ConvergenceWarning), np.errstate(all="raise"):
        la.top_eigenpairs(operator(matrix), 3, which="smallest", tol=1e-12, max_products=5)


def test_products_are_counted_and_stop_as_soon_as_the_tolerance_is_met():
    matrix = symmetric(SPECTRA["outliers"])[0]
    calls = []

    def counted(rows: Tensor) -> Tensor:
        calls.append(len(rows))
        return rows @ matrix

    loose = la.top_eigenpairs(Operator(80, counted, matrix.dtype, matrix.device), 2, tol=1e-2)
    assert sum(calls) == loose.products
    tight = la.top_eigenpairs(operator(matrix), 2, tol=1e-10)
    assert loose.products < tight.products < 80
    assert (loose.residuals <= 1e-2 * loose.values.abs()).all()


def test_the_seed_decides_the_start_and_nothing_else():
    matrix = symmetric(SPECTRA["indefinite"])[0]
    first, again, other = (la.top_eigenpairs(operator(matrix), 3, tol=1e-8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.vectors, again.vectors)
    assert not torch.equal(first.values, other.values)
    np.testing.assert_allclose(first.values, other.values, rtol=1e-8)


@pytest.mark.parametrize("which", ["LA", "SA"])
def test_scipy_agrees_through_to_scipy(which):
    matrix = symmetric(SPECTRA["indefinite"])[0]
    theirs = scipy.sparse.linalg.eigsh(operator(matrix).to_scipy(), k=4, which=which, return_eigenvectors=False)
    ours = la.top_eigenpairs(operator(matrix), 4, which="largest" if which == "LA" else "smallest", tol=1e-10)
    np.testing.assert_allclose(np.sort(ours.values), np.sort(theirs), rtol=1e-9)


def test_to_scipy_keeps_type_and_shape():
    matrix = symmetric(SPECTRA["spread"])[0].float()
    wrapped = operator(matrix).to_scipy()
    assert wrapped.dtype == np.float32
    block = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.testing.assert_allclose(wrapped @ block, matrix.numpy() @ block, rtol=1e-4)
    np.testing.assert_allclose(wrapped @ block[:, 0], matrix.numpy() @ block[:, 0], rtol=1e-4)
    assert (wrapped @ block[:, 0]).shape == (60,)


def test_impossible_questions_are_refused():
    matrix = operator(torch.eye(4))
    for ask, words in (
        (lambda: la.top_eigenpairs(matrix, 0), "between 1 and 4"),
        (lambda: la.top_eigenpairs(matrix, 5), "between 1 and 4"),
        (lambda: la.top_eigenpairs(matrix, 1, tol=0.0), "positive"),
        (lambda: la.top_eigenpairs(matrix, 1, which="both"), "magnitude"),
        (lambda: la.top_eigenpairs(matrix, 3, max_products=2), "at least 3"),
        (lambda: la.top_eigenpairs(matrix, 3, max_products=0), "at least 3"),
    ):
        with pytest.raises(InputError, match=words):
            ask()
    with pytest.raises(DirectionError, match="4 x 4"):
        matrix @ torch.ones(5)


def test_power_iteration_converges_to_the_largest_magnitude_or_to_nothing():
    values = torch.tensor([-8.0, 3.0, 1.0, 0.5])
    matrix = symmetric(values)[0]
    fixed = la.power_iteration(operator(matrix), steps=40)
    assert float(fixed["eigenvalue"][-1]) == pytest.approx(-8, rel=1e-8)
    assert fixed.attrs["batches"] == "fixed"
    other = symmetric(values, seed=1)[0]
    changing = la.power_iteration([operator(m) for m in [matrix, other] * 20], steps=40)
    assert changing.attrs["batches"] == "changing"
    assert changing.sizes == {"iteration": 40}
    assert abs(float(changing["eigenvalue"][-1]) + 8) > 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (la.power_iteration(operator(torch.zeros(3, 3)), steps=3)["eigenvalue"] == 0).all()
