"""A training step by step, for a page: the trajectory on its plane, in step with losses and distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lossatlas.drawing.axes import values
from lossatlas.drawing.grids import colour_scale, grid, line_levels, shown
from lossatlas.drawing.style import BLUE, GREEN, ORANGE, PURPLE, VERMILLION
from lossatlas.results.uncertainty import number, plus_minus
from lossatlas.results.views import Move, Slider, View
from lossatlas.surfaces.show import interactive
from lossatlas.trajectory.show.reading import has_sharpness, known, sharpness_of

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

POSITIONS = 101  # of the slider, at most
FAINT = 400  # points of a curve over all steps, at most
SHARPNESS = ("sharpness", "largest_eigenvalue", "lambda_max")  # what a training loop may tell its Recorder
PAGE: dict[str, Any] = {
    "template": "plotly_white",
    "height": 430,
    "margin": {"l": 55, "r": 10, "t": 30, "b": 45},
    "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
}


def in_space(plane: xr.Dataset, trajectory: xr.Dataset | None) -> View:
    """The plane as a surface that can be turned, with the trajectory at its true loss."""
    return View((interactive.surface_3d(plane, trajectory),))


def steps(plane: xr.Dataset | None, trajectory: xr.Dataset, history: xr.Dataset | None) -> View:
    """The trajectory up to a step on the map of its plane, and that step on the profiles beside it."""
    at = _positions(trajectory.sizes["snapshot"])
    chart, moves = _map(plane, trajectory, at)
    profiles, marked = _profiles(trajectory, history, at)
    slider = Slider(
        name="training step",
        labels=tuple(f"{step:g}" for step in values(trajectory, "step")[at]),
        readouts=tuple(_readout(trajectory, k) for k in at),
        moves=(*moves, *marked),
        start=len(at) - 1,
    )
    return View((chart, profiles), widths=(1.15, 1.0), slider=slider)


def _positions(n: int) -> list[int]:
    """The snapshots at which the slider can stand: all, or so many evenly among them."""
    return sorted(set(np.linspace(0, n - 1, min(n, POSITIONS)).round().astype(int).tolist()))


def _readout(trajectory: xr.Dataset, k: int) -> str:
    """As in "step 110: loss 0.0178 ± 0.0021, 0.738 off the plane"."""
    at = trajectory.isel(snapshot=k)
    told = [f"{number(float(at['off_plane_distance']), 3)} off the plane"]
    if "loss" in at:
        stderr = float(at["loss_stderr"]) if "loss_stderr" in at else None
        told.insert(0, f"loss {plus_minus(float(at['loss']), stderr)}")
    if has_sharpness(trajectory) and np.isfinite(float(at["lambda_max"])):
        told.append(f"λ_max {plus_minus(float(at['lambda_max']), float(at['lambda_max_residual']))}")
    return f"step {float(at['step']):g}: {', '.join(told)}"


def _map(plane: xr.Dataset | None, trajectory: xr.Dataset, at: list[int]) -> tuple[go.Figure, list[Move]]:
    """The loss on the plane with the trajectory on it; the line up to a step and the point there move."""
    alpha, beta = (single(values(trajectory, name)) for name in ("alpha", "beta"))
    figure = go.Figure([_contours(plane)] if plane is not None else [])
    figure.add_trace(_line(alpha, beta, "the whole trajectory", color="#444444", width=1, dash="dot"))
    grown, point = len(figure.data), len(figure.data) + 1
    figure.add_trace(_line(alpha, beta, "the trajectory so far", color="black", width=2.5))
    figure.add_trace(_marker(alpha[-1:], beta[-1:], "this step", size=12))
    names = [f"PC {k + 1} ({100 * float(trajectory['explained_variance_ratio'][k]):.1f} %)" for k in (0, 1)]
    titles = {f"{axis}axis": {"title": {"text": name}} for axis, name in zip("xy", names, strict=True)}
    figure.update_layout(PAGE | titles | {"showlegend": False})
    rows = {"x": [alpha[: k + 1] for k in at], "y": [beta[: k + 1] for k in at]}
    return figure, [Move(0, grown, rows), Move(0, point, {"x": alpha[at], "y": beta[at]})]


def _contours(plane: xr.Dataset) -> go.Contour:
    across, up, loss = grid(plane)
    logarithmic, levels = colour_scale(loss)
    ticks = line_levels(shown(loss, logarithmic), logarithmic, levels, most=7)
    told, template = _hover(plane, loss)
    return go.Contour(
        x=single(across),
        y=single(up),
        z=single(shown(loss, logarithmic)),
        customdata=told,
        hovertemplate=template,
        colorscale="Viridis",
        opacity=0.8,
        contours={"start": float(levels[0]), "end": float(levels[-1]), "size": float(levels[1] - levels[0])},
        line={"width": 0.4, "color": "#444444"},
        colorbar={
            "title": {"text": "loss"},
            "thickness": 12,
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
        },
        name="loss",
    )


def _hover(plane: xr.Dataset, loss: FloatArray) -> tuple[Any, str]:
    """The loss, its standard error, and whether the cell was evaluated (as text, since it is looked at only)."""
    nothing = np.full_like(loss, np.nan)
    stderr = grid(plane, "loss_stderr")[2] if "loss_stderr" in plane else nothing
    evaluated = grid(plane, "evaluated")[2] if "evaluated" in plane else nothing
    words = np.where(evaluated == 1, "evaluated", np.where(evaluated == 0, "interpolated", ""))
    told = np.stack([_texts(loss), _texts(stderr), words], axis=-1)
    error = " ± %{customdata[1]}" if np.isfinite(stderr).any() else ""
    return told, f"α %{{x:.3g}}, β %{{y:.3g}}<br>loss %{{customdata[0]}}{error}<br>%{{customdata[2]}}<extra></extra>"


def _texts(numbers: FloatArray) -> Any:
    return np.array([[number(float(each), 4) for each in row] for row in numbers])


def _profiles(trajectory: xr.Dataset, history: xr.Dataset | None, at: list[int]) -> tuple[go.Figure, list[Move]]:
    """Losses, the distance off the plane and, where it is known, sharpness, one above the other."""
    step = single(values(trajectory, "step"))
    rows = [
        row for row in (_losses(trajectory, history), _distances(trajectory), _sharpness(trajectory, history)) if row[0]
    ]
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for k, (traces, _, title) in enumerate(rows, 1):
        figure.add_traces(traces, rows=k, cols=1)
        wide = {"type": "log", "exponentformat": "power", "dtick": 1} if _wide(traces) else {}
        figure.update_yaxes(title_text=title, row=k, col=1, **wide)
    figure.update_xaxes(title_text="training step", row=len(rows), col=1)
    figure.update_layout(PAGE)
    moves = []
    for k, (_, marked, _) in enumerate(rows, 1):
        if marked is not None:
            moves.append(Move(1, len(figure.data), {"x": step[at], "y": marked[at]}))
            figure.add_trace(_marker(step[-1:], marked[-1:], "this step", size=9), row=k, col=1)
    return figure, moves


Row = tuple[list[go.Scatter], "FloatArray | None", str]  # curves over the steps, what is marked of them, their title


def _losses(trajectory: xr.Dataset, history: xr.Dataset | None) -> Row:
    step, traces = values(trajectory, "step"), []
    if history is not None and known(history, "loss", "step"):
        thin = history.isel(step=slice(None, None, max(1, history.sizes["step"] // FAINT)))
        traces.append(_line(values(thin, "step"), values(thin, "loss"), "mini-batch", color="#BBBBBB", width=1))
    if "loss" in trajectory:
        traces.append(_line(step, values(trajectory, "loss"), "true loss", color=BLUE, width=2))
    if "plane_loss" in trajectory:
        traces.append(_line(step, values(trajectory, "plane_loss"), "on the plane", color=ORANGE, width=2, dash="dash"))
    if history is not None and known(history, "test_loss", "epoch"):
        ends = _ends_of_epochs(history)
        traces.append(_line(ends, values(history, "test_loss"), "test data", color=GREEN, width=2))
    return traces, single(values(trajectory, "loss")) if "loss" in trajectory else None, "loss"


def _ends_of_epochs(history: xr.Dataset) -> FloatArray:
    """The step at which each epoch ended."""
    epoch, step = values(history, "epoch"), values(history, "step")
    last = float(step.max()) if step.size else 1.0
    return np.asarray(epoch * last / epoch.max(), float)


def _distances(trajectory: xr.Dataset) -> Row:
    off, step = values(trajectory, "off_plane_distance"), values(trajectory, "step")
    line = _line(step, off, "off the plane", color=VERMILLION, width=2)
    return [line.update(showlegend=False)], single(off), "off the plane"


def _sharpness(trajectory: xr.Dataset, history: xr.Dataset | None) -> Row:
    """lambda_max at the snapshots or, where it was not measured, what the training loop told its Recorder."""
    if has_sharpness(trajectory):
        step, sharpness = sharpness_of(trajectory)
        line = _line(step, sharpness, "λ_max", color=PURPLE, width=2).update(mode="lines+markers", showlegend=False)
        return [line], single(np.interp(values(trajectory, "step"), step, sharpness)), "λ<sub>max</sub>"
    name = next((name for name in SHARPNESS if history is not None and known(history, name, "step")), None)
    if history is None or name is None:
        return [], None, ""
    recorded = history[name].dropna("step")
    step, sharpness = recorded["step"].to_numpy().astype(float), recorded.to_numpy().astype(float)
    line = _line(step, sharpness, "sharpness", color=PURPLE, width=2)
    return [line.update(showlegend=False)], None, "sharpness"


def _wide(traces: list[go.Scatter]) -> bool:
    """Whether positive values span so much that an axis of theirs is logarithmic."""
    every = np.concatenate([np.asarray(trace.y, float) for trace in traces])
    every = every[np.isfinite(every)]
    return bool(every.size and every.min() > 0 and every.max() > 20 * every.min())


def _line(x: FloatArray, y: FloatArray, name: str, **line: Any) -> go.Scatter:
    return go.Scatter(x=single(x), y=single(y), mode="lines", line=line, name=name, hovertemplate="%{y:.3g}")


def _marker(x: FloatArray, y: FloatArray, name: str, size: int) -> go.Scatter:
    look = {"size": size, "color": VERMILLION, "line": {"color": "white", "width": 1.5}}
    return go.Scatter(x=x, y=y, mode="markers", marker=look, name=name, showlegend=False, hoverinfo="skip")


def single(numbers: Any) -> Any:
    return np.ascontiguousarray(numbers, dtype=np.float32)
