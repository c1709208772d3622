"""Claims on sharpness: whether measures agree on the order of networks, what noise says, how far one step reaches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from lossatlas.results.claim import Claim
from lossatlas.results.groups import by_network
from lossatlas.results.provenance import Provenance
from lossatlas.robustness.show import ROBUSTNESS
from lossatlas.robustness.show.estimates import change
from lossatlas.robustness.show.words import attribute, from_mild_to_severe, of_size
from lossatlas.robustness.show.words import groups as noise_groups
from lossatlas.sharpness.show.reading import (
    Ratio,
    agreement,
    bounds,
    each,
    groups,
    invariant,
    is_bound,
    of,
    ratio,
    sharper_by,
    spelt,
    title,
    without_data,
)

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

JUDGE = "adaptive_average"  # the measure that says which network is the flatter one
CLIMBS = {"sam": "sam_ascent", "asam": "adaptive_worst"}  # one step, and the ascent in the same set
SHARE = 0.5  # of what an ascent finds that one step should
ENDS = "The same examples serve both; intervals are set end against end, whatever the correlation of the errors."


class Order(NamedTuple):
    """By how many times the first network is the sharper one by each measure, and what all of them together say."""

    by: dict[str, Ratio]
    claim: Claim


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """How far one step reaches for each network; for each two whether the measures agree, and noise with them."""
    for dataset in datasets:
        yield from one_steps(dataset)
    for a, b in pairs(datasets):
        if order := ordered_alike(a, b):
            yield order.claim
        noise = [each for each in catalogue.of(ROBUSTNESS) if attribute(each, "noise") == "gaussian"]
        for noisy in map(by_network, noise_groups(noise)):
            names = Provenance.of(a).network, Provenance.of(b).network
            if names[0] in noisy and names[1] in noisy:
                yield from flatter_bears_more((a, b), (noisy[names[0]], noisy[names[1]]))


def pairs(datasets: Sequence[xr.Dataset]) -> Iterator[tuple[xr.Dataset, xr.Dataset]]:
    """Each two networks that were measured alike."""
    for group in map(by_network, groups(datasets)):
        yield from combinations(group.values(), 2)


def ordered_alike(a: xr.Dataset, b: xr.Dataset) -> Order | None:
    """Whether all measures that rescaling leaves unchanged call the same one of two networks the sharper one.

    None where fewer than two of them were measured for both.
    """
    both = [(x, y) for x, y in zip(each(a), each(b), strict=True) if invariant(x) and _known(x) and _known(y)]
    found = {title(x): sharper_by(x, y) for x, y in both}
    if len(found) < 2:
        return None
    value, interval = agreement(list(found.values()))
    names = Provenance.of(a), Provenance.of(b)
    bounded = "; ".join(title(x) for x, y in both if is_bound(x) or is_bound(y))
    exact = "; ".join(title(x) for x, y in both if without_data(x) or without_data(y))
    claim = Claim(
        hypothesis=f"{names[0].subject} and {names[1].who} are ordered alike by all {len(found)} measures of sharpness "
        "that rescaling leaves unchanged",
        statistic="factor by which one and the same network is at least the sharper one by each of them, threshold 1",
        value=value,
        interval=interval,
        threshold=1.0,
        detail=f"{names[0].subject} over {names[1].who}: {told(found)}. {ENDS}"
        f"{f' Lower bounds, as found, are compared: {bounded}.' if bounded else ''}"
        f"{f' Without the error of the data: {exact}.' if exact else ''} On {names[0].data_label}.",
        datasets=(a.attrs["id"], b.attrs["id"]),
        basis="from the measures' 95 % intervals",
    )
    return Order(found, claim)


def _known(at: xr.Dataset) -> bool:
    return math.isfinite(float(at["value"]))


def told(found: dict[str, Ratio]) -> str:
    """Each measure with its ratio and interval."""
    return "; ".join(f"{name}: {spelt(*each)}" for name, each in found.items())


def flatter_bears_more(
    sharpness: tuple[xr.Dataset, xr.Dataset], noisy: tuple[xr.Dataset, xr.Dataset]
) -> Iterator[Claim]:
    """Whether the network that is flatter by an invariant measure loses less under weight noise.

    At the upper middle of the positive sigmas that both were tested at; nothing where there is none.
    """
    at = [of(dataset, JUDGE) for dataset in sharpness]
    tested = sorted(set.intersection(*map(set, map(from_mild_to_severe, noisy))))
    if at[0] is None or at[1] is None or not tested:
        return
    sigma = tested[len(tested) // 2]
    flatness = sharper_by(at[0], at[1])
    rises = [change(dataset, "loss", sigma) for dataset in noisy]
    losses = ratio(rises[0].value, rises[0].interval(), rises[1].value, rises[1].interval())
    yield _bears_more(sharpness, noisy, title(at[0]), sigma, (flatness, losses))


def _bears_more(
    sharpness: tuple[xr.Dataset, xr.Dataset],
    noisy: tuple[xr.Dataset, xr.Dataset],
    measure: str,
    sigma: float,
    found: tuple[Ratio, Ratio],
) -> Claim:
    value, interval = agreement(found)
    names = Provenance.of(sharpness[0]), Provenance.of(sharpness[1])
    return Claim(
        hypothesis=f"Of {names[0].who} and {names[1].who} the flatter one ({measure}) loses less under "
        f"{of_size(noisy[0], sigma)}",
        statistic="factor by which one and the same network at least is sharper and loses more, threshold 1",
        value=value,
        interval=interval,
        threshold=1.0,
        detail=f"{names[0].subject} over {names[1].who}: {measure}: {spelt(*found[0])}; rise of the loss "
        f"under noise: {spelt(*found[1])}, on {Provenance.of(noisy[0]).data_label}. {ENDS} About these two networks "
        "only.",
        datasets=tuple(dataset.attrs["id"] for dataset in (*sharpness, *noisy)),
        basis="from the two 95 % intervals",
    )


def one_steps(dataset: xr.Dataset) -> Iterator[Claim]:
    """Whether one step finds at least half of what an ascent finds in the same set."""
    for step, climb in CLIMBS.items():
        one, long = of(dataset, step), of(dataset, climb)
        if one is not None and long is not None and float(one["rho"]) == float(long["rho"]):
            yield _reaches(dataset, one, long)


def _reaches(dataset: xr.Dataset, one: xr.Dataset, long: xr.Dataset) -> Claim:
    found = ratio(float(one["value"]), bounds(one), float(long["value"]), bounds(long))
    whose = Provenance.of(dataset)
    return Claim(
        hypothesis=f"At the trained point of {whose.who} one step finds at least {100 * SHARE:g} % of the rise that an "
        f"ascent finds in the same set ({title(long)})",
        statistic=f"rise by one step over rise by ascent, threshold {SHARE:g}",
        value=found.value,
        interval=found.interval,
        threshold=SHARE,
        detail=f"One step {spelt(float(one['value']), bounds(one))}, ascent "
        f"{spelt(float(long['value']), bounds(long))}, on {whose.data_label}; both are lower bounds of the "
        f"largest rise. {ENDS}",
        datasets=(dataset.attrs["id"],),
        basis="from the two 95 % intervals",
    )
