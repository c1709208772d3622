"""Eigenvalues of the Hessian with their errors, and power iteration with the eigenvalue that it should find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.curvature.show.captions import batches, restricted
from lossatlas.drawing.axes import values
from lossatlas.drawing.style import COLOURS, GREY, MARKERS, labels, legend_above, panels, styled
from lossatlas.results.uncertainty import plus_minus

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"top": "largest eigenvalues", "bottom": "smallest eigenvalues"}


@styled
def spectrum(*datasets: xr.Dataset) -> Figure:
    """The extreme eigenvalues of the Hessian at both ends, one network or several.

    Thick bars: the solver's residual. Thin bars with caps: one data-sampling standard error.
    """
    ends = [end for end in TITLES if any(end in d["end"].to_numpy() for d in datasets)]
    figure, axes = panels(len(ends), height=2.8)
    for panel, end in zip(axes, ends, strict=True):
        for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
            if end in dataset["end"].to_numpy():
                _end(panel, dataset.sel(end=end), k, 0.16 * (k - (len(datasets) - 1) / 2), label)
        panel.axhline(0, color=GREY, linewidth=0.6, linestyle=":")
        block = "block" if restricted(datasets[0]) else "Hessian"
        panel.set(xlabel="rank", ylabel=rf"eigenvalue $\lambda$ of the {block}", title=TITLES[end])
        panel.set_xlim(0.6, max(dataset.sizes["rank"] for dataset in datasets) + 0.4)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_above(figure, axes[0])
    return figure


def _end(axes: Axes, dataset: xr.Dataset, k: int, shift: float, label: str) -> None:
    rank = np.arange(1, dataset.sizes["rank"] + 1) + shift
    eigenvalue, colour = values(dataset, "eigenvalue"), COLOURS[k % len(COLOURS)]
    axes.plot(rank, eigenvalue, MARKERS[k % len(MARKERS)], color=colour, label=label)
    bars: dict[str, Any] = {"fmt": "none", "ecolor": colour}
    axes.errorbar(rank, eigenvalue, yerr=values(dataset, "eigenvalue_stderr"), elinewidth=0.8, capsize=2.5, **bars)
    axes.errorbar(rank, eigenvalue, yerr=values(dataset, "residual"), elinewidth=2.5, **bars)


def largest(dataset: xr.Dataset) -> tuple[float, float, float]:
    """The largest eigenvalue, its data-sampling standard error, and residual and standard error together."""
    first = dataset.sel(end="top").isel(rank=0)
    stderr = float(first["eigenvalue_stderr"])
    return float(first["eigenvalue"]), stderr, float(np.nansum([stderr, float(first["residual"])]))


@styled
def power_iteration(*datasets: xr.Dataset, spectra: tuple[xr.Dataset, ...] = ()) -> Figure:
    """Rayleigh quotients of power iteration, and the certified largest eigenvalue of each spectrum given.

    The band about a certified value is its residual and one data-sampling standard error together.
    """
    figure, (axes,) = panels(1, height=2.9, width=4.8)
    for k, dataset in enumerate(datasets):
        look: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
        axes.plot(values(dataset, "iteration"), values(dataset, "eigenvalue"), label=batches(dataset), **look)
    for dataset, label in zip(spectra, labels(spectra), strict=True):
        _certified(axes, dataset, label)
    axes.set(xlabel="iteration", ylabel=r"estimate of $\lambda_{\max}$")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_above(figure, axes, columns=1)
    return figure


def _certified(axes: Axes, dataset: xr.Dataset, label: str) -> None:
    value, stderr, half = largest(dataset)
    name = f"{label}, Lanczos: {plus_minus(value, stderr)}"
    axes.axhline(value, linestyle="--", color="black", linewidth=1, label=name)
    axes.axhspan(value - half, value + half, color="black", alpha=0.12, linewidth=0)
