"""Filled contours of the loss on one pair of axes, the quadratic model over them, and the colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from lossatlas.drawing.grids import SYMBOLS, axes_of, grid, is_polar, line_levels, loss_ticks, shown
from lossatlas.drawing.overlays import draw_overlays, has_overlays
from lossatlas.drawing.scales import apply_scale
from lossatlas.drawing.style import GREY

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

    from lossatlas.drawing.style import FloatArray

QUADRATIC = "#FF7F50"  # seen on every colour of viridis
PALE = "#eeeeee"


def projection(dataset: xr.Dataset) -> str | None:
    """The `projection=` of the axes that show this surface."""
    return "polar" if is_polar(dataset) else None


def pale(name: str = "viridis") -> ListedColormap:
    """A colour map mixed with white, so that what is drawn over the contours stands out."""
    colours = colormaps[name](np.linspace(0.0, 1, 256))
    return ListedColormap(0.55 * colours + 0.45)


def loss_panel(
    axes: Axes, dataset: xr.Dataset, logarithmic: bool, levels: FloatArray, labels: float = 7, lines: int = 9
) -> QuadContourSet:
    """Contours of the loss, the quadratic model where there is one, the trained point, and the axes named.

    ``labels`` is the size of the numbers on the lines, 0 for none; there are at most so many ``lines``. Paths and
    marked points, where the Dataset has them, are drawn over pale contours instead of the trained point.
    """
    name_axes(axes, dataset)
    if has_overlays(dataset):
        filled = draw_contours(axes, dataset, logarithmic, levels, pale(), "#444444", labels, lines)
        draw_overlays(axes, dataset)
        return filled
    filled = draw_contours(axes, dataset, logarithmic, levels, labels=labels, lines=lines)
    if "quadratic" in dataset:
        draw_quadratic(axes, dataset, logarithmic, levels, lines)
    _mark_center(axes, dataset, size=9.0 if labels >= 7 else 5.0)
    return filled


def _mark_center(axes: Axes, dataset: xr.Dataset, size: float) -> None:
    """A cross at the region's center, where the axes reach it."""
    if all(dataset[name].min() <= 0 <= dataset[name].max() for name in axes_of(dataset)):
        axes.plot(0, 0, marker="+", color="white", markersize=size, markeredgewidth=0.18 * size)


def draw_contours(
    axes: Axes,
    dataset: xr.Dataset,
    logarithmic: bool,
    levels: FloatArray,
    cmap: str | Colormap = "viridis",
    lines_in: str = "white",
    labels: float = 7,
    lines: int = 9,
) -> QuadContourSet:
    """Filled contours with lines at round losses; cells that are not finite stay hatched."""
    across, up, loss = grid(dataset)
    drawn = shown(loss, logarithmic)
    filled = axes.contourf(across, up, np.ma.masked_invalid(drawn), levels=levels, cmap=cmap)
    filled.set_edgecolor("face")  # without it PDF viewers show white hairlines between the levels
    hatch_missing(axes, dataset)
    at = line_levels(drawn, logarithmic, levels, lines)
    if at:
        drawn_lines = axes.contour(
            across,
            up,
            np.ma.masked_invalid(drawn),
            levels=list(at),
            colors=lines_in,
            linewidths=0.7 if labels else 0.4,
            linestyles="solid",
        )
        if labels:
            axes.clabel(drawn_lines, fmt=at, fontsize=labels)
    return filled


def draw_quadratic(axes: Axes, dataset: xr.Dataset, logarithmic: bool, levels: FloatArray, lines: int = 9) -> None:
    """The quadratic model's contours, dashed, at the levels of the loss's own; none where it reaches none of them."""
    across, up, loss = grid(dataset)
    model = shown(grid(dataset, "quadratic")[2], logarithmic)
    at = list(line_levels(shown(loss, logarithmic), logarithmic, levels, lines))
    finite = model[np.isfinite(model)]
    if finite.size and any(finite.min() < level < finite.max() for level in at):
        axes.contour(
            across,
            up,
            np.ma.masked_invalid(model),
            levels=at,
            colors=QUADRATIC,
            linewidths=1.1,
            linestyles="dashed",
        )


def quadratic_handles() -> list[Line2D]:
    """Legend: which lines are the loss's and which the quadratic model's."""
    solid = Line2D([], [], color=GREY, linewidth=0.9, label="loss")
    return [solid, Line2D([], [], color=QUADRATIC, linewidth=1.2, linestyle="dashed", label="quadratic model")]


def hatch_missing(axes: Axes, dataset: xr.Dataset) -> None:
    """A hatched background, seen where cells of the loss are not finite; none where all are."""
    across, up, loss = grid(dataset)
    if np.isfinite(loss).all():
        return
    look: dict[str, Any] = {"facecolor": PALE, "edgecolor": GREY, "hatch": "////", "linewidth": 0}
    if is_polar(dataset):
        axes.patch.set(**look)
        return
    axes.add_patch(Rectangle((across[0], up[0]), across[-1] - across[0], up[-1] - up[0], zorder=0.5, **look))


def name_axes(axes: Axes, dataset: xr.Dataset) -> None:
    """Symbols, scales that fit the coordinates, and equal aspect where both are linear."""
    across, up = axes_of(dataset)
    axes.set(xlabel=SYMBOLS[across], ylabel=SYMBOLS[up])
    if is_polar(dataset):
        _name_polar(cast("PolarAxes", axes), dataset["radius"].to_numpy().astype(float))
        return
    scales = [apply_scale(axes, "x", grid(dataset)[0]), apply_scale(axes, "y", grid(dataset)[1])]
    if any(scale.kind != "linear" for scale in scales):
        axes.set_box_aspect(1)
        return
    axes.set_aspect("equal")
    _few_ticks(axes, *grid(dataset)[:2])


def _few_ticks(axes: Axes, across: FloatArray, up: FloatArray) -> None:
    """Five on an axis, two on one that is much shorter than the other: there more would run together."""
    ratio = float(np.ptp(across) / np.ptp(up))
    axes.locator_params(axis="x", nbins=5 if ratio > 0.4 else 2)
    axes.locator_params(axis="y", nbins=5 if ratio < 2.5 else 2)


def _name_polar(axes: PolarAxes, radius: FloatArray) -> None:
    """Radii written along a thin grid; the angle counts from the first direction towards the second."""
    axes.grid(True, color="white", linewidth=0.3, alpha=0.6)
    if apply_scale(axes, "y", radius).kind == "linear":
        axes.set_rlim(0, radius.max())
        axes.yaxis.set_major_locator(MaxNLocator(2, prune="lower"))
    axes.set_thetagrids(range(0, 360, 90))
    axes.set_rlabel_position(60)
    axes.tick_params(axis="x", pad=0)
    axes.tick_params(axis="y", labelsize=7)
    for label in axes.get_yticklabels():
        label.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    axes.yaxis.labelpad = 20
    axes.xaxis.labelpad = 2


def place_for_bar(axes: Axes) -> Axes:
    """Room for a colour bar at the side of a panel, as high as the panel is drawn, whatever its aspect."""
    return axes.inset_axes((1.15, 0.05, 0.045, 0.9) if axes.name == "polar" else (1.04, 0, 0.045, 1))


def loss_bar(figure: Figure, drawn: QuadContourSet, axes: Axes | Sequence[Axes], logarithmic: bool) -> None:
    """The colour bar of a loss surface, next to one panel or several; its cells have no white edges either."""
    where: dict[str, Any] = {"ax": axes, "pad": 0.02, "shrink": 0.9}
    if not isinstance(axes, Sequence):
        where = {"cax": place_for_bar(axes)}
    bar = figure.colorbar(drawn, **where)
    low, high = drawn.get_clim()
    at, losses = loss_ticks(logarithmic, low, high, _most_ticks(axes))
    bar.set_ticks(at, labels=losses)
    bar.set_label("loss")
    if bar.solids is not None:
        bar.solids.set_edgecolor("face")


def _most_ticks(axes: Axes | Sequence[Axes]) -> int:
    """Of a bar as high as the panel: few where that is much wider than high."""
    panel = axes[0] if isinstance(axes, Sequence) else axes
    flat = panel.get_aspect() == 1 and np.ptp(panel.get_ylim()) < 0.3 * np.ptp(panel.get_xlim())
    return 2 if flat and panel.name != "polar" else 7
