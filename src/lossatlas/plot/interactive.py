"""Surfaces to turn and to read under the pointer (plotly)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from lossatlas.plot.surfaces import colour_scale, grid, shown

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.plot.style import FloatArray


CAMERA = {"eye": {"x": 0.95, "y": -1.3, "z": 1.0}, "center": {"x": 0, "y": 0, "z": -0.12}}


def surface_3d(dataset: xr.Dataset, road: xr.Dataset | None = None) -> go.Figure:
    """log10 loss over the plane as a surface, the trained point on it, and the road if one is given.

    The road is drawn at the true loss of its snapshots where the Dataset has it; it need not touch the
    surface, since it does not lie in the plane. Arrays are float32. Cells that are not finite are holes.
    """
    alpha, beta, loss = grid(dataset)
    logarithmic, _ = colour_scale(loss)
    name = "log₁₀ loss" if logarithmic else "loss"
    figure = go.Figure(
        go.Surface(
            x=_single(alpha),
            y=_single(beta),
            z=_single(shown(loss, logarithmic)),
            customdata=_single(loss),
            colorscale="Viridis",
            hovertemplate="α %{x:.3g}, β %{y:.3g}<br>loss %{customdata:.4g}<extra></extra>",
            colorbar={"title": {"text": name}, "x": 1.0, "len": 0.7, "thickness": 14},
            name="loss",
        )
    )
    if road is not None and ("loss" in road or "plane_loss" in road):
        figure.add_trace(_road(road, logarithmic))
    axes = {
        "xaxis": {"title": {"text": "α"}},
        "yaxis": {"title": {"text": "β"}},
        "zaxis": {"title": {"text": name}},
    }
    figure.update_layout(
        scene=axes | {"aspectmode": "manual", "aspectratio": {"x": 1, "y": 1, "z": 0.6}} | {"camera": CAMERA},
        margin={"l": 0, "r": 0, "t": 10, "b": 0},
        height=440,
        legend={"x": 0.01, "y": 0.99},
        template="plotly_white",
    )
    return figure


def _road(road: xr.Dataset, logarithmic: bool) -> go.Scatter3d:
    height = road["loss" if "loss" in road else "plane_loss"].to_numpy().astype(float)
    bar: dict[str, Any] = {"title": {"text": "step"}, "x": 1.14, "len": 0.7, "thickness": 14}
    return go.Scatter3d(
        x=_single(road["alpha"].to_numpy()),
        y=_single(road["beta"].to_numpy()),
        z=_single(shown(height, logarithmic)),
        mode="lines+markers",
        line={"color": "black", "width": 3},
        marker={"size": 4, "color": _single(road["step"].to_numpy()), "colorscale": "Magma", "colorbar": bar},
        customdata=_single(height),
        hovertemplate="step %{marker.color:.0f}<br>loss %{customdata:.4g}<extra></extra>",
        name="training",
        showlegend=False,
    )


def _single(values: FloatArray) -> Any:
    return np.ascontiguousarray(values, dtype=np.float32)
