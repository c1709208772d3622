"""Sentences about geometry, computed: a hypothesis, a statistic, its 95 % interval, and the verdict they give.

A verdict compares the interval with the hypothesis' threshold and with nothing else. The intervals are normal ones
(estimate ± 1.96 standard errors) unless a claim says otherwise; their standard errors treat the examples of the
data as independent draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import stats

from lossatlas.uncertainty import interval as interval_text
from lossatlas.uncertainty import normal_interval, number, percent, plus_minus

if TYPE_CHECKING:
    import xarray as xr

Verdict = Literal["supported", "contradicted", "undecided"]
Interval = tuple[float, float]

UNKNOWN: Interval = (math.nan, math.nan)
LEVEL = 0.05
FRANKLE_THRESHOLD = 0.02  # Frankle et al. 2020: instability below 2 % of error counts as linear connectivity


@dataclass(frozen=True)
class Claim:
    """A hypothesis with the statistic that was computed, its value and 95 % interval, and the verdict.

    `detail` says how it was computed and how far it reaches, `basis` what the interval is, `kind` which kind of
    Dataset the claim is about.
    """

    hypothesis: str
    statistic: str
    value: float
    interval: tuple[float, float]
    verdict: Verdict
    detail: str
    kind: str = ""
    basis: str = "normal 95 % interval"

    @property
    def sentence(self) -> str:
        """The claim in one sentence, the verdict first."""
        return (
            f"{self.verdict.capitalize()}: {self.hypothesis[0].lower()}{self.hypothesis[1:]} "
            f"({self.statistic}: {number(self.value)}, {self.basis} {interval_text(self.interval)})."
        )


def verdict(bounds: Interval, threshold: float, direction: Literal["above", "below"] = "above") -> Verdict:
    """What an interval says about "the quantity is above (below) the threshold".

    Supported where the whole interval lies beyond the threshold, contradicted where it lies wholly short of it (or
    is a single number, the threshold itself), undecided otherwise and where the interval is not known.

    >>> verdict((0.2, 0.4), 0), verdict((-0.4, -0.2), 0), verdict((-0.1, 0.3), 0)
    ('supported', 'contradicted', 'undecided')
    """
    low, high = bounds
    if direction == "below":
        low, high, threshold = -high, -low, -threshold
    if low > threshold:
        return "supported"
    exactly_there = low == high == threshold
    return "contradicted" if high < threshold or exactly_there else "undecided"


def barrier_height(dataset: xr.Dataset) -> Claim:
    """Whether the loss on the way between two networks rises above the definition's reference (barrier > 0)."""
    value, stderr = _scalar(dataset, "barrier"), _scalar(dataset, "barrier_stderr")
    bounds = normal_interval(value, stderr)
    way = "straight line" if dataset.attrs.get("curve", "Segment") == "Segment" else "curve"
    definition = {
        "entezari": "the highest loss above the straight line between the end losses (Entezari et al. 2022)",
        "frankle": "the highest loss above the mean of the end losses (Frankle et al. 2020)",
        "draxler": "the highest loss above the worse end (Draxler et al. 2018)",
    }
    meaning = definition.get(str(dataset.attrs.get("definition")), "the definition is not recorded")
    return Claim(
        hypothesis=f"The {way} between the two networks crosses a barrier of the loss on {_data(dataset)}",
        statistic="barrier of the loss, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"Barrier: {meaning}, over the {dataset.sizes['t']} points evaluated; reached at "
        f"t = {number(_scalar(dataset, 't_max'), 3)}. Taking the maximum over points biases a small barrier "
        "upwards. These two networks only.",
        kind="barrier",
    )


def linear_connectivity(dataset: xr.Dataset) -> Claim:
    """Whether sup_t E(t) - (E(0) + E(1)) / 2 is below 2 % of error (Frankle et al. 2020)."""
    error = 1 - dataset["accuracy"].to_numpy().astype(float)
    top = int(np.nanargmax(error))
    value = float(error[top] - (error[0] + error[-1]) / 2)
    stderr = math.nan
    if "accuracy_stderr" in dataset:
        each = dataset["accuracy_stderr"].to_numpy().astype(float)
        stderr = float(np.sqrt(each[top] ** 2 + (each[0] ** 2 + each[-1] ** 2) / 4))
    bounds = normal_interval(value, stderr)
    return Claim(
        hypothesis="The two networks are linearly mode connected in the sense of Frankle et al. (2020), "
        f"an error barrier below 2 %, on {_data(dataset)}",
        statistic="highest error on the line minus the mean error of the ends, threshold 0.02",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, FRANKLE_THRESHOLD, "below"),
        detail=f"Highest error at t = {dataset['t'].to_numpy()[top]:g} of {len(error)} points. The standard error adds "
        "those of the three errors as if they came from different examples; they come from the same ones, so it is "
        "too wide rather than too narrow where they rise and fall together.",
        kind="barrier",
    )


def slice_minimum(dataset: xr.Dataset) -> Claim | None:
    """Whether every other sampled point of a slice has a higher loss than the trained point at its centre.

    The interval is simultaneous over the slice's other points (Bonferroni), since the lowest was chosen among them,
    and uses the paired error of the difference where the Dataset has it. Only points at which the model was evaluated
    count. None where the slice does not contain its centre, or where its centre is not the trained point; and on polar
    axes or several planes, where many cells are the centre.
    """
    loss = dataset["loss"]
    if "evaluated" in dataset:
        loss = loss.where(dataset["evaluated"] == 1)
    if not set(loss.dims) <= {"alpha", "beta", "gamma"}:
        return None
    at_centre = {dim: _zero(dataset[dim].to_numpy()) for dim in loss.dims}
    if any(index is None for index in at_centre.values()) or not dataset.attrs.get("center_is_model", 1):
        return None
    if not np.isfinite(loss[at_centre]):
        return None
    others = loss.where(np.isfinite(loss)).copy()
    others[at_centre] = np.nan
    if not np.isfinite(others).any():
        return None
    lowest = {dim: int(index) for dim, index in others.argmin(...).items()}
    value = float(loss[lowest] - loss[at_centre])
    noise, pairing = _rise_error(dataset, lowest, at_centre)
    compared = int(np.isfinite(others).sum())
    bounds = normal_interval(value, noise * float(stats.norm.isf(LEVEL / 2 / compared) / stats.norm.isf(LEVEL / 2)))
    where = ", ".join(f"{dim} = {dataset[dim].to_numpy()[index]:.3g}" for dim, index in lowest.items())
    skipped = int((~np.isfinite(loss)).sum())
    whole = "the slice" if "evaluated" not in dataset or bool(dataset["evaluated"].all()) else "the evaluated cells"
    return Claim(
        hypothesis=f"The trained point of {_who(dataset)} is the minimum of the sampled {_slice_name(dataset)} "
        f"on {_data(dataset)}",
        statistic="lowest loss elsewhere on the slice minus the loss at the centre, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"Lowest other loss {number(float(loss[lowest]))} at {where}, {number(float(loss[at_centre]))} at the "
        f"centre; {loss.size - skipped} finite cells{f', {skipped} left out' if skipped else ''}. On these very "
        f"examples the difference is exact: the centre is {'' if value > 0 else 'not '}the lowest of {whole}. The "
        f"interval is for the population, simultaneous over {compared} comparisons, {pairing}. A slice shows few of "
        "all directions.",
        kind="surface",
        basis="simultaneous 95 % interval (Bonferroni)",
    )


def _rise_error(
    dataset: xr.Dataset, lowest: dict[Hashable, int], centre: dict[Hashable, int | None]
) -> tuple[float, str]:
    """The standard error of a difference of two losses, and how it was had."""
    if "loss_rise_stderr" in dataset:
        return float(dataset["loss_rise_stderr"][lowest]), "with the paired error of the difference, example by example"
    if "loss_stderr" in dataset:
        each = dataset["loss_stderr"]
        return math.hypot(float(each[lowest]), float(each[centre])), "with both errors as if from different examples"
    return math.nan, "of unknown error"


def no_negative_curvature(dataset: xr.Dataset) -> Claim:
    """Whether the smallest Hessian eigenvalue is above 0: [lambda - residual, lambda + residual]."""
    value, _, residual = _eigenvalue(dataset, "bottom")
    bounds = (value - residual, value + residual)
    return Claim(
        hypothesis=f"The Hessian at the trained point of {_who(dataset)} has no negative eigenvalue",
        statistic="smallest eigenvalue, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail="For the loss of the examples given, not for the population. The interval surely contains an "
        "eigenvalue (residual bound), so a wholly negative one proves a negative eigenvalue; a positive one is as "
        f"good as the solver's reach to the end of the spectrum. On {_data(dataset)}.",
        kind="spectrum",
        basis="solver's residual bound",
    )


def sharpness_difference(a: xr.Dataset, b: xr.Dataset) -> Claim:
    """Whether |lambda_max(A) - lambda_max(B)| exceeds the data-sampling error and the residuals together."""
    (first, error_a, residual_a), (second, error_b, residual_b) = _eigenvalue(a, "top"), _eigenvalue(b, "top")
    known = math.isfinite(error_a) and math.isfinite(error_b)
    stderr = math.hypot(error_a, error_b) if known else 0.0
    value = abs(first - second)
    bounds = normal_interval(value, stderr, residual_a + residual_b)
    scope = (
        "The standard errors of the two networks are added as if their examples were different ones."
        if known
        else "No data-sampling error was given: the interval is the solver's, and the verdict holds for these "
        "examples only."
    )
    return Claim(
        hypothesis=f"{_capital(_who(a))} and {_who(b)} differ in sharpness (largest Hessian eigenvalue)",
        statistic="absolute difference of the largest eigenvalues, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"{plus_minus(first, error_a)} and {plus_minus(second, error_b)}; residuals {number(residual_a, 2)} "
        f"and {number(residual_b, 2)} widen the interval. {scope}",
        kind="spectrum",
        basis="normal 95 % interval widened by the residuals" if known else "solver's residual bound",
    )


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


def beyond_random_walk(dataset: xr.Dataset) -> Claim:
    """Whether two principal components explain more of the road than when each step's sign is drawn at random."""
    observed = float(dataset["explained_variance_ratio"].to_numpy()[:2].sum())
    null = dataset["sign_flip_two"].to_numpy().astype(float) if "sign_flip_two" in dataset else np.array([])
    walk = float(dataset["random_walk_ratio"].to_numpy()[:2].sum()) if "random_walk_ratio" in dataset else math.nan
    bounds, value, draws = UNKNOWN, observed - walk, "no sign flips were drawn, so there is no interval"
    if null.size:
        bounds = (observed - float(np.quantile(null, 0.975)), observed - float(np.quantile(null, 0.025)))
        value = observed - float(np.median(null))
        p = (1 + int((null >= observed).sum())) / (1 + null.size)
        draws = (
            f"{null.size} draws with random signs explain {percent(float(np.median(null)))} in the median, p = {p:.2g}"
        )
    return Claim(
        hypothesis="The first two principal components explain more of the road of "
        f"{_who(dataset)} than a random walk's would",
        statistic="share of the variance minus its median under random signs of the steps, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"{percent(observed)} observed over {dataset.attrs.get('n_snapshots', '?')} snapshots; {draws}; "
        f"{percent(walk)} for an isotropic random walk of as many steps (Antognini & Sohl-Dickstein 2018). One run of "
        f"training.",
        kind="trajectory",
        basis="95 % of the draws",
    )


def sharper_less_robust(
    sharpness: tuple[float, float], a: xr.Dataset, b: xr.Dataset, sigma: float | None = None
) -> Claim | None:
    """Of two networks, whether the one with the larger lambda_max loses more under weight noise of size sigma.

    Without `sigma` the upper middle of the positive sigmas that both were tested at is taken. None where there is none.
    """
    common = sorted(set(a["sigma"].to_numpy().tolist()) & set(b["sigma"].to_numpy().tolist()) - {0.0})
    if not common or 0.0 not in a["sigma"].to_numpy() or 0.0 not in b["sigma"].to_numpy():
        return None
    at = common[len(common) // 2] if sigma is None else sigma
    sharper, flatter = (a, b) if sharpness[0] >= sharpness[1] else (b, a)
    rises = [_change(dataset, "loss", at) for dataset in (sharper, flatter)]
    value, stderr = rises[0][0] - rises[1][0], math.hypot(rises[0][1], rises[1][1])
    bounds = normal_interval(value, stderr)
    return Claim(
        hypothesis=f"Of the two networks, the sharper one ({_who(sharper)}) loses more under weight noise of "
        f"sigma = {at:g}{_relative(a)}",
        statistic="rise of the loss of the sharper network minus that of the flatter one, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"The loss rises by {plus_minus(*rises[0])} for the sharper and {plus_minus(*rises[1])} for the flatter "
        f"network, on {_data(a)}, {a.attrs.get('draws', '?')} draws each. About these two networks only; sharpness "
        f"here "
        "is the order of the two largest eigenvalues as computed.",
        kind="robustness",
    )


def noise_costs_accuracy(dataset: xr.Dataset, points: float = 1.0) -> Claim | None:
    """Whether weight noise lowers the accuracy by more than so many points, at the smallest sigma that supports it.

    Where no tested sigma supports it, the largest is reported. None where accuracy or sigma = 0 is missing.
    """
    sigmas = np.sort(dataset["sigma"].to_numpy().astype(float))
    if "accuracy" not in dataset or 0.0 not in sigmas or sigmas[-1] <= 0:
        return None
    positive = sigmas[sigmas > 0]
    drops = [_change(dataset, "accuracy", sigma, -100.0) for sigma in positive]
    bounds = [normal_interval(*drop) for drop in drops]
    verdicts = [verdict(each, points) for each in bounds]
    k = verdicts.index("supported") if "supported" in verdicts else len(positive) - 1
    smallest = (
        f"the smallest of the {len(positive)} tested sigmas at which this is supported"
        if "supported" in verdicts
        else f"the largest of the {len(positive)} tested sigmas; none supports this"
    )
    return Claim(
        hypothesis=f"Weight noise of sigma = {positive[k]:g}{_relative(dataset)} lowers the accuracy of "
        f"{_who(dataset)} by "
        f"more than {_points(points)}",
        statistic=f"fall of the accuracy in percentage points, threshold {points:g}",
        value=drops[k][0],
        interval=bounds[k],
        verdict=verdicts[k],
        detail=f"It is {smallest}. On {_data(dataset)}, "
        f"{dataset.attrs.get('draws', '?')} draws; the two accuracies are treated as if from different examples.",
        kind="robustness",
    )


def derive(datasets: Iterable[xr.Dataset]) -> list[Claim]:
    """Every claim that these Datasets allow, in a fixed order whatever theirs."""
    every = sorted(datasets, key=_order)
    found = [claim for dataset in every for claim in _alone(dataset)] + list(_across(every))
    kinds = ("surface", "spectrum", "trajectory", "barrier", "robustness")
    return sorted(found, key=lambda claim: kinds.index(claim.kind))


def _alone(dataset: xr.Dataset) -> Iterator[Claim]:
    makers: dict[str, list[Callable[[xr.Dataset], Claim | None]]] = {
        "surface": [slice_minimum],
        "spectrum": [no_negative_curvature],
        "trajectory": [beyond_random_walk],
        "barrier": [barrier_height],
        "robustness": [noise_costs_accuracy],
    }
    chosen = makers.get(dataset.attrs.get("kind", ""), [])
    if dataset.attrs.get("kind") == "spectrum" and "bottom" not in dataset["end"].to_numpy():
        chosen = []
    if dataset.attrs.get("kind") == "barrier" and "accuracy" in dataset:
        chosen = [*chosen, linear_connectivity]
    yield from (claim for make in chosen if (claim := make(dataset)) is not None)


def _across(every: list[xr.Dataset]) -> Iterator[Claim]:
    """Claims that compare networks on the same data; a Dataset without a `network` takes no part."""
    histories = _by_network(every, "history")
    for spectra in _comparable(every, "spectrum"):
        sharpness = {network: _eigenvalue(dataset, "top")[0] for network, dataset in spectra.items()}
        yield from (sharpness_difference(spectra[a], spectra[b]) for a, b in combinations(spectra, 2))
        yield from _generalisation(sharpness, histories)
        for noisy in _comparable(every, "robustness"):
            for a, b in combinations([network for network in noisy if network in sharpness], 2):
                claim = sharper_less_robust((sharpness[a], sharpness[b]), noisy[a], noisy[b])
                yield from [claim] if claim is not None else []


def _generalisation(sharpness: dict[str, float], histories: dict[str, xr.Dataset]) -> Iterator[Claim]:
    for name, quantity, sign in (("test_loss", "test loss", 1), ("test_accuracy", "test error", -1)):
        named = [network for network in sharpness if network in histories and name in histories[network]]
        if len(named) > 1:
            last = [sign * float(histories[network][name][-1]) for network in named]
            yield sharper_generalises_worse([sharpness[network] for network in named], last, quantity)


def _comparable(every: list[xr.Dataset], kind: str) -> list[dict[str, xr.Dataset]]:
    """The Datasets of a kind by network, apart for each data set and each kind of noise."""
    groups = sorted({_setting(dataset) for dataset in every if dataset.attrs.get("kind") == kind})
    return [_by_network([d for d in every if _setting(d) == group], kind) for group in groups]


def _setting(dataset: xr.Dataset) -> tuple[str, str]:
    return str(dataset.attrs.get("data", "")), str(dataset.attrs.get("relative", "none"))


def _by_network(every: list[xr.Dataset], kind: str) -> dict[str, xr.Dataset]:
    return {str(d.attrs["network"]): d for d in every if d.attrs.get("kind") == kind and "network" in d.attrs}


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


def _change(dataset: xr.Dataset, name: str, sigma: float, scale: float = 1.0) -> tuple[float, float]:
    """Scale (value at sigma - value at 0) with its standard error, the two taken as independent."""
    noisy, clean = dataset.sel(sigma=sigma), dataset.sel(sigma=0.0)
    errors = [_scalar(at, f"{name}_stderr") for at in (noisy, clean)]
    return scale * (float(noisy[name]) - float(clean[name])), abs(scale) * math.hypot(*errors)


def _eigenvalue(dataset: xr.Dataset, end: str) -> tuple[float, float, float]:
    """The outermost eigenvalue of one end, its data-sampling standard error (or NaN) and its residual."""
    first = dataset.sel(end=end).isel(rank=0)
    residual = _scalar(first, "residual")
    return float(first["eigenvalue"]), _scalar(first, "eigenvalue_stderr"), residual


def _scalar(dataset: xr.Dataset, name: str) -> float:
    return float(dataset[name]) if name in dataset else math.nan


def _zero(coordinate: Any) -> int | None:
    nearest = int(np.abs(coordinate).argmin())
    return nearest if abs(coordinate[nearest]) <= 1e-9 * max(np.abs(coordinate).max(), 1e-300) else None


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _who(dataset: xr.Dataset) -> str:
    return f"network {dataset.attrs['network']}" if "network" in dataset.attrs else "the network"


def _data(dataset: xr.Dataset) -> str:
    return str(dataset.attrs.get("data", "the data given"))


def _slice_name(dataset: xr.Dataset) -> str:
    shape = str(dataset.attrs.get("region", "slice"))
    directions = str(dataset.attrs.get("directions", ""))
    return f"{shape} ({directions})" if directions else shape


def _relative(dataset: xr.Dataset) -> str:
    return " (relative to each filter's norm)" if dataset.attrs.get("relative") == "filter" else ""


def _points(points: float) -> str:
    return "one percentage point" if points == 1 else f"{points:g} percentage points"


def _order(dataset: xr.Dataset) -> tuple[str, ...]:
    keys = ("kind", "network", "region", "directions", "relative", "data", "name")
    return tuple(str(dataset.attrs.get(key, "")) for key in keys)
