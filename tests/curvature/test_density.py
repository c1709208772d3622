"""Spectral densities of matrices whose spectrum is known: mass, moments, bins, atoms, the share below 0."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from oracles.quadratic import symmetric
from torch import Tensor

import lossatlas as la
from lossatlas.curvature.operators import Operator
from lossatlas.errors import InputError, NumericalError

SPECTRA: dict[str, Tensor] = {
    "indefinite": torch.linspace(-1, 2, 120),
    "identity": torch.ones(80),
    "minus the identity": -torch.ones(80),
    "equal and tiny": 1e-12 * torch.ones(80),
    "zero": torch.zeros(80),
    "one outlier": torch.cat([torch.tensor([1e6]), torch.linspace(-1, 1, 119)]),
    "decaying": 10.0 ** -torch.linspace(0, 12, 120),
    "fifty equal": torch.cat([torch.full((50,), 3.0), torch.linspace(-1, 1, 70)]),
    "cluster": torch.cat([3 + 1e-7 * torch.arange(10), torch.linspace(-1, 1, 110)]),
    "two values": torch.cat([torch.full((50,), -1.0), torch.full((50,), 2.0)]),
    "three values": torch.cat([torch.full((40,), -1.0), torch.zeros(40), torch.full((40,), 2.0)]),
    "symmetric": torch.cat([-torch.linspace(0.5, 1, 50), torch.linspace(0.5, 1, 50)]),
    "many zeros": torch.cat([torch.zeros(60), torch.linspace(0.01, 1, 60)]),
    "rank one": torch.cat([torch.tensor([4.0]), torch.zeros(79)]),
    "tiny numbers": 1e-25 * torch.linspace(-1, 2, 80),
    "two by two": torch.tensor([1.0, -3.0]),
    "three by three": torch.tensor([1.0, 2.0, -3.0]),
}
DTYPES = [torch.float32, torch.float64]


def operator(matrix: Tensor) -> Operator:
    return Operator(len(matrix), lambda rows: rows @ matrix, matrix.dtype, matrix.device)


def density_of(values: Tensor, known: int = 0, dtype: torch.dtype = torch.float64, **given) -> xr.Dataset:
    a = operator(symmetric(values)[0].to(dtype))
    tol = 1e-5 if dtype == torch.float32 else 1e-8
    pairs = la.top_eigenpairs(a, known, tol=tol, floor=tol) if known else None
    return la.spectral_density(a, deflate=pairs, **given)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("known", [0, 3])
def test_the_mass_is_one_and_lies_within_the_spectrum(name, dtype, known):
    values = SPECTRA[name].double()
    known = min(known, len(values) - 2)
    for steps, probes in ((60, 3), (5, 2), (2, 2)):
        found = density_of(values, known, dtype, steps=steps, probes=probes)
        assert float(np.trapezoid(found["density"], found["lambda"])) == pytest.approx(1, abs=1e-6)
        assert (found["density"] >= 0).all()
        np.testing.assert_allclose(found["weight"].sum("step"), 1, atol=1e-10)
        assert float(found["histogram"].sum()) == pytest.approx(1, abs=1e-10)
        slack = 30 * torch.finfo(dtype).eps * float(values.abs().max())
        assert float(found["node"].min()) >= float(values.min()) - slack
        assert float(found["node"].max()) <= float(values.max()) + slack


@pytest.mark.parametrize("name", SPECTRA)
def test_the_bins_cover_everything_without_gaps(name):
    values = SPECTRA[name].double()
    found = density_of(values)
    left, right = found["bin_left"].to_numpy(), found["bin_right"].to_numpy()
    assert (left[1:] == right[:-1]).all()
    assert (left < right).all()
    slack = 1e-12 * float(values.abs().max())
    assert left[0] <= float(values.min()) + slack
    assert right[-1] >= float(values.max()) - slack
    np.testing.assert_allclose(left, -right[::-1], rtol=1e-12)
    positive = right[right > 0]
    np.testing.assert_allclose(np.diff(np.log(positive)), np.log(positive[1] / positive[0]), rtol=1e-8)
    assert (found["histogram_low"] <= found["histogram"]).all()
    assert (found["histogram"] <= found["histogram_high"]).all()


def test_the_histogram_is_that_of_the_eigenvalues_within_its_interval():
    values = torch.cat([-torch.linspace(0.5, 1, 90), torch.linspace(0.5, 20, 210)]).double()
    found = density_of(values, steps=60, probes=8)
    edges = np.append(found["bin_left"], found["bin_right"][-1])
    truth = np.histogram(values.numpy(), edges)[0] / 300
    inside = np.abs(truth - found["histogram"]) <= 3 * (found["histogram_high"] - found["histogram_low"]) / 2 + 0.01
    assert inside.all()


@pytest.mark.parametrize("known", [0, 6])
@pytest.mark.parametrize("name", ["indefinite", "decaying", "fifty equal", "many zeros", "symmetric"])
def test_the_moments_are_those_of_the_matrix_within_their_errors(name, known):
    values = SPECTRA[name].double()
    found = density_of(values, known, probes=10)
    sizes = values.abs().sum()
    for moment, truth in (
        ("trace", values.sum()),
        ("frobenius_norm", values.norm()),
        ("effective_rank", sizes**2 / (values @ values)),
    ):
        assert abs(float(found[moment]) - float(truth)) <= 4 * float(found[f"{moment}_stderr"]) + 1e-9 * float(sizes)


def test_the_effective_rank_of_a_projector_is_its_rank():
    """(sum |lambda|)^2 / sum lambda^2 counts equal eigenvalues; all of them known, there is nothing to estimate."""
    values = torch.cat([torch.full((5,), 3.0), torch.zeros(195)]).double()
    found = density_of(values, known=5)
    assert float(found["effective_rank"]) == pytest.approx(5, rel=1e-6)
    assert float(found["effective_rank_stderr"]) == pytest.approx(0, abs=1e-6)
    assert float(found["trace"]) == pytest.approx(15, rel=1e-8)
    assert float(found["frobenius_norm"]) == pytest.approx(math.sqrt(45), rel=1e-8)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_of_what_is_left_beside_known_pairs_rounding_is_not_counted_as_negative(sign):
    """Apart from its one eigenvalue a matrix of rank one has only zeros, to within rounding of that one."""
    values = torch.cat([torch.tensor([4.0]), torch.zeros(79)]).double()
    for dtype in DTYPES:
        a = operator(sign * symmetric(values)[0].to(dtype))
        pairs = la.top_eigenpairs(a, 1, which="magnitude", tol=1e-5)
        found = la.spectral_density(a, deflate=pairs)
        truth = 0.0 if sign > 0 else 1 / 80
        assert float(found["negative_mass_low"]) <= truth + 1e-9
        assert float(found["negative_mass"]) <= truth + 0.02 or float(found["negative_mass_high"]) == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
def test_known_eigenvalues_that_are_zero_are_not_counted_as_negative(dtype):
    values = torch.cat([torch.zeros(12), torch.linspace(1, 2, 60)]).double()
    a = operator(symmetric(values)[0].to(dtype))
    pairs = la.top_eigenpairs(a, 8, which="smallest", tol=1e-5, floor=1e-5)
    found = la.spectral_density(a, deflate=pairs)
    assert float(found["negative_mass_low"]) <= 1e-9


def test_the_share_below_zero_is_exact_where_all_negative_eigenvalues_are_known():
    values = torch.cat([torch.tensor([-3.0, -2.0, 1.0]), torch.full((9,), 0.5)]).double()
    a = operator(symmetric(values)[0])
    pairs = la.top_eigenpairs(a, 2, which="smallest", tol=1e-10)
    found = la.spectral_density(a, deflate=pairs)
    for name in ("negative_mass", "negative_mass_low", "negative_mass_high"):
        assert float(found[name]) == pytest.approx(2 / 12, abs=1e-12)


@pytest.mark.parametrize(("name", "share"), [("fifty equal", 50 / 120), ("cluster", 10 / 120)])
def test_a_multiple_eigenvalue_and_a_cluster_are_resolved_without_ghosts(name, share):
    """All of their mass lies at 3, and none in the gap below, where converged values come back as ghosts."""
    for steps in (20, 40):
        found = density_of(SPECTRA[name].double(), steps=steps, probes=20)
        nodes, weights = found["node"].to_numpy(), found["weight"].to_numpy()
        at = np.abs(nodes - 3) < 2e-6
        assert weights[(nodes > 1 + 1e-9) & ~at].sum() < 1e-8
        masses = np.where(at, weights, 0).sum(1)
        assert abs(masses.mean() - share) <= 4 * masses.std(ddof=1) / math.sqrt(20)


def test_few_distinct_eigenvalues_exhaust_the_space():
    found = density_of(SPECTRA["three values"].double(), steps=50, probes=3)
    assert found.sizes["step"] == 3
    assert found.attrs["products"] == 9
    np.testing.assert_allclose(np.sort(found["node"], axis=1), [[-1, 0, 2]] * 3, atol=1e-12)
    found = density_of(SPECTRA["identity"].double())
    assert found.sizes["step"] == 1


def test_the_nodes_are_the_eigenvalues_when_the_steps_reach_them_all():
    values = torch.tensor([1.0, 2.0, -3.0, 0.5, 7.0]).double()
    found = density_of(values, steps=80)
    np.testing.assert_allclose(np.sort(found["node"], axis=1), [np.sort(values)] * 4, atol=1e-12)
    assert found.attrs["steps"] == 5


def test_known_pairs_are_atoms_of_mass_one_over_n():
    values = torch.cat([torch.tensor([50.0, 30.0]), torch.linspace(-1, 1, 98)]).double()
    found = density_of(values, known=2)
    assert found.attrs["atoms"] == 2
    assert float(found["node"].max()) < 2
    width = found.attrs["smoothing"]
    peak = float(found["density"].interp({"lambda": 50.0}))
    assert peak == pytest.approx(1 / 100 / (width * math.sqrt(2 * math.pi)), rel=1e-2)
    assert float(found["density_stderr"].interp({"lambda": 50.0})) == pytest.approx(0, abs=1e-9)
    right = found["bin_right"] > 25
    assert float(found["histogram"].where(right).sum()) == pytest.approx(0.02, abs=1e-12)


def test_products_are_counted_and_the_attributes_say_how():
    matrix = symmetric(SPECTRA["indefinite"].double())[0]
    calls = []

    def counted(rows: Tensor) -> Tensor:
        calls.append(len(rows))
        return rows @ matrix

    found = la.spectral_density(Operator(120, counted, matrix.dtype, matrix.device), steps=13, probes=3, seed=4)
    assert sum(calls) == found.attrs["products"] == 39
    assert found.attrs["kind"] == "spectral_density"
    assert (found.attrs["steps"], found.attrs["probes"], found.attrs["seed"]) == (13, 3, 4)
    assert found["node"].dims == ("probe", "step")


def test_another_seed_draws_other_probes():
    """All of them: two seeds that share probes would agree more than their error says."""
    matrix = operator(symmetric(SPECTRA["indefinite"].double())[0])
    nodes = [la.spectral_density(matrix, steps=6, seed=seed)["node"].to_numpy() for seed in range(3)]
    again = la.spectral_density(matrix, steps=6, seed=0)["node"].to_numpy()
    np.testing.assert_array_equal(nodes[0], again)
    rows = np.round(np.concatenate(nodes), 10)
    assert len(np.unique(rows, axis=0)) == 12


def test_a_density_can_be_written_and_read_back(tmp_path):
    found = density_of(SPECTRA["indefinite"].double(), known=2, steps=10)
    found.to_netcdf(tmp_path / "density.nc")
    again = xr.load_dataset(tmp_path / "density.nc")
    xr.testing.assert_identical(found, again)


def test_impossible_questions_are_refused():
    a = operator(torch.eye(30).double())
    for given in (dict(steps=1), dict(steps=0), dict(probes=1), dict(probes=0)):
        with pytest.raises(InputError, match="at least 2 of each"):
            la.spectral_density(a, **given)
    with pytest.raises(InputError, match="nothing is left"):
        la.spectral_density(a, deflate=la.top_eigenpairs(a, 29))
    with pytest.raises(NumericalError, match=r"NaN|finite"):
        la.spectral_density(operator(torch.full((30, 30), math.nan)))
