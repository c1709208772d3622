"""What a number depends on: the largest eigenvalue on the number of examples, criteria on the Lanczos steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lossatlas.curvature.show.spectra import largest
from lossatlas.drawing.axes import log_if_wide, values
from lossatlas.drawing.style import COLOURS, GREY, MARKERS, band, labels, legend_above, panels, styled
from lossatlas.results.uncertainty import plus_minus

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray

CRITERIA = {"k_h1": r"$K_{H1}$  ($n = 1$)", "k_h05": r"$K_{H0.5}$  ($n = 0.5$)", "r_e": r"$r_e$"}


@styled
def trend(*datasets: xr.Dataset) -> Figure:
    """lambda_max of random subsets against their number of examples, and of all the data; a panel a network.

    Faint markers: single subsets. Line: their mean ± one standard error over the subsets. Dashed: all the data, with
    the solver's residual and one data-sampling standard error as a band.
    """
    figure, axes = panels(len(datasets), height=2.9, width=6.3 if len(datasets) > 1 else 4.4)
    for k, (panel, dataset, label) in enumerate(zip(axes, datasets, labels(datasets), strict=True)):
        _subsets(panel, dataset, COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)])
        _all_the_data(panel, dataset)
        panel.set(xlabel="examples in the subset", ylabel=r"largest eigenvalue $\lambda_{\max}$", title=label)
        panel.margins(y=0.12)
    lowest = min(panel.get_ylim()[0] for panel in axes)
    highest = max(panel.get_ylim()[1] for panel in axes)
    for panel in axes:
        panel.set_ylim(min(lowest, 0), 1.25 * highest)  # room for the legend
        panel.legend(loc="upper right")
    return figure


def _subsets(axes: Axes, dataset: xr.Dataset, colour: str, marker: str) -> None:
    n = values(dataset, "n_examples")
    each = values(dataset.transpose("n_examples", "replicate", ...), "trend_eigenvalue")
    axes.plot(n, each, marker, color=colour, alpha=0.35, markersize=3, markeredgewidth=0)
    mean, stderr = over_subsets(dataset)
    axes.fill_between(n, mean - stderr, mean + stderr, color=colour, alpha=0.25, linewidth=0)
    axes.plot(n, mean, color=colour, marker=marker, markersize=4.5, label="random subsets, mean ± s.e.")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([*n]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def over_subsets(dataset: xr.Dataset) -> tuple[FloatArray, FloatArray]:
    """The mean over the subsets of each size and its standard error, NaN where there is one subset only."""
    draws = dataset["trend_eigenvalue"]
    count, spread = draws.count("replicate").to_numpy(), draws.std("replicate").to_numpy()
    stderr = np.full(len(count), np.nan)
    several = count > 1
    stderr[several] = spread[several] / np.sqrt(count[several] - 1)
    return draws.mean("replicate").to_numpy().astype(float), stderr


def _all_the_data(axes: Axes, dataset: xr.Dataset) -> None:
    value, stderr, half = largest(dataset)
    name = f"all {int(dataset.attrs['n_examples']):,} examples: {plus_minus(value, stderr)}"
    axes.axhspan(value - half, value + half, color=GREY, alpha=0.25, linewidth=0)
    axes.axhline(value, color="black", linestyle="--", linewidth=1, label=name)


@styled
def gabdullin(*datasets: xr.Dataset) -> Figure:
    """Gabdullin's K_Hn for n = 1 and n = 0.5 and r_e against the Lanczos steps, ± one standard error over probes."""
    figure, axes = panels(3, height=2.5)
    for panel, (name, title) in zip(axes, CRITERIA.items(), strict=True):
        for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
            line = "-" if k % 2 == 0 else "--"
            band(panel, values(dataset, "step"), dataset, name, COLOURS[k % len(COLOURS)], label=label, linestyle=line)
        panel.set(xlabel="Lanczos steps", ylabel=title)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        log_if_wide(panel, *(values(dataset, name) for dataset in datasets))
    legend_above(figure, axes[0])
    return figure
