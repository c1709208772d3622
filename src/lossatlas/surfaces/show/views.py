"""Planes side by side on a page: linked cameras, one colour scale, and what can be shown of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from lossatlas.drawing.grids import axes_of, has_error_map, over_planes
from lossatlas.drawing.overlays import has_overlays
from lossatlas.drawing.style import labels
from lossatlas.results.provenance import Provenance
from lossatlas.results.views import Change, Choice, View
from lossatlas.surfaces.show.interactive import CAMERA, PAGE, SHAPE, Limits, axes_3d, loss_layer, on_surface
from lossatlas.surfaces.show.layers import LIGHT, Layer, heights_of, layer_surface, single, ticks
from lossatlas.surfaces.show.reading import center, has_center

if TYPE_CHECKING:
    import xarray as xr

# What can be shown, by its name in the choice: the variable, the title of its axis, and whether it is a share.
SHOWN: Mapping[str, tuple[str, str, bool]] = {
    "loss": ("loss", "loss", False),
    "accuracy": ("accuracy", "accuracy", False),
    "standard error": ("loss_stderr", "standard error of the loss", False),
    "interpolation error": ("loss_error", "interpolation error (%)", True),
    "spread": ("relative_spread", "standard deviation / mean (%)", True),
}
COLOURS = {"loss": "Viridis", "accuracy": "Cividis"}  # all that is an error is drawn in another one
FROM_ABOVE = {
    "eye": {"x": 0, "y": 0, "z": 1.6},
    "up": {"x": 0, "y": 1, "z": 0},
    "center": {"x": 0, "y": 0, "z": 0},
    "projection": {"type": "orthographic"},
}
CAMERAS = {
    "surface": CAMERA | {"up": {"x": 0, "y": 0, "z": 1}, "projection": {"type": "perspective"}},
    "map": FROM_ABOVE,
}
# From above the surface is nearly flat: no part of it lies beyond what a camera without perspective shows.
ASPECTS = {"surface": SHAPE["aspectratio"], "map": {"x": 1.3, "y": 1.3, "z": 0.05}}
# A map has the very colours of its bar.
LIGHTS = {"surface": LIGHT, "map": {"ambient": 1, "diffuse": 0, "specular": 0, "roughness": 1, "fresnel": 0}}
BAR = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.02, "yanchor": "top"}


def planes(*datasets: xr.Dataset) -> View:
    """A panel for each plane; what is shown in them, on which scale, of which data, and from where is chosen."""
    return Planes(tuple(over_planes(dataset) for dataset in datasets), tuple(labels(datasets))).view


@dataclass(frozen=True)
class Planes:
    """Planes that are seen together, with their names."""

    pictures: tuple[xr.Dataset, ...]
    names: tuple[str, ...]

    @property
    def view(self) -> View:
        return View(
            panels=tuple(self.panel(k) for k in range(len(self.pictures))),
            choices=tuple(self.choices),
            changes={at: tuple(self._changes(at)) for at in product(*(range(len(c.options)) for c in self.choices))},
            linked=True,
        )

    @cached_property
    def choices(self) -> list[Choice]:
        """Those that have more than one option."""
        found = {
            "shown": [name for name, (variable, *_) in SHOWN.items() if self._is_known(variable)],
            "scale": ["log", "linear"] if loss_layer(*self.pictures).logarithmic else ["linear"],
            "data": [_own_data(self.pictures[0]), *further_data(self.pictures)],
            "as": list(CAMERAS),
        }
        return [Choice(name, tuple(options)) for name, options in found.items() if len(options) > 1]

    def _is_known(self, variable: str) -> bool:
        """Whether every picture has it; an error map where at least one was interpolated."""
        if variable == "loss_error":
            return all(variable in p for p in self.pictures) and any(map(has_error_map, self.pictures))
        return all(variable in picture for picture in self.pictures)

    def chosen(self, at: Sequence[int]) -> dict[str, str]:
        """The option of each choice at these indices; those that leave no choice at their only option."""
        scale = "log" if loss_layer(*self.pictures).logarithmic else "linear"
        only = {"shown": "loss", "scale": scale, "data": _own_data(self.pictures[0]), "as": "surface"}
        return only | {choice.name: choice.options[k] for choice, k in zip(self.choices, at, strict=True)}

    def layer(self, at: Sequence[int]) -> Layer:
        """What these choices show. Only the loss and its standard error have a logarithmic scale."""
        chosen = self.chosen(at)
        variable, title, share = SHOWN[chosen["shown"]]
        if chosen["data"] != _own_data(self.pictures[0]) and f"{chosen['data']}_{variable}" in self.pictures[0]:
            variable, title = f"{chosen['data']}_{variable}", f"{title}, {chosen['data']}"
        positive = all(float(np.nanmin(picture[variable], initial=1.0)) > 0 for picture in self.pictures)
        logarithmic = chosen["scale"] == "log" and chosen["shown"] in ("loss", "standard error") and positive
        return Layer(variable, title, logarithmic, share, COLOURS.get(chosen["shown"], "Magma"))

    @cached_property
    def layers(self) -> list[Layer]:
        """Every one that can be chosen, once; that of the first options first."""
        every = product(*(range(len(choice.options)) for choice in self.choices))
        return list(dict.fromkeys(self.layer(at) for at in every))

    @cached_property
    def limits(self) -> dict[Layer, Limits]:
        """The heights of each layer, common to all panels."""
        return {layer: heights_of(layer, self.pictures) for layer in self.layers}

    @cached_property
    def traces(self) -> list[list[tuple[Layer, Any]]]:
        """For each panel its traces, with the layer that each belongs to."""
        return [[each for layer in self.layers for each in self._of_layer(p, layer)] for p in self.pictures]

    def _of_layer(self, picture: xr.Dataset, layer: Layer) -> list[tuple[Layer, Any]]:
        surface = layer_surface(picture, layer, self.limits[layer]).update(colorbar=BAR)
        further = on_surface(picture, layer, self.limits[layer]) if layer.variable == "loss" else []
        return [(layer, trace) for trace in (surface, *further, *_center(picture, layer, self.limits[layer]))]

    def panel(self, k: int) -> go.Figure:
        """The panel of one plane as it is first seen."""
        first = self.layers[0]
        figure = go.Figure([_seen(trace, layer is first) for layer, trace in self.traces[k]])
        upright = {key: value for key, value in self._upright(first).items() if value is not None}
        scene = (
            axes_3d(self.pictures[k])
            | {"zaxis": {"title": {"text": ""}, **upright}}
            | SHAPE
            | {"camera": CAMERAS["surface"]}
        )
        title = {"text": self.names[k], "x": 0.02, "y": 0.98, "yanchor": "top", "font": {"size": 14}}
        margin = {"l": 0, "r": 0, "t": 34, "b": 60}
        return figure.update_layout(**PAGE | {"scene": scene, "title": title, "margin": margin})

    def _upright(self, layer: Layer) -> dict[str, Any]:
        """The vertical axis, the same in all panels; the colour bar says what it shows."""
        low, high = self.limits[layer]
        margin = 0.05 * (high - low)
        return {"range": [low - margin, high + margin], **ticks(layer, (low, high))}

    def _changes(self, at: Sequence[int]) -> list[Change]:
        """Which traces are seen, what the vertical axis says, and from where it is looked at."""
        layer = self.layer(at)
        axis = {f"scene.zaxis.{key}": value for key, value in self._upright(layer).items()}
        seen_as = self.chosen(at)["as"]
        layout = axis | {"scene.zaxis.showticklabels": seen_as == "surface"}
        camera = {"scene.camera": CAMERAS[seen_as], "scene.aspectratio": ASPECTS[seen_as]}
        found = []
        for panel, traces in enumerate(self.traces):
            for k, (own, trace) in enumerate(traces):
                light = {"lighting": LIGHTS[seen_as]} if trace.type == "surface" else {}
                found.append(Change(panel, k, {"visible": _visible(trace, own == layer)} | light))
            # The camera by itself: plotly forgets the range of an axis that is changed together with it.
            found += [Change(panel, None, layout), Change(panel, None, camera)]
        return found


def _center(picture: xr.Dataset, layer: Layer, limits: Limits) -> list[go.Scatter3d]:
    """A cross at the center, where it is a cell: a little above the surface, which would hide half of it."""
    at = center(picture)
    if not has_center(picture) or has_overlays(picture):
        return []
    across, up = axes_of(picture)
    z = layer.heights(picture)[at[up], at[across]] + 0.03 * (limits[1] - limits[0])
    cross = {"size": 6, "symbol": "cross", "color": "white", "line": {"color": "black", "width": 1}}
    name = "trained point" if picture.attrs["center_is_model"] else "center"
    look: dict[str, Any] = {"mode": "markers", "marker": cross, "name": name, "showlegend": False, "hoverinfo": "name"}
    return [go.Scatter3d(x=[0], y=[0], z=single(np.atleast_1d(z)), **look)]


def _visible(trace: Any, seen: bool) -> Any:
    """As the trace is when its layer is seen, which may be in the legend only; False when it is not."""
    return (True if trace.visible is None else trace.visible) if seen else False


def _seen(trace: Any, seen: bool) -> Any:
    """The trace as it is first drawn; the original stays as it is."""
    return type(trace)(trace.to_plotly_json() | {"visible": _visible(trace, seen)})


def _own_data(picture: xr.Dataset) -> str:
    """What the surface's own data are called in the choice: its split, or the data's name."""
    return str(picture.attrs.get("split") or Provenance.of(picture).short_data)


def further_data(pictures: Sequence[xr.Dataset]) -> list[str]:
    """The names of the further data on which the planes were measured too, where all pictures have them."""
    first = pictures[0]
    named = [str(name).removesuffix("_loss") for name in first.data_vars if str(name).endswith("_loss")]
    measured = [name for name in named if first[f"{name}_loss"].dims == first["loss"].dims]
    return [name for name in measured if all(f"{name}_loss_stderr" in picture for picture in pictures)]
