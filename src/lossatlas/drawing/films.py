"""Figures that move: a surface that turns, a track that draws itself; written as GIF or MP4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.animation import FFMpegWriter, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lossatlas.drawing.axes import values
from lossatlas.drawing.contours import draw_contours, loss_bar, pale
from lossatlas.drawing.grids import SYMBOLS, colour_scale, grid
from lossatlas.drawing.style import RC, VERMILLION, sized, styled
from lossatlas.errors import InputError, MissingToolError
from lossatlas.results.files import replacing
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

DPI = 100
WHITE = withStroke(linewidth=2.5, foreground="white")
DRAWING = 0.85  # of the film; then its last picture stands
Show = Callable[[int, int], object]  # makes a figure the k-th of n pictures


def check_film(path: Path, seconds: float, fps: int) -> None:
    """``InputError`` or ``MissingToolError`` where no film can be written so."""
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise InputError(f"{path}: choose a path that ends with .gif or .mp4.")
    if not (0 < seconds <= 60 and 1 <= fps <= 60):
        raise InputError(f"seconds={seconds}, fps={fps}: give at most 60 seconds, and 1 to 60 pictures a second.")
    if path.suffix.lower() == ".mp4" and not FFMpegWriter.isAvailable():
        raise MissingToolError("The program ffmpeg, which writes .mp4, is absent: install it, or choose a .gif.")


def write_film(figure: Figure, show: Show, path: Path, seconds: float, fps: int) -> None:
    """A picture of the figure for each moment, in a file that appears when it is complete."""
    writer: Any = (PillowWriter if path.suffix.lower() == ".gif" else FFMpegWriter)(fps=fps)
    n = max(2, round(seconds * fps))
    with mpl.rc_context(RC), replacing(path) as temporary, writer.saving(figure, str(temporary), DPI):
        for k in range(n):
            show(k, n)
            writer.grab_frame()


def turning(figure: Figure) -> Show:
    """Its axes in space turn once around."""
    spaces: list[Any] = [axes for axes in figure.axes if axes.name == "3d"]
    start = [axes.azim for axes in spaces]

    def show(k: int, n: int) -> None:
        for axes, angle in zip(spaces, start, strict=True):
            axes.view_init(elev=axes.elev, azim=angle + 360 * k / n)

    return show


@styled
def drawing_itself(track: xr.Dataset, plane: xr.Dataset | None) -> tuple[Figure, Show]:
    """The snapshots one after the other on their plane, with the step and the loss of the last one shown."""
    alpha, beta, texts = values(track, "alpha"), values(track, "beta"), _readouts(track)
    extents = [values(plane, name) for name in ("alpha", "beta")] if plane is not None else [alpha, beta]
    shape = float(np.ptp(extents[1]) / (np.ptp(extents[0]) or 1.0))
    still = sized(5.6, float(np.clip(4.4 * shape + 1.0, 2.2, 5.2)))
    below = still.add_subplot()
    _background(still, below, plane, extents)
    below.set_title(max(texts, key=len), loc="left", alpha=0)  # keeps its place
    figure, axes = _frozen(still, below)
    (line,) = axes.plot([], [], "k.-", linewidth=1, markersize=4, path_effects=[WHITE])
    (head,) = axes.plot([], [], "o", color=VERMILLION, markeredgecolor="white", markersize=8)
    title = axes.set_title("", loc="left")

    def show(k: int, n: int) -> None:
        last = round(min(1.0, k / (DRAWING * (n - 1))) * (len(alpha) - 1))
        line.set_data(alpha[: last + 1], beta[: last + 1])
        head.set_data(alpha[last : last + 1], beta[last : last + 1])
        title.set_text(texts[last])

    return figure, show


def _frozen(still: Figure, below: Axes) -> tuple[Figure, Axes]:
    """A figure as an image, with empty axes over those of its panel: so only what moves is drawn for each picture."""
    width, height = (2 * round(side * DPI / 2) / DPI for side in still.get_size_inches())  # even, as MP4 asks
    still.set(dpi=DPI, size_inches=(width, height))
    canvas: Any = FigureCanvasAgg(still)
    canvas.draw()
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.figimage(np.asarray(canvas.buffer_rgba()), zorder=-1)
    axes = figure.add_axes(below.get_position().bounds, xlim=below.get_xlim(), ylim=below.get_ylim())
    axes.set_axis_off()
    return figure, axes


def _background(figure: Figure, axes: Axes, plane: xr.Dataset | None, extents: list[Any]) -> None:
    axes.set(xlabel=SYMBOLS["alpha"], ylabel=SYMBOLS["beta"], aspect="equal")
    if plane is None:
        margin = 0.06 * max(map(np.ptp, extents)) or 1.0
        axes.set(
            **{f"{x}lim": (each.min() - margin, each.max() + margin) for x, each in zip("xy", extents, strict=True)}
        )
        return
    across, up, loss = grid(plane)
    logarithmic, levels = colour_scale(loss)
    loss_bar(figure, draw_contours(axes, plane, logarithmic, levels, pale(), lines_in="#444444"), axes, logarithmic)
    axes.set(xlim=(across[0], across[-1]), ylim=(up[0], up[-1]))


def _readouts(track: xr.Dataset) -> list[str]:
    """For each snapshot whose it is, its step, and its loss where it is known."""
    who, data = Provenance.of(track).label, Provenance.of(track).short_data
    steps = [f"{who}: step {step:g}" for step in values(track, "step")]
    if "loss" not in track:
        return steps
    on = f" ({data})" if data else ""
    return [f"{text}, loss {number(loss, 2)}{on}" for text, loss in zip(steps, values(track, "loss"), strict=True)]
