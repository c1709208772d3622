"""What figures read off a surface: its grid, its levels, whose curve is whose."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from lossatlas.drawing.grids import axes_of, grid, mesh, over_planes, round_levels


def polar(*, endpoint: bool) -> xr.Dataset:
    """1 + r cos^2(angle), with the angles in the second dimension."""
    angle, radius = np.linspace(0, 2 * np.pi, 9, endpoint=endpoint), np.array([0, 0.5, 1])
    loss = xr.DataArray(1 + np.outer(radius, np.cos(angle) ** 2), dims=("radius", "angle"))
    return xr.Dataset({"loss": loss}, coords={"radius": radius, "angle": angle})


@pytest.mark.parametrize("endpoint", [False, True])
def test_a_polar_grid_goes_once_around_whether_the_last_angle_repeats_the_first_or_not(endpoint: bool):
    across, up, values = grid(polar(endpoint=endpoint))
    assert across[-1] - across[0] == pytest.approx(2 * np.pi, rel=1e-12)
    np.testing.assert_allclose(values[:, -1], values[:, 0], rtol=1e-12)
    assert values.shape == (len(up), len(across))


def test_a_polar_surface_stands_in_space_at_r_cos_and_r_sin():
    dataset = polar(endpoint=True)
    x, y, loss = mesh(dataset)
    np.testing.assert_allclose(np.hypot(x, y)[:, 5], dataset["radius"], atol=1e-12)
    np.testing.assert_allclose(x[:, 2], 0, atol=1e-12)  # a quarter turn
    np.testing.assert_allclose(y[:, 2], dataset["radius"], atol=1e-12)
    np.testing.assert_allclose(loss, 1 + np.where(np.hypot(x, y) > 0, x**2 / np.maximum(np.hypot(x, y), 1e-9), 0))


def test_the_grid_of_a_plane_has_alpha_across_in_either_order_of_its_dimensions():
    alpha, beta = np.linspace(-1, 1, 5), np.linspace(0, 3, 4)
    loss = xr.DataArray(np.add.outer(alpha, 10 * beta), dims=("alpha", "beta"))
    for array in (loss, loss.transpose("beta", "alpha")):
        dataset = xr.Dataset({"loss": array}, coords={"alpha": alpha, "beta": beta})
        across, up, values = grid(dataset)
        assert axes_of(dataset) == ("alpha", "beta")
        np.testing.assert_array_equal(values, across[None, :] + 10 * up[:, None])


def test_over_several_planes_stand_the_mean_and_the_spread_relative_to_it():
    loss = xr.DataArray([[1.0, 2.0], [3.0, 2.0]], dims=("plane", "alpha"))
    dataset = xr.Dataset({"loss": loss, "loss_mean": loss.mean("plane"), "loss_spread": loss.std("plane", ddof=1)})
    picture = over_planes(dataset)
    np.testing.assert_allclose(picture["loss"], [2, 2])
    np.testing.assert_allclose(picture["relative_spread"], [np.sqrt(2) / 2, 0])
    assert over_planes(picture) is picture


def test_where_a_range_holds_less_than_two_round_levels_they_are_equally_spaced():
    np.testing.assert_allclose(np.diff(round_levels(2.0, 2.3)), 0.05)


@pytest.mark.parametrize(("low", "high"), [(0.25, 12.0), (0.001, 1e6), (1e-8, 3e-8)])
def test_contour_levels_are_round_few_and_within_the_range(low: float, high: float):
    levels = round_levels(low, high)
    assert 2 <= len(levels) <= 12
    for level in levels:
        assert low < level < high
        assert f"{level:.0e}" == f"{level:.1e}".replace(".0e", "e") or f"{level:.1e}".startswith("1.5")
