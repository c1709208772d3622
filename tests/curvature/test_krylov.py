"""The Krylov space: its relation A V' = V' T + P' C, orthonormality, restarts, and where it ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.quadratic import symmetric
from torch import Tensor

from lossatlas.curvature.krylov import KrylovSpace
from lossatlas.curvature.operators import Operator

DTYPES = [torch.float32, torch.float64]
VALUES = torch.cat([torch.tensor([30.0, -9.0]), torch.linspace(-1, 2, 58)]).double()


def space_of(matrix: Tensor, capacity: int, locked: Tensor | None = None, seed: int = 0) -> KrylovSpace:
    operator = Operator(len(matrix), lambda rows: rows @ matrix, matrix.dtype, matrix.device)
    return KrylovSpace(operator, capacity, torch.Generator().manual_seed(seed), locked)


def grown(matrix: Tensor, steps: int, starts: int = 1, capacity: int = 60) -> KrylovSpace:
    space = space_of(matrix, capacity)
    for _ in range(starts):
        space.start()
    for _ in range(steps):
        space.extend()
    return space


def true_residuals(matrix: Tensor, values: np.ndarray, vectors: Tensor) -> np.ndarray:
    rows = vectors.double()
    return (rows @ matrix.double() - torch.from_numpy(values)[:, None] * rows).norm(dim=1).numpy()


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("starts", [1, 4])
def test_the_basis_is_orthonormal_and_the_ritz_pairs_have_the_residuals_that_are_told(dtype, starts):
    matrix = symmetric(VALUES)[0].to(dtype)
    space = grown(matrix, 25, starts)
    assert (space.size, space.products) == (25, 25)
    off = space.basis.double() @ space.basis.double().T - torch.eye(25)
    assert float(off.abs().max()) < (1e-5 if dtype == torch.float32 else 1e-13)
    values, weights, residuals = space.ritz()
    found = true_residuals(matrix, values, space.combine(weights))
    np.testing.assert_array_less(found, residuals * (1 + 1e-12))
    np.testing.assert_allclose(found, residuals, atol=5 * space.rounding)


@pytest.mark.parametrize("starts", [1, 3])
def test_a_restart_keeps_what_is_known_of_the_vectors_that_stay(starts):
    matrix = symmetric(VALUES)[0]
    space = grown(matrix, 20, starts)
    values, weights, residuals = space.ritz()
    kept = [19, 18, 17, 0]
    space.restart(values[kept], weights[:, kept])
    assert space.size == 4
    assert space.free == 56
    again, weights, after = space.ritz()
    np.testing.assert_allclose(again, np.sort(values[kept]), rtol=1e-13)
    np.testing.assert_allclose(after, residuals[np.sort(kept)], atol=1e-12)
    np.testing.assert_array_less(true_residuals(matrix, again, space.combine(weights)), after * (1 + 1e-9))
    for _ in range(16):
        space.extend()
    values, weights, residuals = space.ritz()
    np.testing.assert_allclose(true_residuals(matrix, values, space.combine(weights)), residuals, atol=1e-12)
    assert float((space.basis @ space.basis.T - torch.eye(20)).abs().max()) < 1e-13


def test_an_invariant_space_is_exhausted_and_can_be_started_anew():
    matrix = symmetric(torch.tensor([4.0, 4.0, 4.0, 1.0, 1.0, 1.0, 1.0]).double())[0]
    space = grown(matrix, 2)
    assert space.exhausted
    np.testing.assert_allclose(space.ritz()[0], [1, 4], atol=1e-13)
    for expected in ([1, 1, 4, 4], [1, 1, 1, 4, 4, 4]):
        space.start()
        space.extend()
        space.extend()
        assert space.exhausted
        np.testing.assert_allclose(space.ritz()[0], expected, atol=1e-13)


@pytest.mark.parametrize("values", [torch.ones(5), torch.zeros(5), 10.0 ** -torch.arange(0, 20, 4), torch.arange(5)])
@pytest.mark.parametrize("starts", [1, 2, 5, 7])
def test_the_space_ends_with_the_matrix_however_often_it_is_started(values, starts):
    """What is left of a vector when no direction is left is rounding: multiplied, it would be a ghost."""
    matrix, truth = symmetric(values.double())[0], np.sort(values.double().numpy())
    space = grown(matrix, 0, starts, capacity=12)
    while space.size < 5:
        if space.exhausted:
            space.start()
        space.extend()
        space.start()
    np.testing.assert_allclose(space.ritz()[0], truth, atol=1e-13 * max(1, float(truth[-1])))
    assert float((space.basis @ space.basis.T - torch.eye(5)).abs().max()) < 1e-12
    assert space.exhausted


def test_beside_locked_eigenvectors_it_sees_the_other_eigenvalues_only():
    matrix, q = symmetric(VALUES)
    space = space_of(matrix, 58, q[:, :2].T.contiguous())
    space.start()
    assert space.dimension == 58
    while space.size < 58 and not space.exhausted:
        space.extend()
    values = space.ritz()[0]
    np.testing.assert_allclose(values, np.sort(VALUES.numpy()[2:]), atol=1e-11)
    assert float((space.basis @ q[:, :2]).abs().max()) < 1e-13


def test_from_one_vector_the_matrix_is_tridiagonal_and_has_its_moments():
    matrix = symmetric(VALUES)[0]
    space = grown(matrix, 8)
    diagonal, off_diagonal = space.tridiagonal()
    assert (diagonal.shape, off_diagonal.shape) == ((8,), (7,))
    assert (off_diagonal > 0).all()
    small = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    first, power, power_small = space.basis[0], space.basis[0], np.eye(8)[0]
    for _ in range(15):  # the Gauss rule of m nodes is exact to the degree 2m - 1
        power, power_small = matrix @ power, small @ power_small
        assert float(first @ power) == pytest.approx(power_small[0], rel=1e-12, abs=1e-12)
    assert space.trace == pytest.approx(diagonal.sum())
