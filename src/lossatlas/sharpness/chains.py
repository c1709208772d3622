"""What several chains of draws say about a mean: its error, and whether they agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

Draws = NDArray[np.float64]  # (chains, draws), after burn-in


@dataclass(frozen=True)
class Mean:
    """The mean over all draws, its Monte-Carlo standard error, and what the chains say of it."""

    value: float
    stderr: float
    r_hat: float
    effective: float


def mean_of(draws: Draws) -> Mean:
    """The mean of ``draws`` ``(chains, draws)``, with sqrt(var+ / effective size) as its standard error.

    Source: Vehtari et al. 2021, "Rank-normalization, folding, and localization", equations 1 to 4 and 10 to 14.
    """
    effective = effective_size(draws)
    spread = math.sqrt(_variances(_halves(draws))[1])
    return Mean(float(draws.mean()), spread / math.sqrt(effective), split_r_hat(draws), effective)


def split_r_hat(draws: Draws) -> float:
    """The larger one of the split R-hat of the draws' normal scores, and of the scores of |draw - median|.

    1 where the half chains agree in place and in scale. Chains that do not move at all have infinite R-hat, or NaN.
    """
    folded = np.abs(draws - np.median(draws))
    return max(_r_hat(_normal_scores(_halves(one))) for one in (draws, folded))


def effective_size(draws: Draws) -> float:
    """chains * draws / tau, tau = 1 + 2 sum_t rho_t over Geyer's initial monotone sequence, of the half chains.

    It may exceed the number of draws where they alternate, by no more than log10 of it.
    """
    halves = _halves(draws)
    within, total = _variances(halves)
    if not total > 0:
        return math.nan
    correlation = 1 - (within - _autocovariances(halves).mean(0)) / total
    correlation[0] = 1.0
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(1)
    positive = pairs[: int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)]
    tau = 2 * np.minimum.accumulate(positive).sum() - 1
    return float(halves.size / max(tau, 1 / math.log10(halves.size)))


def _halves(draws: Draws) -> Draws:
    """Each chain as two; the middle draw of an odd number is left out."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _variances(chains: Draws) -> tuple[float, float]:
    """W, the mean variance within chains, and var+ = (n - 1) W / n + B / n, with B / n that of their means."""
    n = chains.shape[1]
    within = float(chains.var(1, ddof=1).mean())
    return within, (n - 1) / n * within + float(chains.mean(1).var(ddof=1))


def _r_hat(chains: Draws) -> float:
    within, total = _variances(chains)
    return math.sqrt(total / within) if within > 0 else math.inf


def _normal_scores(chains: Draws) -> Draws:
    ranks = rankdata(chains, method="average").reshape(chains.shape)
    scores: Draws = ndtri((ranks - 3 / 8) / (chains.size + 1 / 4))
    return scores


def _autocovariances(chains: Draws) -> Draws:
    """``(chains, n)``: at each lag, divided by n."""
    n = chains.shape[1]
    spectrum = np.fft.rfft(chains - chains.mean(1, keepdims=True), 2 * n)
    covariances: Draws = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n)[:, :n] / n
    return covariances
