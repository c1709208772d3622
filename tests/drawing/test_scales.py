"""The scale of an axis, read from its coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lossatlas.drawing.scales import scale_of


@pytest.mark.parametrize(
    ("coordinates", "kind"),
    [
        (np.linspace(-1, 1, 7), "linear"),
        (np.linspace(0.5, 2, 4), "linear"),
        (np.geomspace(1e-3, 10, 9), "log"),
        (np.array([-1, -0.1, 0, 0.1, 1]), "symlog"),
        (np.array([-1, -0.3, -0.1, 0, 0.1, 0.2, 1]), "linear"),
        (np.array([-3, 0.1, 1, 10]), "linear"),
        (np.array([0.0, 1.0]), "linear"),
    ],
)
def test_the_scale_of_an_axis_is_read_from_its_coordinates(coordinates: NDArray[np.float64], kind: str):
    assert scale_of(coordinates).kind == kind


@pytest.mark.parametrize("decades", [1, 2, 3, 6])
def test_positions_on_a_logarithmic_axis_keep_the_order_and_the_ticks_are_powers_of_ten_on_it(decades: int):
    positive = np.geomspace(10.0**-decades, 1, 4 * decades + 1)
    for coordinates in (positive, np.concatenate([-positive[::-1], [0], positive])):
        scale = scale_of(coordinates)
        steps = np.diff(scale.positions(coordinates))
        assert (steps > 0).all()
        ticks = scale.ticks(coordinates)
        assert ticks.max() == 1
        assert 2 <= len(ticks) <= 7
        powers = np.log10(np.abs(ticks[ticks != 0]))
        np.testing.assert_allclose(powers, powers.round(), atol=1e-9)
        assert ticks.min() == -1 or coordinates.min() > 0
