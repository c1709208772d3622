"""The table of the measures, and that of what must be known of single ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lossatlas.drawing.style import labels
from lossatlas.results.blocks import Table
from lossatlas.results.captions import joined, listed
from lossatlas.results.uncertainty import DASH, number
from lossatlas.sharpness.show.invariance_claims import moved
from lossatlas.sharpness.show.reading import bounds, each, is_bound, smaller_is_sharper, spelt, title, unbroken

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

TICK = "✓"
SHORT = {"layer rescaling": "layer", "neuron rescaling": "neuron", "permutation": "perm.", "logit scale": "logits"}


def measures(datasets: Sequence[xr.Dataset]) -> Table:
    """Value and interval for each network, the cost, and a tick for what leaves a measure unchanged."""
    names = [name.removeprefix("network ") for name in labels(datasets)] if len(datasets) > 1 else ["value"]
    rows = tuple(_row(pair) for pair in zip(*map(each, datasets), strict=True))
    return Table(_caption(datasets), ("measure", *names, "passes", "seconds", *SHORT.values()), rows, lead=True)


def _row(pair: Sequence[xr.Dataset]) -> tuple[str, ...]:
    ticks = [TICK if bool(pair[0]["invariant"].sel(reparametrisation=name)) else "" for name in SHORT]
    values = [value(at) for at in pair]
    costs = [number(max(float(at[name]) for at in pair), 2) for name in ("passes", "seconds")]
    return unbroken(title(pair[0])), *values, *([DASH, DASH] if set(values) == {DASH} else costs), *ticks


def value(at: xr.Dataset) -> str:
    """A measure with its interval: "≥ 0.021 [0.016, 0.025]" where it is a lower bound."""
    text = spelt(float(at["value"]), bounds(at))
    return f"≥ {text}" if is_bound(at) and text != DASH else text


def _caption(datasets: Sequence[xr.Dataset]) -> str:
    costliest = ", of the costlier network" if len(datasets) > 1 else ""
    several = listed([title(at) for at in each(datasets[0]) if smaller_is_sharper(at)])
    return joined(
        f"Measures of sharpness [95 % interval]. {DASH}: not measured, for the reason among the remarks; ≥: a lower "
        f"bound; passes: what one takes alone, in gradient passes over the data{costliest}.",
        f"{TICK}: by theory unchanged by a rescaling of layers, of single neurons, a permutation of units, a scale of "
        "the logits. The first two keep the function: a measure without both ticks is no property of it.",
        f"Smaller is sharper: {several}." if several else "",
    )


def remarks(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Table]:
    """What must be known of single values, and why one is missing; none where there is nothing."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, dataset in zip(labels(datasets), datasets, strict=True):
        for at in each(dataset):
            for note in filter(None, (str(at["note"].item()), _moved(catalogue, at, dataset))):
                found.setdefault((title(at), note), []).append(name.removeprefix("network "))
    if found:
        rows = tuple((unbroken(what), ", ".join(names), note) for (what, note), names in found.items())
        yield Table("Remarks on the measures.", ("measure", "network", "remark"), rows, (0.3, 0.12, 0.58))


def _moved(catalogue: Catalogue, at: xr.Dataset, dataset: xr.Dataset) -> str:
    """Which reparametrisations were found to move the measure, where theory says that they do not."""
    unchanged = at["reparametrisation"].to_numpy()[at["invariant"].to_numpy()]
    names = [name for name in moved(catalogue, str(at["measure"].item()), dataset) if name in unchanged]
    return f"Moved here by {listed(names)}, of which theory says that they leave it unchanged." if names else ""
