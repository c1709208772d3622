"""The figure of the measures: a row each, with the values of one network or the ratios of several, and intervals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lossatlas.drawing.style import COLOURS, GREY, MARKERS, WIDTH, asked_width, labels, legend_over, sized, styled
from lossatlas.results.uncertainty import number
from lossatlas.sharpness.show.reading import (
    CHANGED,
    UNCHANGED,
    Ratio,
    bounds,
    each,
    invariant,
    is_bound,
    sharper_by,
    unbroken,
)
from lossatlas.sharpness.show.reading import title as title_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, LINE, FRAME = 0.18, 0.11, 0.6  # inches: of a row, of each further line of its name, of what is around them
REACH = 8.0  # an interval is drawn as far as so many times beyond the values
LETTERS = {True: 28, False: 48}  # of a line of a name, in a column and on a page


@dataclass(frozen=True)
class Row:
    """A measure: its name, a number for each network that is drawn, and in words why where one cannot be.

    One without numbers is a heading.
    """

    name: str
    invariant: bool
    bound: bool = False
    found: tuple[Ratio, ...] = ()
    why: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        return textwrap.wrap(unbroken(self.name), LETTERS[_narrow()])

    @property
    def height(self) -> float:
        """In inches."""
        return ROW + LINE * (len(self.lines) - 1)


@styled
def sharpness(*datasets: xr.Dataset) -> Figure:
    """The measures of one network on a logarithmic axis; of several networks the ratios to the first one's.

    Filled markers: rescaling leaves the measure unchanged; open ones: it does not. An arrow: a lower bound.
    """
    rows = list(_with_headings(ratios(datasets) if len(datasets) > 1 else values(datasets[0])))
    figure = sized(WIDTH, 1.0)
    figure.set_figheight(FRAME + ROW / 4 + sum(row.height for row in rows))
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(*_limits(rows))
    _rows(axes, rows, first=int(len(datasets) > 1))
    _axis(axes, datasets)
    if len(datasets) > 2:
        handles = [axes.plot([], [], _marker(k), color=_colour(k))[0] for k in range(1, len(datasets))]
        legend_over(figure, handles, labels(datasets)[1:], 3)
    return figure


def values(dataset: xr.Dataset) -> list[Row]:
    """A row for each measure of one network."""
    rows = []
    for at in each(dataset):
        value = float(at["value"])
        why = "not measured" if math.isnan(value) else "" if value > 0 else f"not above 0: {number(value, 2)}"
        rows.append(Row(title_of(at), invariant(at), is_bound(at), (Ratio(value, bounds(at)),), (why,)))
    return rows


def ratios(datasets: Sequence[xr.Dataset]) -> list[Row]:
    """A row for each measure: by how many times each other network is sharper than the first."""
    rows = []
    for first, *others in zip(*map(each, datasets), strict=True):
        found = tuple(sharper_by(other, first) for other in others)
        why = tuple(_why(r, first, other) for r, other in zip(found, others, strict=True))
        bound = any(map(is_bound, (first, *others)))
        rows.append(Row(title_of(first) + "\u00a0(≥)" * bound, invariant(first), False, found, why))
    return rows


def _why(found: Ratio, *pair: xr.Dataset) -> str:
    if 0 < found.value < math.inf:
        return ""
    return "not measured" if any(math.isnan(float(at["value"])) for at in pair) else "not above 0"


def _with_headings(rows: Sequence[Row]) -> Iterator[Row]:
    for unchanged, several in groupby(rows, key=lambda row: row.invariant):
        yield Row(UNCHANGED if unchanged else CHANGED, unchanged)
        yield from several


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """What holds all values, and their intervals as far as these do not run away."""
    shown = [r for row in rows for r, why in zip(row.found, row.why, strict=True) if not why]
    lows = [max(np.nan_to_num(r.interval[0], nan=r.value), r.value / REACH) for r in shown]
    highs = [min(np.nan_to_num(r.interval[1], nan=r.value, posinf=math.inf), r.value * REACH) for r in shown]
    low, high = min(lows, default=0.5), max(highs, default=2.0)
    margin = max((high / low) ** 0.05, 1.1)
    return low / margin, high * margin


def _rows(axes: Axes, rows: Sequence[Row], first: int) -> None:
    """From the top down, in inches: headings and measures."""
    ends = np.cumsum([row.height for row in rows])
    places = [float(end) - row.height / 2 for end, row in zip(ends, rows, strict=True)]
    for row, at in zip(rows, places, strict=True):
        if not row.found:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            _words(axes, at, row.name, style="italic", size=mpl.rcParams["ytick.labelsize"], bbox=box)
        for k, (found, why) in enumerate(zip(row.found, row.why, strict=True)):
            apart = at + (k - (len(row.found) - 1) / 2) * min(0.4, 1 / len(row.found)) * ROW
            if why:
                _words(axes, apart, why, color=GREY, size="small")
            else:
                _number(axes, row, found, apart, k + first)
    named = [(at, "\n".join(row.lines)) for row, at in zip(rows, places, strict=True) if row.found]
    axes.set_yticks([at for at, _ in named], [name for _, name in named])
    axes.set_ylim(float(ends[-1]) + ROW / 4, 0)
    axes.tick_params(axis="y", length=0)


def _words(axes: Axes, at: float, words: str, **look: Any) -> None:
    axes.text(0.015, at, words, transform=axes.get_yaxis_transform(), va="center_baseline", **look)


def _number(axes: Axes, row: Row, found: Ratio, at: float, k: int) -> None:
    """A marker with its interval; one that leaves the axis ends in a caret, and a lower bound in an arrow."""
    low, high = np.clip(np.nan_to_num(found.interval, nan=found.value, posinf=math.inf), *axes.get_xlim())
    axes.plot([low, high], [at, at], color=_colour(k), linewidth=1)
    look: dict[str, Any] = {"color": _colour(k), "markerfacecolor": _colour(k) if row.invariant else "white"}
    axes.plot(found.value, at, _marker(k), markersize=4, zorder=3, **look)
    for end, caret in ((0, "<"), (1, ">")):
        if (low, high)[end] == axes.get_xlim()[end]:
            axes.plot(axes.get_xlim()[end], at, caret, color=_colour(k), markersize=3, clip_on=False)
    if row.bound:
        arrow = {"arrowstyle": "<-", "color": _colour(k), "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (high, at), (14, 0), textcoords="offset points", arrowprops=arrow)


def _axis(axes: Axes, datasets: Sequence[xr.Dataset]) -> None:
    """Its label, a line at 1 where ratios are drawn, few ticks."""
    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    subs = (1, 2, 5) if decades < 1.5 else (1, 3) if decades < 2.5 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=5))
    if decades < 4:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if len(datasets) == 1:
        axes.set_xlabel("value, with its 95 % interval")
        return
    names = labels(datasets)
    axes.axvline(1, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    other = names[1] if len(names) == 2 else "each network"
    axes.set_xlabel(f"sharpness, {other} / {names[0]}", loc="right")


def _narrow() -> bool:
    return (asked_width() or WIDTH) < WIDTH - 1


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _marker(k: int) -> str:
    return MARKERS[k % len(MARKERS)]
