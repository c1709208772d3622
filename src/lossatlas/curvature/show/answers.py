"""What spectra say to the question of how sharp the minimum is, and in which directions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from lossatlas.curvature.show.captions import each, outermost, restricted
from lossatlas.curvature.show.claims import no_negative_curvature, sharpness_difference
from lossatlas.drawing.style import labels
from lossatlas.results.blocks import Answer
from lossatlas.results.captions import MOST, few, joined, listed
from lossatlas.results.claim import Claim, Verdict
from lossatlas.results.groups import alike, by_network
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, plus_minus, with_interval
from lossatlas.results.values import scalar, value

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

Datasets = Sequence["xr.Dataset"]

FEW = 0.01  # of all directions: an effective rank below it counts as concentrated
LIMIT = (
    "The largest eigenvalue changes when parameters are rescaled without a change of the function, so it is "
    "no property of the function alone."
)


def of_spectra(datasets: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """An answer for each data set, that of the most networks first; of blocks only where no whole Hessian is there."""
    topped = [dataset for dataset in datasets if "top" in dataset["end"].to_numpy()]
    sharp = [dataset for dataset in topped if math.isfinite(outermost(dataset)[0])]
    whole = [dataset for dataset in sharp if not restricted(dataset)] or sharp
    groups = [_one_each(group) for group in alike(whole, "data", "parameters")]
    for group in sorted(groups, key=len, reverse=True):
        yield _alone(group[0]) if len(group) == 1 else _compared(group)


def _one_each(group: Datasets) -> list[xr.Dataset]:
    """One spectrum of each network, that which says most; networks without a label are told apart by their weights."""
    by_content = sorted(group, key=lambda dataset: len(dataset.variables))
    found = {(of := Provenance.of(d)).network or of.model_fingerprint or str(d.attrs["id"]): d for d in by_content}
    return [dataset for dataset in group if any(dataset is kept for kept in found.values())]


def _alone(dataset: xr.Dataset) -> Answer:
    sign, size = _signs([dataset]), plus_minus(*outermost(dataset)[:2])
    claim = no_negative_curvature(dataset) if _has_bottom(dataset) else None
    rank = f", the effective rank {value(dataset, 'effective_rank')}" if "effective_rank" in dataset else ""
    lowest = f", the smallest {number(outermost(dataset, 'bottom')[0], 3)}" if claim else ""
    return Answer(
        sentence=joined(
            f"The largest eigenvalue of the Hessian{restricted(dataset)} of {Provenance.of(dataset).who} is {size}.",
            _second_sentence([dataset], sign),
        ),
        short=f"The Hessian{' (a block)' if restricted(dataset) else ''} has the largest eigenvalue {size}{lowest}"
        f"{rank} of {int(dataset.attrs['n_parameters']):,}."
        if rank
        else f"The largest eigenvalue of the Hessian is {size}{lowest}.",
        claim=claim,
        finding="no negative eigenvalue" if claim else "",
        quantity="smallest eigenvalue" if claim else "",
        limit=LIMIT,
    )


def _compared(group: Datasets) -> Answer:
    networks = list(by_network(group).values())
    claims = [sharpness_difference(a, b) for a, b in combinations(networks, 2)]
    if len(group) == 2 and claims:
        return _of_two(group, claims[0])
    low, *_, high = sorted(group, key=lambda dataset: outermost(dataset)[0])
    ends = [f"{plus_minus(*outermost(d)[:2])} ({_name(d)})" for d in (low, high)]
    decided = sum(claim.verdict is Verdict.SUPPORTED for claim in claims)
    pairs = f"{decided} of {len(claims)} pairs differ beyond their errors" if claims else ""
    widest = max(claims, key=lambda claim: claim.value, default=None)
    return Answer(
        sentence=joined(
            f"The largest eigenvalues of the Hessians of {len(group)} networks{restricted(group[0])} lie between "
            f"{ends[0]} and {ends[1]}{f'; {pairs}' if pairs else ''}.",
            _second_sentence(group, _signs(group)),
        ),
        short=f"Over {len(group)} networks the largest Hessian eigenvalue ranges from {ends[0]} to {ends[1]}"
        f"{f'; {decided} of {len(claims)} pairs differ' if claims else ''}.",
        claim=widest,
        finding="the sharpest and the flattest network differ" if claims else "",
        quantity="difference of the largest eigenvalues" if claims else "",
        limit=LIMIT,
    )


def _of_two(group: Datasets, claim: Claim) -> Answer:
    sizes = [plus_minus(*outermost(dataset)[:2]) for dataset in group]
    low, high = sorted(group, key=lambda dataset: outermost(dataset)[0])
    by = f"difference {with_interval(claim.value, claim.interval)}"
    told = {
        Verdict.SUPPORTED: f"so {_name(high)} is the sharper one ({by})",
        Verdict.CONTRADICTED: "the same for both",
        Verdict.UNDECIDED: f"which cannot be told apart ({by})",
    }
    values = listed([f"{size} ({_name(dataset)})" for size, dataset in zip(sizes, group, strict=True)])
    short = {
        Verdict.SUPPORTED: f"{_name(high)} is sharper than {_name(low)}: largest Hessian eigenvalues {values}",
        Verdict.CONTRADICTED: f"Both Hessians have the same largest eigenvalue, {sizes[0]}",
        Verdict.UNDECIDED: f"The largest Hessian eigenvalues, {values}, cannot be told apart",
    }
    return Answer(
        sentence=joined(
            f"The largest eigenvalue of the Hessian{restricted(group[0])} is {each(group, sizes)}, "
            f"{told[claim.verdict]}.",
            _second_sentence(group, _signs(group)),
        ),
        short=f"{short[claim.verdict]}{_short_signs(group)}.",
        claim=claim,
        finding=f"{_name(group[0])} and {_name(group[1])} differ in sharpness",
        quantity="difference of the largest eigenvalues",
        limit=LIMIT,
    )


def _name(dataset: xr.Dataset) -> str:
    """In few words: "A"."""
    return Provenance.of(dataset).network or labels([dataset])[0]


def _has_bottom(dataset: xr.Dataset) -> bool:
    return "bottom" in dataset["end"].to_numpy()


def _second_sentence(group: Datasets, signs: str) -> str:
    """How curvature is spread over the directions, and its signs."""
    parts = [part for part in (_spread(group), signs) if part]
    if not parts:
        return ""
    told = ", and ".join(parts)
    return f"{told[0].upper()}{told[1:]}."


def _spread(group: Datasets) -> str:
    if not all("effective_rank" in dataset for dataset in group):
        return ""
    n = int(group[0].attrs["n_parameters"])
    ordered = group if len(group) <= MOST else sorted(group, key=lambda dataset: scalar(dataset, "effective_rank"))
    ranks = few([value(dataset, "effective_rank") for dataset in ordered])
    if all(scalar(dataset, "effective_rank") < FEW * n for dataset in group):
        many = "effective ranks" if len(group) > 1 else "an effective rank"
        return f"curvature is concentrated, with {many} of {ranks} of {n:,} directions"
    return f"the effective {'ranks are' if len(group) > 1 else 'rank is'} {ranks} of {n:,} directions"


def _verdicts(group: Datasets) -> list[Verdict]:
    return [no_negative_curvature(dataset).verdict for dataset in group if _has_bottom(dataset)]


def _signs(group: Datasets) -> str:
    """Whether the points can be minima."""
    found = _verdicts(group)
    if len(found) < len(group):
        return ""
    ends = [outermost(dataset, "bottom")[0] for dataset in group]
    lowest = few([number(end, 3) for end in (ends if len(group) <= MOST else sorted(ends))])
    if set(found) == {Verdict.CONTRADICTED}:
        who = {1: "the point is no", 2: "neither point is a"}.get(len(group), "no point is a")
        smallest = "eigenvalues are" if len(group) > 1 else "eigenvalue is"
        return f"the smallest {smallest} negative ({lowest}), so {who} local minimum of the loss on these examples"
    if set(found) == {Verdict.SUPPORTED}:
        return f"no eigenvalue below {lowest} was found, so all curvature found is positive"
    negative = [_name(d) for d, verdict in zip(group, found, strict=True) if verdict is Verdict.CONTRADICTED]
    if negative:
        return f"the smallest eigenvalue is surely negative for {listed(negative)} only ({lowest})"
    return f"the sign of the smallest eigenvalue{'s' if len(group) > 1 else ''} ({lowest}) is undecided"


def _short_signs(group: Datasets) -> str:
    found = _verdicts(group)
    negative = len(found) == len(group) and set(found) == {Verdict.CONTRADICTED}
    return "; both points have negative curvature" if negative else ""
