"""The figure of the training of a curve between two networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.drawing.axes import ABOVE, each_step, log_if_wide, values
from lossatlas.drawing.style import BLUE, COLOURS, MARKERS, ORANGE, errors, labels, legend_above, panels, styled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def connection(dataset: xr.Dataset) -> Figure:
    """The training of a curve between two networks: its mini-batch losses over the epochs, and over t.

    Left, faint: the loss of each mini-batch at its random t; line: the mean of each epoch. Right, where the t drawn
    were kept: the same losses against t, in the first epoch and in the last.
    """
    has_t = "t_drawn" in dataset
    figure, axes = panels(1 + has_t, height=2.8, width=6.3 if has_t else 4.2)
    each_step(axes[0], dataset, "loss", 0)
    epoch, means = values(dataset, "epoch"), values(dataset, "epoch_loss")
    axes[0].plot(epoch - 0.5, means, "o-", color=BLUE, markersize=3.5, label="mean of an epoch", zorder=3)
    axes[0].set(xlabel="epoch", ylabel="loss of a mini-batch on the curve")
    log_if_wide(axes[0], values(dataset, "loss"), ratio=8)
    axes[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[0].legend(**ABOVE)
    if has_t:
        _losses_over_t(axes[1], dataset)
    return figure


def _losses_over_t(axes: Axes, dataset: xr.Dataset) -> None:
    each = max(dataset.sizes["step"] // max(dataset.sizes["epoch"], 1), 1)
    drawn = [("first epoch", slice(0, each), ORANGE), ("last epoch", slice(-each, None), BLUE)]
    for name, steps, colour in drawn[-dataset.sizes["epoch"] :]:
        of_epoch = dataset.isel(step=steps)
        t, loss = values(of_epoch, "t_drawn"), values(of_epoch, "loss")
        axes.plot(
            t, loss, "o", color=colour, markersize=2 if each > 200 else 3.5, alpha=0.6, markeredgewidth=0, label=name
        )
    axes.set(xlabel=r"$t$  (0: first network, 1: second network)", ylabel="loss of a mini-batch", xlim=(0, 1))
    log_if_wide(axes, values(dataset, "loss"), ratio=8)
    axes.legend(**ABOVE, markerscale=2.5)
