"""The planes through two networks to be played with: a marker on every path, in step with the profiles along them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from lossatlas.connectivity.show.captions import mark_label
from lossatlas.connectivity.show.profile_views import known, profiles_of
from lossatlas.drawing.axes import values
from lossatlas.drawing.grids import colour_scale, grid
from lossatlas.drawing.overlays import NEGLIGIBLE, Path, paths, surface_height
from lossatlas.results.uncertainty import number
from lossatlas.results.views import Change, Choice, Move, Slider, View
from lossatlas.surfaces.show.interactive import surface_3d

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

SHAPES = ("surface", "contour map")
BESIDE = {"eye": {"x": -0.55, "y": -1.3, "z": 1.45}, "center": {"x": 0, "y": 0, "z": -0.12}}
ABOVE = {"eye": {"x": 0, "y": -1e-3, "z": 1.6}, "center": {"x": 0, "y": 0, "z": 0}}
LIFT = 0.05  # of the range of heights: what lies on the surface is drawn so far above it, or it would sink in
MATT = {"ambient": 1.0, "diffuse": 0.0, "specular": 0.0, "fresnel": 0.0}
SHINY = {"ambient": 0.8, "diffuse": 0.8, "specular": 0.05, "fresnel": 0.2}
Traces = Sequence[int]


def plane_view(planes: Sequence[xr.Dataset], barriers: Sequence[xr.Dataset]) -> View:
    """The planes as surfaces with markers that move along the paths on them, and the profiles beside them.

    Without ``barriers`` there are no profiles, and the readout is the height of the drawn surface.
    """
    profiles = profiles_of(barriers) if barriers else None
    t = profiles.t if profiles else values(planes[0], "t_path")
    space, per_plane, moves = _space(planes, t)
    places = [f"t = {position:.4g}" for position in t]
    readouts = profiles.readouts if profiles else _heights(planes, t)
    slider = Slider(
        "position t on the paths",
        tuple(places),
        tuple(f"{place}: {readout}" for place, readout in zip(places, readouts, strict=True)),
        (*moves, *(profiles.moves(panel=1) if profiles else ())),
        start=profiles.highest if profiles else len(t) // 2,
    )
    panels = (space, profiles.figure) if profiles else (space,)
    changes = _changes(space, per_plane, planes)
    return View(panels, (1.5, 1.0)[: len(panels)], slider, _choices(planes), changes)


def _space(planes: Sequence[xr.Dataset], t: FloatArray) -> tuple[go.Figure, list[Traces], list[Move]]:
    """One scene with the traces of every plane, of which those of the first are seen; what moves in it."""
    logarithmic, heights = colour_scale(*(grid(plane)[2] for plane in planes))
    lift = LIFT * float(np.ptp(heights))
    figure, moves = surface_3d(planes[0]), []
    per_plane: list[Traces] = []
    for k, plane in enumerate(planes):
        marker, at = _marker(plane, t, logarithmic, lift)
        first = len(figure.data) if k else 0
        figure.add_traces([*(surface_3d(plane).data if k else ()), marker])
        for trace in figure.data[first:]:
            trace.visible = k == 0
            if trace.type == "scatter3d" and trace is not figure.data[-1]:
                _raise(trace, lift, float(heights.mean()))
        per_plane.append(range(first, len(figure.data)))
        moves.append(Move(0, len(figure.data) - 1, at))
    _on_one_scale(figure, heights)
    figure.update_layout(
        scene={"camera": BESIDE, "xaxis": {"tickangle": 0}, "yaxis": {"tickangle": 0}},
        legend={"orientation": "h", "x": 0, "y": 0, "yanchor": "top"},
    )
    return figure, per_plane, moves


def _raise(trace: go.Scatter3d, lift: float, middle: float) -> None:
    """A path or a mark of the surface, lifted; a mark by its name, in white where it lies in the dark colours."""
    height = np.asarray(trace.z, dtype=np.float32)
    trace.z = height + np.float32(lift)
    if trace.mode == "markers":
        colour = "white" if height[0] < middle else "black"
        label = {
            "text": [mark_label(trace.name)],
            "textposition": "top center",
            "textfont": {"color": colour, "size": 14},
        }
        trace.update(mode="markers+text", showlegend=False, **label)


def _on_one_scale(figure: go.Figure, heights: FloatArray) -> None:
    """The colours of all planes, and lines at the same heights for the contour map."""
    low, high = float(heights[0]), float(heights[-1])
    lines = {"start": low, "end": high, "size": (high - low) / 12, "color": "white", "width": 1}
    figure.update_traces(cmin=low, cmax=high, contours_z=lines, selector={"type": "surface"})


def _marker(plane: xr.Dataset, t: FloatArray, logarithmic: bool, lift: float) -> tuple[go.Scatter3d, Mapping[str, Any]]:
    """A dot for every path that lies in the plane, and where they are at each t; hidden where a path leaves it."""
    there = np.array([_along(plane, path, t, logarithmic) for path in paths(plane)])
    there[:, 2] += lift
    at = {name: [known(row) for row in there[:, i].T] for i, name in enumerate("xyz")}
    names = [path.name for path in paths(plane)]
    dot = go.Scatter3d(
        **{name: rows[0] for name, rows in at.items()},
        mode="markers",
        marker={"size": 7, "color": [path.colour for path in paths(plane)], "line": {"color": "black", "width": 2}},
        text=names,
        hovertemplate="%{text}: the point at t<extra></extra>",
        name="point at t",
        showlegend=False,
    )
    return dot, at


def _along(
    plane: xr.Dataset, path: Path, t: FloatArray, logarithmic: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """x, y and height of the drawn surface at each t, NaN where the path is off the plane."""
    one = plane.sel(path=path.name)
    t_path = values(one, "t_path")
    alpha, beta, off = (np.interp(t, t_path, values(one, f"path_{name}")) for name in ("alpha", "beta", "off_plane"))
    within = off <= NEGLIGIBLE * float(np.ptp(plane["alpha"].to_numpy()))
    alpha, beta = np.where(within, alpha, np.nan), np.where(within, beta, np.nan)
    return alpha, beta, surface_height(plane, logarithmic, alpha, beta)


def _heights(planes: Sequence[xr.Dataset], t: FloatArray) -> list[str]:
    """The loss of the drawn surface at each t of each path on a plane, where there is no barrier."""
    found: dict[str, FloatArray] = {}
    for plane in planes:
        for path in paths(plane):
            found.setdefault(path.name, _along(plane, path, t, logarithmic=False)[2])
    return [_height({name: float(z[k]) for name, z in found.items()}) for k in range(len(t))]


def _height(on_paths: Mapping[str, float]) -> str:
    told = ", ".join(f"{name} ≈ {number(z, 3)}" for name, z in on_paths.items() if np.isfinite(z))
    return f"loss of the surface on the {told}" if told else "no path lies on the plane"


def _choices(planes: Sequence[xr.Dataset]) -> tuple[Choice, ...]:
    named = Choice("plane", tuple(str(plane.attrs["name"]) for plane in planes))
    return (Choice("show as", SHAPES), *([named] if len(planes) > 1 else []))


def _changes(
    space: go.Figure, per_plane: Sequence[Traces], planes: Sequence[xr.Dataset]
) -> dict[tuple[int, ...], tuple[Change, ...]]:
    """For every combination: which plane's traces are seen, and whether from above."""
    found: dict[tuple[int, ...], tuple[Change, ...]] = {}
    for shape, chosen in product(range(len(SHAPES)), range(len(planes))):
        key = (shape, chosen) if len(planes) > 1 else (shape,)
        found[key] = (*_seen(per_plane, chosen), *_shape(space, planes[chosen], flat=shape == 1))
    return found


def _seen(per_plane: Sequence[Traces], chosen: int) -> list[Change]:
    return [Change(0, trace, {"visible": k == chosen}) for k, traces in enumerate(per_plane) for trace in traces]


def _shape(space: go.Figure, plane: xr.Dataset, *, flat: bool) -> list[Change]:
    """The surface in space, or seen from straight above in true proportions with lines of equal loss."""
    camera, projection = (ABOVE, "orthographic") if flat else (BESIDE, "perspective")
    layout = {
        "scene.camera": camera | {"projection": {"type": projection}},
        "scene.aspectratio": _true(plane) if flat else space.layout.scene.aspectratio.to_plotly_json(),
        "scene.zaxis.visible": not flat,
    }
    look = {"contours.z.show": flat, "lighting": MATT if flat else SHINY}
    surfaces = (i for i, trace in enumerate(space.data) if trace.type == "surface")
    return [Change(0, None, layout), *(Change(0, i, look) for i in surfaces)]


def _true(plane: xr.Dataset) -> dict[str, float]:
    """The aspect that shows distances on the plane as they are, as large as the panel allows."""
    across, up = (float(np.ptp(plane[name].to_numpy())) for name in ("alpha", "beta"))
    scale = min(1.9 / across, 1.6 / up)
    return {"x": scale * across, "y": scale * up, "z": 0.3}
