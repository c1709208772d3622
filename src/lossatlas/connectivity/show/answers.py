"""What barriers answer to the question whether two networks are connected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show.barriers import between_the_same
from lossatlas.connectivity.show.captions import examples, has_interval, height, pair, path
from lossatlas.connectivity.show.claims import FRANKLE_THRESHOLD, barrier_height, connected, judged_by, straight
from lossatlas.connectivity.show.paths import by_path
from lossatlas.results.blocks import Answer, capitalised
from lossatlas.results.claim import Claim, Verdict
from lossatlas.results.uncertainty import with_interval
from lossatlas.results.values import scalar

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

LIMIT_OF = f"{100 * FRANKLE_THRESHOLD:g} %"


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """One for each pair of networks; before them, where there are several, one for all."""
    pairs = [on_decisive_data(group) for group in between_the_same(by_path(datasets))]
    if len(pairs) > 1:
        yield _of_all(pairs)
    yield from map(_of_pair, pairs)


def on_decisive_data(group: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """The paths on the data that decide: those for training, else the first that there are."""
    data = next((d.attrs["data"] for d in group if d.attrs.get("split") == "train"), group[0].attrs["data"])
    return [dataset for dataset in group if dataset.attrs["data"] == data]


def decisive(paths: Sequence[xr.Dataset]) -> tuple[xr.Dataset, Claim]:
    """The simplest path that is shown to connect: the line, then after alignment, then a curve; else the lowest."""
    for dataset in paths:
        if (claim := connected(dataset)).verdict is Verdict.SUPPORTED:
            return dataset, claim
    lowest = min(paths, key=lambda dataset: scalar(dataset, "barrier"))
    return lowest, connected(lowest)


def _of_pair(paths: Sequence[xr.Dataset]) -> Answer:
    best, claim = decisive(paths)
    return Answer(
        sentence=f"{_heights(paths)} {_verdict_sentence(best, claim)}",
        short=_short(paths, best, claim),
        claim=claim,
        finding=_finding(best),
        quantity=f"barrier of the {judged_by(best)}{'' if judged_by(best) == 'error' else ', relative'}",
        limit=_limit(best),
    )


def _heights(paths: Sequence[xr.Dataset]) -> str:
    """The barrier of each path on the decisive data, the line first."""
    first, *others = paths
    name = "straight line" if path(first) == "line" else path(first)
    left = [f"{_on(dataset)} {_loss(dataset)}" for dataset in others]
    left[:1] = [f"{each} is left" for each in left[:1]]
    crossed = f"On the {examples(first)}, the {name} between {pair([first])} {_crosses(first)}"
    return f"{'; '.join(filter(None, (crossed, ', and '.join(left))))}."


def _on(dataset: xr.Dataset) -> str:
    if straight(dataset) and "alignment" in path(dataset):
        return "after alignment of the hidden units"
    return f"on the {path(dataset)}"


def _crosses(dataset: xr.Dataset) -> str:
    if not np.isfinite(scalar(dataset, "barrier")):
        return "meets a loss that is not finite"
    if barrier_height(dataset).verdict is Verdict.SUPPORTED:
        return f"crosses a loss barrier of {_loss(dataset)}"
    if not has_interval(dataset, "barrier"):
        return f"crosses a loss barrier of {_loss(dataset)}, whose interval is not known"
    return f"crosses no loss barrier that can be told from zero: {_loss(dataset)}"


def _loss(dataset: xr.Dataset) -> str:
    return height(dataset, "barrier")


def _verdict_sentence(best: xr.Dataset, claim: Claim) -> str:
    """What the claim says, with its number."""
    how, measured = _finding(best), f"{_highest(best, claim)} above the mean of the ends"
    if claim.verdict is Verdict.UNDECIDED:
        known = bool(np.isfinite(claim.interval).all())
        reason = f"which cannot be told from {LIMIT_OF}" if known else f"with no interval to compare with {LIMIT_OF}"
        return f"Whether they are {how} is undecided: {measured}, {reason}."
    is_not, side = ("", "below") if claim.verdict is Verdict.SUPPORTED else (" not", "beyond")
    return f"In the sense of Frankle et al. (2020) they are{is_not} {how}: {measured}, {side} {LIMIT_OF}."


def _highest(best: xr.Dataset, claim: Claim) -> str:
    """What the claim compares with its threshold, with the number."""
    return f"the highest {judged_by(best)} is {percentage(claim)}"


def _short(paths: Sequence[xr.Dataset], best: xr.Dataset, claim: Claim) -> str:
    who, how = capitalised(pair([best])), _finding(best)
    before = f", {_loss(paths[0])} on the line" if paths[0] is not best and path(paths[0]) == "line" else ""
    barrier = f"loss barrier {_loss(best)}{before}"
    if claim.verdict is Verdict.SUPPORTED:
        return f"{who} are {how}: {barrier}."
    if claim.verdict is Verdict.CONTRADICTED:
        return f"{who} are not {how}: {_highest(best, claim)} above the ends' mean."
    return f"Whether {pair([best])} are {how} is undecided: {_highest(best, claim)} above the ends' mean."


def percentage(claim: Claim) -> str:
    """The claim's number and interval in per cent: "0.72 % [0.16, 1.27]"."""
    low, high = claim.interval
    number, _, interval = with_interval(100 * claim.value, (100 * low, 100 * high)).partition(" ")
    return " ".join(filter(None, (f"{number} %", interval)))


def _finding(dataset: xr.Dataset) -> str:
    if not straight(dataset):
        return f"connected by the {path(dataset)}"
    return "linearly connected after alignment" if "alignment" in path(dataset) else "linearly connected"


def _limit(dataset: xr.Dataset) -> str:
    policy = str(dataset.attrs["batch_norm"])
    statistics = "" if policy == "none" else f", on the batch-norm statistics along the path ({policy})"
    return (
        f"A barrier depends on the data{statistics} and on the {dataset.sizes['t']} points evaluated, and it says "
        "little about other pairs of networks."
    )


def _of_all(pairs: Sequence[Sequence[xr.Dataset]]) -> Answer:
    """Several pairs in one answer, decided by the pair that is farthest from being connected."""
    found = [decisive(paths) for paths in pairs]
    hold = sum(claim.verdict is Verdict.SUPPORTED for _, claim in found)
    best, farthest = max(found, key=lambda each: (_ORDER.index(each[1].verdict), each[1].value))
    lines = _span([scalar(paths[0], "barrier") for paths in pairs])
    heights = _span([scalar(dataset, "barrier") for dataset, _ in found])
    return Answer(
        sentence=f"Of {len(pairs)} pairs of networks {hold} are shown to be connected in the sense of Frankle et al. "
        f"(2020). Their loss barriers are {lines} on the straight line, and {heights} on the simplest path that "
        "connects a pair, or else its lowest.",
        short=f"{hold} of {len(pairs)} pairs of networks are shown to be connected; loss barriers fall from {lines} to "
        f"{heights}.",
        claim=farthest,
        finding=f"{_finding(best)}, the farthest pair",
        quantity=f"barrier of the {judged_by(best)}",
        limit=_limit(best),
    )


_ORDER = (Verdict.SUPPORTED, Verdict.UNDECIDED, Verdict.CONTRADICTED)


def _span(values: Sequence[float]) -> str:
    """From the smallest to the largest."""
    ends = dict.fromkeys(f"{value:.2g}" for value in (min(values), max(values)))
    return " to ".join(ends)
