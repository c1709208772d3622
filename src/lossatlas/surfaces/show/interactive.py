"""Interactive surfaces in space, with the loss under the pointer (plotly)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from lossatlas.drawing.grids import (
    LETTERS,
    axes_of,
    colour_scale,
    grid,
    has_error_map,
    is_polar,
    mesh,
    over_planes,
    shown,
)
from lossatlas.drawing.overlays import marks, off_plane, path_label, paths, surface_height
from lossatlas.drawing.scales import scale_of, tick_names
from lossatlas.surfaces.show.error_maps import evaluations

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray


CAMERA = {"eye": {"x": 0.95, "y": -1.3, "z": 1.0}, "center": {"x": 0, "y": 0, "z": -0.12}}
PAGE: dict[str, Any] = {
    "margin": {"l": 0, "r": 0, "t": 10, "b": 0},
    "height": 440,
    "legend": {"x": 0.01, "y": 0.99},
    "template": "plotly_white",
}


def surface_3d(dataset: xr.Dataset, trajectory: xr.Dataset | None = None) -> go.Figure:
    """log10 loss over the plane as a surface, and a trajectory over it if one is given.

    The trajectory is drawn at the true loss of its snapshots where its Dataset has it; it need not touch the surface,
    since it does not lie in the plane. Arrays are float32. Cells that are not finite are holes. Of several planes the
    mean is shown. The points where an interpolated surface was evaluated are drawn at their own loss; the quadratic
    model, where there is one, is switched on in the legend. Paths between networks lie on the surface, at its height
    where they are projected to.
    """
    picture = over_planes(dataset)
    x, y, loss = mesh(picture)
    logarithmic, levels = colour_scale(loss)
    name = "log₁₀ loss" if logarithmic else "loss"
    figure = go.Figure(
        go.Surface(
            x=single(x),
            y=single(y),
            z=single(shown(loss, logarithmic)),
            customdata=_hover(picture),
            colorscale="Viridis",
            hovertemplate=_hover_template(picture),
            colorbar={"title": {"text": name}, "x": 1.0, "len": 0.7, "thickness": 14},
            name="loss",
        )
    )
    figure.add_traces(_further_traces(picture, logarithmic, levels))
    if trajectory is not None and ("loss" in trajectory or "plane_loss" in trajectory):
        figure.add_trace(_training(trajectory, logarithmic))
    shape = {"aspectmode": "manual", "aspectratio": {"x": 1, "y": 1, "z": 0.6}}
    scene = axes_3d(picture) | {"zaxis": {"title": {"text": name}}} | shape | {"camera": CAMERA}
    figure.update_layout(scene=scene, **PAGE)
    return figure


def _further_traces(picture: xr.Dataset, logarithmic: bool, levels: FloatArray) -> list[Any]:
    """The quadratic model, the evaluated points and the paths, of those that the surface has."""
    model = [_quadratic(picture, logarithmic, levels)] if "quadratic" in picture else []
    interpolated = has_error_map(picture) and "relative_spread" not in picture
    points = _evaluated(picture, logarithmic) if interpolated else []
    return [*model, *points, *_paths(picture, logarithmic)]


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
            ticks = scale.ticks(coordinates)
            found[axis] |= {"tickvals": scale.positions(ticks).tolist(), "ticktext": tick_names(ticks)}
    return found


def _hover(picture: xr.Dataset) -> Any:
    """For each point: its coordinates, its loss, and the estimated error of the picture in per cent where known."""
    across, up, loss = grid(picture)
    parts = [*np.meshgrid(across, up), loss]
    if "relative_spread" in picture:
        parts.append(100 * grid(picture, "relative_spread")[2])
    elif has_error_map(picture):
        parts.append(100 * grid(picture, "loss_error")[2])
    return single(np.stack(parts, axis=-1))


def _hover_template(picture: xr.Dataset) -> str:
    where = "α %{customdata[0]:.3g}, β %{customdata[1]:.3g}"
    if is_polar(picture):
        where = "r %{customdata[1]:.3g}, φ %{customdata[0]:.3g} rad"
    error = ""
    if "relative_spread" in picture:
        error = " (mean), spread %{customdata[3]:.2g} %"
    elif has_error_map(picture):
        error = ", picture within an estimated %{customdata[3]:.2g} %"
    return f"{where}<br>loss %{{customdata[2]:.4g}}{error}<extra></extra>"


def _quadratic(picture: xr.Dataset, logarithmic: bool, levels: FloatArray) -> go.Surface:
    """The quadratic model in one pale colour, cut off where it leaves the heights of the loss."""
    x, y, model = mesh(picture, "quadratic")
    height = shown(model, logarithmic)
    within = (height >= levels[0] - 0.1 * np.ptp(levels)) & (height <= levels[-1])
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


def _evaluated(picture: xr.Dataset, logarithmic: bool) -> list[go.Scatter3d]:
    symbols = {"node": "circle", "held-out, within": "circle-open", "held-out, beyond": "diamond"}
    traces = []
    for mark, (across, up, loss) in evaluations(picture).items():
        x, y = _positions(picture, across, up)
        size = 2 if mark == "node" else 4
        traces.append(
            go.Scatter3d(
                x=single(x),
                y=single(y),
                z=single(shown(loss, logarithmic)),
                customdata=single(loss),
                mode="markers",
                marker={"size": size, "color": "black", "symbol": symbols[mark]},
                hovertemplate=f"{mark}<br>loss %{{customdata:.4g}}<extra></extra>",
                name=f"{mark} ({len(loss)})",
            )
        )
    return traces


def _positions(picture: xr.Dataset, across: FloatArray, up: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where points lie on the linear axes of the scene, as ``mesh`` has it for the grid."""
    if is_polar(picture):
        return up * np.cos(across), up * np.sin(across)
    scales = [scale_of(picture[name].to_numpy()) for name in axes_of(picture)]
    return scales[0].positions(across), scales[1].positions(up)


def _paths(picture: xr.Dataset, logarithmic: bool) -> list[go.Scatter3d]:
    """The paths as lines and the marked points as dots on the surface, where they are projected to."""
    look: dict[str, Any] = {"hoverinfo": "name", "showlegend": True}
    traces = []
    for path in paths(picture):
        z = single(surface_height(picture, logarithmic, path.alpha, path.beta))
        line = {"color": path.colour, "width": 7, "dash": "dash" if off_plane(picture, path) else "solid"}
        x, y, name = single(path.alpha), single(path.beta), path_label(picture, path)
        traces.append(go.Scatter3d(x=x, y=y, z=z, mode="lines", line=line, name=name, **look))
    for name, (_, alpha, beta) in marks(picture).items():
        dot = {"size": 5, "color": "white", "line": {"color": "black", "width": 2}}
        z = single(np.atleast_1d(surface_height(picture, logarithmic, alpha, beta)))
        traces.append(go.Scatter3d(x=[alpha], y=[beta], z=z, mode="markers", marker=dot, name=name, **look))
    return traces


def _training(trajectory: xr.Dataset, logarithmic: bool) -> go.Scatter3d:
    height = trajectory["loss" if "loss" in trajectory else "plane_loss"].to_numpy().astype(float)
    bar: dict[str, Any] = {"title": {"text": "step"}, "x": 1.14, "len": 0.7, "thickness": 14}
    return go.Scatter3d(
        x=single(trajectory["alpha"].to_numpy()),
        y=single(trajectory["beta"].to_numpy()),
        z=single(shown(height, logarithmic)),
        mode="lines+markers",
        line={"color": "black", "width": 3},
        marker={"size": 4, "color": single(trajectory["step"].to_numpy()), "colorscale": "Magma", "colorbar": bar},
        customdata=single(height),
        hovertemplate="step %{marker.color:.0f}<br>loss %{customdata:.4g}<extra></extra>",
        name="training",
        showlegend=False,
    )


def single(values: FloatArray) -> Any:
    return np.ascontiguousarray(values, dtype=np.float32)
