"""The barrier between runs that shared the first k steps of their training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import NullLocator

from lossatlas.drawing.axes import values
from lossatlas.drawing.style import BLUE, legend_above, panels, styled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray


@styled
def instability(dataset: xr.Dataset) -> Figure:
    """The barrier of the loss, and of the error, against the number k of steps that the two runs share.

    Dots: pairs of runs with their 95 % intervals; line: the mean over the pairs. Dashed: the height of the error below
    which Frankle et al. (2020) call the runs stable. The axis is logarithmic above the smallest positive k and linear
    below it, so that k = 0 has a place.
    """
    names = [name for name in ("barrier", "barrier_error") if name in dataset]
    figure, axes = panels(len(names), height=2.9, width=6.3 if len(names) > 1 else 4.2)
    for panel, name in zip(axes, names, strict=True):
        _pairs(panel, dataset, name)
        _k_axis(panel, values(dataset, "k"))
        of = f" of {int(dataset.attrs['total_steps']):,}" if "total_steps" in dataset.attrs else ""
        panel.set(xlabel=f"shared steps $k${of}", ylabel="barrier of the loss")
        if name == "barrier_error":
            panel.set_ylabel("barrier of the error (1 − accuracy)")
            limit = float(dataset.attrs.get("threshold", 0.02))
            panel.axhline(limit, color="black", linestyle="--", linewidth=0.9, label=f"stable below {100 * limit:g} %")
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
    legend_above(figure, axes[-1])
    return figure


def _pairs(axes: Axes, dataset: xr.Dataset, name: str) -> None:
    ordered = dataset.transpose("k", "pair").sortby("k")
    k, each = values(ordered, "k"), values(ordered, name)
    for pair in range(each.shape[1]):
        if f"{name}_low" in ordered and f"{name}_high" in ordered:
            low, high = (values(ordered, f"{name}_{end}")[:, pair] for end in ("low", "high"))
            axes.vlines(k, low, high, color=BLUE, linewidth=1.0, alpha=0.6)
        label = "a pair of runs, 95 % interval" if pair == 0 else None
        axes.plot(k, each[:, pair], "o", color=BLUE, markersize=3.5, alpha=0.6, label=label)
    if each.shape[1] > 1:
        axes.plot(k, each.mean(axis=1), color=BLUE, label=f"mean of {each.shape[1]} pairs")
    else:
        axes.plot(k, each[:, 0], color=BLUE)


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
