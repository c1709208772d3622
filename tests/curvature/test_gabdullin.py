"""Criteria of negative curvature on matrices with known eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lossatlas as la
from lossatlas.curvature.operators import Operator
from lossatlas.errors import InputError


def operator(values: torch.Tensor) -> Operator:
    torch.manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))[0]
    matrix = rotation @ torch.diag(values.double()) @ rotation.T
    return Operator(len(values), lambda rows: rows @ matrix, torch.float64, torch.device("cpu"))


MIXED = torch.cat([torch.linspace(-1, -0.1, 100), torch.linspace(0.1, 3, 300)])


def test_there_is_none_where_no_eigenvalue_is_negative():
    found = la.gabdullin(la.spectral_density(operator(torch.linspace(0.5, 2, 50)), steps=20))
    for name in ("k_h1", "k_h05", "r_e"):
        assert np.all(found[name] == 0), name


def test_the_consistent_form_tends_to_the_ratio_of_the_sums_on_either_side_of_0():
    found = la.gabdullin(la.spectral_density(operator(MIXED), steps=60, probes=30)).isel(step=-1)
    truth = float(-MIXED[MIXED < 0].sum() / MIXED[MIXED > 0].sum())
    assert abs(float(found["k_h1"]) - truth) <= 4 * float(found["k_h1_stderr"])
    assert float(found["k_h1_stderr"]) < 0.1 * truth


def test_the_ratio_of_the_extremes_is_that_of_the_eigenvalues_once_lanczos_has_found_them():
    found = la.gabdullin(la.spectral_density(operator(MIXED), steps=120))
    assert float(found["r_e"].isel(step=-1)) == pytest.approx(1 / 3, rel=1e-6)


def test_the_form_with_a_root_depends_on_the_steps_and_the_consistent_one_does_not():
    found = la.gabdullin(la.spectral_density(operator(MIXED), steps=100))
    late = found.sel(step=[50, 100])
    consistent, root = (late[name].to_numpy() for name in ("k_h1", "k_h05"))
    assert consistent[1] == pytest.approx(consistent[0], rel=1e-4)
    assert abs(root[1] / root[0] - 1) > 1e-3


def test_the_last_step_is_the_quadrature_that_the_density_holds():
    density = la.spectral_density(operator(MIXED), steps=30)
    masses = (density["node"] * density["weight"]).to_numpy()
    below, above = -np.minimum(masses, 0), np.maximum(masses, 0)
    found = la.gabdullin(density).isel(step=-1)
    assert float(found["k_h1"]) == pytest.approx((below.sum(1) / above.sum(1)).mean(), rel=1e-10)
    roots = np.sqrt(below).sum(1) / np.sqrt(above).sum(1)
    assert float(found["k_h05"]) == pytest.approx(roots.mean(), rel=1e-10)


def test_a_density_with_deflated_pairs_and_other_datasets_are_refused():
    matrix = operator(MIXED)
    deflated = la.spectral_density(matrix, steps=10, deflate=la.top_eigenpairs(matrix, 2))
    for dataset in (deflated, deflated.drop_vars("diagonal")):
        with pytest.raises(InputError, match="without deflate"):
            la.gabdullin(dataset)
