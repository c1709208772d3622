"""Profiles of the loss and the error between two networks: one path with its barrier, or several on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show.captions import bounds, has_interval, height, path, short_names
from lossatlas.drawing.axes import log_if_wide, values
from lossatlas.drawing.style import COLOURS, PATH_COLOURS, band, legend_above, panels, path_colours, styled
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import Z95

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray

T_AXIS = r"$t$  (0: first network, 1: second network)"
LABELS = {"loss": "loss", "error": "error (1 − accuracy)"}
NAMES = {"loss": ("barrier", "t_max"), "error": ("barrier_error", "t_max_error")}
LINES = ("-", "--", ":", "-.")


@styled
def barrier(*datasets: xr.Dataset) -> Figure:
    """Loss and error on the path between two networks, with 95 % bands, and the barrier's height (an arrow).

    Dashed: what the Dataset's own definition measures the height from. Bars across the arrow's tip: the interval of
    the height, and that of its place, where they are known.
    """
    figure, axes = _panels(datasets, 3.0)
    for k, (dataset, label) in enumerate(zip(datasets, _names(datasets), strict=True)):
        colour = COLOURS[k % len(COLOURS)]
        for quantity, panel in axes.items():
            if quantity in dataset:
                entry = f"{label}: barrier {height(dataset, 'barrier')}" if quantity == "loss" else label
                _profile(panel, dataset, quantity, colour, entry)
    longest = max(len(label) for label in axes["loss"].get_legend_handles_labels()[1])
    legend_above(figure, axes["loss"], columns=2 if longest < 45 else 1)
    return figure


def _panels(datasets: Sequence[xr.Dataset], tall: float) -> tuple[Figure, dict[str, Axes]]:
    """A panel for the loss, and one for the error where some Dataset has it."""
    quantities = ["loss", *(["error"] if any("error" in dataset for dataset in datasets) else [])]
    figure, axes = panels(len(quantities), height=tall, width=6.3 if len(quantities) > 1 else 4.2)
    for panel, quantity in zip(axes, quantities, strict=True):
        panel.set(xlabel=T_AXIS, ylabel=LABELS[quantity], xlim=(0, 1))
    return figure, dict(zip(quantities, axes, strict=True))


def _names(datasets: Sequence[xr.Dataset]) -> list[str]:
    """The data of each; with the path where the Datasets are of several."""
    data = [Provenance.of(dataset).short_data for dataset in datasets]
    if len(set(map(path, datasets))) == 1:
        return data
    return [f"{path(dataset)}, {name}" for dataset, name in zip(datasets, data, strict=True)]


def _profile(axes: Axes, dataset: xr.Dataset, quantity: str, colour: str, label: str) -> None:
    t, y = values(dataset, "t"), values(dataset, quantity)
    band(axes, t, dataset, quantity, colour, errors_wide=Z95, label=label)
    base = reference(dataset, t, y)
    axes.plot(t, base, color=colour, linestyle="--", linewidth=0.8)
    name, where = NAMES[quantity]
    if not np.isfinite(dataset[name]):
        return
    top, rise = float(dataset[where]), float(dataset[name])
    foot = float(np.interp(top, t, base))
    style = "<-" if has_interval(dataset, name) else "<->"  # an interval takes the place of the tip
    arrow = {"arrowstyle": style, "color": colour, "shrinkA": 0, "shrinkB": 0, "linewidth": 0.8}
    axes.annotate("", xy=(top, foot + rise), xytext=(top, foot), arrowprops=arrow)
    _interval(axes, (top, foot + rise), bounds(dataset, where), [foot + end for end in bounds(dataset, name)], colour)


def reference(dataset: xr.Dataset, t: FloatArray, y: FloatArray) -> FloatArray:
    """What the height is measured from: the line between the ends (Entezari), their mean (Frankle), the worse."""
    if dataset.attrs["definition"] == "frankle":
        return np.full(len(t), (y[0] + y[-1]) / 2)
    if dataset.attrs["definition"] == "draxler":
        return np.full(len(t), max(y[0], y[-1]))
    return np.asarray((1 - t) * y[0] + t * y[-1], dtype=float)


def _interval(axes: Axes, at: tuple[float, float], across: Sequence[float], up: Sequence[float], colour: str) -> None:
    """Bars from the low to the high end of the place and of the height, through the tip of the arrow."""
    for bar, x, y in ((across, across, [at[1]] * 2), (up, [at[0]] * 2, up)):
        if np.isfinite(bar).all():
            axes.plot(x, y, "|" if bar is across else "_", color=colour, markersize=4.5, linestyle="-", linewidth=1.4)


@styled
def paths(*datasets: xr.Dataset) -> Figure:
    """Loss and error over t on several paths between the same two networks, with 95 % bands.

    The colour tells the path, the kind of line the data; a dot marks each maximum. The legends give the height of each
    barrier by the Datasets' definition with its 95 % interval. The loss is drawn on a logarithmic axis where it spans
    more than a factor 8.
    """
    ordered = by_path(datasets)
    figure, axes = _panels(datasets, 2.9 + 0.13 * len(datasets))
    colours, lines = path_colours(map(path, ordered)), _line_styles(ordered)
    for dataset, data in zip(ordered, short_names(ordered), strict=True):
        named = ", ".join([path(dataset), *([data] if len(lines) > 1 else [])])
        look = {"colour": colours[path(dataset)], "linestyle": lines[Provenance.of(dataset).short_data]}
        for quantity, panel in axes.items():
            if quantity in dataset:
                _path(panel, dataset, quantity, named if quantity == "loss" else "", **look)
    for quantity, panel in axes.items():
        known = any(has_interval(dataset, NAMES[quantity][0]) for dataset in datasets)
        _heights_above(panel, f"barrier of the {quantity} {'[95 % interval]' if known else '± standard error'}")
    log_if_wide(axes["loss"], *(values(dataset, "loss") for dataset in datasets), ratio=8)
    return figure


def by_path(datasets: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Each path with all its data together: the straight line first, the usual ones, then as they were given."""
    order = list(dict.fromkeys([*PATH_COLOURS, *map(path, datasets)]))
    return sorted(datasets, key=lambda dataset: order.index(path(dataset)))


def _line_styles(datasets: Sequence[xr.Dataset]) -> dict[str, str]:
    """A kind of line for each data set: solid for test data, dashed for training data, as in a training history."""
    once = dict.fromkeys(Provenance.of(dataset).short_data for dataset in datasets)
    names = sorted(once, key=lambda name: "train" in name)
    first = 1 if "train" in names[0] else 0
    return {name: LINES[(first + k) % len(LINES)] for k, name in enumerate(names)}


def _path(axes: Axes, dataset: xr.Dataset, quantity: str, named: str, colour: str, linestyle: str) -> None:
    name, where = NAMES[quantity]
    t, top = values(dataset, "t"), float(dataset[where])
    label = ": ".join(part for part in (named, height(dataset, name)) if part)
    band(axes, t, dataset, quantity, colour, errors_wide=Z95, label=label, linestyle=linestyle)
    if np.isfinite(top):
        axes.plot(top, np.interp(top, t, values(dataset, quantity)), "o", color=colour, markersize=3)


def _heights_above(axes: Axes, title: str) -> None:
    """A legend of one column above a panel; its rows are in the order of the other panel's."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        borderaxespad=0.2,
        title=title,
        fontsize=7,
        title_fontsize=8,
        alignment="left",
        handlelength=1.8,
        labelspacing=0.35,
    )
