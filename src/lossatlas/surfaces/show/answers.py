"""How the loss looks around the minimum, in plain English."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from lossatlas.drawing.grids import axes_of
from lossatlas.results.blocks import Answer
from lossatlas.results.captions import listed
from lossatlas.results.claim import Claim, Interval, Verdict
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, with_interval
from lossatlas.surfaces.show.claims import slice_minimum
from lossatlas.surfaces.show.grouping import most_telling, places, slice_name, slices
from lossatlas.surfaces.show.reading import center_loss, highest_loss, highest_rise

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

MOST_WORDS = 25  # of a sentence of the abstract
NAMED = 3  # networks that are told one by one
NUMERALS = {1: "One", 2: "Two", 3: "Three"}
# The verdict that weighs most comes first: it is the one that a table of the questions shows.
GRAVEST = (Verdict.CONTRADICTED, Verdict.UNDECIDED, Verdict.SUPPORTED)


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """How far the loss rises on the most telling slice of each network, and whether the trained points are minima."""
    chosen = most_telling(datasets)
    if not chosen:
        return
    found = list(zip(places(chosen), (next(slice_minimum(dataset), None) for dataset in chosen), strict=True))
    tested = [(place, claim) for place, claim in found if claim is not None]
    place, claim = min(tested, key=lambda each: GRAVEST.index(each[1].verdict), default=("", None))
    region = slice_name(chosen[0]).removeprefix("random ")
    yield Answer(
        sentence=" ".join(filter(None, (rises(chosen), minima(tested, region), lower_elsewhere(datasets, chosen)))),
        short=short(chosen, tested),
        claim=claim,
        finding=f"{place} is the minimum of its {chosen[0].attrs['region']}" if claim else "",
        quantity="lowest other loss minus the center's" if claim else "",
        limit=limit(chosen[0]),
    )


def rises(chosen: Sequence[xr.Dataset]) -> str:
    """From where to where the loss rises."""
    where, loss = f"On {slices(chosen)}", f"the loss on {Provenance.of(chosen[0]).short_data}"
    if len(chosen) > NAMED:
        rise = _range([highest_rise(dataset)[0] for dataset in chosen])
        return f"{where} of {len(chosen)} networks {loss} rises by {rise} from the center to the highest point."
    each = [
        f"from {center_loss(dataset)} at {place} to {highest_loss(dataset)}"
        for dataset, place in zip(chosen, places(chosen), strict=True)
    ]
    return f"{where} {loss} rises {listed(each)} at its highest."


def minima(tested: Sequence[tuple[str, Claim]], region: str) -> str:
    """Which trained points are the minima of their slices, by verdict, as one sentence; empty where none is tested."""
    by_verdict = {v: [each for each in tested if each[1].verdict is v] for v in GRAVEST}
    parts = [_of_one_verdict(verdict, those, region) for verdict, those in by_verdict.items() if those]
    lead = "no sampled point lies significantly lower, but " if parts and not by_verdict[Verdict.CONTRADICTED] else ""
    if not by_verdict[Verdict.UNDECIDED]:
        lead = ""
    return _sentence(lead + "; ".join(parts))


def _of_one_verdict(verdict: Verdict, those: Sequence[tuple[str, Claim]], region: str) -> str:
    one, its = len(those) == 1, "its" if len(those) == 1 else "their"
    names, by = _named([place for place, _ in those]), _differences([claim for _, claim in those])
    minimum = f"{'the minimum' if one else 'the minima'} of {its} {region}{'' if one else 's'}"
    be = "is" if one else "are"
    if verdict is Verdict.UNDECIDED:
        return f"whether {names} {be} {minimum} is undecided: the lowest other loss differs by {by}"
    if verdict is Verdict.SUPPORTED:
        return f"{names} {be} {minimum}: every other sampled loss is higher, by at least {by}"
    lower = listed([_lower(claim) for _, claim in those[:NAMED]])
    return f"{names} {be} not {minimum}: a sampled loss is lower by {lower}"


def _named(names: Sequence[str]) -> str:
    """The names, or how many they are."""
    return listed(names) if len(names) <= NAMED else f"{len(names)} networks"


def _differences(claims: Sequence[Claim]) -> str:
    """Each difference with its interval, or from the lowest to the highest of many."""
    if len(claims) <= NAMED:
        return listed([with_interval(claim.value, claim.interval) for claim in claims])
    return _range([claim.value for claim in claims])


def _range(values: Sequence[float]) -> str:
    return f"{number(min(values), 2)} to {number(max(values), 2)}"


def lower_elsewhere(datasets: Sequence[xr.Dataset], chosen: Sequence[xr.Dataset]) -> str:
    """On which further slices a point lies significantly lower than the trained point; empty where on none."""
    ids = {dataset.attrs["id"] for dataset in chosen}
    found = [
        f"the {slice_name(dataset)} has a point significantly below {places([dataset])[0]}, by {_lower(claim)}"
        for dataset in datasets
        if dataset.attrs["id"] not in ids
        for claim in slice_minimum(dataset)
        if claim.verdict is Verdict.CONTRADICTED
    ]
    return _sentence("; ".join(found))


def _sentence(words: str) -> str:
    """With a capital and a full stop; empty where there are no words."""
    return f"{words[0].upper()}{words[1:]}." if words else ""


def _lower(claim: Claim) -> str:
    return with_interval(-claim.value, (-claim.interval[1], -claim.interval[0]))


def short(chosen: Sequence[xr.Dataset], tested: Sequence[tuple[str, Claim]]) -> str:
    """The same in at most 25 words: with an interval for each network, or the range over them where they are many."""
    rise = [highest_rise(dataset) for dataset in chosen]
    around = [f"{_rise(*each)} around {place}" for each, place in zip(rise, places(chosen), strict=True)]
    values, where = [value for value, _ in rise], f"On {slices(chosen, scaled=False)} the loss rises by"
    told = [
        f"{where} {listed([each.replace(' network ', ' ') for each in around])}",
        f"{where} {_range(values)} around {len(chosen)} networks",
        f"{where} up to {number(max(values), 2)}",
    ]
    full = (f"{each}{tail}." for each in told for tail in (_verdict_briefly(tested), ""))
    return next(each for each in full if len(each.split()) <= MOST_WORDS)


def _rise(value: float, bounds: Interval) -> str:
    return with_interval(value, bounds) if isfinite(bounds[0]) else number(value, 2)


def _verdict_briefly(tested: Sequence[tuple[str, Claim]]) -> str:
    """What the claims say together."""
    verdicts = {claim.verdict for _, claim in tested}
    one = len(tested) == 1
    if Verdict.CONTRADICTED in verdicts:
        return "; significantly lower points lie on it" if one else "; significantly lower points lie on some"
    if Verdict.UNDECIDED in verdicts:
        return f"; whether {'the trained point is' if one else 'trained points are'} lowest is undecided"
    return f", lowest at the trained point{'' if one else 's'}" if verdicts else ""


def limit(dataset: xr.Dataset) -> str:
    """What a slice cannot show."""
    n, total = len(axes_of(dataset)), int(dataset.attrs["n_parameters"])
    scaled = ", and the shape depends on how they are normalised" if dataset.attrs["normalisation"] != "none" else ""
    return f"{NUMERALS[n]} of {total:,} directions {'is' if n == 1 else 'are'} shown{scaled if n > 1 else ''}."
