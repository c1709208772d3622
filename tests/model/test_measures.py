"""Means and their errors, and the two functions that measure a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lossatlas.model.loss.metrics import accuracy
from lossatlas.model.loss.samples import Sample


def sample(values, weights=None, over="examples"):
    values = torch.tensor(values, dtype=torch.float64)
    weights = torch.ones_like(values) if weights is None else torch.tensor(weights, dtype=torch.float64)
    return Sample(values, weights, over)


def test_equal_weights_give_the_textbook_mean_and_error():
    x = np.random.default_rng(0).normal(size=50)
    s = sample(x)
    assert s.mean == pytest.approx(x.mean())
    assert s.stderr == pytest.approx(x.std(ddof=1) / math.sqrt(50))


def test_the_error_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    weights = np.array([512.0] * 9 + [100.0])
    z = []
    for _ in range(3000):
        x = generator.normal(size=10) / np.sqrt(weights) * 10  # means of batches of that size
        s = sample(x, weights)
        z.append(s.mean / s.stderr)
    # Student's t with about nine degrees of freedom: variance 9 / 7.
    assert np.var(z) == pytest.approx(9 / 7, rel=0.15)


def test_one_value_has_no_error():
    assert math.isnan(sample([1.0]).stderr)


def test_values_that_are_not_finite_stay_visible():
    assert sample([1.0, math.inf]).mean == math.inf
    assert math.isnan(sample([1.0, math.nan]).mean)


def test_a_difference_is_paired():
    first, second = sample([1.0, 2.0, 4.0]), sample([0.5, 1.5, 3.5])
    difference = first.combined(second, -1.0)
    assert difference.mean == pytest.approx(0.5)
    assert difference.stderr == pytest.approx(0.0, abs=1e-15)


def test_accuracy_over_positions_is_their_mean():
    outputs = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]])  # (batch, class, position)
    assert accuracy(outputs, torch.tensor([[0, 0]])).tolist() == [0.5]
    assert accuracy(outputs[:, :, 0], torch.tensor([0])).tolist() == [1.0]
