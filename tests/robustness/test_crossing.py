"""Where an expectation crosses a threshold: closed forms, coverage, budgets, and the ends that are never found."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracles.refusals import refused

from lossatlas.errors import InputError
from lossatlas.model.loss.samples import Sample
from lossatlas.robustness.crossing import Outcome, crossing

Values = Callable[[float, int], Sample]


def sample(values: np.ndarray) -> Sample:
    return Sample(torch.as_tensor(values, dtype=torch.float64), torch.ones(len(values)).double(), "examples")


def quadratic(seed: int, *, n: int = 40, examples: int = 50, spread: float = 1.0) -> Values:
    """l_i(w) = (w - c_i)' A (w - c_i) / 2 at w = 0, c_i ~ N(0, spread^2), tr(A) = 20: E rise = 10 s^2."""
    eigenvalues = 20 * np.linspace(0.2, 3, n) / np.linspace(0.2, 3, n).sum()
    centers = spread * np.random.default_rng((seed, 0)).standard_normal((examples, n))

    def evaluate(size: float, draw: int) -> Sample:
        moved = size * np.random.default_rng((seed, 1 + draw)).standard_normal(n) - centers
        return sample((moved * eigenvalues * moved).sum(1) / 2)

    return evaluate


def lost(seed: int, *, examples: int = 1000) -> Values:
    """Example i is lost where |s u_ij| > 1, independently over examples and draws: E rise = 2 Phi(-1 / s)."""

    def evaluate(size: float, draw: int) -> Sample:
        return sample((np.abs(size * np.random.default_rng((seed, draw)).standard_normal(examples)) > 1).astype(float))

    return evaluate


@pytest.mark.parametrize("family", [{"spread": 0.02}, {"spread": 1.0}], ids=["draws", "draws and examples"])
def test_the_interval_covers_the_root_of_a_quadratic_as_often_as_it_says(family: dict[str, float]):
    found = [crossing(quadratic(seed, **family), 0.4) for seed in range(200)]
    assert max(each.evaluations for each in found) <= 60
    assert 180 <= sum(each.low <= 0.2 <= each.high for each in found) <= 199  # 10 * 0.2^2 = 0.4
    assert np.median([each.high / each.low for each in found]) < 2.1
    assert abs(np.median([math.log(each.value / 0.2) for each in found])) < 0.05


def test_a_share_of_lost_examples_is_met_to_its_binomial_error():
    """After 40 evaluations of 1,000 examples the share is known to sqrt(.05 * .95 / 1000 / 11), 4 % of it."""
    found = [crossing(lost(seed), 0.05) for seed in range(10)]
    root = 1 / 1.959963984540054
    assert sum(each.low <= root <= each.high for each in found) >= 9
    assert all(each.high < 1.15 * each.low for each in found)
    assert all(each.low < each.value < each.high for each in found)


def test_an_exact_function_takes_one_evaluation_a_size_and_has_the_error_of_the_examples_alone():
    slopes = np.random.default_rng(0).uniform(0.5, 1.5, 400)

    def evaluate(size: float, draw: int) -> Sample:
        assert draw == 0
        return sample(slopes * size**2)

    found = crossing(evaluate, 0.3, exact=True)
    error = 1.96 * slopes.std(ddof=1) / math.sqrt(400) / slopes.mean() / 2  # of log s, as s = sqrt(0.3 / mean)
    assert found.value == pytest.approx(math.sqrt(0.3 / slopes.mean()), rel=1e-3)
    assert 2 * error < math.log(found.high / found.low) < 3 * error + 0.02
    assert found.evaluations < 14


def test_the_draws_are_the_same_at_every_size_and_the_clean_network_is_counted():
    asked: list[tuple[float, int]] = []
    evaluate = quadratic(0)

    def recorded(size: float, draw: int) -> Sample:
        asked.append((size, draw))
        return evaluate(size, draw)

    found = crossing(recorded, 0.4, limit=30)
    assert asked[0] == (0.0, 0)
    assert len(asked) == found.evaluations <= 30
    for each in found.trials:
        assert [draw for size, draw in asked if size == each.size] == list(range(each.draws))


def rising(size: float, draw: int) -> Sample:
    """1 - exp(-s), at most 1."""
    return sample(1 - np.exp(-size * np.linspace(0.9, 1.1, 50)))


def breaking(size: float, draw: int) -> Sample:
    """0 up to s = 1, then not a number."""
    return sample(np.full(50, 0.0 if size < 1 else math.nan))


@pytest.mark.parametrize(
    ("evaluate", "threshold", "outcome", "inside"),
    [
        (rising, 0.5, Outcome.CROSSED, math.log(2)),
        (rising, 2.0, Outcome.NEVER, math.inf),
        (rising, 1e-9, Outcome.BELOW, 1e-9),
        (rising, 0.0, Outcome.BEYOND, 0.0),
        (breaking, 0.5, Outcome.CROSSED, 1.0),
    ],
)
def test_how_a_search_ends_is_a_type(evaluate: Values, threshold: float, outcome: Outcome, inside: float):
    found = crossing(evaluate, threshold)
    assert found.outcome is outcome
    assert found.low <= inside <= found.high
    assert math.isnan(found.value) == (outcome is Outcome.NEVER)
    assert found.evaluations <= 60


def test_where_an_error_is_not_known_no_size_is_decided():
    found = crossing(lambda size, draw: Sample(torch.tensor([size]).double(), torch.ones(1).double(), "batches"), 0.3)
    assert (found.low, found.high) == (0.0, math.inf)
    assert found.value == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(
    ("threshold", "options", "match"),
    [
        (math.nan, {}, "finite"),
        (0.1, {"bounds": (0.0, 1.0)}, "0 < smallest"),
        (0.1, {"bounds": (2.0, 1.0)}, "0 < smallest"),
        (0.1, {"limit": 5}, "at least 20"),
    ],
)
def test_an_impossible_search_is_refused(threshold: float, options: dict, match: str):
    with refused(InputError, match):
        crossing(rising, threshold, **options)
