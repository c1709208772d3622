"""The local learning coefficient against closed forms and numerical quadrature of the same posterior."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles.plain import normal
from oracles.quadratic import quadratic, symmetric
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.objective import Objective
from lossatlas.sharpness.langevin import Posterior, Sampler
from lossatlas.sharpness.learning_coefficient import LearningCoefficient, learning_coefficient
from lossatlas.sharpness.measures import MEASURES, llc
from lossatlas.sharpness.problem import Problem
from lossatlas.sharpness.trials import Outcome, Trial, sweep

CURVATURES = [4.0, 2.0, 1.0, 1.0]
N_BETA = 100.0


class Function(nn.Module):
    """Its output is f(w), whatever is given."""

    def __init__(self, f: Callable[[Tensor], Tensor], w: list[float]) -> None:
        super().__init__()
        self.f, self.w = f, nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.w).expand(len(x))


def objective_of(f: Callable[[Tensor], Tensor], w: list[float], n: int = 2) -> Objective:
    data = (torch.zeros(n, 1, dtype=torch.float64), torch.zeros(n, dtype=torch.float64))
    return Objective(Function(f, w), lambda outputs, _: outputs, data, metrics=None)


def full_rank() -> Objective:
    matrix, _ = symmetric(CURVATURES)
    return quadratic(matrix, torch.zeros(2, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))


def expected(gamma: float) -> float:
    """n beta E[L] = sum_i n beta h_i / (2 (n beta h_i + gamma)) for a Gaussian posterior."""
    return sum(N_BETA * h / (2 * (N_BETA * h + gamma)) for h in CURVATURES)


def covers(found: LearningCoefficient, truth: float) -> bool:
    return abs(found.value - truth) <= 3 * found.stderr  # one draw of a test that must hold always: 99.7 %


def log_grid(low: float, high: float, points: int = 1500) -> NDArray[np.float64]:
    return np.exp(np.linspace(math.log(low), math.log(high), points))


def crossing(a: int, b: int, n_beta: float, gamma: float) -> float:
    """n beta E[L] for L = w1^2a w2^2b by quadrature in log w1, log w2."""
    x = log_grid(1e-12, 12 / math.sqrt(gamma))
    u, v = x[:, None], x[None, :]
    loss = u ** (2 * a) * v ** (2 * b)
    weight = np.exp(-n_beta * loss - gamma * (u**2 + v**2) / 2) * u * v
    return float(n_beta * (loss * weight).sum() / weight.sum())


def reduced_rank(m: int, n: int, n_beta: float, gamma: float) -> float:
    """n beta E[|B A|^2 / 2], A (2, m), B (n, 2), by quadrature over the eigenvalues of A A'; B is integrated out."""
    x = log_grid(1e-14, 100 / gamma)
    one = x ** ((m - 3) / 2) * np.exp(-gamma * x / 2) * (gamma + n_beta * x) ** (-n / 2) * x
    weight = one[:, None] * one[None, :] * np.abs(x[:, None] - x[None, :])
    rise = n / 2 * n_beta * x / (gamma + n_beta * x)
    return float(((rise[:, None] + rise[None, :]) * weight).sum() / weight.sum())


def test_a_large_step_biases_draws_without_the_metropolis_test_and_none_with_it() -> None:
    matrix, _ = symmetric([1.0])
    objective = quadratic(matrix, torch.zeros(2, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    posterior = Posterior(objective, 99.0, 1.0)  # of variance 1 / 100
    sampler, unadjusted = Sampler(posterior, 0.02, 1, seed=1), Sampler(posterior, 0.02, 1, seed=1)
    exact = sampler.draw(300)
    rises = []
    for _ in range(300):
        unadjusted.burn_in(1)
        rises.append(unadjusted.place.rise)
    assert np.mean(exact) == pytest.approx(0.005, rel=0.35)
    assert np.mean(rises) == pytest.approx(0.005 / (1 - 0.02 * 100 / 4), rel=0.35)  # the known variance of SGLD


def test_on_a_quadratic_the_interval_of_preconditioned_steps_holds_the_gaussian_expectation() -> None:
    found = learning_coefficient(full_rank(), n_beta=N_BETA, gamma=200.0, preconditioned=True)
    assert found.outcome is Outcome.VALID
    assert found.stderr < 0.1 * found.value
    assert covers(found, expected(200.0))
    assert all(part in found.note for part in ("R-hat", "burn-in of 26", "Sweep: gamma 200"))
    assert not covers(found, 4 / 2)  # at which a localisation as strong as this does not arrive


def test_the_sweep_halves_the_step_until_it_is_stable_and_then_weakens_the_localisation(monkeypatch) -> None:
    monkeypatch.setitem(sweep.__globals__, "LEAPS", 6)
    trials = sweep(Posterior(full_rank(), 250.0, 0.0), None, seed=0)  # curvatures 1000, 500, 250, 250
    for one, other in itertools.pairwise(trials):
        diverged = one.outcome is Outcome.DIVERGED
        assert other.step == one.step * (0.5 if diverged else 4)
        assert other.gamma == one.gamma / (1 if diverged else 10)
    valid = [trial for trial in trials if trial.outcome is Outcome.VALID]
    assert len(valid) >= 2
    assert trials[0] not in valid
    assert all(trial.step < 4 / 1000 and trial.leaps <= 12 for trial in valid)  # where leapfrog steps are stable
    assert 1 / math.sqrt(4 * valid[-1].step * valid[-1].gamma / 10) > 6


def test_at_a_normal_crossing_the_interval_holds_the_quadrature() -> None:
    objective = objective_of(lambda w: w[0] ** 2 * w[1] ** 4, [0.0, 0.0])
    found = learning_coefficient(objective, n_beta=N_BETA, gamma=10.0, draws=100)
    assert found.outcome is Outcome.VALID
    assert covers(found, crossing(1, 2, N_BETA, 10.0))


def test_every_gradient_pass_is_counted() -> None:
    calls, passes = 0, list[float]()

    def counted(w: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return (w**2).sum()

    objective = objective_of(counted, [0.0, 0.0])
    objective.gradient()  # the checks of a first derivative
    calls = 0
    learning_coefficient(objective, n_beta=N_BETA, gamma=50.0, draws=10, count=passes.append)
    assert calls == sum(passes) > 4 * (26 + 10)


def test_a_point_that_is_no_minimum_gives_no_number_and_the_reason() -> None:
    found = learning_coefficient(objective_of(lambda w: torch.tanh(w.sum()), [0.0, 0.0]), n_beta=1000.0, gamma=10.0)
    assert math.isnan(found.value + found.stderr)
    assert found.outcome is Outcome.NEGATIVE
    assert found.note.startswith("Invalid: the loss around the point is lower")


def test_chains_in_two_wells_disagree() -> None:
    wells = objective_of(lambda w: ((w**2 - 1) ** 2).sum() + 0.1 * (w - 1).sum() ** 2, [1.0])
    found = learning_coefficient(wells, n_beta=3.0, gamma=0.5, draws=20)
    assert math.isnan(found.value)
    assert found.outcome is Outcome.DISAGREE
    assert found.note.startswith("Invalid: the chains disagree")


def test_a_loss_that_is_no_number_around_the_point_is_diverged() -> None:
    point = objective_of(lambda w: torch.where(w == 0, w, math.nan).sum(), [0.0])
    found = learning_coefficient(point, n_beta=N_BETA, gamma=1e20)
    assert math.isnan(found.value)
    assert found.outcome is Outcome.DIVERGED


def test_bad_input_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match="at least 2"):
        learning_coefficient(objective_of(lambda w: (w**2).sum(), [0.0], n=1))
    for wrong in ({"gamma": 0.0}, {"gamma": math.nan}, {"n_beta": -1.0}):
        with pytest.raises(InputError, match="positive"):
            learning_coefficient(full_rank(), **wrong)


def test_the_measure_has_the_interval_of_the_draws_the_note_and_the_cost(monkeypatch) -> None:
    def known(objective: Objective, *, preconditioned: bool, seed: int, count: Callable[[float], None]):
        count(7.0)
        bad = Outcome.DISAGREE if preconditioned else Outcome.VALID
        value, stderr = (math.nan, math.nan) if preconditioned else (2.0, 0.5)
        return LearningCoefficient(value, stderr, bad, (Trial(1.0, 0.1 * seed, 2, Outcome.VALID, 0.9),))

    monkeypatch.setattr(llc, "learning_coefficient", known)
    problem = Problem(full_rank(), seed=3)
    with problem.metered() as meter:
        found = MEASURES["llc"].of(problem)
    assert (found.value, found.stderr, found.errors, meter.cost.passes) == (2.0, 0.5, ("draws",), 7.0)
    assert (found.low, found.high) == pytest.approx((2 - 0.98, 2 + 0.98), abs=1e-3)
    assert found.note == "Sweep: gamma 1, step 3.0e-01: 90% accepted, valid."
    invalid = MEASURES["llc_rmsprop"].of(problem)
    assert math.isnan(invalid.value)
    assert invalid.note.startswith("Invalid: the chains disagree. Sweep")
    assert not MEASURES["llc"].cheap


@pytest.mark.slow
@pytest.mark.parametrize("preconditioned", [False, True])
def test_the_interval_covers_as_often_as_it_says(preconditioned: bool) -> None:
    truth = expected(200.0)
    found = [
        learning_coefficient(full_rank(), n_beta=N_BETA, gamma=200.0, preconditioned=preconditioned, seed=seed)
        for seed in range(200)
    ]
    valid = [one for one in found if one.outcome is Outcome.VALID]
    covered = sum(abs(one.value - truth) <= 1.96 * one.stderr for one in valid)
    assert len(valid) >= 190
    assert 0.9 <= covered / len(valid) <= 0.99


@pytest.mark.slow
def test_the_quadratures_approach_the_learning_coefficients_of_theory() -> None:
    assert crossing(1, 2, 1e12, 10.0) == pytest.approx(1 / 4, abs=0.01)  # 1 / (2 max(a, b))
    assert crossing(1, 3, 1e12, 10.0) == pytest.approx(1 / 6, abs=0.01)
    assert reduced_rank(5, 2, 1e9, 1.0) == pytest.approx(2 * 2 / 2, abs=0.01)  # n + h < m: h n / 2
    assert reduced_rank(2, 5, 1e9, 1.0) == pytest.approx(2 * 2 / 2, abs=0.01)  # m + h < n: m h / 2


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n"), [(5, 2), (2, 5), (3, 3)])
def test_in_reduced_rank_regression_the_interval_holds_the_quadrature(m: int, n: int) -> None:
    model = nn.Sequential(nn.Linear(m, 2, bias=False), nn.Linear(2, n, bias=False)).double()
    for weight in model.parameters():
        nn.init.zeros_(weight)
    inputs = torch.linalg.qr(normal(20, m)).Q * math.sqrt(20)  # second moments: the identity

    def loss(outputs: Tensor, _: Tensor) -> Tensor:
        return (outputs**2).sum(1) / 2

    objective = Objective(model, loss, (inputs, torch.zeros(20)), metrics=None)
    found = learning_coefficient(objective, n_beta=1000.0, gamma=10.0)
    assert found.outcome is Outcome.VALID
    assert covers(found, reduced_rank(m, n, 1000.0, 10.0))
