"""The barrier between runs that shared the first k steps of their training: figure, caption, table, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import NullLocator

from lossatlas.connectivity.show.captions import definition
from lossatlas.connectivity.show.claims import FRANKLE_THRESHOLD
from lossatlas.drawing.axes import values
from lossatlas.drawing.style import BLUE, legend_above, panels, styled
from lossatlas.results.blocks import FigureGroup, Picture, Table
from lossatlas.results.captions import count, data_basis, joined, sentence
from lossatlas.results.uncertainty import number, with_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray
    from lossatlas.results.catalogue import Catalogue

NAMES = {
    "barrier": "barrier of the loss",
    "barrier_error": "barrier of the error",
    "end_error": "error of the ends",
}


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A figure and a table for each analysis."""
    for dataset in datasets:
        width = 1.0 if "barrier_error" in dataset else 0.7
        picture = Picture("instability", partial(instability, dataset), caption(dataset), width)
        yield FigureGroup((dataset,), (picture,), (table(dataset),))


def caption(dataset: xr.Dataset) -> str:
    line = " Line: the mean over the pairs." if dataset.sizes["pair"] > 1 else ""
    limit = " Dashed: the error below which they are called stable." if "barrier_error" in dataset else ""
    return joined(
        "Instability analysis (Frankle et al. 2020): the barrier on the straight line between two runs that share "
        "their first k training steps and see the data in different orders after them. Dots: pairs of runs, with the "
        f"95 % bootstrap interval over the examples.{line}{limit} The scale of k is logarithmic where it spans much, "
        "and linear below the smallest positive k.",
        definition([dataset]),
        sentence([dataset], "draws", "Draws: {}.", count),
        data_basis([dataset]),
    )


def table(dataset: xr.Dataset) -> Table:
    """The mean over the pairs at each k, in brackets the widest interval."""
    ordered = _in_order(dataset)
    present = {name: spelt for name, spelt in NAMES.items() if name in dataset}
    rows = tuple(
        (f"{int(k):,}", *(_over_pairs(ordered, name, row) for name in present))
        for row, k in enumerate(ordered["k"].to_numpy())
    )
    text = joined(
        "Barriers between runs that share their first k steps, mean over the pairs, and in brackets the lowest and the "
        "highest end of their 95 % intervals. Error of the ends: the mean error of the runs themselves.",
        sentence([dataset], "total_steps", "Steps of a whole run: {}.", count),
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


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """The barriers at the smallest and at the largest k, of the error where it was measured."""
    name = "barrier_error" if "barrier_error" in dataset else "barrier"
    ordered = _in_order(dataset)
    total = f" of {int(dataset.attrs['total_steps']):,}" if "total_steps" in dataset.attrs else ""
    for row in dict.fromkeys((0, ordered.sizes["k"] - 1)):
        each, (low, high) = values(ordered, name)[row], _range(ordered, name, row)
        pairs = f"{len(each)} pairs, " if len(each) > 1 else ""
        known = f"95 % intervals within {number(low, 3)} to {number(high, 3)}"
        yield (
            f"Runs that share their first {int(ordered['k'][row]):,}{total} steps: {NAMES[name]} "
            f"{number(each.mean())} ({pairs}{known if np.isfinite([low, high]).all() else 'without an interval'})."
        )


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
