"""What lies on a plane of the loss: paths as lines, points such as networks and bends as marks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from scipy.interpolate import RegularGridInterpolator

from lossatlas.drawing.axes import values
from lossatlas.drawing.grids import grid, shown
from lossatlas.drawing.style import MARKERS, path_colours
from lossatlas.results.uncertainty import number

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from lossatlas.drawing.style import FloatArray

NEGLIGIBLE = 1e-3  # of the picture's width: a path that is no farther from the plane lies on it


class Path(NamedTuple):
    """A path on the plane; `off` is how far it is from the plane at most."""

    name: str
    colour: str
    alpha: FloatArray
    beta: FloatArray
    off: float


def has_overlays(dataset: xr.Dataset) -> bool:
    return "path_alpha" in dataset or "mark_alpha" in dataset


def paths(dataset: xr.Dataset) -> list[Path]:
    """The paths of a surface, without their padding."""
    if "path_alpha" not in dataset:
        return []
    names = [str(name) for name in dataset["path"].to_numpy()]
    colours, found = path_colours(names), []
    for k, name in enumerate(names):
        one = dataset.isel(path=k)
        alpha, beta = values(one, "path_alpha"), values(one, "path_beta")
        there = np.isfinite(alpha) & np.isfinite(beta)
        off = float(np.nanmax(values(one, "path_off_plane"), initial=0.0)) if "path_off_plane" in one else 0.0
        found.append(Path(name, colours[name], alpha[there], beta[there], off))
    return found


def marks(dataset: xr.Dataset) -> dict[str, tuple[str, float, float]]:
    """The marked points by name: their marker and place."""
    if "mark_alpha" not in dataset:
        return {}
    places = zip(dataset["mark"].to_numpy(), values(dataset, "mark_alpha"), values(dataset, "mark_beta"), strict=True)
    return {str(name): (MARKERS[k % len(MARKERS)], a, b) for k, (name, a, b) in enumerate(places)}


def off_plane(dataset: xr.Dataset, path: Path) -> str:
    """How far a path is from the plane at most, where that can be seen; empty where it lies on the plane."""
    width = float(np.ptp(dataset["alpha"].to_numpy()))
    return f"up to {number(path.off, 2)} off the plane" if path.off > NEGLIGIBLE * width else ""


def draw_overlays(axes: Axes, dataset: xr.Dataset) -> None:
    """The paths with a white rim, so that they are seen on any colour, dashed where they are off the plane."""
    for path in paths(dataset):
        axes.plot(path.alpha, path.beta, color=path.colour, zorder=4, **_line(dataset, path))
    for marker, alpha, beta in marks(dataset).values():
        axes.plot(alpha, beta, zorder=5, **_mark(marker))


def _line(dataset: xr.Dataset, path: Path) -> dict[str, Any]:
    dashed = bool(off_plane(dataset, path))
    rim = [Stroke(linewidth=3.2, foreground="white"), Normal()]
    return {"linewidth": 1.8, "linestyle": (0, (4, 1.5)) if dashed else "-", "path_effects": rim}


def _mark(marker: str) -> dict[str, Any]:
    return {"marker": marker, "color": "white", "markeredgecolor": "black", "markersize": 6.5, "linestyle": "none"}


def path_label(dataset: xr.Dataset, path: Path) -> str:
    """The path with how far it is from the plane: "line after alignment, up to 12 off the plane"."""
    return ", ".join(part for part in (path.name, off_plane(dataset, path)) if part)


def overlay_handles(dataset: xr.Dataset) -> list[Line2D]:
    """The legend in two columns of equal length: the paths, with their distance from the plane, and the marks."""
    lines = [
        Line2D([], [], color=path.colour, label=path_label(dataset, path), **_line(dataset, path))
        for path in paths(dataset)
    ]
    dots = [Line2D([], [], label=name, **_mark(marker)) for name, (marker, _, _) in marks(dataset).items()]
    for column, other in ((lines, dots), (dots, lines)):
        column += [Line2D([], [], linestyle="none", label=" " * k) for k in range(1, len(other) - len(column) + 1)]
    return lines + dots


def surface_height(dataset: xr.Dataset, logarithmic: bool, alpha: Any, beta: Any) -> FloatArray:
    """The height of the drawn surface at these places, interpolated between its cells; NaN outside and at holes."""
    across, up, loss = grid(dataset)
    height = RegularGridInterpolator((up, across), shown(loss, logarithmic), bounds_error=False)
    return np.asarray(height((beta, alpha)), dtype=float)


def draw_overlays_3d(axes: Any, dataset: xr.Dataset, logarithmic: bool) -> None:
    """The paths and the marked points on the surface, where they are projected to, in front of it."""
    for path in paths(dataset):
        height = surface_height(dataset, logarithmic, path.alpha, path.beta)
        axes.plot(path.alpha, path.beta, height, color=path.colour, zorder=5, **_line(dataset, path))
    for marker, alpha, beta in marks(dataset).values():
        axes.plot(alpha, beta, surface_height(dataset, logarithmic, alpha, beta), zorder=6, **_mark(marker))
