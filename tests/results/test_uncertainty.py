"""Numbers as text with their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lossatlas.results.uncertainty import interval, normal_interval, number, plus_minus, with_interval


@pytest.mark.parametrize(
    ("value", "bounds", "printed"),
    [
        (1.52, (1.4778, 1.5622), "1.520 [1.478, 1.562]"),
        (0.012, (-0.0049, 0.0191), "0.012 [−0.005, 0.019]"),
        (12.3, (4.0, 29.0), "12 [4, 29]"),
        (3e-8, (1e-8, 5e-8), "3.000×10⁻⁸ [1.000×10⁻⁸, 5.000×10⁻⁸]"),
        (0.0, (0.0, 0.0), "0 [0, 0]"),
        (np.inf, (1.0, np.inf), "∞"),
        (0.25, (np.nan, np.nan), "0.25"),
    ],
)
def test_a_value_is_printed_to_the_place_of_its_interval(value: float, bounds: tuple[float, float], printed: str):
    assert with_interval(value, bounds) == printed


def test_the_normal_interval_covers_95_percent_and_grows_by_the_bound():
    low, high = normal_interval(2.0, 0.5)
    assert stats.norm.cdf(high, 2.0, 0.5) - stats.norm.cdf(low, 2.0, 0.5) == pytest.approx(0.95, abs=1e-9)
    assert normal_interval(2.0, 0.5, 0.1) == pytest.approx((low - 0.1, high + 0.1))


@pytest.mark.parametrize(
    ("value", "stderr", "printed"),
    [
        (0.2708, 0.0051, "0.2708 ± 0.0051"),
        (15.63, 1.23, "15.6 ± 1.2"),
        (1234.5, 67.0, "1234 ± 67"),
        (0.5, 0.0996, "0.50 ± 0.10"),
        (-0.41, 0.02, "−0.410 ± 0.020"),
        (0.25, None, "0.25"),
        (0.25, 0.0, "0.25"),
        (0.25, math.nan, "0.25"),
        (math.nan, 0.1, "–"),
        (1.5e-7, 2e-8, "(1.50 ± 0.20)×10⁻⁷"),
    ],
)
def test_a_value_is_printed_to_two_digits_of_its_error(value: float, stderr: float | None, printed: str):
    assert plus_minus(value, stderr) == printed


def test_numbers_that_are_not_finite_print_as_signs():
    assert [number(x) for x in (math.nan, math.inf, -math.inf)] == ["–", "∞", "−∞"]
    assert interval((math.nan, math.nan)) == "–"
