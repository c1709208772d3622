"""Claims on generalisation: an order of networks by Kendall's tau and its permutation test, or each network's gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from lossatlas.curvature.show import SPECTRUM
from lossatlas.results.claim import LEVEL, Claim
from lossatlas.results.groups import alike, by_network
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import normal_interval, number

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

TESTED = (("test_loss", "test loss", 1), ("test_accuracy", "test error", -1))


@dataclass(frozen=True)
class Compared:
    """Networks with a spectrum on the same data and a test result: the label of each, its history, its spectrum."""

    name: str  # of the test result in the histories
    quantity: str
    sign: int
    networks: tuple[str, ...]
    histories: tuple[xr.Dataset, ...]
    spectra: tuple[xr.Dataset, ...]

    @property
    def sharpness(self) -> list[float]:
        return [float(spectrum["eigenvalue"].sel(end="top")[0]) for spectrum in self.spectra]

    @property
    def test(self) -> list[float]:
        """Rising the worse a network generalises."""
        return [self.sign * last(history, self.name) for history in self.histories]


def compared(histories: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Compared]:
    """The networks to compare, two at least, for each data set of their spectra and each test result."""
    trained = by_network(histories)
    sharp = [spectrum for spectrum in catalogue.of(SPECTRUM) if "top" in spectrum["end"].to_numpy()]
    for spectra in map(by_network, alike(sharp, "data", "parameters")):
        for name, quantity, sign in TESTED:
            found = [each for each in spectra if each in trained and math.isfinite(last(trained[each], name))]
            if len(found) > 1:
                of_each = [tuple(each[network] for network in found) for each in (trained, spectra)]
                yield Compared(name, quantity, sign, tuple(found), *of_each)


def claims(histories: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """Whether the sharper networks generalise worse; where no two can be compared, each network's own gap."""
    found = [rank_claim(each) for each in compared(histories, catalogue)]
    yield from found or [generalisation_gap(history) for history in histories if has_gap(history)]


def rank_claim(found: Compared) -> Claim:
    ids = [dataset.attrs["id"] for dataset in (*found.histories, *found.spectra)]
    return sharper_generalises_worse(found.sharpness, found.test, found.quantity, ids)


def has_gap(history: xr.Dataset) -> bool:
    """Whether both losses are known after the last epoch."""
    return all(math.isfinite(last(history, f"{split}_loss")) for split in ("train", "test"))


def gap(history: xr.Dataset) -> tuple[float, float]:
    """The test loss minus the training loss after the last epoch, and its standard error (NaN where unknown)."""
    stderr = math.hypot(*(last(history, f"{split}_loss_stderr") for split in ("train", "test")))
    return last(history, "test_loss") - last(history, "train_loss"), stderr


def generalisation_gap(history: xr.Dataset) -> Claim:
    """Whether the loss is higher on the test data than on the training data."""
    value, stderr = gap(history)
    of = Provenance.of(history)
    return Claim(
        hypothesis=f"The loss of {of.who} is higher on the test data than on the training data",
        statistic="test loss minus training loss after the last epoch, threshold 0",
        value=value,
        interval=normal_interval(value, stderr),
        detail="The errors of both losses are added as if independent. One run of training.",
        datasets=(history.attrs["id"],),
    )


def last(history: xr.Dataset, name: str) -> float:
    """The value after the last epoch; NaN where it was not measured."""
    measured = name in history and history[name].dims == ("epoch",) and history.sizes["epoch"]
    return float(history[name][-1]) if measured else math.nan


def sharper_generalises_worse(
    sharpness: Sequence[float], test: Sequence[float], quantity: str = "test loss", datasets: Sequence[str] = ()
) -> Claim:
    """Kendall's tau-b of lambda_max and a test loss or error over networks, with its exact permutation p-value.

    The interval is tau less and plus the largest |tau| that the two-sided permutation test at 5 % does not reject, cut
    to [-1, 1]: it lies above 0 exactly where the test rejects "no association" for a positive one. With fewer than
    five networks the test can reject nothing: the interval is [-1, 1] and the verdict undecided.

    >>> sharper_generalises_worse([13.0, 15.6], [0.270, 0.281]).verdict
    <Verdict.UNDECIDED: 'undecided'>
    """
    n = len(sharpness)
    tau, p, unrejected = kendall(np.asarray(sharpness, float), np.asarray(test, float))
    bounds = (max(-1.0, tau - unrejected), min(1.0, tau + unrejected))
    least = min(1.0, 2 / math.factorial(n))
    why = (
        f"With {n} networks the smallest p-value that this test can give is {number(least, 2)}, so nothing can be "
        "decided; five networks are the fewest for p < 0.05 (2/120 = 0.017)."
        if least > LEVEL
        else "An association over these networks, not a cause."
    )
    return Claim(
        hypothesis=f"The sharper network generalises worse (largest eigenvalue against {quantity})",
        statistic=f"Kendall's tau-b over {n} networks, exact two-sided permutation p = {number(p, 3)}, threshold 0",
        value=tau,
        interval=bounds,
        detail=f"{why} The permutation test takes every measured value as exact; the interval is the tau that was "
        "found, less and plus the largest tau that chance leaves unrejected at 5 %.",
        datasets=tuple(datasets),
        basis="not rejected at 5 %",
    )


def kendall(x: Any, y: Any) -> tuple[float, float, float]:
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
