"""The barrier between runs that shared the first k steps of their training: figure, caption, table, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import NullLocator

from lossatlas.connectivity.show.captions import definition
from lossatlas.connectivity.show.claims import FRANKLE_THRESHOLD
from lossatlas.connectivity.show.instability_claims import stability
from lossatlas.drawing.axes import values
from lossatlas.drawing.style import BLUE, legend_above, panels, styled
from lossatlas.results.blocks import Answer, FigureGroup, Number, Picture, Table
from lossatlas.results.captions import basis, count, sentence, sentences
from lossatlas.results.claim import Verdict
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, with_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray
    from lossatlas.results.catalogue import Catalogue

LIMIT = "How barriers scatter over orders of the data is seen only where several pairs were run."
NAMES = {
    "barrier": "barrier of the loss",
    "barrier_error": "barrier of the error",
    "end_error": "error of the ends",
}


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A figure and a table for each analysis."""
    for dataset in datasets:
        yield FigureGroup((dataset,), (_picture(dataset),), (table(dataset),))


def _picture(dataset: xr.Dataset) -> Picture:
    line = "; line: their mean" if dataset.sizes["pair"] > 1 else ""
    limit = ", dashed: the error below which they are called stable" if "barrier_error" in dataset else ""
    heights = "; ".join(f"{each.name} {each.text}" for each in numbers(dataset))
    return Picture(
        "instability",
        partial(instability, dataset),
        "The barrier between two runs that share their first k training steps and see the data in different orders "
        f"after them. Dots: pairs of runs{line}{limit}.",
        how=f"The barrier on the straight line between the ends of each pair. {definition([dataset])}",
        pitfall="The intervals are over the examples: other orders of the data are not in them.",
        method=sentences(
            "Bars: 95 % intervals of a bootstrap over the examples.",
            sentence([dataset], "draws", "Draws of the bootstrap: {}.", count),
            "The scale of k is logarithmic where it spans much, and linear below the smallest positive k.",
            *basis([dataset]),
        ),
        alt=f"Instability analysis: {heights}.",
        width=1.0 if "barrier_error" in dataset else 0.7,
    )


def table(dataset: xr.Dataset) -> Table:
    """The mean over the pairs at each k, in brackets the widest interval."""
    ordered = _in_order(dataset)
    present = {name: spelt for name, spelt in NAMES.items() if name in dataset}
    rows = tuple(
        (f"{int(k):,}", *(_over_pairs(ordered, name, row) for name in present))
        for row, k in enumerate(ordered["k"].to_numpy())
    )
    text = (
        "Barriers between runs that share their first k steps, mean over the pairs, and in brackets the lowest and the "
        "highest end of their 95 % intervals. Error of the ends: the mean error of the runs themselves."
    )
    return Table(text, ("k", *present.values()), rows)


def _in_order(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.transpose("k", "pair", ...).sortby("k")


def _over_pairs(ordered: xr.Dataset, name: str, row: int) -> str:
    mean = float(ordered[name][row].mean())
    return with_interval(mean, _range(ordered, name, row)) if f"{name}_low" in ordered else number(mean)


def _range(ordered: xr.Dataset, name: str, row: int) -> tuple[float, float]:
    """From the lowest to the highest end of the pairs' intervals; NaN where one is not known."""
    low, high = ordered[f"{name}_low"][row], ordered[f"{name}_high"][row]
    return float(low.min(skipna=False)), float(high.max(skipna=False))


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """The barriers at the smallest and at the largest k, of the error where it was measured."""
    ordered, of = _in_order(dataset), Provenance.of(dataset).subject
    for row in dict.fromkeys((0, ordered.sizes["k"] - 1)):
        name = f"{NAMES[judged(dataset)]} after {int(ordered['k'][row]):,} shared steps"
        yield Number(name, _over_pairs(ordered, judged(dataset), row), of)
    yield Number("pairs of runs", f"{dataset.sizes['pair']}", of)
    if "total_steps" in dataset.attrs:
        yield Number("steps of a whole run", count(dataset.attrs["total_steps"]), of)


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """From how many shared steps on two runs end connected."""
    yield from (_of_stability(dataset) if "barrier_error" in dataset else _of_loss(dataset) for dataset in datasets)


def judged(dataset: xr.Dataset) -> str:
    """Which barrier is told: of the error, where it was measured."""
    return "barrier_error" if "barrier_error" in dataset else "barrier"


def _of_stability(dataset: xr.Dataset) -> Answer:
    """The smallest k from which on every k is stable; the largest k where none is."""
    ordered = _in_order(dataset)
    claims = list(stability(ordered))
    unstable = [row for row, claim in enumerate(claims) if claim.verdict is not Verdict.SUPPORTED]
    row = min(unstable[-1] + 1 if unstable else 0, len(claims) - 1)
    sentence, short = _outcome(ordered, row, claims[row].verdict)
    return Answer(sentence, short, claims[row], f"stable {_after(ordered, row)}", "largest error barrier", LIMIT)


def _outcome(ordered: xr.Dataset, row: int, verdict: Verdict) -> tuple[str, str]:
    """In two sentences, the second a short one."""
    after, height = _after(ordered, row), _over_pairs(ordered, "barrier_error", row)
    if verdict is Verdict.SUPPORTED:
        first = f", against {_over_pairs(ordered, 'barrier_error', 0)} {_after(ordered, 0)}" if row else ""
        return (
            f"Runs that part {after} end linearly connected: the error barrier is {height}{first}.",
            f"The outcome is decided {after}: two runs then end connected, with an error barrier of {height}.",
        )
    if verdict is Verdict.CONTRADICTED:
        return (
            f"Runs that part {after} do not end linearly connected: their error barrier is {height}.",
            f"The outcome is not decided {after}: the error barrier between two runs is {height}.",
        )
    return (
        f"Whether runs that part {after} end linearly connected is undecided: their error barrier is {height}.",
        f"When the outcome is decided cannot be told: error barrier {height} {after}.",
    )


def _of_loss(dataset: xr.Dataset) -> Answer:
    """Without errors there is no threshold: what the barrier of the loss does over k."""
    ordered = _in_order(dataset)
    rows = dict.fromkeys((0, ordered.sizes["k"] - 1))
    heights = " and ".join(f"{_over_pairs(ordered, 'barrier', row)} {_after(ordered, row)}" for row in rows)
    return Answer(
        f"The loss barrier between runs that part is {heights}.",
        f"Two runs end with a loss barrier of {heights}.",
        finding="barrier after shared steps",
        quantity="barrier of the loss",
        limit=LIMIT,
    )


def _after(ordered: xr.Dataset, row: int) -> str:
    k = int(ordered["k"][row])
    return f"after {k:,} shared step{'s' * (k != 1)}" if k else "at the start"


@styled
def instability(dataset: xr.Dataset) -> Figure:
    """The barrier of the loss, and of the error, against the number k of steps that the two runs share.

    Dots: pairs of runs with their 95 % intervals; line: the mean over the pairs. Dashed: the height of the error below
    which Frankle et al. (2020) call the runs stable. The axis is logarithmic above the smallest positive k and linear
    below it, so that k = 0 has a place.
    """
    names = [name for name in ("barrier", "barrier_error") if name in dataset]
    figure, axes = panels(len(names), height=2.9, width=6.3 if len(names) > 1 else 4.2)
    of = f" of {int(dataset.attrs['total_steps']):,}" if "total_steps" in dataset.attrs else ""
    for panel, name in zip(axes, names, strict=True):
        _pairs(panel, _in_order(dataset), name)
        _k_axis(panel, values(dataset, "k"))
        panel.set(xlabel=f"shared steps $k${of}", ylabel=NAMES[name])
        if name == "barrier_error":
            label = f"stable below {100 * FRANKLE_THRESHOLD:g} %"
            panel.set_ylabel("barrier of the error (1 − accuracy)")
            panel.axhline(FRANKLE_THRESHOLD, color="black", linestyle="--", linewidth=0.9, label=label)
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
    legend_above(figure, axes[-1])
    return figure


def _pairs(axes: Axes, ordered: xr.Dataset, name: str) -> None:
    k, each = values(ordered, "k"), values(ordered, name)
    low, high = (values(ordered, f"{name}_{end}") for end in ("low", "high"))
    for pair in range(each.shape[1]):
        axes.vlines(k, low[:, pair], high[:, pair], color=BLUE, linewidth=1.0, alpha=0.6)
        label = "a pair of runs, 95 % interval" if pair == 0 else None
        axes.plot(k, each[:, pair], "o", color=BLUE, markersize=3.5, alpha=0.6, label=label)
    several = f"mean of {each.shape[1]} pairs" if each.shape[1] > 1 else None
    axes.plot(k, each.mean(axis=1), color=BLUE, label=several)


def _k_axis(axes: Axes, k: FloatArray) -> None:
    """Ticks at the numbers of steps that were measured, as many as have room."""
    positive = k[k > 0]
    if positive.size and 0 in k:
        axes.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.6)
    elif positive.size and positive.max() > 8 * positive.min():
        axes.set_xscale("log")
    ticks = np.unique(k)
    place = axes.get_xaxis().get_transform().transform(ticks)
    kept = [0]
    for tick in range(1, len(ticks)):
        if place[tick] - place[kept[-1]] >= 0.11 * np.ptp(place):
            kept.append(tick)
    axes.set_xticks(ticks[kept], [f"{ticks[tick]:,.0f}" for tick in kept])
    axes.xaxis.set_minor_locator(NullLocator())
