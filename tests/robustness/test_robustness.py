"""Weight noise: closed forms, common random numbers, invariance, and errors that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BY_NAME, MEMBERS
from oracles.quadratic import quadratic, symmetric
from oracles.refusals import refused
from torch import nn

import lossatlas as la
from lossatlas.errors import InputError
from lossatlas.objective import Objective


def noisy(o: Objective, sigmas, **options):
    return la.robustness(o, sigmas, progress=False, **options)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_no_noise_is_the_plain_loss(member):
    model, data = member.make(), member.data()
    o = Objective(model, member.loss, data)
    found = noisy(o, [0.0, 0.1], draws=3)
    assert float(found["loss"][0]) == pytest.approx(plain.loss_of(model, member.loss, data), rel=1e-6)
    assert float(found["loss_stderr"][0]) == pytest.approx(o.evaluate().loss_stderr, rel=1e-9)
    assert np.ptp(found["loss_draws"].values[0]) == 0
    assert np.ptp(found["loss_draws"].values[1]) > 0


def test_a_loss_that_is_infinite_under_noise_has_an_error_that_is_not_known():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    o = Objective(model, lambda out, _: 1 / (out * (out > 0)).flatten(), (torch.ones(4, 1), torch.zeros(4)))
    found = noisy(o, [0.0, 3.0], draws=6)
    assert np.isinf(found["loss"].values[1])
    assert np.isnan(found["loss_stderr"].values[1])
    assert np.isfinite(found["loss_stderr"].values[0])


def test_the_mean_loss_of_a_quadratic_rises_by_half_sigma_squared_times_the_trace():
    matrix, _ = symmetric(torch.linspace(-1, 5, 20))
    centers = torch.randn(40, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    o = quadratic(matrix, centers, torch.zeros(20, dtype=torch.float64))
    sigma = 0.5
    expected = o.value() + sigma**2 / 2 * float(matrix.trace())
    z = []
    for seed in range(40):
        draws = noisy(o, [sigma], draws=20, seed=seed)["loss_draws"].values[0]
        z.append((draws.mean() - expected) / (draws.std(ddof=1) / np.sqrt(20)))
    # Student's t with 19 degrees of freedom: variance 1.12; the mean of 40 has a standard error of 0.17.
    assert abs(np.mean(z)) < 0.6
    assert 0.6 < np.mean(np.square(z)) < 1.9


def test_the_error_covers_new_data_and_new_draws_together():
    matrix, _ = symmetric(torch.linspace(0.5, 3, 6))
    sigma = 0.7
    expected = 0.5 * float(matrix.trace()) * (1 + sigma**2)  # E over centers ~ N(0, I) and over the noise
    means = {"loss": expected, "loss_change": 0.5 * float(matrix.trace()) * sigma**2}
    z = []
    for seed in range(60):
        centers = torch.randn(30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1000 + seed))
        found = noisy(quadratic(matrix, centers, torch.zeros(6, dtype=torch.float64)), [sigma], draws=10, seed=seed)
        z.append([(float(found[name][0]) - mean) / float(found[f"{name}_stderr"][0]) for name, mean in means.items()])
    assert (abs(np.mean(z, axis=0)) < 0.5).all()
    squares = np.mean(np.square(z), axis=0)
    assert 0.5 < squares[0] < 1.5
    assert 0.5 < squares[1] < 2.2  # a skewed sum of 6 squares and Student's t with about 10 degrees: 1.6 over 300 seeds


def test_a_draw_is_the_same_whatever_the_number_of_draws_and_sigmas():
    member = BY_NAME["mlp-tanh"]
    o = Objective(member.make(), member.loss, member.data())
    few, many = noisy(o, [0.1, 0.2], draws=3), noisy(o, [0.2], draws=6)
    np.testing.assert_array_equal(few["loss_draws"].values[1], many["loss_draws"].values[0, :3])
    assert len(set(many["loss_draws"].values[0])) == 6
    assert not np.array_equal(many["loss_draws"], noisy(o, [0.2], draws=6, seed=1)["loss_draws"])


def test_the_draws_are_standard_normal_and_independent_of_each_other():
    o = quadratic(torch.eye(2000).double(), torch.zeros(2, 2000).double(), torch.zeros(2000).double())
    lengths = 2 * noisy(o, [1.0], draws=20)["loss_draws"].values[0]  # |u|^2, chi-squared with 2000 degrees
    assert lengths.mean() == pytest.approx(2000, abs=4 * np.sqrt(2 * 2000 / 20))
    assert lengths.std(ddof=1) == pytest.approx(np.sqrt(2 * 2000), rel=0.5)


def test_filter_relative_noise_has_the_norm_of_each_filter():
    """The loss |w - w0|^2 / 2 of a single filter's noise is sigma^2 |w_f|^2 / 2 on average."""
    model = nn.Linear(400, 2, bias=False)
    with torch.no_grad():
        model.weight[1] *= 10
    start = model.weight.detach().clone()
    for row in range(2):
        o = Objective.from_step(
            model, lambda m, b, row=row: (m.weight[row] - start[row]).square().sum() / 2, [torch.zeros(1)]
        )
        found = float(noisy(o, [0.3], relative="filter", draws=50)["loss"][0])
        assert found == pytest.approx(0.3**2 * float(start[row].square().sum()) / 2, rel=0.05)


def test_filter_relative_noise_knows_nothing_of_a_layers_scale():
    """ReLU: a layer times c and the next one over c is the same function; relative noise sees no difference."""
    data = BY_NAME["mlp-relu"].data(torch.float64)
    model = BY_NAME["mlp-relu"].make(torch.float64)
    scaled = BY_NAME["mlp-relu"].make(torch.float64)
    with torch.no_grad():
        scaled[0].weight *= 7
        scaled[0].bias *= 7
        scaled[2].weight /= 7
    ours, theirs = (
        noisy(Objective(m, F.cross_entropy, data), [0.0, 0.2], relative="filter", draws=3) for m in (model, scaled)
    )
    np.testing.assert_allclose(ours["loss_draws"], theirs["loss_draws"], rtol=1e-12)
    plainly = [noisy(Objective(m, F.cross_entropy, data), [0.2], draws=3)["loss_draws"] for m in (model, scaled)]
    assert not np.allclose(*plainly, rtol=1e-2)


@pytest.mark.parametrize(
    ("sigmas", "options"),
    [
        ([-0.1], {}),
        ([float("nan")], {}),
        ([float("inf")], {}),
        ([], {}),
        (0.1, {}),
        ([[0.1]], {}),
        ([0.1], {"draws": 1}),
        ([0.1], {"relative": "layer"}),
        ([0.1], {"seed": -1}),
    ],
)
def test_impossible_noise_is_refused(sigmas, options):
    member = BY_NAME["mlp-tanh"]
    o = Objective(member.make(), member.loss, member.data())
    with refused(InputError):
        noisy(o, sigmas, **options)
