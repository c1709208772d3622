"""The eigenvalues of batches: against dense Hessians, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.plain import normal
from scipy import stats
from torch import nn

import lossatlas as la
from lossatlas.curvature.show.batches import batch_eigenvalues as drawn
from lossatlas.curvature.show.batches import batches_are_sharper, numbers
from lossatlas.errors import ConvergenceWarning, InputError
from lossatlas.results.claim import Verdict

X, Y = normal(30, 4), torch.arange(30) % 3
QUIET = {"progress": False}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def objective(**options) -> la.Objective:
    return la.Objective(model(), F.cross_entropy, (X, Y), **options)


def dense(rows: slice | torch.Tensor) -> np.ndarray:
    """All eigenvalues, ascending, of the Hessian of the mean loss of these examples."""
    network = model()
    names, start = zip(*network.named_parameters(), strict=True)
    sizes, shapes = [p.numel() for p in start], [p.shape for p in start]

    def loss(theta: torch.Tensor) -> torch.Tensor:
        parts = [part.reshape(shape) for part, shape in zip(theta.split(sizes), shapes, strict=True)]
        outputs = torch.func.functional_call(network, dict(zip(names, parts, strict=True)), (X[rows],))
        return F.cross_entropy(outputs, Y[rows])

    flat = torch.cat([p.detach().flatten() for p in start])
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat)).numpy()


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_each_own_batch_has_the_eigenvalues_of_its_dense_hessian(which):
    found = la.batch_eigenvalues(objective(batch_size=8), 2, which=which, tol=1e-8, **QUIET)
    ends = slice(None, -3, -1) if which == "largest" else slice(None, 2)
    truth = np.stack([dense(slice(start, start + 8))[ends] for start in (0, 8, 16, 24)])
    np.testing.assert_allclose(found["eigenvalue"], truth, rtol=1e-6)
    np.testing.assert_allclose(found["eigenvalue_all"], dense(slice(None))[ends], rtol=1e-6)
    assert bool((abs(found["eigenvalue"] - truth) <= found["residual"] + 1e-12).all())
    assert found["batch_examples"].values.tolist() == [8, 8, 8, 6]


def test_data_cut_anew_are_disjoint_batches_of_one_size_in_the_order_of_the_seed():
    found = la.batch_eigenvalues(objective(), batch_size=7, tol=1e-8, seed=3, **QUIET)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))[:28].reshape(4, 7)
    truth = [dense(rows)[-1] for rows in order]
    np.testing.assert_allclose(found["eigenvalue"][:, 0], truth, rtol=1e-6)
    some = la.batch_eigenvalues(objective(), batch_size=7, batches=2, tol=1e-8, seed=3, **QUIET)
    np.testing.assert_allclose(some["eigenvalue"][:, 0], truth[:2], rtol=1e-6)
    assert (some.attrs["batches"], some.attrs["batches_available"], some.attrs["batch_size"]) == (2, 4, 7)


def test_the_mean_its_error_and_the_quantiles_are_those_of_the_values():
    found = la.batch_eigenvalues(objective(batch_size=5), tol=1e-8, **QUIET).isel(rank=0)
    values = [dense(slice(start, start + 5))[-1] for start in range(0, 30, 5)]
    low, high = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
    for name, truth in (("mean", np.mean(values)), ("mean_stderr", stats.sem(values)), ("mean_low", low)):
        assert float(found[f"eigenvalue_{name}"]) == pytest.approx(truth, rel=1e-6)
    assert float(found["eigenvalue_mean_high"]) == pytest.approx(high, rel=1e-6)
    np.testing.assert_allclose(found["eigenvalue_quantile"].sel(quantile=0.5), np.median(values), rtol=1e-6)


def test_the_weighted_mean_over_all_batches_is_above_the_whole_as_the_inequality_says():
    found = la.batch_eigenvalues(objective(batch_size=4), tol=1e-8, **QUIET).isel(rank=0)
    weighted = float((found["eigenvalue"] * found["batch_examples"]).sum() / 30)
    assert weighted > float(found["eigenvalue_all"]) + 1e-3


def test_few_own_batches_are_drawn_by_the_seed():
    o = objective(batch_size=8)
    first = {int(torch.randperm(4, generator=torch.Generator().manual_seed(s))[0]): s for s in range(40)}
    sizes = [la.batch_eigenvalues(o, batches=1, seed=first[b], **QUIET)["batch_examples"].item() for b in (2, 3)]
    assert sizes == [8, 6]
    two = la.batch_eigenvalues(o, batches=2, tol=1e-8, **QUIET)["eigenvalue"][:, 0]
    truth = np.array([dense(slice(start, start + 8))[-1] for start in (0, 8, 16, 24)])
    assert len({int(abs(truth / value - 1).argmin()) for value in two.values}) == 2
    assert all(min(abs(truth / value - 1)) < 1e-6 for value in two.values)


def test_a_single_batch_has_no_standard_error_and_its_claim_is_undecided():
    found = la.batch_eigenvalues(objective(), **QUIET)
    assert np.isnan(float(found["eigenvalue_mean_stderr"][0]))
    assert batches_are_sharper(found).verdict is Verdict.UNDECIDED
    assert drawn(found).axes


def test_the_claim_is_on_the_side_that_the_inequality_gives():
    largest, smallest = (
        la.batch_eigenvalues(objective(), which=w, batch_size=3, **QUIET) for w in ("largest", "smallest")
    )
    above, below = batches_are_sharper(largest), batches_are_sharper(smallest)
    assert (above.direction, below.direction) == ("above", "below")
    assert above.verdict is below.verdict is Verdict.SUPPORTED
    assert above.value == pytest.approx(float(largest["eigenvalue"].mean() - largest["eigenvalue_all"][0]))


def test_the_numbers_name_the_mean_the_quantiles_and_the_whole():
    found = {n.name: n.text for n in numbers(la.batch_eigenvalues(objective(batch_size=8), **QUIET))}
    assert found["batches"] == "4 batches of 6 to 8 examples"
    assert next(iter(found)) == "largest eigenvalue of a batch, mean"
    assert "largest eigenvalue of all the data" in found


def test_what_is_not_converged_is_said_once():
    with pytest.warns(ConvergenceWarning, match=r"5 of 5 eigenvalues .* allow more with max_products"):
        found = la.batch_eigenvalues(objective(batch_size=8), tol=1e-10, max_products=2, **QUIET)
    assert not found.attrs["converged"]
    solver = [number.text for number in numbers(found) if number.name == "solver"]
    assert solver == ["tolerance not reached in some batches"]


class Noisy(nn.Module):
    """Adds noise to its inputs, of another seed for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x + torch.randn_like(x))


def test_a_batch_draws_the_random_numbers_that_it_draws_among_the_others():
    o = la.Objective(Noisy(), F.cross_entropy, (X, Y), batch_size=10)
    found = la.batch_eigenvalues(o, tol=1e-8, **QUIET)
    eye = torch.eye(o.n_parameters).double()
    truth = [torch.linalg.eigvalsh(h)[-1].item() for _, h in la.hessian(o).products.by_batch(eye)]
    np.testing.assert_allclose(found["eigenvalue"][:, 0], truth, rtol=1e-6)
    assert len({round(value, 6) for value in truth}) == 3


def test_batches_that_cannot_be_cut_anew_are_taken_as_they_are():
    def contrast(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))

    o = la.Objective(model(), contrast, (X, Y), batch_size=10)
    assert la.batch_eigenvalues(o, **QUIET).attrs["batches"] == 3
    with pytest.raises(InputError, match="cannot be cut anew"):
        la.batch_eigenvalues(o, batch_size=5, **QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batches": 0}, "at least one batch"), ({"batch_size": 31}, "batch_size=31 of 30"), ({"k": 0}, "k=0")],
)
def test_what_is_not_possible_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        la.batch_eigenvalues(objective(), **QUIET, **options)
