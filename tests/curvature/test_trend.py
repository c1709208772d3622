"""The largest eigenvalue over ever fewer examples: those of the very subsets, biased upward as the mathematics says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BY_NAME
from oracles.quadratic import symmetric
from torch import nn

import lossatlas as la
from lossatlas.objective import Objective

MLP = BY_NAME["mlp-tanh"]


def spectrum_of(o: Objective, **given):
    return la.spectrum(o, 1, tol=1e-8, density=False, **given)


@pytest.fixture
def subsets(monkeypatch):
    """The indices of each subset that is taken."""
    taken = []
    original = Objective.examples

    def noted(self: Objective, indices: torch.Tensor) -> Objective:
        taken.append(indices.clone())
        return original(self, indices)

    monkeypatch.setattr(Objective, "examples", noted)
    return taken


@pytest.mark.parametrize("batch_size", [5, 64])
def test_each_value_is_the_largest_eigenvalue_of_the_dense_hessian_of_its_subset(subsets, batch_size):
    model, (inputs, targets) = MLP.make(torch.float64), MLP.data(torch.float64, n=64)
    found = spectrum_of(Objective(model, MLP.loss, (inputs, targets), batch_size=batch_size))
    assert found["n_examples"].values.tolist() == [4, 8, 16, 32]
    assert found["trend_eigenvalue"].dims == ("n_examples", "replicate")
    values = found["trend_eigenvalue"].to_numpy()
    assert np.isfinite(values).sum(1).tolist() == [4, 4, 4, 2]
    values = values[np.isfinite(values)]
    assert len(subsets) == len(values) == 14
    for value, part in zip(values, subsets, strict=True):
        dense = plain.hessian(model, MLP.loss, (inputs[part], targets[part]))
        assert value == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-3)


def test_subsets_of_one_size_are_disjoint_and_change_with_the_seed(subsets):
    model, data = MLP.make(torch.float64), MLP.data(torch.float64, n=64)
    o = Objective(model, MLP.loss, data, batch_size=16)
    spectrum_of(o)
    for size in (4, 8, 16, 32):
        together = torch.cat([part for part in subsets if len(part) == size])
        assert len(together.unique()) == len(together)
        assert 0 <= int(together.min()) <= int(together.max()) < 64
    first = subsets.copy()
    subsets.clear()
    spectrum_of(o)
    assert all(torch.equal(a, b) for a, b in zip(first, subsets, strict=True))
    subsets.clear()
    spectrum_of(o, seed=1)
    assert not any(torch.equal(a, b) for a, b in zip(first, subsets, strict=True))


def test_on_average_a_subset_has_a_larger_eigenvalue_than_the_whole_and_smaller_ones_more_so():
    """For the squared error of a linear model H = X'X / n: a Wishart matrix, whose bias is sqrt(p / n) twice."""
    ratios = []
    for seed in range(6):
        draw = torch.randn(256, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        model = nn.Linear(12, 1, bias=False).double()
        o = Objective(model, F.mse_loss, (draw, torch.zeros(256, 1, dtype=torch.float64)))
        found = spectrum_of(o, seed=seed)
        whole = float(found["eigenvalue"].sel(end="top", rank=1))
        ratios.append(found["trend_eigenvalue"].mean("replicate").to_numpy() / whole)
    mean = np.mean(ratios, axis=0)
    assert (np.diff(mean) < 0).all()
    assert (mean > 1).all()
    assert mean[0] == pytest.approx((1 + math.sqrt(12 / 16)) ** 2 / (1 + math.sqrt(12 / 256)) ** 2, rel=0.2)


def test_the_standard_error_is_that_over_the_batches_of_the_subset():
    model, data = MLP.make(torch.float64), MLP.data(torch.float64, n=64)
    found = spectrum_of(Objective(model, MLP.loss, data, batch_size=8))
    stderr = found["trend_eigenvalue_stderr"]
    assert stderr.sel(n_examples=[4, 8]).isnull().all(), "a single batch"
    inside = stderr.sel(n_examples=[16, 32]).to_numpy()
    assert (inside[np.isfinite(found["trend_eigenvalue"].sel(n_examples=[16, 32]))] > 0).all()
    whole = spectrum_of(Objective(model, MLP.loss, data, batch_size=64))
    assert whole["trend_eigenvalue_stderr"].isnull().all()


def test_products_are_counted_in_units_of_the_whole_data():
    matrix = symmetric(torch.linspace(1, 9, 9))[0]
    model = nn.Linear(9, 1, bias=False).double()
    inputs = matrix[torch.arange(64) % 9]
    o = Objective(model, F.mse_loss, (inputs, torch.zeros(64, 1, dtype=torch.float64)))
    products = spectrum_of(o).attrs["products_trend"]
    assert 0 < products <= 14 * 10 / 2
    without = la.spectrum(o, 1, trend=False)
    assert "products_trend" not in without.attrs
    assert "trend_eigenvalue" not in without


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_examples_give_few_sizes(n):
    model, data = MLP.make(torch.float64), MLP.data(torch.float64, n=n)
    found = spectrum_of(Objective(model, MLP.loss, data))
    sizes = found["n_examples"].values.tolist() if "n_examples" in found else []
    assert sizes == [size for size in (n // 16, n // 8, n // 4, n // 2) if size >= 2]


def test_batches_of_dictionaries_are_cut_as_tensors_are():
    model, (inputs, targets) = MLP.make(torch.float64), MLP.data(torch.float64)
    batches = [{"x": x, "y": y} for x, y in zip(inputs.split(9), targets.split(9), strict=True)]
    o = Objective.from_step(model, lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"]), batches)
    found, other = spectrum_of(o), spectrum_of(Objective(model, F.cross_entropy, (inputs, targets)))
    np.testing.assert_allclose(found["trend_eigenvalue"], other["trend_eigenvalue"], rtol=1e-3)
    assert "note" not in found.attrs


def test_batches_of_unequal_forms_give_no_trend_and_a_note_says_so():
    model = nn.Sequential(nn.AdaptiveAvgPool1d(6), nn.Flatten(), nn.Linear(6, 3))
    batches = [(torch.randn(4, 1, length), torch.randint(3, (4,))) for length in (6, 12)]
    found = la.spectrum(Objective(model, F.cross_entropy, batches), 1, density=False)
    assert "trend_eigenvalue" not in found
    assert "No trend over the number of examples" in found.attrs["note"]
    assert np.isfinite(found["eigenvalue"]).all()
