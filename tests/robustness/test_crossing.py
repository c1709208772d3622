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


def quadratic(seed: int, *, n: int = 12, examples: int = 200, spread: float = 1.0) -> tuple[Values, float]:
    """l_i(w) = (w - c_i)' A (w - c_i) / 2 at w = 0 for centers c_i ~ N(0, spread^2): E rise = s^2 tr(A) / 2."""
    eigenvalues = np.linspace(0.2, 3, n)
    centers = spread * np.random.default_rng((seed, 0)).standard_normal((examples, n))

    def evaluate(size: float, draw: int) -> Sample:
        moved = size * np.random.default_rng((seed, 1 + draw)).standard_normal(n) - centers
        return sample((moved * eigenvalues * moved).sum(1) / 2)

    return evaluate, float(eigenvalues.sum())


def errors_of(seed: int, *, examples: int = 1000) -> tuple[Values, float]:
    """Example i is lost where |s u_ij| > 1, independent over examples and draws: E rise = 2 Phi(-1 / s)."""

    def evaluate(size: float, draw: int) -> Sample:
        u = np.random.default_rng((seed, draw)).standard_normal(examples)
        return sample((np.abs(size * u) > 1).astype(float))

    return evaluate, 1 / 1.959963984540054  # where 5 % are lost


@pytest.mark.parametrize(("noise", "family"), [("draws", {"spread": 0.02}), ("both", {"spread": 1.0, "examples": 50})])
def test_the_interval_covers_the_root_of_a_quadratic_as_often_as_it_says(noise: str, family: dict):
    covered, widths = 0, []
    for seed in range(200):
        evaluate, trace = quadratic(seed, **family)
        found = crossing(evaluate, 0.5)
        assert found.evaluations <= 60
        root = math.sqrt(2 * 0.5 / trace)
        covered += found.low <= root <= found.high
        widths.append(math.log(found.high / found.low))
    print(noise, covered, np.median(widths), max(widths))
    assert 180 <= covered <= 199


def test_coverage_of_errors():
    covered, widths, ev = 0, [], []
    for seed in range(200):
        evaluate, root = errors_of(seed)
        found = crossing(evaluate, 0.05)
        covered += found.low <= root <= found.high
        widths.append(math.log(found.high / found.low))
        ev.append(found.evaluations)
    print(covered, np.median(widths), max(widths), np.mean(ev), max(ev))
