"""The spectrum of a Hessian against dense float64 algebra: both ends, errors, trace, density, products; real digits."""

from __future__ import annotations

import functools
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from measured import data, trained
from oracles import plain
from oracles.members import BATCH, BY_NAME, MEMBERS, N
from oracles.quadratic import quadratic, symmetric
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import ConvergenceWarning, InputError, NonFiniteLoss, NumericalError
from lossatlas.evaluation.products.products import Products
from lossatlas.objective import Objective


@pytest.fixture
def products(monkeypatch):
    """A function that tells how many products were taken, in units of the whole data (``N`` examples)."""
    counted = [0.0]
    original = Products.by_batch

    def counting(self: Products, rows: Tensor):
        for weight, product in original(self, rows):
            counted[0] += len(rows) * weight / N
            yield weight, product

    monkeypatch.setattr(Products, "by_batch", counting)
    return lambda: counted[0]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_all_numbers_are_those_of_the_dense_hessian(member, products):
    model, data = member.make(torch.float64), member.data(torch.float64)
    o = Objective(model, member.loss, data, batch_size=BATCH)
    truth = np.linalg.eigvalsh(plain.hessian(model, member.loss, data).numpy())
    found = la.spectrum(o, 4, tol=1e-10, steps=40, probes=6, trend=False)
    scale = abs(truth).max()
    np.testing.assert_allclose(found["eigenvalue"].sel(end="top"), truth[::-1][:4], atol=1e-8 * scale)
    np.testing.assert_allclose(found["eigenvalue"].sel(end="bottom"), truth[:4], atol=1e-8 * scale)
    assert found["rank"].values.tolist() == [1, 2, 3, 4]
    assert found.attrs["converged"] == 1
    assert float(found["trace_stderr"]) == 0
    assert float(found["trace"]) == pytest.approx(truth.sum(), abs=1e-8 * np.abs(truth).sum())
    assert found.attrs["trace_method"].startswith("exact")
    norm = np.linalg.norm(truth)
    assert abs(float(found["frobenius_norm"]) - norm) <= 5 * float(found["frobenius_norm_stderr"]) + 1e-8 * norm
    assert float(np.trapezoid(found["density"], found["lambda"])) == pytest.approx(1, abs=1e-6)
    assert float(found["histogram"].sum()) == pytest.approx(1, abs=1e-9)
    assert found.attrs["products"] == round(products())
    parts = ("eigenpairs", "density", "trace")
    assert found.attrs["products"] == sum(found.attrs[f"products_{part}"] for part in parts)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_when_almost_all_eigenvalues_are_known_the_rest_is_not_forgotten(member):
    """2 k pairs of all but at most 3 eigenvalues."""
    model, data = member.make(torch.float64), member.data(torch.float64)
    truth = np.linalg.eigvalsh(plain.hessian(model, member.loss, data).numpy())
    o, scale = Objective(model, member.loss, data), np.abs(truth).sum()
    for left in (len(truth) % 2, 2 + len(truth) % 2):
        found = la.spectrum(o, (len(truth) - left) // 2, tol=1e-8, steps=4, probes=2, trend=False)
        for name, expected in (("trace", truth.sum()), ("frobenius_norm", np.linalg.norm(truth))):
            stderr = float(found[f"{name}_stderr"])
            assert abs(float(found[name]) - expected) <= 13 * stderr + 1e-8 * scale  # t with one degree of freedom
            assert stderr == 0 or left > 1


def test_the_residual_is_measured():
    member = BY_NAME["attention"]
    for dtype in (torch.float32, torch.float64):
        model, data = member.make(dtype), member.data(dtype)
        found = la.spectrum(Objective(model, member.loss, data), 3, tol=1e-4, vectors=True, trend=False, steps=4)
        dense = plain.hessian(member.make(dtype), member.loss, member.data(dtype))
        vectors = torch.from_numpy(found["eigenvector"].to_numpy()).double().reshape(6, -1)
        values = torch.from_numpy(found["eigenvalue"].to_numpy()).reshape(6, 1)
        truth = (vectors @ dense - values * vectors).norm(dim=1)
        residual = found["residual"].to_numpy().ravel()
        np.testing.assert_allclose(residual, truth, rtol=1e-2, atol=8e-6 * float(values[0]))


def test_the_data_sampling_error_of_an_eigenvalue_is_that_of_batch_curvatures():
    member = BY_NAME["mlp-relu"]
    o = member.objective(torch.float64)
    found = la.spectrum(o, 2, tol=1e-8, vectors=True, trend=False, steps=4)
    vectors = torch.from_numpy(found["eigenvector"].to_numpy()).double().reshape(4, -1)
    expected = [sample.stderr for sample in la.hessian(o).products.forms(vectors)]
    np.testing.assert_allclose(found["eigenvalue_stderr"].to_numpy().ravel(), expected, rtol=1e-4)


def test_all_products_are_counted_those_of_the_subsets_and_layers_too(products):
    member = BY_NAME["mlp-tanh"]
    o = member.objective()
    found = la.spectrum(o, 2, layers=True, trend=True, steps=10, probes=3)
    assert found.attrs["products"] == pytest.approx(products(), abs=1)
    parts = ("eigenpairs", "density", "trace", "trend", "layers")
    assert found.attrs["products"] == sum(found.attrs[f"products_{part}"] for part in parts)


def test_the_largest_gap_is_that_between_the_leading_eigenvalues():
    matrix, _ = symmetric([9.0, 8.0, 3.0, 2.5, -1.0, -2.0, 0.1])
    o = quadratic(matrix, torch.zeros(4, 7, dtype=torch.float64), torch.ones(7, dtype=torch.float64))
    found = la.spectrum(o, 3)
    assert float(found["largest_gap"]) == pytest.approx(5, rel=1e-6)
    assert int(found["largest_gap_rank"]) == 2
    assert "largest_gap" not in la.spectrum(o, 1)


def test_the_zeros_of_a_positive_semidefinite_hessian_are_not_negative():
    matrix, _ = symmetric([0.0] * 10 + [1.0, 2.0, 3.0, 4.0] * 5)
    o = quadratic(matrix, torch.zeros(4, 30, dtype=torch.float64), torch.ones(30, dtype=torch.float64))
    found = la.spectrum(o, 4)
    np.testing.assert_allclose(found["eigenvalue"].sel(end="bottom"), 0, atol=1e-4)
    assert float(found["negative_mass_low"]) <= 1e-9


@pytest.mark.parametrize("eigenvalues", [[-2.0], [1.0, -3.0], [1.0, 1.0], [4.0, 1.0, -3.0], [0.0, 0.0, 0.0]], ids=str)
def test_one_two_or_three_parameters_have_a_spectrum(eigenvalues):
    matrix, _ = symmetric(eigenvalues)
    n, truth = len(eigenvalues), np.sort(eigenvalues)
    o = quadratic(matrix, torch.zeros(4, n, dtype=torch.float64), torch.ones(n, dtype=torch.float64))
    for k in range(1, n + 1):
        found = la.spectrum(o, k, layers=True)
        np.testing.assert_allclose(found["eigenvalue"].sel(end="top"), truth[::-1][:k], atol=1e-12)
        np.testing.assert_allclose(found["eigenvalue"].sel(end="bottom"), truth[:k], atol=1e-12)
        assert float(found["trace"]) == pytest.approx(truth.sum(), abs=1e-12)
        assert float(found["trace_stderr"]) == 0
        assert float(found["layer_trace"][0]) == pytest.approx(truth.sum(), abs=1e-12)


def test_the_probes_of_the_trace_are_not_those_of_the_density():
    """A direction that is counted twice makes the error smaller than it is."""
    size = 640  # drawn in blocks, from one seed the first vector of many is the only one of another draw
    seen = []
    matrix, _ = symmetric(torch.cat([torch.tensor([30.0]), torch.linspace(-1, 1.3, size - 1)]))
    o = quadratic(matrix, torch.zeros(1, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))
    o.function.derivatives = None  # whose check draws directions of its own, twice the same
    original = torch.randn

    def noted(*args, **given):
        drawn = original(*args, **given)
        seen.extend(drawn.reshape(-1, size) if drawn.numel() % size == 0 else [])
        return drawn

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "randn", noted)
        found = la.spectrum(o, 1, steps=4, probes=4, trend=False, trace_tol=0.05)
    assert found.attrs["trace_method"].startswith("estimate")
    assert len(seen) >= 15
    units = torch.stack([row / row.norm() for row in seen])
    overlaps = (units @ units.T - torch.eye(len(units))).abs()
    assert float(overlaps.max()) < 0.3


def test_a_spectrum_can_be_written_and_read_back(tmp_path):
    member = BY_NAME["cnn"]
    o = member.objective()
    for given in (dict(layers=True, vectors=True), dict(trend=False)):
        found = la.spectrum(o, 2, steps=10, probes=3, **given)
        found.to_netcdf(tmp_path / "spectrum.nc")
        again = xr.load_dataset(tmp_path / "spectrum.nc")
        xr.testing.assert_equal(found, again)
        assert set(found.attrs) == set(again.attrs)
        assert {name: str(value) for name, value in found.attrs.items() if name != "seconds"} == {
            name: str(value) for name, value in again.attrs.items() if name != "seconds"
        }


def test_the_seed_decides_and_memory_does_not():
    member = BY_NAME["mlp-tanh"]
    o = member.objective(torch.float64)
    first, again, other, forgetful = (
        la.spectrum(o, 1, tol=1e-2, probes=2, density_tol=1.0, **given)
        for given in (dict(), dict(), dict(seed=5), dict(max_memory=300_000))
    )
    xr.testing.assert_identical(first.drop_attrs(), again.drop_attrs())
    np.testing.assert_allclose(first["eigenvalue"], other["eigenvalue"], rtol=1e-2)
    assert not np.array_equal(first["node"], other["node"])
    np.testing.assert_allclose(first["node"], forgetful["node"], atol=1e-9)
    assert forgetful.attrs["route"].startswith("graphs of autograd; ")
    assert forgetful.attrs["memory"] <= forgetful.attrs["max_memory"] == 300_000


def root_of(inputs: Tensor) -> Tensor:
    """Its derivative at 0 is not finite."""
    return inputs.abs().sqrt()


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return root_of(x @ self.w)


def test_bad_input_is_refused():
    member = BY_NAME["mlp-tanh"]
    o = Objective(member.make(), member.loss, member.data())
    n = o.n_parameters
    for given, words in (
        (dict(k=0), f"between 1 and {n}"),
        (dict(k=n + 1), f"between 1 and {n}"),
        (dict(tol=0.0), "positive"),
        (dict(tol=-1.0), "positive"),
        (dict(trace_tol=0.0), "positive"),
        (dict(trace_tol=-1.0), "positive"),
        (dict(density_tol=0.0), "positive"),
        (dict(max_seconds=0.0), "positive"),
        (dict(probes=0), "1 probe"),
        (dict(steps=1), "at least 2"),
        (dict(max_products=3), "at least 8"),
        (dict(max_memory=-1), "max_memory"),
    ):
        with pytest.raises(InputError, match=words):
            la.spectrum(o, **(dict(k=2) | given))


def test_what_has_no_curvature_is_refused():
    member = BY_NAME["mlp-tanh"]
    frozen = member.make()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="frozen"):
        la.spectrum(Objective(frozen, member.loss, member.data()), 1)
    inputs, targets = member.data()
    inputs[20] = math.nan
    with pytest.raises(NonFiniteLoss, match="nan"):
        la.spectrum(Objective(member.make(), member.loss, (inputs, targets), batch_size=BATCH), 1)
    data = (torch.randn(8, 3), torch.zeros(8))
    with pytest.raises(NumericalError, match="NaN"):
        la.spectrum(Objective(Root(), F.mse_loss, data), 1)
    with pytest.raises(InputError, match="does not depend on the parameters"):
        la.spectrum(Objective(Root(), lambda outputs, targets: outputs.detach().mean(), data), 1)


def test_a_loss_that_is_linear_has_a_spectrum_of_zeros():
    o = Objective(
        nn.Linear(3, 1), lambda outputs, targets: (outputs - targets).mean(), (torch.randn(8, 3), torch.zeros(8, 1))
    )
    found = la.spectrum(o, 1)
    assert (found["eigenvalue"] == 0).all()
    assert (found["trace"] == 0).all()
    assert float(np.trapezoid(found["density"], found["lambda"])) == pytest.approx(1, abs=1e-6)
    assert float(found["negative_mass"]) == 0


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
    found = la.spectrum(o.at(theta), 1, tol=1e-8)["eigenvalue"]
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
    found = la.spectrum(o.at(theta), 1, tol=1e-8, vectors=True)
    moved = plain.at(model, theta)
    dense = plain.hessian(moved, member.loss, data)
    vectors = torch.from_numpy(found["eigenvector"].values[:, 0]).double()
    values = torch.from_numpy(found["eigenvalue"].values)
    torch.testing.assert_close(vectors @ dense, values * vectors, rtol=0, atol=1e-6 * float(values.abs().max()))
    assert torch.equal(torch.from_numpy(found["point"].values), theta)
    assert found.attrs["loss"] == pytest.approx(o.value(theta), rel=1e-12)


def test_the_bar_counts_the_products_and_can_be_left_out(capfd):
    o = Objective(MEMBERS[1].make(), MEMBERS[1].loss, MEMBERS[1].data(), batch_size=BATCH)
    given = dict(tol=0.1, steps=3, probes=2, trend=True, layers=True)
    shown = la.spectrum(o, 1, **given)
    assert "spectrum" in capfd.readouterr().err
    quiet = la.spectrum(o, 1, **given, progress=False)
    assert capfd.readouterr().err == ""
    assert shown.equals(quiet)


def test_no_vectors_are_kept_unless_asked_for():
    matrix, _ = symmetric([3.0, 1.0, -2.0])
    o = quadratic(matrix, torch.zeros(4, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    found = la.spectrum(o, 1)
    assert not {"eigenvector", "slope", "point"} & set(found.variables)
    assert "loss" not in found.attrs


def test_a_spectrum_that_misses_its_tolerance_says_so():
    member = MEMBERS[1]
    o = Objective(member.make(torch.float64), member.loss, member.data(torch.float64))
    with pytest.warns(ConvergenceWarning, match="max_products"):
        found = la.spectrum(o, 2, tol=1e-9, max_products=9, trend=False, trace=False, density=False)
    assert found.attrs["converged"] == 0
    assert found.attrs["products_eigenpairs"] == found.attrs["products"] == 9
    assert found.attrs["tol"] == 1e-9
    dense = plain.hessian(member.make(torch.float64), member.loss, member.data(torch.float64))
    nearest = np.abs(found["eigenvalue"].to_numpy()[..., None] - np.linalg.eigvalsh(dense)).min(-1)
    assert (nearest <= found["residual"].to_numpy() * (1 + 1e-9)).all()


def test_a_tolerance_below_the_resolution_of_float32_is_said():
    member = MEMBERS[1]
    o = Objective(member.make(), member.loss, member.data())
    with pytest.warns(ConvergenceWarning, match="below the resolution of float32"):
        found = la.spectrum(o, 1, tol=1e-9, trend=False, steps=5)
    assert found.attrs["converged"] == 1


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


@pytest.mark.parametrize("limit", [8, 30, 80, 300])
def test_a_limit_holds_for_the_whole_and_what_is_missing_is_said(limit):
    o = trained("A").train
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ConvergenceWarning)
        found = la.spectrum(o, 2, tol=1e-4, density_tol=1e-3, layers=True, max_products=limit, progress=False)
    assert found.attrs["products"] <= limit
    dense = trained_hessian()
    nearest = np.abs(found["eigenvalue"].to_numpy()[..., None] - np.linalg.eigvalsh(dense)).min(-1)
    assert (nearest <= found["residual"].to_numpy()).all()
    assert found.attrs["converged"] or "The pairs did not reach tol within max_products" in found.attrs["note"]
    for name, note in (("histogram", "No density"), ("trend_eigenvalue", "No trend"), ("layer_size", "No spectra of")):
        assert name in found or note in found.attrs["note"]
    if "density_error" in found and float(found["density_error"]) > 1e-3:
        assert "products more" in found.attrs["note"]
        assert any("density_tol=0.001" in str(one.message) for one in warned)
    assert abs(float(found["trace"]) - float(dense.trace())) <= 1e-4 * float(dense.trace())


def test_seconds_are_a_limit_too():
    o = trained("A").train
    with pytest.warns(ConvergenceWarning):
        found = la.spectrum(o, 2, tol=1e-6, max_seconds=1e-6, layers=True, progress=False)
    assert found.attrs["products"] <= 8 + 2  # pairs of any quality, measured, and two directions for the norm
    assert "within max_seconds=1e-06" in found.attrs["note"]


def test_trace_and_density_can_be_left_out():
    o = trained("A").train
    whole, pairs = la.spectrum(o, 2), la.spectrum(o, 2, trace=False, density=False, trend=False)
    np.testing.assert_array_equal(whole["eigenvalue"], pairs["eigenvalue"])
    assert set(pairs.data_vars) == {
        "eigenvalue", "residual", "eigenvalue_stderr", "largest_gap", "largest_gap_rank"
    }  # fmt: skip
    assert pairs.attrs["products"] == pairs.attrs["products_eigenpairs"] == whole.attrs["products_eigenpairs"]
    alone = la.spectrum(o, 2, trace=False, trend=False)
    assert "trace" not in alone
    assert "histogram" in alone


@functools.cache
def trained_hessian() -> Tensor:
    """Of network A on its training data, dense and in float64."""
    model = plain.at(la.zoo.mlp(widths=(6,)), trained("A").train.point).double()
    inputs, targets = data()[0]
    return plain.hessian(model, F.cross_entropy, (inputs.double(), targets))
