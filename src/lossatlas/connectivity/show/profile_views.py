"""Profiles of loss and error along the paths as a plotly figure, with a marker on each that can be moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from plotly.subplots import make_subplots

from lossatlas.connectivity.show.captions import mark_label, networks, path
from lossatlas.drawing.axes import values
from lossatlas.drawing.style import errors, path_colours
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, plus_minus
from lossatlas.results.views import Move

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

WIDE = 8  # a loss that spans more than this factor is drawn on a logarithmic axis


@dataclass(frozen=True)
class Profiles:
    """The figure, the t at which some path was evaluated, what is read there, and what moves in the figure."""

    figure: go.Figure
    t: FloatArray
    readouts: tuple[str, ...]
    highest: int  # the position of the greatest loss
    markers: tuple[tuple[int, dict[str, Any]], ...]

    def moves(self, panel: int) -> Iterator[Move]:
        """One for the markers of each quantity."""
        yield from (Move(panel, trace, at) for trace, at in self.markers)


def profiles_of(barriers: Sequence[xr.Dataset]) -> Profiles:
    """The loss of each path over t, below it the error where it was measured."""
    t = np.unique(np.concatenate([values(dataset, "t") for dataset in barriers]).round(9))
    quantities = ["loss", *(["error"] if any("error" in dataset for dataset in barriers) else [])]
    figure = make_subplots(rows=len(quantities), cols=1, shared_xaxes=True, vertical_spacing=0.08)
    markers = tuple(_draw(figure, row, quantity, barriers, t) for row, quantity in enumerate(quantities, 1))
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_xaxes(title_text=_axis(barriers[0]), row=len(quantities))
    figure.update_layout(
        height=440,
        margin={"l": 60, "r": 10, "t": 85, "b": 45},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        template="plotly_white",
    )
    return Profiles(figure, t, tuple(_readouts(barriers, t)), _highest(barriers, t), markers)


def _axis(barrier: xr.Dataset) -> str:
    """What t is, and on which data the profiles are."""
    first, second = map(mark_label, networks(barrier))
    return f"t (0: {first}, 1: {second}), {Provenance.of(barrier).short_data}"


def _draw(
    figure: go.Figure, row: int, quantity: str, barriers: Sequence[xr.Dataset], t: FloatArray
) -> tuple[int, dict[str, Any]]:
    """The profiles of a quantity, and their markers: the markers' trace, and where they are at each t."""
    having = [dataset for dataset in barriers if quantity in dataset]
    logarithmic, colours = quantity == "loss" and _spans_much(having), path_colours(map(path, barriers))
    for dataset in having:
        figure.add_scatter(row=row, col=1, **_line(dataset, quantity, colours[path(dataset)], legend=row == 1))
    figure.update_yaxes(title_text=quantity, type="log" if logarithmic else "linear", row=row)
    at = _markers(having, quantity, t, logarithmic)
    look = {"size": 10, "line": {"color": "black", "width": 1.5}}
    figure.add_scatter(
        row=row,
        col=1,
        **{name: rows[0] for name, rows in at.items()},
        mode="markers",
        marker=look | {"color": [colours[path(dataset)] for dataset in having]},
        hovertemplate="%{text}<extra></extra>",
        name="point at t",
        showlegend=False,
    )
    return len(figure.data) - 1, at


def _markers(having: Sequence[xr.Dataset], quantity: str, t: FloatArray, logarithmic: bool) -> dict[str, Any]:
    """At each t the point on each profile, and what is told under the pointer."""
    each = [_at(dataset, quantity, t, logarithmic) for dataset in having]
    told = [[_hover(d, quantity, place, y[k]) for d, y in zip(having, each, strict=True)] for k, place in enumerate(t)]
    return {
        "x": [[float(place)] * len(having) for place in t],
        "y": [known(row) for row in np.transpose(each)],
        "text": told,
    }


def _line(dataset: xr.Dataset, quantity: str, colour: str, legend: bool) -> dict[str, Any]:
    error = errors(dataset, quantity)
    known = np.zeros(dataset.sizes["t"]) if error is None else error
    spread = "" if error is None else " ± %{customdata:.2g}"
    return {
        "x": np.float32(values(dataset, "t")),
        "y": np.float32(values(dataset, quantity)),
        "customdata": np.float32(known),
        "mode": "lines+markers",
        "line": {"color": colour, "width": 2},
        "marker": {"size": 3.5},
        "name": path(dataset),
        "legendgroup": path(dataset),
        "showlegend": legend,
        "hovertemplate": f"{path(dataset)}<br>t %{{x:.4g}}<br>{quantity} %{{y:.4g}}{spread}, evaluated<extra></extra>",
    }


def _spans_much(barriers: Sequence[xr.Dataset]) -> bool:
    loss = np.concatenate([values(dataset, "loss") for dataset in barriers])
    finite = loss[np.isfinite(loss)]
    return bool(finite.size and finite.min() > 0 and finite.max() > WIDE * finite.min())


def _at(dataset: xr.Dataset, quantity: str, t: FloatArray, logarithmic: bool) -> FloatArray:
    """The quantity at each t, between those evaluated along the line that is drawn."""
    y = values(dataset, quantity)
    y = np.where(np.isfinite(y), y, np.nan)
    if logarithmic:
        return np.asarray(np.exp(np.interp(t, values(dataset, "t"), np.log(y))), dtype=float)
    return np.asarray(np.interp(t, values(dataset, "t"), y), dtype=float)


def _evaluated(dataset: xr.Dataset, t: float) -> bool:
    return bool(np.isclose(values(dataset, "t"), t, rtol=0, atol=1e-8).any())


def _hover(dataset: xr.Dataset, quantity: str, t: float, y: float) -> str:
    """Value and standard error where it was evaluated; the value alone where it is interpolated."""
    where = f"{path(dataset)}<br>t {t:.4g}<br>{quantity}"
    if not _evaluated(dataset, t):
        return f"{where} {number(y, 3)}, interpolated between evaluated t"
    error, k = errors(dataset, quantity), int(np.abs(values(dataset, "t") - t).argmin())
    return f"{where} {plus_minus(y, None if error is None else float(error[k]))}, evaluated"


def _readouts(barriers: Sequence[xr.Dataset], t: FloatArray) -> Iterator[str]:
    """The loss of each path in words; "≈" where it is interpolated."""
    logarithmic = _spans_much(barriers)
    loss = [_at(dataset, "loss", t, logarithmic) for dataset in barriers]
    for k, place in enumerate(t):
        about = ("" if _evaluated(dataset, place) else "≈ " for dataset in barriers)
        told = (f"{path(d)} {a}{number(y[k], 3)}" for d, a, y in zip(barriers, about, loss, strict=True))
        yield f"loss on the {', '.join(told)}"


def _highest(barriers: Sequence[xr.Dataset], t: FloatArray) -> int:
    """Where the loss is highest on the first path, so that a barrier is seen at once."""
    y = _at(barriers[0], "loss", t, logarithmic=False)
    return int(np.nanargmax(y)) if np.isfinite(y).any() else 0


def known(values: FloatArray) -> list[float | None]:
    """In single precision, None for what is not finite."""
    return [float(np.float32(value)) if np.isfinite(value) else None for value in values]
