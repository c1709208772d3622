"""Numbers as text with their errors."""

from __future__ import annotations

import numpy as np
import pytest

from lossatlas.results.uncertainty import with_interval


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
