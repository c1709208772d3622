"""One-dimensional slices: the loss along a direction, or along several at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lossatlas.drawing.axes import log_if_wide, loss_and_accuracy, values
from lossatlas.drawing.scales import apply_scale
from lossatlas.drawing.style import COLOURS, GREY, band, legend_over, styled
from lossatlas.surfaces.show.error_maps import draw_evaluations, evaluation_handles, evaluations

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def line(*datasets: xr.Dataset) -> Figure:
    """Loss (and accuracy) along one direction, with a band of one standard error; one slice or several.

    Dashed: the quadratic model, where a Dataset has one. Points: where an interpolated slice was evaluated. Several
    directions in one Dataset are drawn thin, with their mean and a band of one standard deviation.
    """
    figure, axes = loss_and_accuracy(datasets, _slice, height=2.6)
    for panel in axes:
        panel.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
        panel.set_xlabel(r"$\alpha$ (multiples of the direction)")
        if apply_scale(panel, "x", values(datasets[0], "alpha")).kind == "linear":
            panel.locator_params(axis="x", nbins=5)
    log_if_wide(axes[0], *(values(d, "loss") for d in datasets))
    for k, dataset in enumerate(datasets):
        _model_and_points(axes[0], dataset, k)
    _legend(figure, axes[0], datasets, columns=1 + len(axes))
    return figure


def _legend(figure: Figure, axes: Axes, datasets: Sequence[xr.Dataset], columns: int) -> None:
    """The curves, and of a single interpolated slice the marks of its evaluated points."""
    handles, names = axes.get_legend_handles_labels()
    marks = evaluation_handles(datasets[0]) if len(datasets) == 1 else []
    names = [*names, *(str(mark.get_label()) for mark in marks)]
    legend_over(figure, [*handles, *marks], names, columns)


def _slice(axes: Axes, dataset: xr.Dataset, name: str, k: int, label: str) -> None:
    colour, alpha = COLOURS[k % len(COLOURS)], values(dataset, "alpha")
    look: dict[str, Any] = {"color": colour, "linestyle": "-" if k % 2 == 0 else "--"}
    if "plane" not in dataset[name].dims:
        band(axes, alpha, dataset, name, colour, label=label, linestyle=look["linestyle"])
        return
    each = dataset[name].transpose("alpha", "plane").to_numpy().astype(float)
    axes.plot(alpha, each, color=colour, alpha=0.35, linewidth=0.6, zorder=1)
    mean, spread = each.mean(axis=1), each.std(axis=1, ddof=min(1, each.shape[1] - 1))
    if name == "loss":
        mean, spread = values(dataset, "loss_mean"), values(dataset, "loss_spread")
    named = f"{label}, mean of {each.shape[1]} directions ± one standard deviation"
    axes.plot(alpha, mean, label=named, zorder=3, **look)
    axes.fill_between(alpha, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)


def _model_and_points(axes: Axes, dataset: xr.Dataset, k: int) -> None:
    """The quadratic model, cut off where it leaves the range of the loss, and the evaluated points."""
    if "quadratic" in dataset:
        limits, model = axes.get_ylim(), values(dataset, "quadratic")
        drawn = np.where(model > 0, model, np.nan) if axes.get_yscale() == "log" else model
        name = "quadratic model" if k == 0 else None
        axes.plot(values(dataset, "alpha"), drawn, color=GREY, linestyle="dashed", linewidth=1.1, label=name)
        axes.set_ylim(limits)
    if "plane" not in dataset["loss"].dims:
        draw_evaluations(axes, evaluations(dataset), node=5)
