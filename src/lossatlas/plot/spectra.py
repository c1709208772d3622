"""Eigenvalues of the Hessian, with their errors; power iteration beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.plot.curves import values
from lossatlas.plot.style import COLOURS, GREY, MARKERS, labels, legend_above, network_label, panels, styled
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
                _end(panel, dataset.sel(end=end), k, len(datasets), label)
        panel.axhline(0, color=GREY, linewidth=0.6, linestyle=":")
        panel.set(xlabel="rank", ylabel=r"eigenvalue $\lambda$ of the Hessian", title=TITLES[end])
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, axes[0])
    return figure


def _end(axes: Axes, dataset: xr.Dataset, k: int, n: int, label: str) -> None:
    rank = np.arange(1, dataset.sizes["rank"] + 1) + 0.16 * (k - (n - 1) / 2)
    eigenvalue, colour = values(dataset, "eigenvalue"), COLOURS[k % len(COLOURS)]
    axes.plot(rank, eigenvalue, MARKERS[k % len(MARKERS)], color=colour, label=label)
    if "eigenvalue_stderr" in dataset:
        stderr = values(dataset, "eigenvalue_stderr")
        axes.errorbar(rank, eigenvalue, yerr=stderr, fmt="none", ecolor=colour, elinewidth=0.8, capsize=2.5)
    if "residual" in dataset:
        residual = values(dataset, "residual")
        axes.errorbar(rank, eigenvalue, yerr=residual, fmt="none", ecolor=colour, elinewidth=2.5)


@styled
def power_iteration(*datasets: xr.Dataset, spectra: tuple[xr.Dataset, ...] = ()) -> Figure:
    """Rayleigh quotients of power iteration, beside the certified largest eigenvalue of each spectrum given.

    The band about a certified value is its residual and one data-sampling standard error together.
    """
    figure, axes = panels(1, height=2.9, width=4.8)
    for k, dataset in enumerate(datasets):
        look: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
        axes[0].plot(values(dataset, "iteration"), values(dataset, "eigenvalue"), label=_on_batches(dataset), **look)
    for dataset, label in zip(spectra, labels(spectra), strict=True):
        _certified(axes[0], dataset, label)
    axes[0].set(xlabel="iteration", ylabel=r"estimate of $\lambda_{\max}$")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, axes[0], columns=1)
    return figure


def _on_batches(dataset: xr.Dataset) -> str:
    """A label such as: network A, changing batches of 256."""
    kind = {"changing": "changing batches", "fixed": "one fixed batch"}.get(
        str(dataset.attrs.get("batches")), "batches"
    )
    size = f" of {int(dataset.attrs['batch_size']):,}" if "batch_size" in dataset.attrs else ""
    return f"{network_label(dataset)}, {kind}{size}"


def _certified(axes: Axes, dataset: xr.Dataset, label: str) -> None:
    first = dataset.sel(end="top").isel(rank=0)
    value = float(first["eigenvalue"])
    stderr = float(first["eigenvalue_stderr"]) if "eigenvalue_stderr" in first else 0.0
    half = np.nansum([stderr, float(first["residual"]) if "residual" in first else 0.0])
    drawn = axes.axhline(
        value,
        linestyle="--",
        color="black",
        linewidth=1,
        label=f"{label}, Lanczos: {plus_minus(value, stderr)}",
    )
    axes.axhspan(value - half, value + half, color=drawn.get_color(), alpha=0.12, linewidth=0)
