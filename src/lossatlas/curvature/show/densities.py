"""How the eigenvalues are distributed: the density along the axis, and shares on a logarithmic axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import stats

from lossatlas.curvature.show.captions import matrix
from lossatlas.drawing.axes import values
from lossatlas.drawing.scales import Scale
from lossatlas.drawing.style import BLUE, GREY, VERMILLION, labels, legend_above, panels, styled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lossatlas.drawing.style import FloatArray

TINY = 1e-300  # stands for 0 on a logarithmic axis
QUANTILE = float(stats.norm.ppf(0.975))
DEEPEST = 1e-9  # of the highest value: where the axis ends if nothing says what one eigenvalue is


@styled
def spectral_density(*datasets: xr.Dataset) -> Figure:
    """The density of the eigenvalues (left) and their share in bins of log |lambda| (right), a row a network.

    Bands: 95 % intervals. Markers and stems: the eigenvalues known one by one, each with mass 1/n.
    """
    rows = len(datasets)
    figure, every = panels(2 * rows, height=2.8, across=2)
    grid: Any = np.array(every, dtype=object).reshape(rows, 2)
    for k, panel in enumerate(every[2:]):
        panel.sharex(every[k % 2])
        panel.sharey(every[k % 2])
    for (left, right), dataset, label in zip(grid, datasets, labels(datasets), strict=True):
        _density(left, dataset)
        _histogram(right, dataset)
        left.set(ylabel=r"density (share per unit of $\lambda$)", title=label)
        right.set(ylabel="share of eigenvalues in a bin", title=label)
        for panel in (left, right):
            panel.set_xlabel(rf"eigenvalue $\lambda$ of the {matrix(dataset)}")
    _shared_scales(grid, datasets)
    legend_above(figure, grid[0][0])
    return figure


def _density(axes: Axes, dataset: xr.Dataset) -> None:
    grid, density = values(dataset, "lambda"), values(dataset, "density")
    half = QUANTILE * values(dataset, "density_stderr")
    low = np.maximum(density - half, TINY)
    axes.fill_between(grid, low, density + half, color=BLUE, alpha=0.3, linewidth=0, label="95 % interval")
    axes.plot(grid, density, color=BLUE, linewidth=1, label="stochastic Lanczos quadrature")
    known = atoms(dataset)
    if known.size:
        at = np.interp(known, grid, density)
        axes.plot(known, at, "o", color=VERMILLION, markersize=3, label="eigenvalues known one by one")
    axes.set_yscale("log")


def atoms(dataset: xr.Dataset) -> FloatArray:
    """The eigenvalues that are known one by one, both ends together; none in a density by itself."""
    if "eigenvalue" not in dataset:
        return np.array([])
    every = np.unique(values(dataset, "eigenvalue"))
    return every[np.isfinite(every)]


def _histogram(axes: Axes, dataset: xr.Dataset) -> None:
    left, right, share = (values(dataset, name) for name in ("bin_left", "bin_right", "histogram"))
    axes.bar(left, share, right - left, align="edge", color=BLUE, alpha=0.4, linewidth=0)
    low, high = (values(dataset, f"histogram_{end}") for end in ("low", "high"))
    full = high > 0
    axes.vlines(_middle(left, right)[full], np.maximum(low, TINY)[full], high[full], color=BLUE, linewidth=1)
    known = atoms(dataset)
    if known.size:
        axes.vlines(known, TINY, _one(dataset), color=VERMILLION, linewidth=0.7)
        axes.plot(known, np.full(known.size, _one(dataset)), "o", color=VERMILLION, markersize=3)
    axes.set_yscale("log")


def _middle(left: FloatArray, right: FloatArray) -> FloatArray:
    """The middle of each bin on the logarithmic axis; 0 for the bin about 0."""
    return np.sign(left + right) * np.sqrt(np.abs(left * right)) * (left * right > 0)


def _shared_scales(grid: NDArray[np.object_], datasets: tuple[xr.Dataset, ...]) -> None:
    """Both columns down to half of what one eigenvalue is; bins on a scale that is logarithmic on either side of 0."""
    highest = max(float(dataset["density"].max()) for dataset in datasets)
    grid[0, 0].set_ylim(min(one_in_density(d, highest) for d in datasets) / 2, 2 * highest)
    shares = np.concatenate([np.append(values(d, "histogram"), _one(d)) for d in datasets])
    grid[0, 1].set_ylim(shares[shares > 0].min() / 2, 1)
    _magnitude_axis(list(grid[:, 1]), datasets)
    for panel in grid.ravel():
        panel.axvline(0, color=GREY, linewidth=0.6, linestyle=":", zorder=0)
        panel.yaxis.set_major_locator(LogLocator(numticks=7))
        panel.yaxis.set_minor_formatter(NullFormatter())


def _magnitude_axis(axes: list[Axes], datasets: tuple[xr.Dataset, ...]) -> None:
    """The axis of the bins, shared by these panels."""
    inner, outer = _extent(datasets)
    axes[0].set_xscale("symlog", linthresh=inner, linscale=0.5)
    axes[0].set_xlim(-2 * outer, 2 * outer)
    ticks = Scale("symlog", inner).ticks(np.array([-outer, -inner, inner, outer]), most=2)
    for panel in axes:
        panel.set_xticks(ticks, [_power(tick) for tick in ticks])
        panel.set_xticks([], minor=True)


def _power(tick: float) -> str:
    exponent = "" if tick == 0 else f"10^{{{np.log10(abs(tick)):.0f}}}"
    return f"${'-' if tick < 0 else ''}{exponent or 0}$"


def _one(dataset: xr.Dataset) -> float:
    """The share that one eigenvalue is."""
    return 1 / float(dataset.attrs["n_parameters"])


def one_in_density(dataset: xr.Dataset, highest: float) -> float:
    """The height of one eigenvalue under the smoothing kernel."""
    height = _one(dataset) / (float(dataset.attrs["smoothing"]) * np.sqrt(2 * np.pi))
    return max(float(height), DEEPEST * highest)


def _extent(datasets: tuple[xr.Dataset, ...]) -> tuple[float, float]:
    """The magnitude at which the bins begin on either side of 0, and the largest that is not empty."""
    edges = np.concatenate([np.abs(np.concatenate([values(d, "bin_left"), values(d, "bin_right")])) for d in datasets])
    held = [np.maximum(np.abs(values(d, "bin_left")), np.abs(values(d, "bin_right"))) for d in datasets]
    full = [magnitude[values(d, "histogram") > 0] for d, magnitude in zip(datasets, held, strict=True)]
    known = [np.abs(atoms(dataset)) for dataset in datasets]
    return float(edges[edges > 0].min()), float(np.concatenate([*full, *known]).max())
