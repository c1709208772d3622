"""Profiles of the loss and the error between two networks: one way with its barrier, or several on one axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import log_if_wide, values
from lossatlas.drawing.style import BLUE, COLOURS, GREEN, VERMILLION, band, legend_above, panels, short_data, styled
from lossatlas.results.uncertainty import Z95, plus_minus, with_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray

T_AXIS = r"$t$  (0: first network, 1: second network)"
ERROR = "error (1 − accuracy)"
LINES = ("-", "--", ":", "-.")


@styled
def barrier(*datasets: xr.Dataset) -> Figure:
    """Loss and error on the way between two networks, with 95 % bands, and the barrier's height (an arrow).

    Dashed: what the Dataset's own definition measures the height from. Bars across the arrow's tip: the interval of
    the height, and that of its place, where the Dataset has them.
    """
    has_error = any("accuracy" in d for d in datasets)
    figure, axes = panels(1 + has_error, height=3.0, width=6.3 if has_error else 4.2)
    for dataset, label, colour in zip(datasets, _names(datasets), _cycle(len(datasets)), strict=True):
        said = label
        if "barrier" in dataset:
            said = f"{label}: barrier {height(dataset, 'barrier')}"
        _profile(axes[0], dataset, "", colour, said)
        if "accuracy" in dataset:
            _profile(axes[1], with_error(dataset), "_error", colour, label)
    for panel, name in zip(axes, ("loss", ERROR), strict=False):
        panel.set(xlabel=T_AXIS, ylabel=name, xlim=(0, 1))
    longest = max((len(label) for label in axes[0].get_legend_handles_labels()[1]), default=0)
    legend_above(figure, axes[0], columns=2 if longest < 45 else 1)
    return figure


def _cycle(n: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(n)]


def _names(datasets: Sequence[xr.Dataset]) -> list[str]:
    """The data of each; with the way where the Datasets are of several."""
    named = [way(dataset) for dataset in datasets]
    if len(set(named)) == 1:
        return [short_data(dataset) for dataset in datasets]
    return [f"{name}, {short_data(dataset)}" for name, dataset in zip(named, datasets, strict=True)]


def with_error(dataset: xr.Dataset) -> xr.Dataset:
    """With `error` = 1 - accuracy, and its standard error, where they are not there yet."""
    found = dataset.assign(error=1 - dataset["accuracy"]) if "error" not in dataset else dataset
    if "accuracy_stderr" in dataset and "error_stderr" not in dataset:
        found = found.assign(error_stderr=dataset["accuracy_stderr"])
    return found


def way(dataset: xr.Dataset) -> str:
    """What the path is called: "line", "line after alignment", "Bezier curve"."""
    curve = str(dataset.attrs.get("curve", "Segment"))
    usual = {"Segment": "line", "Bezier": "Bezier curve", "PolygonalChain": "polygonal chain"}
    return str(dataset.attrs.get("way") or usual.get(curve, curve))


def bounds(dataset: xr.Dataset, name: str) -> tuple[float, float]:
    """The 95 % interval of a number where it has one; NaN otherwise."""
    if f"{name}_low" not in dataset or f"{name}_high" not in dataset:
        return np.nan, np.nan
    return float(dataset[f"{name}_low"]), float(dataset[f"{name}_high"])


def height(dataset: xr.Dataset, name: str) -> str:
    """A height with its 95 % interval, else ± one standard error: "1.520 [1.504, 1.536]"."""
    if np.isfinite(bounds(dataset, name)).all():
        return with_interval(float(dataset[name]), bounds(dataset, name))
    stderr = float(dataset[f"{name}_stderr"]) if f"{name}_stderr" in dataset else None
    return plus_minus(float(dataset[name]), stderr)


def _profile(axes: Axes, dataset: xr.Dataset, suffix: str, colour: str, label: str) -> None:
    quantity = "error" if suffix else "loss"
    t, y = values(dataset, "t"), values(dataset, quantity)
    band(axes, t, dataset, quantity, colour, errors_wide=Z95, label=label)
    base = reference(dataset, t, y)
    axes.plot(t, base, color=colour, linestyle="--", linewidth=0.8)
    name, where = f"barrier{suffix}", f"t_max{suffix}"
    if name not in dataset or where not in dataset or not np.isfinite(dataset[name]):
        return
    top, rise = float(dataset[where]), float(dataset[name])
    foot = float(np.interp(top, t, base))
    style = "<-" if np.isfinite(bounds(dataset, name)).all() else "<->"  # an interval takes the place of the tip
    arrow = {"arrowstyle": style, "color": colour, "shrinkA": 0, "shrinkB": 0, "linewidth": 0.8}
    axes.annotate("", xy=(top, foot + rise), xytext=(top, foot), arrowprops=arrow)
    _interval(axes, (top, foot + rise), bounds(dataset, where), [foot + end for end in bounds(dataset, name)], colour)


def reference(dataset: xr.Dataset, t: FloatArray, y: FloatArray) -> FloatArray:
    """What the height is measured from: the line between the ends (Entezari), their mean (Frankle), the worse."""
    definition = dataset.attrs.get("definition", "entezari")
    if definition == "frankle":
        return np.full(len(t), (y[0] + y[-1]) / 2)
    if definition == "draxler":
        return np.full(len(t), max(y[0], y[-1]))
    return np.asarray((1 - t) * y[0] + t * y[-1], dtype=float)


def _interval(axes: Axes, at: tuple[float, float], across: Sequence[float], up: Sequence[float], colour: str) -> None:
    """Bars from the low to the high end of the place and of the height, through the tip of the arrow."""
    for bar, x, y in ((across, across, [at[1]] * 2), (up, [at[0]] * 2, up)):
        if np.isfinite(bar).all():
            axes.plot(x, y, "|" if bar is across else "_", color=colour, markersize=4.5, linestyle="-", linewidth=1.4)


@styled
def ways(*datasets: xr.Dataset) -> Figure:
    """Loss and error over t on several ways between the same two networks, with 95 % bands.

    The colour tells the way, the kind of line the data; a dot marks each maximum. The legends give the height of each
    barrier by the Datasets' definition with its 95 % interval. The loss is drawn on a logarithmic axis where it spans
    more than a factor 8.
    """
    has_error = any("accuracy" in d for d in datasets)
    ordered = by_way(datasets)
    figure, axes = panels(1 + has_error, height=2.9 + 0.13 * len(datasets), width=6.3 if has_error else 4.2)
    colours, lines = way_colours(map(way, ordered)), _line_styles(ordered)
    for dataset, data in zip(ordered, split_names(ordered), strict=True):
        named = ", ".join([way(dataset), *([data] if len(lines) > 1 else [])])
        look = {"colour": colours[way(dataset)], "linestyle": lines[short_data(dataset)]}
        _way(axes[0], dataset, "", named, **look)
        if "accuracy" in dataset:
            _way(axes[1], with_error(dataset), "_error", "", **look)
    for panel, name in zip(axes, ("loss", "error"), strict=False):
        panel.set(xlabel=T_AXIS, ylabel="loss" if name == "loss" else ERROR, xlim=(0, 1))
        known = any(np.isfinite(bounds(d, "barrier" if name == "loss" else "barrier_error")).all() for d in datasets)
        _heights_above(panel, f"barrier of the {name} {'[95 % interval]' if known else '± standard error'}")
    log_if_wide(axes[0], *(values(dataset, "loss") for dataset in datasets), ratio=8)
    return figure


def by_way(datasets: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Each way with all its data together: the straight line first, then as they were given."""
    order = list(dict.fromkeys([*FIXED, *map(way, datasets)]))
    return sorted(datasets, key=lambda dataset: order.index(way(dataset)))


def _line_styles(datasets: Sequence[xr.Dataset]) -> dict[str, str]:
    """A kind of line for each data set: solid for test data, dashed for training data, as in a training history."""
    names = sorted(dict.fromkeys(map(short_data, datasets)), key=lambda name: "train" in name)
    first = 1 if "train" in names[0] else 0
    return {name: LINES[(first + k) % len(LINES)] for k, name in enumerate(names)}


def split_names(datasets: Sequence[xr.Dataset]) -> list[str]:
    """The data without the words that all have in common at their beginning: "train", "test"."""
    words = [short_data(dataset).split() for dataset in datasets]
    common = next((k for k, column in enumerate(zip(*words, strict=False)) if len(set(column)) > 1), 0)
    return [" ".join(each[common:] or each) for each in words]


def _way(axes: Axes, dataset: xr.Dataset, suffix: str, named: str, colour: str, linestyle: str) -> None:
    quantity, name, where = "error" if suffix else "loss", f"barrier{suffix}", f"t_max{suffix}"
    t = values(dataset, "t")
    said = [part for part in (named, height(dataset, name) if name in dataset else "") if part]
    label = ": ".join(said) or "not measured"
    band(axes, t, dataset, quantity, colour, errors_wide=Z95, label=label, linestyle=linestyle)
    if where in dataset and np.isfinite(dataset[where]):
        top = float(dataset[where])
        axes.plot(top, np.interp(top, t, values(dataset, quantity)), "o", color=colour, markersize=3)


def _heights_above(axes: Axes, title: str) -> None:
    """A legend of one column above a panel; its rows are in the order of the other panel's."""
    if axes.lines:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            borderaxespad=0.2,
            title=title,
            fontsize=6.8,
            title_fontsize=8,
            alignment="left",
            handlelength=1.8,
            labelspacing=0.35,
        )
