"""The table of the measures, and that of what must be known of single ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lossatlas.drawing.style import labels
from lossatlas.results.blocks import Table
from lossatlas.results.uncertainty import DASH, number, with_interval
from lossatlas.sharpness.show.reading import bounds, each, is_bound, title

if TYPE_CHECKING:
    import xarray as xr

TICK = "✓"
SHORT = {
    "layer rescaling": "layer",
    "neuron rescaling": "neuron",
    "permutation": "permutation",
    "logit scale": "logits",
}


def measures(datasets: Sequence[xr.Dataset]) -> Table:
    """Value and interval for each network, the cost, and a tick for what leaves a measure unchanged."""
    several = [name.removeprefix("network ") for name in labels(datasets)] if len(datasets) > 1 else []
    what = "value [95 % interval]"
    header = ("measure", *([f"{name}: {what}" for name in several] or [what]), "passes", "seconds", *_changes(datasets))
    rows = tuple(_row(pair) for pair in zip(*map(each, datasets), strict=True))
    return Table(_caption(datasets), header, rows, lead=True)


def _changes(datasets: Sequence[xr.Dataset]) -> Iterator[str]:
    yield from (SHORT.get(name, name) for name in datasets[0]["reparametrisation"].to_numpy().tolist())


def _row(pair: Sequence[xr.Dataset]) -> tuple[str, ...]:
    smaller = " (smaller is sharper)" * (str(pair[0]["sharper"].item()) == "smaller")
    ticks = [TICK if unchanged else "" for unchanged in pair[0]["invariant"].to_numpy()]
    costs = (_range([float(at[name]) for at in pair]) for name in ("passes", "seconds"))
    return title(pair[0]) + smaller, *map(value, pair), *costs, *ticks


def value(at: xr.Dataset) -> str:
    """A measure with its interval: "≥ 0.021 [0.016, 0.025]" where it is a lower bound."""
    text = with_interval(float(at["value"]), bounds(at))
    return f"≥ {text}" if is_bound(at) and text != DASH else text


def _range(costs: Sequence[float]) -> str:
    """The costs of the networks, from the least to the most."""
    return DASH.join(dict.fromkeys(number(cost, 2) for cost in (min(costs), max(costs))))


def _caption(datasets: Sequence[xr.Dataset]) -> str:
    missing = "; ".join(dict.fromkeys(title(at) for d in datasets for at in each(d) if value(at) == DASH))
    return (
        "Measures of sharpness. ≥: a lower bound. passes: what one takes alone, in gradient passes over the data. "
        f"{TICK}: by theory unchanged by a rescaling of layers, of single neurons, a permutation of units, a scale of "
        "the logits; the first two keep the function, so a measure without both ticks is no property of it."
        f"{f' Not measured ({DASH}): {missing}.' if missing else ''}"
    )


def remarks(datasets: Sequence[xr.Dataset]) -> Iterator[Table]:
    """What must be known of single values, and why one is missing; none where there is nothing."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, dataset in zip(labels(datasets), datasets, strict=True):
        for at in each(dataset):
            if note := str(at["note"].item()):
                found.setdefault((title(at), note), []).append(name.removeprefix("network "))
    if found:
        rows = tuple((what, ", ".join(names), note) for (what, note), names in found.items())
        yield Table("Remarks on the measures.", ("measure", "network", "remark"), rows, (0.3, 0.12, 0.58))
