"""Interactive volumes: surfaces of equal loss in three dimensions (plotly)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from scipy.ndimage import distance_transform_edt

from lossatlas.drawing.grids import axes_of, colour_scale, line_levels, loss_ticks, shown
from lossatlas.drawing.scales import scale_of
from lossatlas.drawing.style import GREY
from lossatlas.surfaces.show.interactive import PAGE, axes_3d
from lossatlas.surfaces.show.layers import single

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

MOST_LEVELS = 4  # more surfaces hide one another
FEWEST = 8  # cells on either side of a surface: with fewer it would be a speck


def volume_3d(dataset: xr.Dataset) -> go.Figure:
    """Surfaces of equal loss in a volume, at a few round losses, each switched on or off in the legend.

    Cells that are not finite are marked by grey squares; through them the surfaces are drawn as if each had the loss
    of the nearest finite cell.
    """
    names = axes_of(dataset)
    loss = dataset["loss"].transpose(*names).to_numpy().astype(float)
    loss = np.where(np.isfinite(loss), loss, np.nan)
    logarithmic, levels = colour_scale(loss)
    drawn = shown(loss, logarithmic)
    places = _places(dataset, names)
    figure, chosen = go.Figure(), volume_levels(drawn, logarithmic, levels)
    for k, (level, text) in enumerate(chosen.items()):
        figure.add_trace(_isosurface(places, continued(drawn), (level, text), opacity=0.8 * 0.55**k))
    missing = ~np.isfinite(drawn.ravel())
    if missing.any():
        figure.add_trace(_missing(places[:, missing]))
    ticks, losses = loss_ticks(logarithmic, float(levels[0]), float(levels[-1]))
    colours = {"colorscale": "Viridis", "cmin": float(levels[0]), "cmax": float(levels[-1])}
    bar = {"title": {"text": "loss"}, "tickvals": ticks, "ticktext": losses, "x": 1.0, "len": 0.7, "thickness": 14}
    scene = axes_3d(dataset) | {"aspectmode": "cube", "camera": {"eye": {"x": 1.2, "y": -1.65, "z": 1.1}}}
    figure.update_layout(scene=scene, coloraxis=colours | {"colorbar": bar}, **PAGE)
    return figure


def _places(dataset: xr.Dataset, names: tuple[str, ...]) -> FloatArray:
    """Where the cells lie on the linear axes of the scene, ``(3, cells)``."""
    coordinates = [scale_of(axis).positions(axis) for axis in (dataset[n].to_numpy().astype(float) for n in names)]
    return np.stack([each.ravel() for each in np.meshgrid(*coordinates, indexing="ij")])


def _isosurface(places: FloatArray, values: FloatArray, at: tuple[float, str], opacity: float) -> go.Isosurface:
    level, text = at
    x, y, z = map(single, places)
    return go.Isosurface(
        x=x,
        y=y,
        z=z,
        value=single(values.ravel()),
        isomin=level,
        isomax=level,
        surface={"count": 1},
        opacity=opacity,
        caps={axis: {"show": False} for axis in "xyz"},
        coloraxis="coloraxis",
        hovertemplate=f"loss {text}<br>α %{{x:.3g}}, β %{{y:.3g}}, γ %{{z:.3g}}<extra></extra>",
        name=f"loss {text}",
        showlegend=True,
    )


def _missing(places: FloatArray) -> go.Scatter3d:
    """The cells that are not finite."""
    x, y, z = map(single, places)
    return go.Scatter3d(
        x=x,
        y=y,
        z=z,
        mode="markers",
        marker={"size": 3, "color": GREY, "symbol": "square-open"},
        hovertemplate="not finite: the surfaces here are continued<extra></extra>",
        name=f"not finite ({places.shape[1]})",
    )


def volume_levels(drawn: FloatArray, logarithmic: bool, levels: FloatArray) -> dict[float, str]:
    """A few heights spread over the volume, with what is written on each: at round losses on a logarithmic scale."""
    finite = drawn[np.isfinite(drawn)]
    at = line_levels(drawn, logarithmic, levels)
    enclosing = [level for level in at if FEWEST <= (finite < level).sum() <= finite.size - FEWEST]
    kept = np.linspace(0, len(enclosing) - 1, min(len(enclosing), MOST_LEVELS)).round().astype(int)
    return {enclosing[k]: at[enclosing[k]] for k in kept}


def continued(values: FloatArray) -> FloatArray:
    """The values with those that are NaN taken from the nearest finite cell: one NaN would stop the whole drawing."""
    missing = np.isnan(values)
    if not missing.any() or missing.all():
        return values
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)], dtype=float)
