"""The accuracy of an interpolated surface: its error, pixel by pixel, and the points that were evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from lossatlas.drawing.contours import hatch_missing, name_axes, place_for_bar
from lossatlas.drawing.grids import axes_of, grid, is_polar

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray

# Marks of the evaluated points: by role, and held-out points by whether the prediction was within the tolerance.
MARKS: dict[str, dict[str, Any]] = {
    "node": {"marker": ".", "markersize": 2.5},
    "held-out, within": {"marker": "o", "markersize": 4.5, "markerfacecolor": "none", "markeredgewidth": 0.8},
    "held-out, beyond": {"marker": r"$\otimes$", "markersize": 6.5, "markeredgewidth": 0.3},
}
DOUBLINGS = 8  # of the tolerance, at most, in the bands of the error map


def evaluations(dataset: xr.Dataset) -> dict[str, tuple[FloatArray, ...]]:
    """The coordinates of the evaluated points, one array a dimension of the picture, and last their losses, by mark.

    Held-out points without a recorded tolerance count as within it; those whose error is not finite as beyond it.
    """
    if "evaluation_role" not in dataset:
        return {}
    names = [*(f"evaluation_{dim}" for dim in axes_of(dataset)), "evaluation_loss"]
    arrays = [dataset[name].to_numpy().astype(float) for name in names]
    role = dataset["evaluation_role"].to_numpy().astype(str)
    within = dataset["evaluation_surprise"].to_numpy() <= float(dataset.attrs.get("tolerance", np.inf))
    held_out = role == "held-out"
    chosen = {"node": role == "node", "held-out, within": held_out & within, "held-out, beyond": held_out & ~within}
    return {mark: tuple(array[mask] for array in arrays) for mark, mask in chosen.items() if mask.any()}


def draw_evaluations(axes: Axes, points: dict[str, tuple[FloatArray, ...]], node: float = 2.5) -> None:
    """The points at their first two numbers: both coordinates on a plane, coordinate and loss on a line."""
    for mark, (x, y, *_) in points.items():
        look = MARKS[mark] | ({"markersize": node} if mark == "node" else {})
        axes.plot(x, y, linestyle="none", color="black", zorder=4, clip_on=False, **look)


def evaluation_handles(dataset: xr.Dataset, *, counted: bool = True) -> list[Line2D]:
    """The legend of the marks, each with the number of its points where they are of one Dataset."""
    limit = f" {percent_of(dataset.attrs['tolerance'])}" if "tolerance" in dataset.attrs else ""
    handles = []
    for mark, (x, *_) in evaluations(dataset).items():
        name = mark if mark == "node" else f"{mark}{limit}"
        look = MARKS[mark] | ({"markersize": 5} if mark == "node" else {})
        label = f"{name} ({len(x)})" if counted else name
        handles.append(Line2D([], [], linestyle="none", color="black", label=label, **look))
    return handles


def percent_of(share: float) -> str:
    """A tolerance as it was asked for.

    >>> percent_of(0.01), percent_of(0.0025)
    ('1 %', '0.25 %')
    """
    return f"{100 * float(share):.4g} %"


def error_bands(tolerance: float | None, worst: float) -> tuple[FloatArray, ListedColormap]:
    """Bounds of the colour bands, and their colours: blue below the tolerance, orange to red above it.

    The bands double, so that the tolerance is always a bound: 1/8, 1/4, 1/2, 1, 2 .. times it, up to the worst.
    """
    if tolerance is None:
        return np.linspace(0, worst, 9), ListedColormap(colormaps["Blues"](np.linspace(0.02, 0.75, 8)))
    doublings = int(np.clip(np.ceil(np.log2(max(worst, tolerance) / tolerance)), 1, DOUBLINGS))
    bounds = tolerance * np.array([0, *2.0 ** np.arange(-3, doublings + 1)])
    below = colormaps["Blues"](np.linspace(0.02, 0.45, 4))
    above = colormaps["OrRd"](np.linspace(0.4, 0.95, doublings))
    return bounds, ListedColormap(np.concatenate([below, above]))


def draw_error_map(figure: Figure, axes: Axes, dataset: xr.Dataset) -> None:
    """The estimated relative error of each pixel in per cent, the tolerance as a line, and the evaluated points."""
    name_axes(axes, dataset)
    across, up, error = grid(dataset, "loss_error")
    asked = dataset.attrs.get("tolerance")
    tolerance = None if asked is None else 100 * float(asked)
    bounds, colours = error_bands(tolerance, 100 * float(np.nanmax(error)))
    norm = BoundaryNorm(bounds, len(bounds) - 1)
    drawn = axes.pcolormesh(
        across, up, np.ma.masked_invalid(100 * error), cmap=colours, norm=norm, shading="nearest", rasterized=True
    )
    hatch_missing(axes, dataset)
    beyond = "max" if 100 * np.nanmax(error) > bounds[-1] else "neither"
    bar = figure.colorbar(drawn, cax=place_for_bar(axes), ticks=bounds, extend=beyond)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    bar.set_label("relative error (%)")
    if tolerance is not None and np.nanmin(error) < tolerance / 100 < np.nanmax(error):
        axes.contour(across, up, np.ma.masked_invalid(100 * error), levels=[tolerance], colors="black", linewidths=0.9)
        bar.ax.axhline(tolerance, color="black", linewidth=1.2)
    axes.set(xlim=(across[0], across[-1]), ylim=(0 if is_polar(dataset) else up[0], up[-1]))  # half pixels stand out
    draw_evaluations(axes, evaluations(dataset))


def tolerance_handle(dataset: xr.Dataset) -> list[Line2D]:
    """Legend of the line at the tolerance, where it is drawn or could be."""
    if "tolerance" not in dataset.attrs:
        return []
    return [Line2D([], [], color="black", linewidth=0.9, label=f"error = {percent_of(dataset.attrs['tolerance'])}")]
