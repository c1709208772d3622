"""Extreme eigenpairs of matrices whose spectrum is known: true residuals, no ghosts, nothing missed."""

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
from lossatlas.errors import ConvergenceWarning, DirectionError, InputError, NumericalError

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
    "two": torch.tensor([-2.0, 1.0]),
    "three, two of them equal": torch.tensor([1.0, -2.0, 1.0]),
    "rank one": torch.cat([torch.tensor([-4.0]), torch.zeros(29)]),
    "negative definite": -torch.linspace(1, 5, 40),
    "sixteen decades": 10.0 ** torch.linspace(-8, 8, 60, dtype=torch.float64),
    "six equal at the top": torch.cat([torch.full((6,), 3.0), torch.linspace(-1, 1, 60)]),
    "six equal at the bottom": torch.cat([torch.full((6,), -3.0), torch.linspace(-1, 1, 60)]),
    "six equal in the middle": torch.cat([torch.full((6,), 0.3), torch.linspace(-1, 1, 60)]),
}
DISTINCT = ["spread", "indefinite", "outliers", "small numbers", "one by one", "two", "negative definite"]
DTYPES = [torch.float32, torch.float64]
WHICH = ["largest", "smallest", "magnitude", "both"]


def operator(matrix: Tensor) -> Operator:
    return Operator(len(matrix), lambda rows: rows @ matrix, matrix.dtype, matrix.device)


def true_residuals(matrix: Tensor, pairs) -> Tensor:
    vectors = pairs.vectors.double()
    return (vectors @ matrix.double() - pairs.values[:, None] * vectors).norm(dim=1)


def expected(values: Tensor, k: int, which: str) -> np.ndarray:
    values = np.sort(values.double().numpy())
    return {
        "largest": values[::-1][:k],
        "smallest": values[:k],
        "both": np.concatenate([values[::-1][:k], values[:k]]),
        "magnitude": values[np.argsort(-abs(values), kind="stable")][:k],
    }[which]


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-2), (torch.float32, 1e-5), (torch.float64, 1e-5)])
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("name", SPECTRA)
def test_the_true_residual_is_never_above_the_one_that_is_reported(name, which, dtype, tol):
    matrix = symmetric(SPECTRA[name])[0].to(dtype)
    n = len(matrix)
    for k in {1, min(3, n), n // 3 or 1, n}:
        pairs = la.top_eigenpairs(operator(matrix), k, which=which, tol=tol)
        assert pairs.vectors.shape == (2 * k if which == "both" else k, n)
        assert (true_residuals(matrix, pairs) <= pairs.residuals).all()
        assert pairs.converged.all()
        assert pairs.products <= n + len(pairs.values)
        np.testing.assert_allclose(pairs.vectors.double().norm(dim=1), 1, rtol=1e-6)
        half = pairs.vectors[:k].double()
        off = (half @ half.T - torch.eye(k, dtype=torch.float64)).abs().max()
        assert float(off) <= (1e-4 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("name", DISTINCT)
def test_the_eigenvalues_are_the_wanted_ones_in_their_order(name, which, dtype):
    values = SPECTRA[name]
    k = min(4, len(values))
    pairs = la.top_eigenpairs(operator(symmetric(values)[0].to(dtype)), k, which=which, tol=1e-5)
    error = np.abs(pairs.values.numpy() - expected(values, k, which))
    assert (error <= pairs.residuals.numpy() + 1e-6 * float(values.abs().max())).all()


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("name", SPECTRA)
def test_every_number_of_pairs_gives_the_eigenvalues_one_to_one(name, which):
    """Also close to the whole space, where the last directions are all that is left and rounding could pass for one."""
    values = SPECTRA[name].double()
    n = len(values)
    for k in sorted({1, 2, n // 3, n // 2, n - 1, n} & set(range(1, n + 1))):
        pairs = la.top_eigenpairs(operator(symmetric(values)[0]), k, which=which, tol=1e-9, floor=1e-9)
        found, truth = pairs.values.numpy(), expected(values, k, which)
        if which == "magnitude":  # which of a and -a comes first is rounding's choice
            found, truth = np.sort(np.abs(found)), np.sort(np.abs(truth))
        np.testing.assert_allclose(found, truth, atol=1e-8 * float(values.abs().max()), rtol=0)


@pytest.mark.parametrize("block", [1, 2, 4, 7])
@pytest.mark.parametrize("name", ["identity", "decaying", "low rank", "spread"])
def test_a_block_of_any_size_leaves_no_ghosts(name, block):
    values = SPECTRA[name].double()[:7]
    for k in range(1, 8):
        matrix = symmetric(values)[0]
        pairs = la.top_eigenpairs(operator(matrix), k, block=block, tol=1e-8, floor=1e-8)
        np.testing.assert_allclose(pairs.values, expected(values, k, "largest"), atol=1e-10 * float(values.max()))
        np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(k), atol=1e-10)
        assert (true_residuals(matrix, pairs) <= pairs.residuals).all()


@pytest.mark.parametrize("value", [3.0, -3.0, 0.0, 0.25], ids=["top", "bottom", "zero", "inside"])
def test_of_fifty_equal_eigenvalues_no_wanted_one_is_missed(value):
    values = torch.cat([torch.full((50,), value), torch.linspace(-1, 1, 100)]).double()
    for which in WHICH:
        pairs = la.top_eigenpairs(operator(symmetric(values)[0]), 6, which=which, tol=1e-6, floor=1e-6)
        found, truth = pairs.values.numpy(), expected(values, 6, which)
        if which == "magnitude":
            found, truth = np.sort(np.abs(found)), np.sort(np.abs(truth))
        np.testing.assert_allclose(found, truth, atol=3e-6)
        assert pairs.products < 150


def test_ten_eigenvalues_within_a_millionth_are_all_found():
    values = torch.cat([1 + 1e-7 * torch.arange(10, dtype=torch.float64), torch.linspace(-0.5, 0.5, 140)])
    matrix = symmetric(values)[0]
    pairs = la.top_eigenpairs(operator(matrix), 12, tol=1e-3)
    np.testing.assert_allclose(pairs.values, expected(values, 12, "largest"), atol=1e-3)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(12), atol=1e-10)
    sharp = la.top_eigenpairs(operator(matrix), 10, tol=1e-10)
    np.testing.assert_allclose(sharp.values, expected(values, 10, "largest"), atol=1e-10)


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
    assert pairs.products <= 17


def test_all_eigenvalues_of_a_matrix_with_repeated_ones():
    values = torch.tensor([5.0, 5.0, 5.0, 2.0, 2.0, 1.0, -1.0, -1.0])
    pairs = la.top_eigenpairs(operator(symmetric(values)[0]), 8)
    np.testing.assert_allclose(pairs.values, values, atol=1e-12)


@pytest.mark.parametrize("block", [1, 3])
def test_equal_eigenvalues_are_found_by_a_second_look(block):
    values = torch.cat([torch.tensor([5.0, 5.0, 5.0, 1.0]), torch.linspace(0, 0.5, 40)]).double()
    matrix = symmetric(values)[0]
    pairs = la.top_eigenpairs(operator(matrix), 4, tol=1e-3, block=block)
    np.testing.assert_allclose(pairs.values, [5, 5, 5, 1], rtol=1e-3)
    assert (true_residuals(matrix, pairs) <= pairs.residuals).all()
    assert pairs.products <= 48


@pytest.mark.parametrize("start", ["the top one", "both top ones", "another one", "nearly the top one"])
def test_a_warm_start_finds_the_top_pair_wherever_it_starts(start):
    values = torch.cat([torch.tensor([5.0, 4.0]), torch.linspace(-1, 1, 118)]).double()
    matrix, q = symmetric(values)
    noise = torch.randn(120, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    given = {
        "the top one": q[:, 0],
        "both top ones": q[:, :2].T.contiguous(),
        "another one": 1e6 * q[:, 50],
        "nearly the top one": q[:, 0] + 1e-3 * noise,
    }[start]
    cold, warm = (la.top_eigenpairs(operator(matrix), 2, tol=1e-4, start=s) for s in (None, given))
    np.testing.assert_allclose(warm.values, [5, 4], rtol=1e-6)
    assert (true_residuals(matrix, warm) <= warm.residuals).all()
    assert warm.products <= cold.products + 3


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
def test_little_memory_costs_products_and_nothing_else(which, dtype):
    values = torch.cat([torch.tensor([50.0, 30.0, 20.0, -5.0]), torch.linspace(0, 1, 196)]).double()
    matrix = symmetric(values)[0].to(dtype)
    spent = []
    for vectors in (200, 40, 20, 14):
        memory = vectors * 200 * matrix.element_size()
        pairs = la.top_eigenpairs(operator(matrix), 3, which=which, tol=1e-4, floor=1e-4, max_memory=memory)
        np.testing.assert_allclose(pairs.values, expected(values, 3, which), atol=50e-4)
        assert (true_residuals(matrix, pairs) <= pairs.residuals).all()
        assert pairs.converged.all()
        spent.append(pairs.products)
    assert spent == sorted(spent)
    assert spent[-1] <= 2 * spent[0]


def test_with_little_memory_max_products_may_exceed_the_size_of_the_matrix():
    """A search that restarts forgets, so n products need not be enough."""
    matrix = symmetric(torch.linspace(1, 100, 100, dtype=torch.float64))[0]
    with pytest.warns(ConvergenceWarning, match="max_products"):
        la.top_eigenpairs(operator(matrix), 2, which="both", tol=1e-8, max_memory=8 * 800)
    pairs = la.top_eigenpairs(operator(matrix), 2, which="both", tol=1e-8, max_memory=8 * 800, max_products=1000)
    np.testing.assert_allclose(pairs.values, [100, 99, 1, 2], rtol=1e-8)
    assert pairs.converged.all()
    assert 100 < pairs.products < 400


def test_a_floor_lets_the_end_that_is_zero_converge():
    values = torch.cat([torch.zeros(100), torch.linspace(0.5, 10, 100)]).double()
    with pytest.warns(ConvergenceWarning):
        la.top_eigenpairs(operator(symmetric(values)[0]), 2, which="smallest", tol=1e-3, max_products=40)
    pairs = la.top_eigenpairs(
        operator(symmetric(values)[0]), 2, which="smallest", tol=1e-3, floor=1e-4, max_products=60
    )
    assert pairs.converged.all()
    assert (pairs.residuals <= 1e-3).all()
    np.testing.assert_allclose(pairs.values, 0, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
def test_too_few_products_warn_and_the_residuals_stay_true(dtype):
    matrix = symmetric(SPECTRA["spread"])[0].to(dtype)
    with pytest.warns(ConvergenceWarning, match="max_products"):
        pairs = la.top_eigenpairs(operator(matrix), 5, tol=1e-5, max_products=12)
    assert pairs.products == 12
    assert not pairs.converged.all()
    residuals = true_residuals(matrix, pairs)
    assert (residuals <= pairs.residuals).all()
    nearest = (pairs.values[:, None] - SPECTRA["spread"].double()).abs().min(dim=1).values
    assert (nearest <= pairs.residuals).all()
    assert (pairs.residuals > 1e-5 * pairs.values.abs())[~pairs.converged].all()


def test_a_tolerance_below_the_resolution_of_the_type_is_said_and_corrected():
    matrix = symmetric(SPECTRA["outliers"])[0].float()
    with pytest.warns(ConvergenceWarning, match=r"tol=1e-09 is below the resolution of float32.*float64"):
        pairs = la.top_eigenpairs(operator(matrix), 2, tol=1e-9)
    assert pairs.converged.all()
    assert (true_residuals(matrix, pairs) <= pairs.residuals).all()
    assert pairs.products < 60
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        la.top_eigenpairs(operator(matrix.double()), 2, tol=1e-9)


def test_a_warning_about_an_eigenvalue_of_zero_is_no_division_by_zero():
    matrix = symmetric(torch.cat([torch.zeros(30), torch.linspace(0, 1, 30)]))[0]
    with pytest.warns(ConvergenceWarning), np.errstate(all="raise"):
        la.top_eigenpairs(operator(matrix), 3, which="smallest", tol=1e-12, max_products=8)


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
        (lambda: la.top_eigenpairs(matrix, 1, tol=-1.0), "positive"),
        (lambda: la.top_eigenpairs(matrix, 1, tol=float("nan")), "positive"),
        (lambda: la.top_eigenpairs(matrix, 1, which="top"), "magnitude"),
        (lambda: la.top_eigenpairs(matrix, 1, block=0), "between 1 and 4"),
        (lambda: la.top_eigenpairs(matrix, 1, block=5), "between 1 and 4"),
        (lambda: la.top_eigenpairs(matrix, 2, max_memory=20), "at least 64 bytes, for 4"),
        (lambda: la.top_eigenpairs(matrix, 2, max_memory=0), "holds 0 vectors"),
        (lambda: la.top_eigenpairs(matrix, 1, start=torch.zeros(4)), "none of them zero"),
        (lambda: la.top_eigenpairs(matrix, 1, start=torch.full((4,), float("nan"))), "finite"),
        (lambda: la.top_eigenpairs(matrix, 1, start=torch.ones(3)), "\\(4,\\)"),
        (lambda: la.top_eigenpairs(matrix, 3, max_products=2), "at least 6"),
        (lambda: la.top_eigenpairs(matrix, 3, max_products=0), "at least 6"),
    ):
        with pytest.raises(InputError, match=words):
            ask()
    with pytest.raises(DirectionError, match="4 x 4"):
        matrix @ torch.ones(5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_products_that_are_not_finite_are_an_error(bad):
    with pytest.raises(NumericalError, match=r"finite|NaN"):
        la.top_eigenpairs(operator(torch.full((20, 20), bad)), 2)


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


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("which", WHICH)
def test_products_that_are_not_symmetric_are_a_floor_under_every_residual(which, dtype):
    """0.1 % of the norm, as products of a wrong derivative are, on any network: no residual may claim to be smaller."""
    symmetric_part = symmetric(SPECTRA["indefinite"])[0]
    n = len(symmetric_part)
    draw = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    skew = (draw - draw.T) * (1e-3 * torch.linalg.matrix_norm(symmetric_part, 2) / torch.linalg.matrix_norm(draw, 2))
    matrix = (symmetric_part + skew).to(dtype)
    a = Operator(n, lambda rows: rows @ matrix.T, dtype, matrix.device)
    remedy = "check the derivatives" if dtype == torch.float64 else "float64"
    with pytest.warns(ConvergenceWarning, match=f"symmetric to .* only.*{remedy}"):
        pairs = la.top_eigenpairs(a, 3, which=which, tol=1e-5)
    vectors = pairs.vectors.double()
    measured = (vectors @ matrix.double().T - pairs.values[:, None] * vectors).norm(dim=1)
    assert (measured <= pairs.residuals).all()
    assert not pairs.converged.any()
    off = symmetric_part - matrix.double()
    assert 0.1 * torch.linalg.matrix_norm(off, 2) <= pairs.asymmetry <= 2.001 * torch.linalg.matrix_norm(off, 2)
    truth = torch.linalg.eigvalsh(symmetric_part)
    nearest = (pairs.values[:, None] - truth).abs().min(dim=1).values
    assert (nearest <= pairs.residuals + 1e-5 * truth.abs().max()).all()
    np.testing.assert_allclose(pairs.values, ((vectors @ matrix.double().T) * vectors).sum(1), rtol=1e-5, atol=1e-5)


def test_an_objective_in_the_place_of_an_operator_is_refused_with_the_remedy():
    o = la.Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss, (torch.eye(2), torch.zeros(2, 1)))
    for verb in (la.top_eigenpairs, la.trace, la.diagonal, la.spectral_density, la.power_iteration):
        with pytest.raises(InputError, match=r"of the type Objective: give la.hessian\(objective\)"):
            verb(o)
    for verb, remedy in ((la.gabdullin, "spectral_density"), (la.eigen_plane, "vectors=True")):
        with pytest.raises(InputError, match=remedy):
            verb(o)
