"""Volumes as static figures: three slices at right angles through the center."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.contours import loss_bar, loss_panel, quadratic_handles
from lossatlas.drawing.grids import SYMBOLS, axes_of, colour_scale, grid, missing_note
from lossatlas.drawing.style import legend_over, panels, styled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


@styled
def volume(dataset: xr.Dataset) -> Figure:
    """The three slices through the middle of a volume, on one colour scale; each title says where it lies.

    The middle of an axis is its coordinate nearest to 0, the center, and half-way along an axis that
    does not reach 0. Dashed: the quadratic model, where the Dataset has one.
    """
    slices = middle_slices(dataset)
    logarithmic, levels = colour_scale(*(grid(each)[2] for each in slices))
    figure, axes = panels(3, height=2.35 if "quadratic" in dataset else 2.1)
    for panel, each in zip(axes, slices, strict=True):
        filled = loss_panel(panel, each, logarithmic, levels, labels=6, lines=5)
        (fixed,) = set(axes_of(dataset)) - set(axes_of(each))
        panel.set_title(f"{SYMBOLS[fixed]} = {float(each[fixed]):.3g}")
        panel.tick_params(labelsize=7)
    loss_bar(figure, filled, axes[-1], logarithmic)
    figure.supxlabel("\n".join(missing_note(dataset)), fontsize=8)
    if "quadratic" in dataset:
        handles = quadratic_handles()
        legend_over(figure, handles, [str(handle.get_label()) for handle in handles], 2)
    return figure


def middle_slices(dataset: xr.Dataset) -> list[xr.Dataset]:
    """The slices across gamma, beta and alpha, in this order; the coordinate of each stays as a scalar."""
    return [dataset.isel({name: _middle(dataset, name)}) for name in reversed(axes_of(dataset))]


def _middle(dataset: xr.Dataset, name: str) -> int:
    coordinates = dataset[name].to_numpy()
    reaches = coordinates.min() <= 0 <= coordinates.max()
    return int(np.abs(coordinates).argmin()) if reaches else len(coordinates) // 2
