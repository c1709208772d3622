"""Which measures of sharpness are properties of the function: what is read off a Dataset, claims, answers, theory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lossatlas.results.blocks import Answer, Formula, Topic, paragraph
from lossatlas.results.captions import listed
from lossatlas.results.claim import UNKNOWN, Claim, Interval
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, with_interval
from lossatlas.sharpness.show import INVARIANCE
from lossatlas.sharpness.show.theory import RESCALING

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

STAYS = 1e-3  # from 1: what theory calls invariant
FACTOR = 2.0  # by which the same function looks sharper, or flatter
NAMED = 4  # measures that a sentence names


class Change(NamedTuple):
    """The ratio of one measure under one reparametrisation, with its interval."""

    title: str
    reparametrisation: str
    ratio: float
    interval: Interval

    @property
    def factor(self) -> float:
        """The ratio or its inverse, whichever is larger."""
        return max(self.ratio, 1 / self.ratio) if self.ratio > 0 else math.inf

    @property
    def bounds(self) -> Interval:
        """The interval of the factor."""
        low, high = self.interval
        if not low > 0:
            return UNKNOWN
        return (low, high) if self.ratio >= 1 else (1 / high, 1 / low)


def changes(dataset: xr.Dataset, keeps: str = "function") -> list[Change]:
    """What is known of every measure under the reparametrisations that keep the function, or the predictions only."""
    those = dataset.sel(reparametrisation=(dataset["keeps"] == keeps).to_numpy())
    found = []
    for at in those["measure"].to_numpy():
        for name in those["reparametrisation"].to_numpy():
            one = those.sel(measure=at, reparametrisation=name)
            interval = float(one["ratio_low"]), float(one["ratio_high"])
            found.append(Change(str(one["title"].item()), str(name), float(one["ratio"]), interval))
    return [change for change in found if math.isfinite(change.ratio)]


def largest_change(dataset: xr.Dataset) -> Change | None:
    """The largest factor, up or down, by which a measure changes with other weights of the same function."""
    found = [change for change in changes(dataset) if math.isfinite(change.factor)]
    return max(found, key=lambda change: change.factor, default=None)


def unmoved(dataset: xr.Dataset) -> list[str]:
    """The titles of the measures that stay to 0.001 under every reparametrisation that keeps the function."""
    those = dataset.sel(reparametrisation=((dataset["keeps"] == "function") & dataset["available"]).to_numpy())
    still = (abs(those["ratio"] - 1) <= STAYS).all("reparametrisation").to_numpy()
    return [str(title) for title in those["title"].to_numpy()[still & bool(those.sizes["reparametrisation"])]]


def moved(catalogue: Catalogue, measure: str, dataset: xr.Dataset) -> tuple[str, ...]:
    """By which reparametrisations a measure was moved, for the network of ``dataset``; empty where none is known to."""
    found: dict[str, None] = {}
    for one in catalogue.of(INVARIANCE):
        if (
            Provenance.of(one).model_fingerprint == Provenance.of(dataset).model_fingerprint
            and measure in one["measure"]
        ):
            at = one.sel(measure=measure)
            found |= dict.fromkeys(str(name) for name in at["reparametrisation"].to_numpy()[at["moved"].to_numpy()])
    return tuple(found)


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """For each network that theory is right, and that the same function can look sharper."""
    for dataset in datasets:
        yield from filter(None, (stays(dataset), looks_sharper(dataset)))


def stays(dataset: xr.Dataset) -> Claim | None:
    """Whether every ratio that theory says is 1 is so, within solvers and draws; None where it says nothing."""
    those = dataset["expected"].notnull() & dataset["available"] & dataset["before"].notnull()
    count = int(those.sum())
    if not count:
        return None
    off = _distance(dataset).where(those)
    known = bool(off.notnull().where(those, True).all())
    value = float(off.max()) if known else math.nan
    of = Provenance.of(dataset)
    return Claim(
        hypothesis="Every measure of sharpness that theory calls invariant stays as it is under other weights of "
        f"{of.who}",
        statistic=f"largest distance from 1 of {count} ratios that theory says are 1, beyond their errors of solvers "
        f"and draws, threshold {STAYS:g}",
        value=value,
        interval=(value, value) if known else UNKNOWN,
        threshold=STAYS,
        direction="below",
        detail=f"Random reparametrisations, {dataset.attrs['draws']} of each kind, of the same data "
        f"({of.data_label}), with the same random numbers; outputs in {dataset.attrs['dtype']} deviate by "
        f"{number(float(dataset['deviation'].max()), 2)} at most. The largest distance, errors not taken off, is "
        f"{number(float(abs(dataset['ratio'] - 1).where(those).max()), 2)}.",
        datasets=(dataset.attrs["id"],),
        basis="as computed",
    )


def _distance(dataset: xr.Dataset) -> xr.DataArray:
    """How far 1 is from the interval of each ratio."""
    low, high = dataset["ratio_low"], dataset["ratio_high"]
    return ((low - 1).clip(min=0) + (1 - high).clip(min=0)).where(dataset["ratio"].notnull())


def looks_sharper(dataset: xr.Dataset) -> Claim | None:
    """Whether some measure changes by more than a factor of two with other weights of the same function."""
    largest, of, count = largest_change(dataset), Provenance.of(dataset), len(changes(dataset))
    if largest is None:
        return None
    return Claim(
        hypothesis=f"Other weights of the same function make {of.who} look more than {FACTOR:g} times as sharp, or as "
        "flat, by some measure",
        statistic=f"largest factor by which a measure changes, threshold {FACTOR:g}",
        value=largest.factor,
        interval=largest.bounds,
        threshold=FACTOR,
        detail=f"It is {largest.title} under {largest.reparametrisation}. The interval is of the errors of solvers and "
        f"draws, on {of.data_label}; it is the largest of {count} ratios, which is not corrected for: a larger "
        "rescaling changes it by any factor.",
        datasets=(dataset.attrs["id"],),
        basis="interval of solvers and draws",
    )


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """For each network which measures are properties of its function, and how far the others move."""
    for dataset in datasets:
        claim, largest = looks_sharper(dataset), largest_change(dataset)
        if claim is None or largest is None:
            continue
        who, still, count = Provenance.of(dataset).who, unmoved(dataset), len(_measured(changes(dataset)))
        factor = with_interval(largest.factor, largest.bounds)
        yield Answer(
            sentence=f"Of {count} measures of sharpness of {who}, {len(still)} {_stay(len(still))} under other weights "
            f"of the same function{_which(still)}; the largest change is by a factor of {factor}, of {largest.title} "
            f"under {largest.reparametrisation}.",
            short=f"{len(still)} of {count} measures of sharpness of {who} {_properties(len(still))} of its function; "
            f"the others change by up to a factor of {number(largest.factor, 2)}.",
            claim=claim,
            finding="sharpness depends on how the weights are written",
            quantity="largest factor of change",
            limit="A measure that these random reparametrisations leave as it is may move under another one.",
        )


def _measured(found: Iterable[Change]) -> list[str]:
    return list(dict.fromkeys(change.title for change in found))


def _stay(count: int) -> str:
    return "stays as it is" if count == 1 else "stay as they are"


def _properties(count: int) -> str:
    return "is a property" if count == 1 else "are properties"


def _which(titles: Sequence[str]) -> str:
    """Their names, where they are few."""
    return f" ({listed(list(titles))})" if 0 < len(titles) <= NAMED else ""


REWRITTEN = Topic(
    "Other weights of the same function",
    (
        paragraph(
            "Many weights compute one function. Of a ReLU unit the incoming weights and the bias can be scaled by "
            "$c > 0$ and the outgoing ones by $1 / c$; hidden units can change places; the weights in front of a "
            "BatchNorm can be scaled with its running statistics; in an attention head"
        ),
        Formula(r"q^\top k = (W_Q x)^\top (W_K y) = (A\, W_Q x)^\top (A^{-\top} W_K y)."),
        paragraph(
            "Which tensors scale together is found from derivatives of the outputs: a scaling keeps $f$ where $\\sum_k "
            "e_k \\langle \\partial f / \\partial w_k, w_k \\rangle = 0$ at every point [@kunin2021]. Twice the logits "
            "keep the predictions, not the function."
        ),
    ),
)


def theory() -> tuple[Topic, ...]:
    """What the report explains where it holds such a table."""
    return (RESCALING, REWRITTEN)
