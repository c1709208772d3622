"""Ways to see a plane in space: a variable of the surface, on a linear or a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from lossatlas.drawing.grids import axes_of, grid, has_error_map, is_polar, loss_ticks, mesh
from lossatlas.drawing.scales import scale_of

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

LIGHT = {"ambient": 0.8, "diffuse": 0.45, "specular": 0.05, "roughness": 0.9, "fresnel": 0.05}
LINES = 12  # contour lines on a surface, about


@dataclass(frozen=True)
class Layer:
    """A variable as height and colour; ``share`` is drawn in per cent."""

    variable: str
    title: str
    logarithmic: bool = False
    share: bool = False
    colours: str = "Viridis"

    def values(self, picture: xr.Dataset) -> FloatArray:
        """In the shape (up, across), in the units that are shown; NaN where it is not finite."""
        return grid(picture, self.variable)[2] * (100 if self.share else 1)

    def heights(self, picture: xr.Dataset) -> FloatArray:
        """What is drawn."""
        return self.placed(self.values(picture))

    def placed(self, values: FloatArray) -> FloatArray:
        """Where such values lie on the vertical axis; NaN where a logarithm has no place for them."""
        return np.log10(np.where(values > 0, values, np.nan)) if self.logarithmic else values


LOSS = Layer("loss", "loss", logarithmic=True)


def heights_of(layer: Layer, pictures: Sequence[xr.Dataset]) -> tuple[float, float]:
    """The lowest and the highest that is drawn in any of the pictures."""
    every = np.concatenate([layer.heights(picture).ravel() for picture in pictures])
    finite = every[np.isfinite(every)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def ticks(layer: Layer, limits: tuple[float, float]) -> dict[str, Any]:
    """Ticks of a logarithmic axis at round values, with the values themselves; plotly's own elsewhere."""
    if not layer.logarithmic:
        return {"tickmode": "auto", "tickvals": None, "ticktext": None}
    at, names = loss_ticks(True, *limits)
    return {"tickmode": "array", "tickvals": at, "ticktext": names}


def layer_surface(picture: xr.Dataset, layer: Layer, limits: tuple[float, float]) -> go.Surface:
    """The surface of a layer, coloured within these limits; cells that are not finite are holes."""
    x, y, _ = mesh(picture)
    low, high = limits
    step = (high - low) / LINES
    line = {"show": True, "start": low + step, "end": high, "size": step, "color": "rgba(255,255,255,0.45)", "width": 1}
    bar = {"title": {"text": layer.title, "side": "top"}, "x": 1.0, "thickness": 12, "len": 0.7, "outlinewidth": 0}
    return go.Surface(
        x=single(x if is_polar(picture) else x[0]),
        y=single(y if is_polar(picture) else y[:, 0]),
        z=single(layer.heights(picture)),
        cmin=low,
        cmax=high,
        colorscale=layer.colours,
        colorbar=bar | {key: value for key, value in ticks(layer, limits).items() if value is not None},
        contours={"z": line},
        lighting=LIGHT,
        customdata=_hover(picture, layer),
        text=_origin(picture),
        hovertemplate=_template(picture, layer),
        name=layer.title,
    )


def _hover(picture: xr.Dataset, layer: Layer) -> Any:
    """For each cell: value, standard error, relative error in per cent, coordinates; without what is not known."""
    across, up, _ = grid(picture)
    found = {"value": layer.values(picture)} | _errors(picture, layer)
    x, y = np.meshgrid(across, up)
    return single(np.stack([*found.values(), x, y], axis=-1))


def _errors(picture: xr.Dataset, layer: Layer) -> dict[str, FloatArray]:
    """What is known of the error of a layer's values."""
    found = {}
    if f"{layer.variable}_stderr" in picture:
        found["stderr"] = grid(picture, f"{layer.variable}_stderr")[2]
    if layer.variable == "loss" and "relative_spread" in picture:
        found["spread"] = 100 * grid(picture, "relative_spread")[2]
    elif layer.variable == "loss" and has_error_map(picture):
        found["interpolation"] = 100 * grid(picture, "loss_error")[2]
    return found


def _template(picture: xr.Dataset, layer: Layer) -> str:
    names = ["value", *_errors(picture, layer), "x", "y"]
    column = {name: f"%{{customdata[{k}]:" for k, name in enumerate(names)}
    where = f"α {column['x']}.3g}}, β {column['y']}.3g}}"
    if is_polar(picture):
        where = f"r {column['y']}.3g}}, φ {column['x']}.3g}} rad"
    text = f"{where}<br>{layer.title.removesuffix(' (%)')} {column['value']}.4g}}{' %' if layer.share else ''}"
    told = {
        "stderr": " ± {}.2g}}",
        "spread": " (mean), spread {}.2g}} %",
        "interpolation": "<br>interpolation error about {}.2g}} %",
    }
    text += "".join(words.format(column[name]) for name, words in told.items() if name in column)
    return f"{text}{_told_origin(picture)}<extra></extra>"


def _told_origin(picture: xr.Dataset) -> str:
    if "evaluated" not in picture:
        return ""
    return "<br>evaluated" if bool(picture["evaluated"].all()) else "<br>%{text}"


def _origin(picture: xr.Dataset) -> Any:
    """For each cell whether the model was evaluated there, where that differs between cells."""
    if "evaluated" not in picture or bool(picture["evaluated"].all()):
        return None
    return np.where(grid(picture, "evaluated")[2] > 0, "evaluated", "interpolated")


def positions(picture: xr.Dataset, across: FloatArray, up: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where points lie on the linear axes of the scene, as ``mesh`` has it for the grid."""
    if is_polar(picture):
        return up * np.cos(across), up * np.sin(across)
    scales = [scale_of(picture[name].to_numpy()) for name in axes_of(picture)]
    return scales[0].positions(across), scales[1].positions(up)


def single(values: FloatArray) -> Any:
    return np.ascontiguousarray(values, dtype=np.float32)
