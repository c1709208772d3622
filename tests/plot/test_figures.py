from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import made_datasets as made
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from lossatlas import plot
from lossatlas.errors import InputError
from lossatlas.plot import interactive
from lossatlas.drawing.contours import draw_contours
from lossatlas.drawing.grids import colour_scale, round_levels


def beyond_numbers(dataset: xr.Dataset, dim: str, index: int) -> xr.Dataset:
    """The loss is infinite at one place, and its errors are NaN there."""
    broken = dataset.copy(deep=True)
    for name in ("loss", "loss_stderr", "loss_draws"):
        if name in broken:
            broken[name][{dim: index}] = np.nan if "stderr" in name else np.inf
    return broken


DRAWN: dict[str, Callable[[], Figure]] = {
    "line": lambda: plot.line(made.line("A"), made.line("B")),
    "line without accuracy": lambda: plot.line(made.without(made.line(), "accuracy")),
    "line with gaps": lambda: plot.line(made.line().where(abs(made.line()["alpha"]) < 0.8)),
    "planes": lambda: plot.surface(made.plane("A"), made.plane("B")),
    "plane with missing cells": lambda: plot.surface(made.plane(nonfinite=True)),
    "plane without any finite cell": lambda: plot.surface(made.plane() * np.nan),
    "plane of a constant loss": lambda: plot.surface(made.plane() * 0 + 1.0),
    "plane with negative losses": lambda: plot.surface(made.plane() - 5.0),
    "3D": lambda: plot.surface_3d(made.plane(nonfinite=True)),
    "spectrum": lambda: plot.spectrum(made.spectrum("A"), made.spectrum("B", stderr=False)),
    "spectrum with everything else": lambda: plot.spectrum(made.whole_spectrum()),
    "densities": lambda: plot.spectral_density(made.whole_spectrum("A"), made.whole_spectrum("B")),
    "density by itself": lambda: plot.spectral_density(made.density()),
    "density without errors": lambda: plot.spectral_density(
        made.density().drop_vars(["density_stderr", "histogram_low", "histogram_high"])
    ),
    "trends": lambda: plot.trend(made.whole_spectrum("A"), made.whole_spectrum("B")),
    "trend of one subset a size": lambda: plot.trend(made.whole_spectrum().isel(replicate=[0])),
    "layers": lambda: plot.layers(made.whole_spectrum("A", layers=True), made.whole_spectrum("B", layers=True)),
    "criteria": lambda: plot.gabdullin(made.gabdullin("A"), made.gabdullin("B")),
    "split": lambda: plot.gauss_newton_split(made.gauss_newton_split("A"), made.gauss_newton_split("B")),
    "split along a flat direction": lambda: plot.gauss_newton_split(
        made.gauss_newton_split().assign(curvature_hessian=("rank", np.zeros(10)))
    ),
    "power iteration": lambda: plot.power_iteration(made.power_iteration(), spectra=(made.spectrum(),)),
    "barrier": lambda: plot.barrier(made.barrier("train"), made.barrier("test")),
    "barrier without accuracy": lambda: plot.barrier(made.without(made.barrier(), "accuracy", "error")),
    "robustness": lambda: plot.robustness(made.robustness("A"), made.robustness("B")),
    "barrier of an infinite loss": lambda: plot.barrier(beyond_numbers(made.barrier(), "t", 5).assign(barrier=np.inf)),
    "robustness to an infinite loss": lambda: plot.robustness(beyond_numbers(made.robustness(), "sigma", -1)),
    "robustness without draws": lambda: plot.robustness(made.robustness().drop_vars(["loss_draws", "accuracy_draws"])),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_panel_has_both_labels_and_the_figure_draws_without_a_warning(name: str):
    figure = DRAWN[name]()
    panels = [axes for axes in figure.axes if not hasattr(axes, "_colorbar")]
    assert panels
    for axes in panels:
        assert axes.get_xlabel()
        names_of_its_own = axes.yaxis.get_tick_params().get("labelleft", True)
        assert axes.get_ylabel() or not names_of_its_own
    buffer = io.BytesIO()
    plot.save(figure, buffer, "pdf")
    assert buffer.getvalue().startswith(b"%PDF")


@pytest.mark.parametrize(
    "dataset", [d for d in made.study() if d.attrs["kind"] != "comparison"], ids=lambda d: d.attrs["name"]
)
def test_a_figure_is_chosen_by_the_kind_and_needs_no_other_attribute(dataset: xr.Dataset):
    bare = dataset.assign_attrs()
    bare.attrs = {"kind": dataset.attrs["kind"]}
    assert isinstance(plot.figure(bare), Figure)


@pytest.mark.parametrize("kind", ["comparison", "unheard of", None])
def test_a_kind_without_a_figure_is_an_error_that_names_the_kinds(kind: str | None):
    with pytest.raises(InputError, match="trajectory"):
        plot.figure(xr.Dataset(attrs={"kind": kind}))


def test_the_contours_lie_at_the_loss_of_their_own_alpha_and_beta():
    """A surface that falls along alpha only: the colours must change along x and not along y."""
    alpha, beta = np.linspace(-1, 1, 7), np.linspace(-1, 1, 4)
    loss = xr.DataArray(10 ** np.add.outer(alpha, 0 * beta), dims=("alpha", "beta"))
    figure = plot.surface(xr.Dataset({"loss": loss}, coords={"alpha": alpha, "beta": beta}, attrs={"kind": "surface"}))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.axes[0].get_window_extent()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3].astype(int)

    def colour(x: float, y: float) -> Any:
        return pixels[int(box.y0 + y * box.height), int(box.x0 + x * box.width)]

    assert np.abs(colour(0.07, 0.2) - colour(0.07, 0.8)).sum() < 6
    assert np.abs(colour(0.07, 0.2) - colour(0.93, 0.2)).sum() > 100


def test_missing_cells_are_counted_on_the_figure():
    dataset = made.plane(nonfinite=True)
    figure = plot.surface(dataset)
    assert f"{dataset.attrs['n_nonfinite']} of {dataset['loss'].size} cells not finite" in figure.axes[0].get_title()
    assert "not finite" not in plot.surface(made.plane()).axes[0].get_title()


def test_two_planes_share_one_colour_scale():
    figure = plot.surface(made.plane("A"), made.plane("B"))
    scales = {axes.collections[0].get_clim() for axes in figure.axes if axes.get_title().startswith("network")}
    assert len(scales) == 1


def test_no_noise_has_a_place_on_the_axis_of_sigma():
    figure = plot.robustness(made.robustness())
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.01", "0.02", "0.05", "0.1"]
        low, high = axes.get_xlim()
        assert low < 0 < high


def test_the_arrow_of_a_barrier_is_as_long_as_the_barrier():
    figure = plot.barrier(made.barrier("test"))
    (arrow,) = figure.axes[0].texts
    assert arrow.xy[1] - arrow.xyann[1] == pytest.approx(float(made.barrier("test")["barrier"]), rel=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("low", "high"), [(0.25, 12.0), (0.001, 1e6), (2.0, 2.3), (1e-8, 3e-8)])
def test_contour_levels_are_round_few_and_within_the_range(low: float, high: float):
    levels = round_levels(low, high)
    assert len(levels) <= 12
    for level in levels:
        assert low < level < high
        assert f"{level:.0e}" == f"{level:.1e}".replace(".0e", "e") or f"{level:.1e}".startswith("1.5")


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were():
    before = dict(mpl.rcParams)
    plot.save(plot.history(made.history()), io.BytesIO(), "svg")
    assert dict(mpl.rcParams) == before


def test_the_same_figure_gives_the_same_bytes():
    def drawn(file_format: str) -> bytes:
        buffer = io.BytesIO()
        plot.save(plot.spectrum(made.spectrum()), buffer, file_format)
        return buffer.getvalue()

    assert drawn("svg") == drawn("svg")
    assert drawn("pdf") == drawn("pdf")


def test_text_in_a_pdf_stays_text():
    buffer = io.BytesIO()
    plot.save(plot.line(made.line()), buffer, "pdf")
    assert b"/FontFile2" in buffer.getvalue()  # an embedded TrueType font
    assert b"/Type3" not in buffer.getvalue()


def test_the_turning_surface_holds_log10_of_the_loss_in_single_precision():
    dataset = made.plane(steps=5)
    figure = interactive.surface_3d(dataset)
    surface = figure.data[0]
    assert surface.z.dtype == np.float32
    np.testing.assert_allclose(surface.z.T, np.log10(dataset["loss"].to_numpy()), rtol=1e-6)


def test_holes_of_the_turning_surface_are_valid_json():
    text = interactive.surface_3d(made.plane(nonfinite=True)).to_json()
    assert json.loads(text)["data"][0]["type"] == "surface"


def test_plots_claims_and_reports_import_neither_torch_nor_pyplot():
    modules = "lossatlas.plot, lossatlas.surfaces.show.interactive, lossatlas.claims, lossatlas.report"
    code = f"import sys, {modules}; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_contour_lines_have_the_colour_that_is_asked_for():
    axes = Figure().add_subplot()
    logarithmic, levels = colour_scale(made.plane()["loss"].to_numpy())
    draw_contours(axes, made.plane(), logarithmic, levels, lines_in="#444444")
    _, lines = (c for c in axes.collections if isinstance(c, QuadContourSet))
    assert not lines.filled
    assert {to_hex(colour) for colour in lines.get_edgecolor()} == {"#444444"}
