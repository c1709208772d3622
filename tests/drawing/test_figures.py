"""What holds for every figure: its files, its style, its labels, and where the contours lie."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from lossatlas.drawing import style
from lossatlas.drawing.contours import draw_contours, loss_panel
from lossatlas.drawing.grids import colour_scale
from lossatlas.drawing.style import labels, panels, save, styled


def rising_along_alpha() -> xr.Dataset:
    """The loss 10^alpha on a grid that is not square."""
    alpha, beta = np.linspace(-1, 1, 7), np.linspace(-1, 1, 4)
    loss = xr.DataArray(10 ** np.add.outer(alpha, 0 * beta), dims=("alpha", "beta"))
    return xr.Dataset({"loss": loss}, coords={"alpha": alpha, "beta": beta})


@styled
def contours(dataset: xr.Dataset) -> Figure:
    figure = Figure(layout="constrained")
    loss_panel(figure.add_subplot(), dataset, *colour_scale(dataset["loss"].to_numpy()))
    return figure


def saved(figure: Figure, file_format: str) -> bytes:
    buffer = io.BytesIO()
    save(figure, buffer, file_format)
    return buffer.getvalue()


def test_the_contours_lie_at_the_loss_of_their_own_alpha_and_beta():
    """The colours must change along x and not along y."""
    figure = contours(rising_along_alpha())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.axes[0].get_window_extent()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3].astype(int)

    def colour(x: float, y: float) -> Any:
        return pixels[int(box.y0 + y * box.height), int(box.x0 + x * box.width)]

    assert np.abs(colour(0.07, 0.2) - colour(0.07, 0.8)).sum() < 6
    assert np.abs(colour(0.07, 0.2) - colour(0.93, 0.2)).sum() > 100


def test_the_contour_lines_have_the_colour_that_is_asked_for():
    axes, dataset = Figure().add_subplot(), rising_along_alpha()
    draw_contours(axes, dataset, *colour_scale(dataset["loss"].to_numpy()), lines_in="#444444")
    _, lines = (c for c in axes.collections if isinstance(c, QuadContourSet))
    assert not lines.filled
    assert {to_hex(colour) for colour in lines.get_edgecolor()} == {"#444444"}


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were():
    before = dict(mpl.rcParams)
    saved(contours(rising_along_alpha()), "svg")
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("file_format", ["svg", "pdf", "png"])
def test_the_same_figure_gives_the_same_bytes(file_format: str):
    first, second = (saved(contours(rising_along_alpha()), file_format) for _ in range(2))
    assert first == second


def test_text_in_a_pdf_stays_text(fonttype, monkeypatch):
    monkeypatch.setitem(style.RC, "pdf.fonttype", fonttype)
    figure, (axes,) = panels(1)
    axes.set(xlabel="alpha", ylabel="loss")
    pdf = saved(figure, "pdf")
    assert b"/FontFile2" in pdf  # an embedded TrueType font
    assert b"/Type3" not in pdf


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ([{"network": "A"}, {"network": "B"}], ["network A", "network B"]),
        ([{"network": "A", "seed": 0}, {"network": "A", "seed": 3}], ["network A, seed 0", "network A, seed 3"]),
        (
            [{"network": "A", "data": "train"}, {"network": "A", "data": "test"}],
            ["network A, train", "network A, test"],
        ),
        ([{"name": "my_run"}, {"model": "ResNet"}], ["my run", "ResNet"]),
    ],
)
def test_each_curve_is_labelled_by_its_network_and_by_what_tells_it_from_others(
    attrs: list[dict[str, Any]], expected: list[str]
):
    assert labels(xr.Dataset(attrs=each) for each in attrs) == expected
