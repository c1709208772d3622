"""The spectrum of each layer's own block of the Hessian, and how much of the Hessian is its Gauss-Newton part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.drawing.axes import values
from lossatlas.drawing.style import COLOURS, GREY, MARKERS, errors, labels, legend_above, panels, styled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray

HIGHEST = 7.5  # inches, so that the figure of a deep network still fits a page with its caption


@styled
def layers(*datasets: xr.Dataset) -> Figure:
    """The largest and the smallest eigenvalue and the trace of each layer's block of the Hessian.

    Bars at a dot: the solver's residual, or one standard error of the trace; mostly within the dot.
    """
    sizes = _sizes(datasets)
    figure, axes = panels(3, height=min(1.1 + 0.24 * len(sizes), HIGHEST))
    for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
        rows = np.array([list(sizes).index(str(name)) for name in dataset["layer"].to_numpy()])
        look: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "fmt": MARKERS[k % len(MARKERS)], "label": label}
        _blocks(axes, dataset, rows + 0.22 * (k - (len(datasets) - 1) / 2), look)
    for panel, quantity in zip(axes, ("smallest\neigenvalue", "largest\neigenvalue", "trace"), strict=True):
        panel.set(xlabel=quantity)
        _rows_of_layers(panel, sizes)
    axes[0].set_ylabel("layer (parameters)")
    for panel in axes[1:]:
        panel.tick_params(labelleft=False)
    _wide_enough(axes[0], axes[1])
    if len(datasets) > 1:
        legend_above(figure, axes[0])
    return figure


def _blocks(axes: Sequence[Axes], dataset: xr.Dataset, at: FloatArray, look: dict[str, Any]) -> None:
    """One network's blocks: the smallest eigenvalue, the largest, the trace."""
    for panel, end in zip(axes, ("bottom", "top"), strict=False):
        outermost = dataset.sel(end=end).isel(rank=0)
        _dots(panel, values(outermost, "layer_eigenvalue"), at, values(outermost, "layer_residual"), look)
    _dots(axes[2], values(dataset, "layer_trace"), at, errors(dataset, "layer_trace"), look)


def _rows_of_layers(axes: Axes, sizes: dict[str, str]) -> None:
    """A row a layer, the first on top, with its name and its number of parameters."""
    axes.set_ylim(len(sizes) - 0.5, -0.5)
    axes.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
    axes.grid(axis="y", color=GREY, linewidth=0.3)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(sizes)), [f"{name} ({size})" for name, size in sizes.items()])
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params("y", labelsize=min(8, 200 / len(sizes)))


def _wide_enough(smallest: Axes, largest: Axes) -> None:
    """Eigenvalues that are 0 to within rounding look like 0: on the scale of the largest ones."""
    reach = 0.02 * max(map(abs, largest.get_xlim()))
    low, high = smallest.get_xlim()
    smallest.set_xlim(min(low, -reach), max(high, reach))


def _sizes(datasets: Sequence[xr.Dataset]) -> dict[str, str]:
    """Every layer's name with the number of its parameters, in the order of the network."""
    return {
        str(name): f"{int(dataset['layer_size'][k]):,}"
        for dataset in datasets
        for k, name in enumerate(dataset["layer"].to_numpy())
    }


def _dots(axes: Axes, x: FloatArray, y: FloatArray, half: FloatArray | None, look: dict[str, Any]) -> None:
    axes.errorbar(x, y, xerr=half, linestyle="none", elinewidth=1.5, markersize=4, **look)


@styled
def gauss_newton_split(*datasets: xr.Dataset) -> Figure:
    """v' H v and v' G v along the leading eigenvectors v of H (left), and their ratio (right)."""
    figure, axes = panels(2, height=2.7)
    for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
        _curvatures(axes, dataset, k, 0.24 * (k - (len(datasets) - 1) / 2), label)
    axes[0].axhline(0, color=GREY, linewidth=0.6, linestyle=":")
    axes[1].axhline(1, color=GREY, linewidth=0.6, linestyle=":")
    axes[0].set(ylabel="curvature along $v$")
    axes[1].set(ylabel=r"$v^\top G v \,/\, v^\top H v$")
    for panel in axes:
        panel.set_xlabel("rank of the eigenvector $v$ of $H$")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, axes[0], columns=2)
    return figure


def _curvatures(axes: Sequence[Axes], dataset: xr.Dataset, k: int, shift: float, label: str) -> None:
    rank = np.arange(1, dataset.sizes["rank"] + 1) + shift
    h, g = values(dataset, "curvature_hessian"), values(dataset, "curvature_gauss_newton")
    colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
    axes[0].plot(rank, h, marker, color=colour, label=f"{label}, $v^\\top H v$")
    axes[0].plot(rank, g, marker, color=colour, markerfacecolor="white", label=f"{label}, $v^\\top G v$")
    axes[1].plot(rank, np.divide(g, h, out=np.full_like(h, np.nan), where=h != 0), marker, color=colour)
