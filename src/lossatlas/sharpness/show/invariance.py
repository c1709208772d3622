"""How far measures of sharpness move with other weights of one function: figure, captions, tables, numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from lossatlas.drawing.style import VERMILLION, WIDTH, asked_width, sized, styled
from lossatlas.results.blocks import FigureGroup, Number, Picture, Table
from lossatlas.results.captions import basis, sentence, sentences
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import DASH, number, with_interval
from lossatlas.sharpness.show.invariance_claims import changes, largest_change, unmoved

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray
    from lossatlas.results.catalogue import Catalogue

TICK, UNKNOWN = "✓", "#EEEEEE"
MAP = "PuOr_r"  # diverging, told apart with any colour vision and in grey by its ends
DARK = 0.6  # of the colour's half range: from there on text is white
SIZE = 7.0  # of text, in points
ROW, LABELS = 0.19, 0.95  # inches: of a row, and below and above them
EXACT = 1e-3
PITFALL = "A measure that these draws leave as it is may move under another reparametrisation."


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each network and data set."""
    for dataset in datasets:
        picture = Picture(
            "invariance",
            partial(invariance, dataset),
            caption(dataset),
            how=how(dataset),
            pitfall=PITFALL,
            method=method(dataset),
            alt=alt(dataset),
        )
        yield FigureGroup((dataset,), (picture,), (table(dataset), reparametrisations(dataset)))


def caption(dataset: xr.Dataset) -> str:
    wrong = " Framed: theory says it stays." if bool(_contradicts(dataset).any()) else ""
    return (
        f"Measures of sharpness of {Provenance.of(dataset).who} after a reparametrisation, divided by those before; a "
        f"tick where they stay to 0.001, in parentheses where 1 is within the error.{wrong} All columns but the logit "
        "scale keep the function."
    )


def how(dataset: xr.Dataset) -> str:
    """Which draws, on which data."""
    draws = int(dataset.attrs["draws"])
    each = "One random reparametrisation of each kind" if draws == 1 else f"The furthest of {draws} random draws each"
    return f"{each}, on {Provenance.of(dataset).data_label}, with the same random numbers before and after."


def method(dataset: xr.Dataset) -> tuple[str, ...]:
    """Factors, verification, tolerance, cost, and what was left out."""
    absent = [f"{name}: {reason}" for name, there, reason in _told(dataset) if not there]
    return sentences(
        "Layers are rescaled by 10 or 1/10, units by exp N(0, 1), logits by 2.",
        f"The outputs in {dataset.attrs['dtype']} stay to {number(float(dataset['deviation'].max()), 2)} relative.",
        f"Not available for this network: {'; '.join(absent)}." if absent else "",
        sentence([dataset], "tol", "Relative error allowed to what is solved or drawn: {}."),
        sentence([dataset], "seed", "Seed of the noise and the reparametrisations: {}."),
        sentence([dataset], "passes", "All together took {} gradient passes.", lambda n: number(float(n), 3)),
        *basis([dataset]),
    )


def _told(dataset: xr.Dataset) -> list[tuple[str, bool, str]]:
    columns = (dataset[key].to_numpy() for key in ("reparametrisation", "available", "left_out"))
    return [(str(name), bool(there), str(reason)) for name, there, reason in zip(*columns, strict=True)]


def alt(dataset: xr.Dataset) -> str:
    """The finding in words."""
    largest = largest_change(dataset)
    if largest is None:
        return "No measure is known before and after a reparametrisation."
    count = len({change.title for change in changes(dataset)})
    return (
        f"{len(unmoved(dataset))} of {count} measures stay as they are; {largest.title} changes most, to "
        f"{number(largest.ratio, 3)} times its value under {largest.reparametrisation}."
    )


def table(dataset: xr.Dataset) -> Table:
    """The value before and every ratio, with its interval where it has one."""
    shown = _shown(dataset)
    rows = [
        (
            str(at["title"].item()),
            number(float(at["before"])),
            *(_ratio(at.sel(reparametrisation=name)) for name in _names(shown)),
        )
        for at in (shown.sel(measure=name) for name in shown["measure"].to_numpy())
    ]
    return Table(
        f"Measures of sharpness of {Provenance.of(dataset).who} after each reparametrisation, divided by those before, "
        "with the interval of solvers and draws.",
        ("measure", "before", *_names(shown)),
        tuple(rows),
    )


def _ratio(at: xr.Dataset) -> str:
    value, bounds = float(at["ratio"]), (float(at["ratio_low"]), float(at["ratio_high"]))
    if abs(value - 1) <= EXACT or bounds[1] - bounds[0] < EXACT * abs(value):
        return f"{value:.3f}" if abs(value - 1) <= EXACT else number(value, 3)
    return with_interval(value, bounds)


def reparametrisations(dataset: xr.Dataset) -> Table:
    """What each reparametrisation changed, whether it kept the function, and what was left out."""
    rows = []
    for k, (name, there, reason) in enumerate(_told(dataset)):
        count = len(str(dataset["groups"].to_numpy()[k]).split(", ")) if there else 0
        deviation = number(float(dataset["deviation"][k]), 2)
        rows.append((name, str(count) if there else DASH, deviation, reason or "none"))
    return Table(
        "Reparametrisations: how many groups of units were changed, how far the outputs deviate, what was left out.",
        ("reparametrisation", "groups", "deviation", "left out"),
        tuple(rows),
        widths=(0.2, 0.1, 0.15, 0.55),
    )


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """How many measures are properties of the function, and the largest change."""
    largest, who = largest_change(dataset), Provenance.of(dataset).subject
    if largest is not None:
        count = len({change.title for change in changes(dataset)})
        yield Number("measures that other weights leave as they are", f"{len(unmoved(dataset))} of {count}", who)
        yield Number("largest change of a measure, same function", f"× {number(largest.factor, 3)}", who)


@styled
def invariance(dataset: xr.Dataset) -> Figure:
    """A row a measure, a column a reparametrisation: the ratio as a colour, log10, and as text.

    In a column of a paper the numbers leave no room for a colour bar, which they replace.
    """
    shown = _shown(dataset)
    ratios = shown["ratio"].transpose("measure", "reparametrisation").to_numpy().astype(float)
    narrow = asked_width() is not None and float(asked_width() or WIDTH) < WIDTH / 1.4
    figure = sized(WIDTH, LABELS + 0.3 + ROW * len(ratios))
    figure.set_figheight(LABELS + 0.3 + ROW * len(ratios))
    axes = figure.subplots()
    colours = _logarithms(ratios)
    reach = max(1.0, float(np.nanmax(np.abs(colours), initial=0.0)))
    axes.set_facecolor(UNKNOWN)
    drawn = axes.imshow(colours, cmap=MAP, norm=Normalize(-reach, reach), aspect="auto", interpolation="nearest")
    _text(axes, shown, ratios, colours / reach)
    _labels(axes, shown, narrow)
    if not narrow:
        bar = figure.colorbar(drawn, ax=axes, orientation="vertical", fraction=0.04, pad=0.02, aspect=30)
        bar.set_label(r"$\log_{10}$ (after / before)")
    return figure


def _text(axes: Axes, shown: xr.Dataset, ratios: FloatArray, share: FloatArray) -> None:
    moved, wrong = shown["moved"].to_numpy(), _contradicts(shown).to_numpy()
    for (row, column), value in np.ndenumerate(ratios):
        colour = "white" if abs(share[row, column]) > DARK else "black"
        word = _word(value, bool(moved[row, column]))
        axes.text(column, row, word, ha="center", va="center", fontsize=SIZE, color=colour)
        if wrong[row, column]:
            axes.add_patch(
                Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor=VERMILLION, linewidth=1.5)
            )


def _word(value: float, moved: bool) -> str:
    if math.isnan(value):
        return DASH
    if abs(value - 1) <= EXACT:
        return TICK
    if value and not 0.01 <= abs(value) < 1000:
        mantissa, exponent = f"{value:.0e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    else:
        text = number(value, 3 if abs(value - 1) < 0.05 else 2)
    return text if moved else f"({text})"


def _labels(axes: Axes, shown: xr.Dataset, narrow: bool) -> None:
    """Measures on the left, reparametrisations above, where a column is read from."""
    size = SIZE if narrow else 7.5
    names = [str(title) for title in shown["title"].to_numpy()]
    axes.set_yticks(range(len(names)), [textwrap.fill(n, 24) if narrow else n for n in names], fontsize=size)
    columns = [name.replace(" ", "\n", 1) for name in _names(shown)]
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), columns, fontsize=size, rotation=90 if narrow else 0)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="minor", length=0)


def _shown(dataset: xr.Dataset) -> xr.Dataset:
    """Without measures of which nothing is known, and reparametrisations that the network does not have."""
    rows = dataset["ratio"].notnull().any("reparametrisation")
    found = dataset.sel(measure=rows.to_numpy()) if bool(rows.any()) else dataset
    there = dataset["available"].to_numpy().astype(bool)
    return found.sel(reparametrisation=there) if there.any() else found


def _names(shown: xr.Dataset) -> list[str]:
    return [str(name) for name in shown["reparametrisation"].to_numpy()]


def _contradicts(dataset: xr.Dataset) -> xr.DataArray:
    return dataset["moved"].astype(bool) & (dataset["expected"] == 1)


def _logarithms(ratios: FloatArray) -> FloatArray:
    """log10 of the ratios, those of 0 as the smallest of the others; NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(ratios >= 0, np.log10(ratios), np.nan)
    finite = found[np.isfinite(found)]
    lowest = min(float(finite.min()), -1.0) if finite.size else -1.0
    return np.where(found == -np.inf, lowest, found)
