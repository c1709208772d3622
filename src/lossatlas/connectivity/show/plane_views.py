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
from lossatlas.drawing.overlays import NEGLIGIBLE, Path, paths, surface_height
from lossatlas.results.uncertainty import number
from lossatlas.results.views import Change, Choice, Move, Slider, View
from lossatlas.surfaces.show.interactive import Limits, loss_layer, on_surface, surface_3d
from lossatlas.surfaces.show.layers import LIGHT, Layer, heights_of, layer_surface, ticks

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

SHAPES = ("in space", "contour map")
BESIDE = {"eye": {"x": -0.6, "y": -1.42, "z": 1.58}, "center": {"x": 0, "y": 0, "z": -0.12}}
ABOVE = {"eye": {"x": 0, "y": -1e-3, "z": 1.6}, "center": {"x": 0, "y": 0, "z": 0}}
LIFT = 0.05  # of the range of heights: what lies on the surface is drawn so far above it, or it would sink in
MATT = {"ambient": 1.0, "diffuse": 0.0, "specular": 0.0, "fresnel": 0.0}


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
    layer = loss_layer(*planes)
    limits = heights_of(layer, planes)
    figure, scenes, moves = surface_3d(planes[0]), list[Scene](), list[Move]()
    figure.data = ()
    for plane in planes:
        scene, at = _add_plane(figure, plane, t, layer, limits)
        scenes.append(scene)
        on_map = [[None if z is None else _top(limits) for z in row] for row in at["z"]]
        moves += [Move(0, scene.in_space[-1], at), Move(0, scene.on_map[-1], at | {"z": on_map})]
    for change in _seen(scenes, 0, flat=False):
        figure.data[change.trace].visible = change.values["visible"]
    upright = {key: value for key, value in ticks(layer, limits).items() if value is not None}
    level = {"tickangle": 0}
    figure.update_layout(
        scene={"camera": BESIDE, "xaxis": level, "yaxis": level, "zaxis": upright},
        legend={"orientation": "h", "x": 0, "y": 0, "yanchor": "top"},
    )
    return figure, scenes, moves


def _add_plane(
    figure: go.Figure, plane: xr.Dataset, t: FloatArray, layer: Layer, limits: Limits
) -> tuple[Scene, dict[str, Any]]:
    """The traces of a plane, and where its markers are at each t.

    What lies on the surface is there twice: lifted above it, and for the map above all of it, since seen from above
    the higher parts would hide it.
    """
    marker, at = _marker(plane, t, layer, limits)
    lying = [*(_raised(trace, limits) for trace in on_surface(plane, layer, limits)), marker]
    flat = [go.Scatter3d(trace.to_plotly_json() | {"z": np.full(len(trace.x), _top(limits))}) for trace in lying]
    first = len(figure.data)
    figure.add_traces([layer_surface(plane, layer, limits), *lying, *flat])
    cuts = np.cumsum([first, 1, len(lying), len(flat)]).tolist()
    return Scene(*(range(a, b) for a, b in pairwise(cuts))), at


def _lift(limits: Limits) -> float:
    return LIFT * (limits[1] - limits[0])


def _top(limits: Limits) -> float:
    """A height above all of the surfaces."""
    return limits[1] + _lift(limits)


def _raised(trace: go.Scatter3d, limits: Limits) -> go.Scatter3d:
    """A path or a mark of the surface, lifted; a mark by its name, in white where it lies in the dark colours."""
    height = np.asarray(trace.z, dtype=np.float32)
    found = go.Scatter3d(trace.to_plotly_json() | {"z": height + np.float32(_lift(limits))})
    if trace.mode == "markers":
        label = {"color": "white" if height[0] < sum(limits) / 2 else "black", "size": 14}
        text = {"text": [mark_label(trace.name)], "textposition": "top center", "textfont": label}
        found.update(mode="markers+text", showlegend=False, **text)
    return found


def _marker(plane: xr.Dataset, t: FloatArray, layer: Layer, limits: Limits) -> tuple[go.Scatter3d, dict[str, Any]]:
    """A dot for every path that lies in the plane, and where they are at each t; hidden where a path leaves it."""
    there = np.array([_along(plane, path, t, layer.logarithmic) for path in paths(plane)])
    there[:, 2] += _lift(limits)
    at = {name: [known(row) for row in there[:, i].T] for i, name in enumerate("xyz")}
    dot = go.Scatter3d(
        **{name: rows[0] for name, rows in at.items()},
        mode="markers",
        marker={"size": 7, "color": [path.colour for path in paths(plane)], "line": {"color": "black", "width": 2}},
        text=[path.name for path in paths(plane)],
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
        lit = [Change(0, trace, {"lighting": MATT if flat else LIGHT}) for trace in scenes[chosen].surface]
        found[key] = (*_seen(scenes, chosen, flat), Change(0, None, _layout(space, planes[chosen], flat)), *lit)
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
