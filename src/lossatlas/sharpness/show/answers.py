"""How sharp networks are, in plain English: by the measures that rescaling leaves unchanged, and by the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from lossatlas.results.blocks import Answer, capitalised
from lossatlas.results.captions import joined, listed
from lossatlas.results.claim import Claim, Verdict
from lossatlas.results.provenance import Provenance
from lossatlas.sharpness.show.claims import Order, one_steps, ordered_alike, pairs
from lossatlas.sharpness.show.reading import CHANGED, Ratio, each, groups, invariant, of, sharper_by, spelt, title
from lossatlas.sharpness.show.tables import value

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

Datasets = Sequence["xr.Dataset"]
NAMED = 2  # measures that a sentence names
FIRST = ("adaptive_average", "adaptive_worst", "fisher_rao", "lambda_max")


def answers(datasets: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """For those measured alike: the values of one network, or whether the measures agree on which is the sharper."""
    for group in groups(datasets):
        orders = [order for pair in pairs(group) if (order := ordered_alike(*pair))]
        if orders:
            yield _of_two(group, orders[0]) if len(orders) == 1 else _of_several(group, orders)
        else:
            yield from _of_one(group[0])


def _of_one(dataset: xr.Dataset) -> Iterator[Answer]:
    known = [at for at in each(dataset) if of(dataset, str(at["measure"].item())) is not None]
    order = {name: k for k, name in enumerate(FIRST)}
    known.sort(key=lambda at: (not invariant(at), order.get(str(at["measure"].item()), len(order))))
    if not known:
        return
    who = Provenance.of(dataset).who
    parts = [f"{value(at)} ({title(at)}{'' if invariant(at) else f', {CHANGED}'})" for at in known]
    changed = sum(not invariant(at) for at in known)
    lowest = min(one_steps(dataset), key=lambda claim: claim.value, default=None)
    yield Answer(
        sentence=f"The sharpness of {who} is {listed(parts[:NAMED])}; {changed} of the {len(known)} measures depend on "
        "how the weights are written down.",
        short=f"The sharpness of {who} is {parts[0]}.",
        claim=lowest,
        finding="one step finds half of an ascent's rise" if lowest else "",
        quantity="rise by one step over rise by ascent" if lowest else "",
        limit=limit([dataset]),
    )


def _of_two(group: Datasets, order: Order) -> Answer:
    a, b = group[:2]
    names = [_name(dataset) for dataset in (a, b)]
    others = {title(x): sharper_by(x, y) for x, y in zip(each(a), each(b), strict=True) if not invariant(x)}
    return Answer(
        sentence=joined(f"{_agree(order, names)}.", _others(others, names)),
        short=f"{_agree(order, names, short=True)}.",
        claim=order.claim,
        finding="rescaling-invariant measures agree",
        quantity="smallest factor of sharpness",
        limit=limit(group),
    )


def _name(dataset: xr.Dataset) -> str:
    return Provenance.of(dataset).who


def _agree(order: Order, names: Sequence[str], *, short: bool = False) -> str:
    """What the measures that rescaling leaves unchanged say together, by the verdict."""
    n, count = len(order.by), votes(order.by.values())
    if order.claim.verdict is Verdict.SUPPORTED:
        sharper, flatter = names if count[0] else names[::-1]
        told = f"{capitalised(sharper)} is sharper than {flatter} by all {n} rescaling-invariant measures of sharpness"
        return told if short else f"{told}, by a factor of {spelt(order.claim.value, order.claim.interval)} or more"
    call = _call(count, names)
    if order.claim.verdict is Verdict.CONTRADICTED:
        told = f"{n} rescaling-invariant measures of sharpness disagree: {call}"
        return told if short else f"The {told}, beyond their intervals"
    if short:
        return f"Whether all {n} rescaling-invariant measures of sharpness agree is undecided: {call}"
    told = f"Of {n} rescaling-invariant measures of sharpness, {call}, beyond their intervals"
    return f"{told}; whether all agree is undecided"


def votes(found: Iterable[Ratio]) -> tuple[int, int]:
    """By how many measures the first network is the sharper one beyond its interval, and by how many the second."""
    several = list(found)
    return sum(r.interval[0] > 1 for r in several), sum(r.interval[1] < 1 for r in several)


def _call(count: tuple[int, int], names: Sequence[str]) -> str:
    """By how many each network is called the sharper one, "2 call network B sharper and none network A"."""
    (most, one), (least, other) = sorted(zip(count, names, strict=True), key=lambda each: -each[0])
    if not most:
        return f"none tells {one} and {other} apart"
    return f"{most} {'calls' if most == 1 else 'call'} {one} sharper and {least or 'none'} {other}"


def _others(found: dict[str, Ratio], names: Sequence[str]) -> str:
    if not found:
        return ""
    return f"Of the {len(found)} that rescaling changes, {_call(votes(found.values()), names)}."


def _of_several(group: Datasets, orders: Sequence[Order]) -> Answer:
    counts = Counter(order.claim.verdict for order in orders)
    told = listed([f"{which} for {n}" for which, n in counts.items()])
    closest = min(orders, key=lambda order: order.claim.value)
    return Answer(
        sentence=f"Of {len(orders)} pairs of networks, that all rescaling-invariant measures of sharpness order "
        f"them alike is {told}.",
        short=f"That the rescaling-invariant measures of sharpness order two networks alike is {told} pairs.",
        claim=closest.claim,
        finding="rescaling-invariant measures agree",
        quantity="smallest factor of sharpness, closest pair",
        limit=limit(group),
    )


def limit(group: Datasets) -> str:
    """What limits it: what rescaling changes; and where one step is far below an ascent, that too."""
    low = [claim for dataset in group for claim in one_steps(dataset) if claim.verdict is Verdict.CONTRADICTED]
    return joined(
        "Sharpness that rescaling changes is no property of the function, and no measure is known to decide on "
        "generalisation.",
        _far_below(low),
    )


def _far_below(low: Sequence[Claim]) -> str:
    if not low:
        return ""
    worst = min(low, key=lambda claim: claim.value)
    return (
        f"One step is a bound that lies far below an ascent: it finds {spelt(worst.value, worst.interval)} of its rise."
    )
