"""Interactive surfaces in space, with what lies on them, and the loss under the pointer (plotly)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from lossatlas.drawing.grids import LETTERS, axes_of, colour_scale, has_error_map, is_polar, mesh, over_planes
from lossatlas.drawing.overlays import marks, off_plane, path_label, paths, surface_height
from lossatlas.drawing.scales import scale_of, tick_names
from lossatlas.surfaces.show.error_maps import evaluations
from lossatlas.surfaces.show.layers import LOSS, Layer, heights_of, layer_surface, positions, single, ticks

if TYPE_CHECKING:
    import xarray as xr

Limits = tuple[float, float]

CAMERA = {"eye": {"x": 1.05, "y": -1.45, "z": 1.05}, "center": {"x": 0, "y": 0, "z": -0.12}}
PAGE: dict[str, Any] = {
    "margin": {"l": 0, "r": 0, "t": 10, "b": 0},
    "height": 440,
    "legend": {"x": 0.01, "y": 0.99},
    "template": "plotly_white",
}
SHAPE = {"aspectmode": "manual", "aspectratio": {"x": 1, "y": 1, "z": 0.6}}
SYMBOLS = {"node": "circle", "held-out, within": "circle-open", "held-out, beyond": "diamond"}


def surface_3d(dataset: xr.Dataset, trajectory: xr.Dataset | None = None) -> go.Figure:
    """The loss over the plane as a surface, and a trajectory over it if one is given.

    On a logarithmic scale where all losses are positive. The trajectory is drawn at the true loss of its snapshots
    where its Dataset has it; it need not touch the surface, since it does not lie in the plane. Arrays are float32.
    Cells that are not finite are holes. Of several planes the mean is shown. The points where an interpolated surface
    was evaluated are drawn at their own loss; the quadratic model, where there is one, is switched on in the legend.
    Paths between networks lie on the surface, at its height where they are projected to.
    """
    picture = over_planes(dataset)
    layer = loss_layer(picture)
    limits = heights_of(layer, [picture])
    figure = go.Figure(layer_surface(picture, layer, limits))
    figure.add_traces(on_surface(picture, layer, limits))
    if trajectory is not None and ("loss" in trajectory or "plane_loss" in trajectory):
        figure.add_trace(_training(trajectory, layer))
    upright = {key: value for key, value in ticks(layer, limits).items() if value is not None}
    scene = axes_3d(picture) | {"zaxis": {"title": {"text": layer.title}, **upright}} | SHAPE | {"camera": CAMERA}
    figure.update_layout(scene=scene, **PAGE)
    return figure


def loss_layer(*pictures: xr.Dataset) -> Layer:
    """The loss, on a logarithmic scale where it is positive in all pictures."""
    logarithmic, _ = colour_scale(*(LOSS.values(picture) for picture in pictures))
    return replace(LOSS, logarithmic=logarithmic)


def on_surface(picture: xr.Dataset, layer: Layer, limits: Limits) -> list[Any]:
    """The quadratic model, the evaluated points and the paths, of those that the surface has."""
    model = [_quadratic(picture, layer, limits)] if "quadratic" in picture else []
    interpolated = has_error_map(picture) and "relative_spread" not in picture
    points = _evaluated(picture, layer) if interpolated else []
    return [*model, *points, *_paths(picture, layer)]


def axes_3d(picture: xr.Dataset) -> dict[str, Any]:
    """Titles, and on axes that are not linear the ticks, since a scene has no symmetric logarithm."""
    if is_polar(picture):
        return {"xaxis": {"title": {"text": "r cos φ"}}, "yaxis": {"title": {"text": "r sin φ"}}}
    found: dict[str, Any] = {}
    for axis, name in zip(("xaxis", "yaxis", "zaxis"), axes_of(picture), strict=False):
        coordinates = picture[name].to_numpy().astype(float)
        scale = scale_of(coordinates)
        found[axis] = {"title": {"text": LETTERS[name]}}
        if scale.kind != "linear":
            at = scale.ticks(coordinates)
            found[axis] |= {"tickvals": scale.positions(at).tolist(), "ticktext": tick_names(at)}
    return found


def _quadratic(picture: xr.Dataset, layer: Layer, limits: Limits) -> go.Surface:
    """The quadratic model in one pale colour, cut off where it leaves the heights of the loss."""
    x, y, model = mesh(picture, "quadratic")
    height, (low, high) = layer.placed(model), limits
    within = (height >= low - 0.1 * (high - low)) & (height <= high)
    return go.Surface(
        x=single(x),
        y=single(y),
        z=single(np.where(within, height, np.nan)),
        colorscale=[[0, "#FF7F50"], [1, "#FF7F50"]],
        showscale=False,
        opacity=0.55,
        hoverinfo="skip",
        name="quadratic model",
        showlegend=True,
        visible="legendonly",
    )


def _evaluated(picture: xr.Dataset, layer: Layer) -> list[go.Scatter3d]:
    traces = []
    for mark, (across, up, loss) in evaluations(picture).items():
        x, y = positions(picture, across, up)
        size = 2 if mark == "node" else 4
        traces.append(
            go.Scatter3d(
                x=single(x),
                y=single(y),
                z=single(layer.placed(loss)),
                customdata=single(loss),
                mode="markers",
                marker={"size": size, "color": "black", "symbol": SYMBOLS[mark]},
                hovertemplate=f"{mark}<br>loss %{{customdata:.4g}}<br>evaluated<extra></extra>",
                name=f"{mark} ({len(loss)})",
            )
        )
    return traces


def _paths(picture: xr.Dataset, layer: Layer) -> list[go.Scatter3d]:
    """The paths as lines and the marked points as dots on the surface, where they are projected to."""
    look: dict[str, Any] = {"hoverinfo": "name", "showlegend": True}
    traces = []
    for path in paths(picture):
        z = single(surface_height(picture, layer.logarithmic, path.alpha, path.beta))
        line = {"color": path.colour, "width": 7, "dash": "dash" if off_plane(picture, path) else "solid"}
        x, y, name = single(path.alpha), single(path.beta), path_label(picture, path)
        traces.append(go.Scatter3d(x=x, y=y, z=z, mode="lines", line=line, name=name, **look))
    for name, (_, alpha, beta) in marks(picture).items():
        dot = {"size": 5, "color": "white", "line": {"color": "black", "width": 2}}
        z = single(np.atleast_1d(surface_height(picture, layer.logarithmic, alpha, beta)))
        traces.append(go.Scatter3d(x=[alpha], y=[beta], z=z, mode="markers", marker=dot, name=name, **look))
    return traces


def _training(trajectory: xr.Dataset, layer: Layer) -> go.Scatter3d:
    height = trajectory["loss" if "loss" in trajectory else "plane_loss"].to_numpy().astype(float)
    bar: dict[str, Any] = {"title": {"text": "step"}, "x": 1.14, "len": 0.7, "thickness": 12}
    return go.Scatter3d(
        x=single(trajectory["alpha"].to_numpy()),
        y=single(trajectory["beta"].to_numpy()),
        z=single(layer.placed(height)),
        mode="lines+markers",
        line={"color": "black", "width": 3},
        marker={"size": 4, "color": single(trajectory["step"].to_numpy()), "colorscale": "Magma", "colorbar": bar},
        customdata=single(height),
        hovertemplate="step %{marker.color:.0f}<br>loss %{customdata:.4g}<extra></extra>",
        name="training",
        showlegend=False,
    )
