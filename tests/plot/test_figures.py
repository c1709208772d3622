from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable

import made_datasets as made
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from lossatlas import plot
from lossatlas.errors import InputError


def beyond_numbers(dataset: xr.Dataset, dim: str, index: int) -> xr.Dataset:
    """The loss is infinite at one place, and its errors are NaN there."""
    broken = dataset.copy(deep=True)
    for name in ("loss", "loss_stderr", "loss_draws"):
        if name in broken:
            broken[name][{dim: index}] = np.nan if "stderr" in name else np.inf
    return broken


DRAWN: dict[str, Callable[[], Figure]] = {
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


def test_plots_claims_and_reports_import_neither_torch_nor_pyplot():
    modules = "lossatlas.plot, lossatlas.surfaces.show.interactive, lossatlas.claims, lossatlas.report"
    code = f"import sys, {modules}; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
