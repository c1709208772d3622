"""The still picture of the planes through two networks: contours with the paths, and the loss along them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from lossatlas.connectivity.show.captions import mark_label, path
from lossatlas.connectivity.show.panels import profiles as draw_profiles
from lossatlas.drawing.contours import loss_bar, loss_panel
from lossatlas.drawing.grids import colour_scale, grid, missing_note
from lossatlas.drawing.overlays import marks, overlay_handles, paths
from lossatlas.drawing.style import WIDTH, columns_of, legend_over, path_colours, sized, styled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


@styled
def planes_and_profiles(planes: Sequence[xr.Dataset], profiles: Sequence[xr.Dataset]) -> Figure:
    """Contours of each plane on one colour scale with the paths, and beside them the loss along the paths."""
    n = len(planes) + bool(profiles)
    width = WIDTH if n > 1 else 4.7
    across = columns_of(n)
    figure = sized(width, _height(planes, width / n), -(-n // across))
    ratios = [1.0] * len(planes) + [0.8] * bool(profiles) if across == n else [1.0] * across
    axes = figure.subplots(-(-n // across), across, squeeze=False, width_ratios=ratios).flatten()
    logarithmic, levels = colour_scale(*(grid(plane)[2] for plane in planes))
    for panel, plane in zip(axes, planes, strict=False):
        filled = loss_panel(panel, plane, logarithmic, levels, labels=6 if n > 1 else 7, lines=6)
        title = [plane.attrs["name"]] if len(planes) > 1 else []
        panel.set_title("\n".join([*title, *missing_note(plane)]))
        _name_marks(panel, plane)
    loss_bar(figure, filled, axes[len(planes) - 1], logarithmic)
    if profiles:
        draw_profiles(profiles, axes[-1], legend=False)
    handles = _handles(planes, profiles)
    legend_over(figure, handles, [str(handle.get_label()) for handle in handles], 3, columnspacing=1.2)
    return figure


def _height(planes: Sequence[xr.Dataset], width: float) -> float:
    """So that equal aspect leaves little paper empty."""
    ratio = max(np.ptp(grid(plane)[1]) / np.ptp(grid(plane)[0]) for plane in planes)
    return float(0.95 + max(0.75 * width * np.clip(ratio, 0.6, 1.6), 1.1))


def _name_marks(axes: Axes, plane: xr.Dataset) -> None:
    """The networks and the third point by name, next to their marks."""
    middle = float(plane["alpha"].mean())
    for name, (_, alpha, beta) in marks(plane).items():
        right = alpha <= middle
        axes.annotate(
            mark_label(name),
            (alpha, beta),
            xytext=(5 if right else -5, 4),
            textcoords="offset points",
            ha="left" if right else "right",
            fontsize=7.5,
            fontweight="bold",
            path_effects=[withStroke(linewidth=2, foreground="white")],
            zorder=6,
        )


def _handles(planes: Sequence[xr.Dataset], profiles: Sequence[xr.Dataset]) -> list[Line2D]:
    """Each path once; also one that has a profile only."""
    names = {each.name for plane in planes for each in paths(plane)}
    drawn = [handle for plane in planes for handle in overlay_handles(plane)]
    found = {str(h.get_label()): h for h in drawn if any(str(h.get_label()).startswith(name) for name in names)}
    colours = path_colours(map(path, profiles))
    for name in (name for name in colours if name not in names):
        found[name] = Line2D([], [], color=colours[name], label=name)
    return list(found.values())
