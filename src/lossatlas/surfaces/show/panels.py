"""Loss surfaces as panels of the figure that sums up a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.drawing.axes import log_if_wide, values
from lossatlas.drawing.contours import loss_panel
from lossatlas.drawing.grids import axes_of, colour_scale, grid, is_polar, mesh, over_planes, shown
from lossatlas.drawing.scales import apply_scale
from lossatlas.drawing.style import COLOURS
from lossatlas.results.blocks import Panel
from lossatlas.surfaces.show.grouping import most_telling, places
from lossatlas.surfaces.show.volumes import middle_slices

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from lossatlas.drawing.style import FloatArray
    from lossatlas.results.catalogue import Catalogue

MOST = 2  # networks that have a panel


def panels(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Panel]:
    """The surfaces of the first two networks on one colour scale; a line of each where they have no plane."""
    chosen = most_telling(datasets)[:MOST]
    names = places(chosen) if chosen else []
    if chosen and len(axes_of(chosen[0])) == 1:
        yield Panel("Loss along a line", partial(draw_lines, chosen, names))
        return
    pictures = [_flat(dataset) for dataset in chosen]
    scale = colour_scale(*(grid(picture)[2] for picture in pictures)) if pictures else (False, np.zeros(0))
    for picture, name in zip(pictures, names, strict=True):
        yield Panel(f"Loss around {name}", partial(draw_plane, picture, *scale))


def _flat(dataset: xr.Dataset) -> xr.Dataset:
    """A plane: of several their mean, of a volume the slice through its middle."""
    return middle_slices(dataset)[0] if len(axes_of(dataset)) == 3 else over_planes(dataset)


def draw_plane(picture: xr.Dataset, logarithmic: bool, levels: FloatArray, axes: Axes) -> None:
    """Contours with the loss written on a few lines. Polar surfaces are drawn on a plain pair of axes."""
    if is_polar(picture):
        x, y, loss = mesh(picture)
        filled = axes.contourf(x, y, np.ma.masked_invalid(shown(loss, logarithmic)), levels=levels)
        filled.set_edgecolor("face")
        axes.set(xlabel=r"radius $\times$ cos(angle)", ylabel=r"radius $\times$ sin(angle)", aspect="equal")
        return
    loss_panel(axes, picture, logarithmic, levels, labels=5.5, lines=5)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "linear":
            axis.set_major_locator(MaxNLocator(2))


def draw_lines(datasets: Sequence[xr.Dataset], names: Sequence[str], axes: Axes) -> None:
    """The loss along a line for each network; of several directions their mean."""
    for k, (dataset, name) in enumerate(zip(datasets, names, strict=True)):
        loss = over_planes(dataset)["loss"].to_numpy().astype(float)
        label = name if len(names) > 1 else None
        axes.plot(values(dataset, "alpha"), loss, color=COLOURS[k], linestyle=("-", "--")[k % 2], label=label)
    axes.set(xlabel=r"$\alpha$", ylabel="loss")
    apply_scale(axes, "x", values(datasets[0], "alpha"))
    log_if_wide(axes, *(np.asarray(line.get_ydata(), float) for line in axes.lines))
    if len(names) > 1:
        axes.legend(fontsize=6, loc="best")
