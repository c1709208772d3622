"""Statistics of chains against processes whose autocorrelation is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lossatlas.sharpness.chains import effective_size, mean_of, split_r_hat


def autoregressive(phi: float, chains: int, draws: int, seed: int = 0) -> NDArray[np.float64]:
    """x' = phi x + noise, of variance 1 and mean 0."""
    generator = np.random.default_rng(seed)
    rows = [generator.standard_normal(chains)]
    for _ in range(draws - 1):
        rows.append(phi * rows[-1] + np.sqrt(1 - phi**2) * generator.standard_normal(chains))
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("phi", [0.0, 0.6, 0.9, -0.5])
def test_the_effective_size_is_that_of_the_known_autocorrelation(phi: float) -> None:
    draws = autoregressive(phi, 4, 20_000)
    assert effective_size(draws) == pytest.approx(draws.size * (1 - phi) / (1 + phi), rel=0.1)


def test_the_standard_error_is_the_spread_of_means_over_repetitions() -> None:
    found = [mean_of(autoregressive(0.7, 4, 500, seed)) for seed in range(200)]
    spread = np.std([one.value for one in found])
    assert np.mean([one.stderr for one in found]) == pytest.approx(spread, rel=0.1)
    covered = np.mean([abs(one.value) < 1.96 * one.stderr for one in found])
    assert 0.9 <= covered <= 0.99


def test_r_hat_sees_chains_of_another_mean_or_spread_and_a_common_drift() -> None:
    draws = autoregressive(0.3, 4, 400)
    shifted, wider, drifting = draws.copy(), draws.copy(), draws + np.linspace(0, 3, 400)
    shifted[0] += 2
    wider[0] *= 4
    assert split_r_hat(draws) < 1.02
    assert min(map(split_r_hat, (shifted, wider, drifting))) > 1.1


def test_r_hat_does_not_change_under_a_monotone_map_that_keeps_the_median_symmetric() -> None:
    draws = autoregressive(0.3, 4, 400) - 0.0
    draws -= np.median(draws)
    assert split_r_hat(draws**3) == pytest.approx(split_r_hat(draws), abs=1e-12)


def test_chains_that_stand_still_do_not_agree() -> None:
    assert split_r_hat(np.tile(np.arange(4.0)[:, None], 50)) == np.inf
    assert np.isnan(mean_of(np.zeros((4, 50))).stderr)
