"""Claims on perturbations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from lossatlas.curvature.show import SPECTRUM
from lossatlas.results.claim import Claim, Interval, Verdict, verdict
from lossatlas.results.groups import alike, by_network
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import percent
from lossatlas.robustness.show.estimates import Estimate, change, changed
from lossatlas.robustness.show.words import dimension, from_mild_to_severe, is_noise, lowers, of_size

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

STUDENT = "Student's 95 % interval"
POINTS = 1.0  # percentage points of accuracy that a perturbation is asked to cost
NAMES = {"sigma": "sigmas", "bits": "numbers of bits", "share": "shares", "rate": "rates"}
NONE_SEEN = 3.689  # -log 0.025: the bound on the expected number of events of which none was seen


class Cost(NamedTuple):
    """What a perturbation of this size costs one network, and the claim on it."""

    dataset: xr.Dataset
    size: float
    claim: Claim


class Comparison(NamedTuple):
    """At this sigma, whether the sharper of two networks loses more."""

    sharper: xr.Dataset
    sigma: float
    claim: Claim


class Sensitive(NamedTuple):
    """The layer that loses most where it alone is perturbed, by how much, and the claim that no other loses as much."""

    layer: str
    size: float
    rise: Estimate
    claim: Claim


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """What it costs each network, which layer is the most sensitive, and whether the sharper of two loses more."""
    for dataset in datasets:
        if cost := accuracy_cost(dataset):
            yield cost.claim
        if layer := most_sensitive(dataset):
            yield layer.claim
    for comparison in comparisons(datasets, catalogue):
        yield comparison.claim


def comparisons(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Comparison]:
    """For each two networks with spectra and weight noise measured alike, whether the sharper one loses more."""
    noise = [each for each in datasets if is_noise(each) and each.attrs["noise"] != "input"]
    for spectra in map(by_network, alike(catalogue.of(SPECTRUM), "data", "parameters")):
        for noisy in map(by_network, alike(noise, "data", "noise", "relative")):
            for a, b in combinations([network for network in noisy if network in spectra], 2):
                if found := sharper_less_robust((spectra[a], spectra[b]), (noisy[a], noisy[b])):
                    yield found


def sharper_less_robust(
    spectra: tuple[xr.Dataset, xr.Dataset], noisy: tuple[xr.Dataset, xr.Dataset]
) -> Comparison | None:
    """Of two networks, whether the one with the larger lambda_max loses more under weight noise.

    At the upper middle of the positive sigmas that both were tested at; None where there is none.
    """
    common = sorted(set(from_mild_to_severe(noisy[0])) & set(from_mild_to_severe(noisy[1])))
    if not common:
        return None
    at = common[len(common) // 2]
    sharpness = [float(spectrum["eigenvalue"].sel(end="top").isel(rank=0)) for spectrum in spectra]
    sharper, flatter = noisy if sharpness[0] >= sharpness[1] else noisy[::-1]
    rises = change(sharper, "loss", at), change(flatter, "loss", at)
    ids = tuple(dataset.attrs["id"] for dataset in (*noisy, *spectra))
    return Comparison(sharper, at, _loses_more(sharper, at, rises, ids))


def _loses_more(sharper: xr.Dataset, at: float, rises: tuple[Estimate, Estimate], ids: tuple[str, ...]) -> Claim:
    further = rises[0].minus(rises[1])
    of = Provenance.of(sharper)
    return Claim(
        hypothesis=f"Of the two networks, the sharper one ({of.who}) loses more under {of_size(sharper, at)}",
        statistic="rise of the loss of the sharper network minus that of the flatter one, threshold 0",
        value=further.value,
        interval=further.interval(),
        detail=f"The loss rises by {rises[0].text} for the sharper and {rises[1].text} for the flatter "
        f"network, on {of.data_label}, {sharper.attrs['draws']} draws each. About these two networks only; sharpness "
        "here is the order of the two largest eigenvalues as computed.",
        datasets=ids,
        basis=STUDENT,
    )


def accuracy_cost(dataset: xr.Dataset, points: float = POINTS) -> Cost | None:
    """Of noise, whether it lowers the accuracy by more than so many points, at the mildest size that supports it; of
    quantisation, pruning and flips, whether by less, at the severest size that supports it.

    Where no tested size supports it, the severest (of noise) or the mildest is reported. None without accuracy.
    """
    noise = is_noise(dataset)
    sizes = from_mild_to_severe(dataset)[:: 1 if noise else -1]
    if "accuracy" not in dataset or not sizes:
        return None
    falls = [change(dataset, "accuracy", size, -100.0) for size in sizes]
    verdicts = [verdict(fall_interval(dataset, fall), points, "above" if noise else "below") for fall in falls]
    supported = Verdict.SUPPORTED in verdicts
    k = verdicts.index(Verdict.SUPPORTED) if supported else len(sizes) - 1
    severe = "severest" if noise != supported else "mildest"
    several = f"the {severe} of the {len(sizes)} tested {NAMES[dimension(dataset)]}"
    where = " at which this is supported." if supported else "; none supports this."
    which = "It is the only size tested." if len(sizes) == 1 else f"It is {several}{where}"
    return Cost(dataset, sizes[k], _cost(dataset, sizes[k], falls[k], which, points))


def _cost(dataset: xr.Dataset, size: float, fall: Estimate, which: str, points: float) -> Claim:
    of, noise, what = Provenance.of(dataset), is_noise(dataset), of_size(dataset, size)
    point = "one percentage point" if points == 1 else f"{points:g} percentage points"
    return Claim(
        hypothesis=f"{what[0].upper()}{what[1:]} {lowers(dataset)} the accuracy of {of.who} by "
        f"{'more' if noise else 'less'} than {point}",
        statistic=f"fall of the accuracy in percentage points, threshold {points:g}",
        value=fall.value,
        interval=fall_interval(dataset, fall),
        threshold=points,
        direction="above" if noise else "below",
        detail=" ".join(filter(None, (which, _basis(dataset), _unseen(fall), _lost(dataset, size)))),
        datasets=(dataset.attrs["id"],),
        basis=STUDENT,
    )


def fall_interval(dataset: xr.Dataset, fall: Estimate) -> Interval:
    """That of a fall in percentage points; where no prediction changed, the bound on a share of which none was seen."""
    return fall.interval(100 * NONE_SEEN / int(dataset.attrs["n_examples"]) if fall.stderr == 0 else 0.0)


def _basis(dataset: xr.Dataset) -> str:
    draws = f", {dataset.attrs['draws']} draws" if dataset.sizes["draw"] > 1 else ""
    data = Provenance.of(dataset).data_label
    return f"On {data}{draws}; the difference to the unperturbed network is paired over the examples."


def _unseen(fall: Estimate) -> str:
    return "No prediction changed: the interval is the bound 3.7 / n on a share never seen." if fall.stderr == 0 else ""


def _lost(dataset: xr.Dataset, size: float) -> str:
    lost = 1 - float(dataset["finite"].sel({dimension(dataset): size}))
    return f"In {percent(lost)} of the draws the loss was not finite." if lost > 0 else ""


def most_sensitive(dataset: xr.Dataset) -> Sensitive | None:
    """The layer that alone perturbed raises the loss most, at the upper middle of the sizes; None where none does."""
    sizes = from_mild_to_severe(dataset)
    if "layer" not in dataset.dims or dataset.sizes["layer"] < 2 or not sizes:
        return None
    size = sizes[len(sizes) // 2]
    at = dataset.sel({dimension(dataset): size})
    first, second = (-at["layer_loss_change"].to_numpy().astype(float)).argsort()[:2]  # NaN last
    rise, next_rise = (changed(at.isel(layer=k), "layer_loss") for k in (first, second))
    if rise.value <= 0:
        return None
    further, names = rise.minus(next_rise), [str(name) for name in dataset["layer"].to_numpy()]
    of = Provenance.of(dataset)
    claim = Claim(
        hypothesis=f"Of the {len(names)} layers of {of.who}, layer {names[first]} alone loses most under "
        f"{of_size(dataset, size)}",
        statistic=f"rise of the loss with layer {names[first]} perturbed minus that with {names[second]} perturbed, "
        "threshold 0",
        value=further.value,
        interval=further.interval(),
        detail=f"On {of.data_label}. The two errors are joined as if independent. The layer was chosen as the one that "
        "loses most, which favours it.",
        datasets=(dataset.attrs["id"],),
        basis=STUDENT,
    )
    return Sensitive(names[first], size, rise, claim)
