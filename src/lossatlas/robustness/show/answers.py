"""How robust the solution is to perturbations, in plain English."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING

from lossatlas.drawing.style import labels
from lossatlas.results.blocks import Answer
from lossatlas.results.captions import listed
from lossatlas.results.claim import Claim, Verdict
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, with_interval
from lossatlas.robustness.show.claims import Comparison, Cost, accuracy_cost, comparisons, most_sensitive
from lossatlas.robustness.show.estimates import change
from lossatlas.robustness.show.words import (
    RELATIVE,
    attribute,
    dimension,
    from_mild_to_severe,
    groups,
    lowers,
    of_size,
    of_sizes,
    perturbation,
    relative,
    row_of,
)

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

MOST_WORDS = 25  # of a sentence of the abstract
NAMED = 3  # networks that are told one by one
LIMITS = {
    "none": "Noise of one size for all weights depends on their scale: a rescaling that keeps the function changes it.",
    "filter": "Noise relative to the filters is blind to a rescaling of layers, not to one of single hidden units.",
    "weight": "Noise relative to each weight is blind to rescalings, and leaves weights that are zero as they are.",
    "input": "Inputs outside of the range of the data are seen here as noise makes them, without clipping.",
    "quantise": "Activations and biases keep their precision, and nothing is trained or calibrated after rounding.",
    "prune": "Nothing is trained after pruning, as one would do in use.",
    "flip": "Real errors of memory come in bursts, and are often corrected; here each bit errs by itself.",
}


SHORTER = {RELATIVE["filter"]: "relative ", RELATIVE["weight"]: "proportional "}


class Effect(Enum):
    """What a claim says of a perturbation: that it costs over a point, less, or neither."""

    MORE = 0
    OPEN = 1
    LESS = 2


def effect(cost: Cost) -> Effect:
    """What the claim on a cost says."""
    which = cost.claim.verdict
    if which is Verdict.UNDECIDED:
        return Effect.OPEN
    return Effect.MORE if (which is Verdict.SUPPORTED) == (cost.claim.direction == "above") else Effect.LESS


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """What a perturbation costs each network, and whether the sharper one loses more; absolute noise first."""
    for group in groups(datasets):
        named = dict(zip(_names(group), group, strict=True))
        costs = {name: cost for name, dataset in named.items() if (cost := accuracy_cost(dataset))}
        found = accuracy_costs(costs) if costs else loss_rises(named)
        if not found:
            continue
        further = (sharper(list(comparisons(group, catalogue))), sensitive(named))
        sentence = "; ".join(filter(None, (found, *further)))
        gravest = min(costs.values(), key=lambda cost: effect(cost).value, default=None)
        noise = attribute(group[0], "noise")
        yield Answer(
            sentence=f"{sentence[0].upper()}{sentence[1:]}.",
            short=short(costs, named),
            claim=gravest.claim if gravest else None,
            finding=finding(gravest) if gravest else "",
            quantity="fall of accuracy in percentage points" if gravest else "",
            limit=LIMITS.get(noise) or LIMITS[attribute(group[0], "relative")],
        )


def finding(cost: Cost) -> str:
    """The hypothesis of a cost in a few words."""
    told = {
        "sigma": f"noise of {cost.size:g} costs over a point",
        "bits": f"{cost.size:g} bits cost under a point",
        "share": f"pruning {100 * cost.size:g} % costs under a point",
        "rate": f"flips at {cost.size:g} cost under a point",
    }
    return ("input " if attribute(cost.dataset, "noise") == "input" else "") + told[dimension(cost.dataset)]


def _names(group: Sequence[xr.Dataset]) -> list[str]:
    """Whose numbers they are: of a single network without a name, "the network"."""
    return [Provenance.of(group[0]).who] if len(group) == 1 else labels(group)


def accuracy_costs(costs: Mapping[str, Cost]) -> str:
    """How far the accuracy falls, by the size of the perturbation and the verdict."""
    parts = []
    for size, which in dict.fromkeys((cost.size, effect(cost)) for cost in costs.values()):
        those = {name: cost for name, cost in costs.items() if (cost.size, effect(cost)) == (size, which)}
        first = next(iter(those.values())).dataset
        claims = {name: cost.claim for name, cost in those.items()}
        parts.append(_of_one_verdict(of_size(first, size), lowers(first), claims, which))
    return "; ".join(parts)


def _of_one_verdict(what: str, lower: str, those: Mapping[str, Claim], which: Effect) -> str:
    names = listed(list(those)) if len(those) <= NAMED else f"{len(those)} networks"
    if which is Effect.MORE and len(those) <= NAMED:
        each = [f"that of {name} by {_interval(claim)}" for name, claim in those.items()]
        each[0] = each[0].replace("that", "the accuracy", 1)
        return f"{what} {lower} {listed(each)} percentage points"
    falls = _range(those) if len(those) > NAMED else listed([_interval(claim) for claim in those.values()])
    if which is Effect.MORE:
        return f"{what} {lower} the accuracy of {names} by {falls} percentage points"
    if which is Effect.OPEN:
        return f"whether {what} {lower} the accuracy of {names} by over a point is undecided: the fall is {falls}"
    return f"{what} {lower} the accuracy of {names} by less than one percentage point: {falls}"


def _interval(claim: Claim) -> str:
    return with_interval(claim.value, claim.interval)


def _range(claims: Mapping[str, Claim]) -> str:
    values = [claim.value for claim in claims.values()]
    return f"{number(min(values), 2)} to {number(max(values), 2)}"


def loss_rise(dataset: xr.Dataset) -> tuple[float, str] | None:
    """The severest size, and that the loss rises, or falls, by so much under it; None where that is not known."""
    sizes = from_mild_to_severe(dataset)
    if not sizes:
        return None
    rise = change(dataset, "loss", sizes[-1])
    extent = rise._replace(value=abs(rise.value))
    text = with_interval(extent.value, extent.interval())
    return (sizes[-1], f"{'falls' if rise.value < 0 else 'rises'} by {text}") if isfinite(rise.value) else None


def _at(dataset: xr.Dataset, size: float) -> str:
    """The size by itself: "at sigma = 0.5"."""
    name = dimension(dataset)
    return {"sigma": f"at sigma = {size:g}", "bits": f"at {size:g} bits"}.get(name, f"at {row_of(dataset, size)}")


def loss_rises(named: Mapping[str, xr.Dataset]) -> str:
    """How far the loss rises under the severest size, where there is no accuracy; empty where that is not known."""
    found = {name: rise for name, dataset in named.items() if (rise := loss_rise(dataset))}
    each = [f"that of {name} {text} {_at(named[name], size)}" for name, (size, text) in found.items()][:NAMED]
    if not each:
        return ""
    what = _what(next(iter(named.values())))
    return f"under {what} {listed([each[0].replace('that', 'the loss', 1), *each[1:]])}"


def _what(dataset: xr.Dataset) -> str:
    return f"{perturbation(dataset)}{relative(dataset)}"


def sensitive(named: Mapping[str, xr.Dataset]) -> str:
    """The most sensitive layer of each network where it is decided; empty where none was measured."""
    found = {name: layer for name, dataset in named.items() if (layer := most_sensitive(dataset))}
    decided = {name: layer for name, layer in found.items() if layer.claim.verdict is Verdict.SUPPORTED}
    if found and not decided:
        return "which layer is the most sensitive is undecided"
    each = [f"layer {layer.layer} of {name}" for name, layer in decided.items()][:NAMED]
    return f"the most sensitive is {listed(each)}" if each else ""


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


def short(costs: Mapping[str, Cost], named: Mapping[str, xr.Dataset]) -> str:
    """What it costs in at most 25 words: for each network, or the range over them where they are many."""
    claims = {name: cost.claim for name, cost in costs.items()}
    each = [f"{_interval(claim)} for {name.replace('network ', '')}" for name, claim in claims.items()]
    first = next(iter(named.values()))
    if not costs:
        found = [(name, rise) for name, dataset in named.items() if (rise := loss_rise(dataset))]
        told = [f"The loss of {name} {text} under {of_size(first, size)}." for name, (size, text) in found]
        return _brief(told)
    sizes = [size for size in from_mild_to_severe(first) if size in {cost.size for cost in costs.values()}]
    lead = of_sizes(first, sizes or [cost.size for cost in costs.values()])
    for long, brief in SHORTER.items():
        if long in lead:
            lead = f"{brief}{lead.replace(long, '')}"
    if any(effect(cost) is Effect.OPEN for cost in costs.values()):
        told = [f"Whether {lead} {_costs(first)} a point of accuracy is undecided: {listed(each)}."]
        told.append(f"{told[0].partition(':')[0]}.")
        return _brief(told)
    lead = f"{lead[0].upper()}{lead[1:]} {_costs(first)}"
    told = [f"{lead} {listed([each[0].replace(' for', ' points of accuracy for', 1), *each[1:]])}."]
    told.append(f"{lead} {_range(claims)} points of accuracy.")
    return _brief(told)


def _costs(dataset: xr.Dataset) -> str:
    return "costs" if lowers(dataset) == "lowers" else "cost"


def _brief(told: Sequence[str]) -> str:
    return next((sentence for sentence in told if len(sentence.split()) <= MOST_WORDS), told[-1])
