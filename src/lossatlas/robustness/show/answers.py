"""How robust the solution is to weight noise, in plain English."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from lossatlas.drawing.style import labels
from lossatlas.results.blocks import Answer
from lossatlas.results.captions import listed
from lossatlas.results.claim import Claim, Verdict
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import normal_interval, number, with_interval
from lossatlas.robustness.show.claims import Comparison, Cost, accuracy_cost, change, comparisons, relative
from lossatlas.robustness.show.figures import groups

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

MOST_WORDS = 25  # of a sentence of the abstract
NAMED = 3  # networks that are told one by one
LIMITS = {
    "none": "Noise of one size for all weights depends on their scale: a rescaling that keeps the function changes it.",
    "filter": "Noise relative to the filters is blind to a rescaling of layers, not to one of single hidden units.",
}
GRAVEST = (Verdict.SUPPORTED, Verdict.UNDECIDED, Verdict.CONTRADICTED)


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """What noise costs each network, and whether the sharper one loses more; absolute noise first."""
    for group in groups(datasets):
        named = dict(zip(_names(group), group, strict=True))
        costs = {name: cost for name, dataset in named.items() if (cost := accuracy_cost(dataset))}
        found = accuracy_costs(costs, group) if costs else loss_rises(named)
        if not found:
            continue
        sentence = "; ".join(filter(None, (found, sharper(list(comparisons(group, catalogue))))))
        gravest = min(costs.values(), key=lambda cost: GRAVEST.index(cost.claim.verdict), default=None)
        yield Answer(
            sentence=f"{sentence[0].upper()}{sentence[1:]}.",
            short=short(costs, named, relative(group[0])),
            claim=gravest.claim if gravest else None,
            finding=f"noise of {gravest.sigma:g} costs over a point" if gravest else "",
            quantity="fall of accuracy in percentage points" if gravest else "",
            limit=LIMITS[str(group[0].attrs["relative"])],
        )


def _names(group: Sequence[xr.Dataset]) -> list[str]:
    """Whose numbers they are: of a single network without a name, "the network"."""
    return [Provenance.of(group[0]).who] if len(group) == 1 else labels(group)


def accuracy_costs(costs: Mapping[str, Cost], group: Sequence[xr.Dataset]) -> str:
    """How far the accuracy falls, by the size of the noise and the verdict."""
    parts = []
    for sigma, which in dict.fromkeys((cost.sigma, cost.claim.verdict) for cost in costs.values()):
        those = {name: c.claim for name, c in costs.items() if (c.sigma, c.claim.verdict) == (sigma, which)}
        parts.append(_of_one_verdict(f"weight noise of sigma = {sigma:g}{relative(group[0])}", those, which))
    return "; ".join(parts)


def _of_one_verdict(noise: str, those: Mapping[str, Claim], which: Verdict) -> str:
    names = listed(list(those)) if len(those) <= NAMED else f"{len(those)} networks"
    if which is Verdict.SUPPORTED and len(those) <= NAMED:
        each = [f"that of {name} by {_interval(claim)}" for name, claim in those.items()]
        each[0] = each[0].replace("that", "the accuracy", 1)
        return f"{noise} lowers {listed(each)} percentage points"
    falls = _range(those) if len(those) > NAMED else listed([_interval(claim) for claim in those.values()])
    if which is Verdict.SUPPORTED:
        return f"{noise} lowers the accuracy of {names} by {falls} percentage points"
    if which is Verdict.UNDECIDED:
        return f"whether {noise} lowers the accuracy of {names} by over a point is undecided: the fall is {falls}"
    return f"{noise} lowers the accuracy of {names} by less than one percentage point: {falls}"


def _interval(claim: Claim) -> str:
    return with_interval(claim.value, claim.interval)


def _range(claims: Mapping[str, Claim]) -> str:
    values = [claim.value for claim in claims.values()]
    return f"{number(min(values), 2)} to {number(max(values), 2)}"


def loss_rise(dataset: xr.Dataset) -> tuple[float, str] | None:
    """The largest sigma, and that the loss rises, or falls, by so much under it; None where that is not known."""
    sigmas = dataset["sigma"].to_numpy().astype(float)
    if sigmas.min() != 0 or sigmas.max() <= 0:
        return None
    rise, stderr = change(dataset, "loss", float(sigmas.max()))
    text = with_interval(abs(rise), normal_interval(abs(rise), stderr))
    return (float(sigmas.max()), f"{'falls' if rise < 0 else 'rises'} by {text}") if isfinite(rise) else None


def loss_rises(named: Mapping[str, xr.Dataset]) -> str:
    """How far the loss rises under the largest noise, where there is no accuracy; empty where that is not known."""
    found = {name: rise for name, dataset in named.items() if (rise := loss_rise(dataset))}
    each = [f"that of {name} {text} at sigma = {sigma:g}" for name, (sigma, text) in found.items()][:NAMED]
    if not each:
        return ""
    kind = relative(next(iter(named.values())))
    return f"under weight noise{kind} {listed([each[0].replace('that', 'the loss', 1), *each[1:]])}"


def sharper(found: Sequence[Comparison]) -> str:
    """Whether the sharper of two networks loses more; of several pairs how many say so."""
    if len(found) > 1:
        counts = Counter(each.claim.verdict for each in found)
        told = listed([f"{which} for {n}" for which, n in counts.items()])
        return f"of {len(found)} pairs of networks, that the sharper one loses more is {told}"
    for each in found:
        who, more = Provenance.of(each.sharper).who, f"{_interval(each.claim)} at sigma = {each.sigma:g}"
        lead = {
            Verdict.SUPPORTED: f"the sharper one, {who}, loses more",
            Verdict.UNDECIDED: f"whether the sharper one, {who}, loses more is undecided",
            Verdict.CONTRADICTED: f"the sharper one, {who}, does not lose more",
        }[each.claim.verdict]
        return f"{lead}: its loss rises further by {more}"
    return ""


def short(costs: Mapping[str, Cost], named: Mapping[str, xr.Dataset], kind: str) -> str:
    """What noise costs in at most 25 words: for each network, or the range over them where they are many."""
    claims = {name: cost.claim for name, cost in costs.items()}
    each = [f"{_interval(claim)} for {name.replace('network ', '')}" for name, claim in claims.items()]
    sigmas = sorted({cost.sigma for cost in costs.values()})
    noise = "Relative weight noise" if kind else "Weight noise"
    lead = f"{noise} of sigma = {' to '.join(f'{sigma:g}' for sigma in (*sigmas[:1], *sigmas[1:][-1:]))}"
    open_ends = any(claim.verdict is Verdict.UNDECIDED for claim in claims.values())
    if not costs:
        found = [(name, rise) for name, dataset in named.items() if (rise := loss_rise(dataset))]
        told = [f"The loss of {name} {text} under weight noise of sigma = {s:g}." for name, (s, text) in found]
    elif open_ends:
        told = [f"Whether {lead[0].lower()}{lead[1:]} costs a point of accuracy is undecided: {listed(each)}."]
        told.append(f"{told[0].partition(':')[0]}.")
    else:
        told = [f"{lead} costs {listed([each[0].replace(' for', ' points of accuracy for', 1), *each[1:]])}."]
        told.append(f"{lead} costs {_range(claims)} points of accuracy.")
    return next((sentence for sentence in told if len(sentence.split()) <= MOST_WORDS), told[-1])
