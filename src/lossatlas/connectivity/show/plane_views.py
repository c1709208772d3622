"""The planes through two networks to be played with: a marker on every path, in step with the profiles along them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

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
BESIDE = {"eye": {"x": -0.6, "y": -1.42, "z": 1.58}, "center": {"x": 0, "y": 0, "z": -0.12}}
ABOVE = {"eye": {"x": 0, "y": -1e-3, "z": 1.6}, "center": {"x": 0, "y": 0, "z": 0}}
LIFT = 0.05  # of the range of heights: what lies on the surface is drawn so far above it, or it would sink in
MATT = {"ambient": 1.0, "diffuse": 0.0, "specular": 0.0, "fresnel": 0.0}
SHINY = {"ambient": 0.8, "diffuse": 0.8, "specular": 0.05, "fresnel": 0.2}


class Scene(NamedTuple):
    """What is drawn of a plane, as indices of traces: the surface, and what lies on it, in space and on the map."""

    surface: Sequence[int]
    in_space: Sequence[int]
    on_map: Sequence[int]


def plane_view(planes: Sequence[xr.Dataset], barriers: Sequence[xr.Dataset]) -> View:
    """The planes as surfaces with markers that move along the paths on them, and the profiles beside them.

    Without ``barriers`` there are no profiles, and the readout is the height of the drawn surface.
    """
    profiles = profiles_of(barriers) if barriers else None
    t = profiles.t if profiles else values(planes[0], "t_path")
    space, scenes, moves = _space(planes, t)
    places = [f"t = {position:.4g}" for position in t]
    readouts = profiles.readouts if profiles else _losses(planes, t)
    slider = Slider(
        "position t on the paths",
        tuple(places),
        tuple(f"{place}: {readout}" for place, readout in zip(places, readouts, strict=True)),
        (*moves, *(profiles.moves(panel=1) if profiles else ())),
        start=profiles.highest if profiles else len(t) // 2,
    )
    panels = (space, profiles.figure) if profiles else (space,)
    changes = _changes(space, scenes, planes)
    return View(panels, (1.5, 1.0)[: len(panels)], slider, _choices(planes), changes)


def _space(planes: Sequence[xr.Dataset], t: FloatArray) -> tuple[go.Figure, list[Scene], list[Move]]:
    """One scene with the traces of every plane, of which those of the first are seen in space; what moves in it."""
    figure, scenes, moves = surface_3d(planes[0]), list[Scene](), list[Move]()
    figure.data = ()
    for plane in planes:
        scene, at = _add_plane(figure, plane, t)
        scenes.append(scene)
        moves += [Move(0, scene.in_space[-1], at), Move(0, scene.on_map[-1], at | {"z": _flat(at["z"], plane)})]
    for change in _seen(scenes, 0, flat=False):
        figure.data[change.trace].visible = change.values["visible"]
    _on_one_scale(figure, planes)
    figure.update_layout(
        scene={"camera": BESIDE, "xaxis": {"tickangle": 0}, "yaxis": {"tickangle": 0}},
        legend={"orientation": "h", "x": 0, "y": 0, "yanchor": "top"},
    )
    return figure, scenes, moves


def _add_plane(figure: go.Figure, plane: xr.Dataset, t: FloatArray) -> tuple[Scene, dict[str, Any]]:
    """The traces of a plane, and where its markers are at each t.

    What lies on the surface is there twice: lifted above it, and for the map above all of it, since seen from above
    the higher parts would hide it.
    """
    heights = _heights(plane)
    lift, middle, top = LIFT * float(np.ptp(heights)), float(heights.mean()), _top(plane)
    traces = surface_3d(plane).data
    surfaces = [trace for trace in traces if trace.type == "surface"]
    marker, at = _marker(plane, t, lift)
    lying = [*(_raised(trace, lift, middle) for trace in traces if trace.type == "scatter3d"), marker]
    flat = [go.Scatter3d(trace.to_plotly_json() | {"z": np.full(len(trace.x), top)}) for trace in lying]
    first = len(figure.data)
    figure.add_traces([*surfaces, *lying, *flat])
    cuts = np.cumsum([first, len(surfaces), len(lying), len(flat)]).tolist()
    return Scene(*(range(a, b) for a, b in pairwise(cuts))), at


def _heights(plane: xr.Dataset) -> FloatArray:
    """The levels between the lowest and the highest point of the drawn surface."""
    return colour_scale(grid(plane)[2])[1]


def _top(plane: xr.Dataset) -> float:
    heights = _heights(plane)
    return float(heights[-1] + LIFT * np.ptp(heights))


def _flat(rows: Sequence[Sequence[float | None]], plane: xr.Dataset) -> list[list[float | None]]:
    """The heights of markers for the map: above all of the surface."""
    return [[None if z is None else _top(plane) for z in row] for row in rows]


def _on_one_scale(figure: go.Figure, planes: Sequence[xr.Dataset]) -> None:
    """The same colours for all planes, where all are drawn logarithmically or none; lines of equal loss for the map."""
    heights = np.concatenate([_heights(plane) for plane in planes])
    if len({colour_scale(grid(plane)[2])[0] for plane in planes}) == 1:
        figure.update_traces(cmin=heights.min(), cmax=heights.max(), selector={"type": "surface"})


def _raised(trace: go.Scatter3d, lift: float, middle: float) -> go.Scatter3d:
    """A path or a mark of the surface, lifted; a mark by its name, in white where it lies in the dark colours."""
    height = np.asarray(trace.z, dtype=np.float32)
    found = go.Scatter3d(trace.to_plotly_json() | {"z": height + np.float32(lift)})
    if trace.mode == "markers":
        label = {"color": "white" if height[0] < middle else "black", "size": 14}
        text = {"text": [mark_label(trace.name)], "textposition": "top center", "textfont": label}
        found.update(mode="markers+text", showlegend=False, **text)
    return found


def _marker(plane: xr.Dataset, t: FloatArray, lift: float) -> tuple[go.Scatter3d, dict[str, Any]]:
    """A dot for every path that lies in the plane, and where they are at each t; hidden where a path leaves it."""
    logarithmic = colour_scale(grid(plane)[2])[0]
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


def _losses(planes: Sequence[xr.Dataset], t: FloatArray) -> list[str]:
    """The loss of the drawn surface at each t of each path on a plane, where there is no barrier."""
    found: dict[str, FloatArray] = {}
    for plane in planes:
        for path in paths(plane):
            found.setdefault(path.name, _along(plane, path, t, logarithmic=False)[2])
    return [_told({name: float(z[k]) for name, z in found.items()}) for k in range(len(t))]


def _told(on_paths: Mapping[str, float]) -> str:
    told = ", ".join(f"{name} ≈ {number(z, 3)}" for name, z in on_paths.items() if np.isfinite(z))
    return f"loss of the surface on the {told}" if told else "no path lies on the plane"


def _choices(planes: Sequence[xr.Dataset]) -> tuple[Choice, ...]:
    named = Choice("plane", tuple(str(plane.attrs["name"]) for plane in planes))
    return (Choice("show as", SHAPES), *([named] if len(planes) > 1 else []))


def _changes(
    space: go.Figure, scenes: Sequence[Scene], planes: Sequence[xr.Dataset]
) -> dict[tuple[int, ...], tuple[Change, ...]]:
    """For every combination: which plane is seen, and whether from above."""
    found: dict[tuple[int, ...], tuple[Change, ...]] = {}
    for flat, chosen in product((False, True), range(len(planes))):
        key = (int(flat), chosen) if len(planes) > 1 else (int(flat),)
        surfaces = scenes[chosen].surface
        look = {"contours.z.show": flat, "lighting": MATT if flat else SHINY}
        lines = [Change(0, trace, look) for trace in surfaces]
        found[key] = (*_seen(scenes, chosen, flat), Change(0, None, _layout(space, planes[chosen], flat)), *lines)
    return found


def _seen(scenes: Sequence[Scene], chosen: int, flat: bool) -> list[Change]:
    """Which traces are visible: those of one plane, in space or on the map."""
    there = {*scenes[chosen].surface, *(scenes[chosen].on_map if flat else scenes[chosen].in_space)}
    every = (trace for scene in scenes for part in scene for trace in part)
    return [Change(0, trace, {"visible": trace in there}) for trace in every]


def _layout(space: go.Figure, plane: xr.Dataset, flat: bool) -> dict[str, Any]:
    """The surface in space, or seen from straight above in true proportions."""
    camera, projection = (ABOVE, "orthographic") if flat else (BESIDE, "perspective")
    return {
        "scene.camera": camera | {"projection": {"type": projection}},
        "scene.aspectratio": _true(plane) if flat else space.layout.scene.aspectratio.to_plotly_json(),
        "scene.zaxis.visible": not flat,
    }


def _true(plane: xr.Dataset) -> dict[str, float]:
    """The aspect that shows distances on the plane as they are, as large as the panel allows."""
    across, up = (float(np.ptp(plane[name].to_numpy())) for name in ("alpha", "beta"))
    scale = min(1.75 / across, 1.5 / up)
    return {"x": scale * across, "y": scale * up, "z": 0.3}
