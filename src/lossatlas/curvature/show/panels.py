"""The spectrum in one small panel: the density, and the eigenvalues that are known one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from lossatlas.curvature.show.captions import restricted
from lossatlas.curvature.show.densities import atoms, one_in_density
from lossatlas.drawing.axes import values
from lossatlas.drawing.style import COLOURS, MARKERS, labels
from lossatlas.results.blocks import Panel
from lossatlas.results.groups import alike

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from lossatlas.results.catalogue import Catalogue


def panels(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Panel]:
    """One panel, of the data set with the most networks."""
    whole = [dataset for dataset in datasets if not restricted(dataset) and "density" in dataset]
    groups = sorted(alike(whole, "data"), key=len, reverse=True)
    if groups:
        yield Panel("Spectrum of the Hessian", partial(draw, groups[0]))


def draw(datasets: Sequence[xr.Dataset], axes: Axes) -> None:
    """The smoothed density of each network, with a marker at each eigenvalue known by itself."""
    for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
        grid, density, colour = values(dataset, "lambda"), values(dataset, "density"), COLOURS[k % len(COLOURS)]
        axes.plot(grid, density, color=colour, linewidth=0.9, label=label)
        known = atoms(dataset)
        axes.plot(known, np.interp(known, grid, density), MARKERS[k % len(MARKERS)], color=colour, markersize=3)
    highest = max(float(dataset["density"].max()) for dataset in datasets)
    axes.set_yscale("log")
    axes.set_ylim(min(one_in_density(dataset, highest) for dataset in datasets) / 3, 3 * highest)
    axes.set(xlabel=r"eigenvalue $\lambda$", ylabel="density")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper right", handlelength=1.2)
