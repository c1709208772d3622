"""Claims on an order of networks, by Kendall's rank correlation and its permutation test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from lossatlas.claims.claim import LEVEL, Claim, verdict
from lossatlas.results.uncertainty import number


def sharper_generalises_worse(sharpness: Sequence[float], test: Sequence[float], quantity: str = "test loss") -> Claim:
    """Kendall's tau-b of lambda_max and a test loss or error over networks, with its exact permutation p-value.

    The interval is tau less and plus the largest |tau| that the two-sided permutation test at 5 % does not reject, cut
    to [-1, 1]: it lies above 0 exactly where the test rejects "no association" for a positive one. With fewer than
    five networks the test can reject nothing: the interval is [-1, 1] and the verdict undecided.

    >>> sharper_generalises_worse([13.0, 15.6], [0.270, 0.281]).verdict
    'undecided'
    """
    n = len(sharpness)
    tau, p, unrejected = _kendall(np.asarray(sharpness, float), np.asarray(test, float))
    bounds = (max(-1.0, tau - unrejected), min(1.0, tau + unrejected))
    least = min(1.0, 2 / math.factorial(n))
    why = (
        f"With {n} networks the smallest p-value that this test can give is {number(least, 2)}, so nothing can be "
        "decided; five networks are the fewest for p < 0.05 (2/120 = 0.017)."
        if least > LEVEL
        else "An association over these networks, not a cause."
    )
    return Claim(
        hypothesis=f"The sharper network generalises worse (larger largest eigenvalue, larger {quantity})",
        statistic=f"Kendall's tau-b over {n} networks, exact two-sided permutation p = {number(p, 3)}, threshold 0",
        value=tau,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"{why} The permutation test takes every measured value as exact; the interval is the tau that was "
        "found, less and plus the largest tau that chance leaves unrejected at 5 %.",
        kind="spectrum",
        basis="not rejected at 5 %",
    )


def _kendall(x: Any, y: Any) -> tuple[float, float, float]:
    """Kendall's tau-b, its exact two-sided p-value, and the largest |tau| with a p-value above 0.05 (2 if all have)."""
    tied = len(set(x.tolist())) < len(x) or len(set(y.tolist())) < len(y)
    if tied:
        return _kendall_by_permuting(x, y)
    result = stats.kendalltau(x, y, method="exact")
    # The exact null distribution of the number of discordant pairs (inversions of a random permutation).
    counts = np.ones(1)
    for k in range(2, len(x) + 1):
        counts = np.convolve(counts, np.ones(k))
    taus = np.abs(np.linspace(1, -1, len(counts)))
    return float(result.statistic), float(result.pvalue), _largest_unrejected(taus, counts / counts.sum())


def _kendall_by_permuting(x: Any, y: Any) -> tuple[float, float, float]:
    """With ties: every pairing up to 7 networks, 9,999 random ones beyond."""

    def tau(values: Any) -> float:
        return float(stats.kendalltau(x, values).statistic)

    observed = tau(y)
    if not math.isfinite(observed):
        return math.nan, 1.0, 2.0
    test = stats.permutation_test((y,), tau, permutation_type="pairings", vectorized=False, rng=0)
    null = np.abs(np.asarray(test.null_distribution, float))
    return observed, float(test.pvalue), _largest_unrejected(null, np.full(null.size, 1 / null.size))


def _largest_unrejected(taus: Any, weights: Any) -> float:
    kept = [tau for tau in np.unique(np.round(taus, 12)) if weights[taus >= tau - 1e-9].sum() > LEVEL]
    everything = len(kept) == len(np.unique(np.round(taus, 12)))
    return 2.0 if everything else float(max(kept)) + 1e-9  # so that this very tau lies within, whatever the rounding
