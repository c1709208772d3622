"""Traces and diagonals: exact where they say so, right errors and a reason where not, products counted."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BATCH, MEMBERS, N
from oracles.quadratic import symmetric
from torch import Tensor

import lossatlas as la
from lossatlas.curvature.operators import Operator
from lossatlas.errors import ConvergenceWarning, InputError, LossAtlasError
from lossatlas.objective import Objective

EXACT = ["mlp-relu", "cnn"]
SIZE = 300
DECAYING = 10.0 ** -torch.linspace(0, 3, SIZE, dtype=torch.float64)
INDEFINITE = torch.linspace(-1, 2, SIZE, dtype=torch.float64)


class Counted:
    """An operator that counts the vectors that it is given."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.products = matrix, 0
        self.operator = Operator(len(matrix), self.rows, matrix.dtype, matrix.device)

    def rows(self, vectors: Tensor) -> Tensor:
        self.products += len(vectors)
        return vectors @ self.matrix


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_an_exact_trace_and_diagonal_are_those_of_the_dense_hessian(member):
    model, data = member.make(torch.float64), member.data(torch.float64)
    dense = plain.hessian(model, member.loss, data)
    operator = la.hessian(Objective(model, member.loss, data, batch_size=BATCH))
    found = la.trace(operator, tol=1e-6)
    assert found.stderr == 0
    assert (found.low, found.high) == (found.value, found.value)
    assert found.value == pytest.approx(float(dense.trace()), abs=1e-8 * float(dense.diagonal().abs().sum()))
    assert found.method.startswith("exact: a backward pass" if member.name in EXACT else "exact: all columns")
    if member.name in EXACT:
        assert found.products == 0
        exact = la.diagonal(operator)
        assert (exact.stderr == 0).all()
        np.testing.assert_allclose(exact.values, dense.diagonal(), atol=1e-8 * float(dense.abs().max()))


def test_a_small_matrix_is_multiplied_by_all_unit_vectors():
    for n in (1, 2, 3, 64):
        counted = Counted(symmetric(torch.linspace(-1, 2, n))[0])
        found = la.trace(counted.operator)
        assert found.value == pytest.approx(float(counted.matrix.trace()), rel=1e-12)
        assert (found.stderr, found.method, found.products, counted.products) == (0, "exact: all columns", n, n)
        exact = la.diagonal(counted.operator)
        np.testing.assert_allclose(exact.values, counted.matrix.diagonal(), atol=1e-14)


@pytest.mark.parametrize("values", [DECAYING, INDEFINITE], ids=["decaying", "indefinite"])
@pytest.mark.parametrize("tol", [0.1, 0.01])
def test_an_estimate_meets_its_tolerance_and_counts_its_products(values, tol):
    counted = Counted(symmetric(values)[0])
    found = la.trace(counted.operator, tol=tol)
    assert found.products == counted.products < 300
    assert 0 < found.stderr <= tol * abs(found.value)
    assert abs(found.value - float(values.sum())) <= 4 * found.stderr
    assert found.low < found.value < found.high
    assert found.high - found.value >= 1.9 * found.stderr, "Student's t has wider tails than the normal"
    assert found.method.startswith("estimate: ")


def test_where_an_estimate_would_take_as_many_products_all_columns_are_taken():
    counted = Counted(symmetric(INDEFINITE)[0])
    found = la.trace(counted.operator, tol=1e-6)
    assert found.method == "exact: all columns"
    assert found.value == pytest.approx(float(INDEFINITE.sum()), rel=1e-12)
    assert found.products == counted.products < 2 * SIZE


@pytest.mark.parametrize("allowed", [100, 150, 300, 330])
def test_no_more_products_are_taken_than_allowed(allowed):
    counted = Counted(symmetric(INDEFINITE)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = la.trace(counted.operator, tol=1e-6, max_products=allowed)
    assert found.products == counted.products <= allowed


def test_an_estimate_that_misses_its_tolerance_says_so_and_still_covers():
    values = INDEFINITE - 0.5  # the trace is 0: no relative error can be met
    with pytest.warns(ConvergenceWarning, match="max_products"):
        found = la.trace(Counted(symmetric(values)[0]).operator, max_products=120)
    assert found.low <= 0 <= found.high
    assert found.stderr > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_few_distinct_eigenvalues_give_the_trace_in_few_products(dtype):
    for values in (torch.ones(200), torch.zeros(200), torch.cat([torch.tensor([7.0]), torch.zeros(199)])):
        found = la.trace(Counted(symmetric(values)[0].to(dtype)).operator)
        assert found.value == pytest.approx(float(values.sum()), rel=1e-5, abs=1e-5)
        assert found.products <= 22


def test_the_seed_decides_an_estimate():
    operator = Counted(symmetric(DECAYING)[0]).operator
    first, again, other = (la.trace(operator, tol=0.05, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.value != other.value


def test_the_estimated_diagonal_is_unbiased_and_its_error_is_that_of_its_values():
    matrix = symmetric(torch.cat([torch.tensor([9.0, -4.0]), torch.linspace(0, 1, 98)]))[0]
    counted = Counted(matrix)
    truth = matrix.diagonal()
    found = [la.diagonal(counted.operator, tol=0.5, seed=seed) for seed in range(60)]
    assert counted.products == sum(one.products for one in found)
    values = torch.stack([one.values for one in found])
    errors = torch.stack([one.stderr for one in found])
    bias = (values.mean(0) - truth) / (values.std(0) / math.sqrt(60))
    assert float(bias.abs().max()) < 4.5
    spread = float(((values - truth) ** 2).mean().sqrt() / (errors**2).mean().sqrt())
    assert spread == pytest.approx(1, abs=0.1)


def test_a_diagonal_stops_at_its_tolerance_or_says_that_it_did_not():
    counted = Counted(symmetric(DECAYING)[0])
    found = la.diagonal(counted.operator, tol=0.3)
    assert found.products == counted.products < 300
    assert float(found.stderr.norm()) <= 0.3 * float(found.values.norm())
    with pytest.warns(ConvergenceWarning, match="diagonal's error"):
        assert la.diagonal(counted.operator, tol=1e-3, max_products=100).products == 100
    assert (la.diagonal(Counted(torch.zeros(100, 100)).operator).values == 0).all()


def test_impossible_questions_are_refused():
    operator = Counted(torch.eye(100)).operator
    for verb in (la.trace, la.diagonal):
        for given, words in (
            (dict(tol=0.0), "positive"),
            (dict(tol=-0.1), "positive"),
            (dict(tol=math.nan), "positive"),
            (dict(max_products=5), "at least"),
        ):
            with pytest.raises(InputError, match=words):
                verb(operator, **given)


@pytest.mark.parametrize("name", ["mlp-relu", "mlp-tanh"])
def test_a_nan_in_a_later_batch_is_an_error_and_no_number(name):
    member = next(m for m in MEMBERS if m.name == name)
    inputs, targets = member.data()
    inputs[N - 1] = math.nan
    operator = la.hessian(Objective(member.make(), member.loss, (inputs, targets), batch_size=BATCH))
    for verb in (la.trace, la.diagonal):
        with pytest.raises(LossAtlasError, match="NaN"):
            verb(operator)


@pytest.mark.parametrize("n", [20, 100])
def test_products_that_are_not_finite_are_an_error(n):
    operator = Counted(torch.full((n, n), math.nan)).operator
    for verb in (la.trace, la.diagonal):
        with pytest.raises(LossAtlasError, match=r"NaN|finite"):
            verb(operator)


def trained_to(loss: float) -> tuple[torch.nn.Module, tuple[Tensor, Tensor]]:
    """A small ReLU network in float32 with a loss below ``loss``, and its data."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 6, generator=generator)
    data = inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
    for _ in range(4000):
        optimizer.zero_grad()
        value = F.cross_entropy(model(inputs), data[1])
        value.backward()
        if value.item() < loss:
            return model, data
        optimizer.step()
    raise AssertionError(f"the loss is {value.item()} after training")


def test_a_network_with_a_loss_of_almost_zero_in_float32_still_has_the_exact_trace():
    model, data = trained_to(1e-6)
    found = la.trace(la.hessian(Objective(model, F.cross_entropy, data, batch_size=16)))
    truth = float(plain.hessian(model.double(), F.cross_entropy, (data[0].double(), data[1])).trace())
    assert (found.method, found.reason, found.stderr) == ("exact: a backward pass for each output", "", 0)
    assert found.value == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize("verb", [la.trace, la.diagonal])
def test_a_result_is_exact_or_has_a_sentence_that_says_why_not(verb):
    tanh = next(m for m in MEMBERS if m.name == "mlp-tanh")
    operator = la.hessian(Objective(tanh.make(), tanh.loss, tanh.data(), batch_size=BATCH))
    assert operator.n > 64, "where all columns are no more products than an estimate"
    assert re.fullmatch(r"The network has tanh, so it is not piecewise linear .*\.", verb(operator, tol=0.5).reason)
    assert verb(Counted(symmetric(DECAYING)[0]).operator, tol=0.5).reason == "The matrix is known by its products only."
    assert verb(Counted(torch.eye(20)).operator).reason == ""


def test_the_datasets_that_hold_a_trace_say_how_it_was_found_and_why():
    tanh = next(m for m in MEMBERS if m.name == "mlp-tanh")
    objective = Objective(tanh.make(), tanh.loss, tanh.data(), batch_size=BATCH)
    spectrum = la.spectrum(objective, 2, density=False, trace_tol=0.3, trend=False, layers=True)
    split = la.gauss_newton_split(objective, 2, tol=0.3)
    for found in (spectrum, split):
        assert found.attrs["trace_method"].startswith("estimate")
        assert found.attrs["trace_reason"].startswith("The network has tanh, so")
    assert split.attrs["trace_method_gauss_newton"].startswith("exact: a backward pass")
    assert "trace_reason_gauss_newton" not in split.attrs
    reasons = spectrum["layer_trace_reason"]
    np.testing.assert_array_equal(reasons == "", spectrum["layer_trace_stderr"] == 0)
