"""The panel that sums up the paths between two networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show.answers import on_decisive_data
from lossatlas.connectivity.show.barriers import between_the_same
from lossatlas.connectivity.show.captions import path
from lossatlas.connectivity.show.paths import by_path
from lossatlas.drawing.axes import log_if_wide, values
from lossatlas.drawing.style import band, path_colours
from lossatlas.results.blocks import Panel
from lossatlas.results.uncertainty import Z95

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from lossatlas.results.catalogue import Catalogue


def panels(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Panel]:
    """The loss on the paths between the first pair of networks."""
    for group in list(between_the_same(by_path(datasets)))[:1]:
        paths = on_decisive_data(group)
        yield Panel("Loss between the minima", partial(profiles, paths))


def profiles(datasets: Sequence[xr.Dataset], axes: Axes, legend: bool = True) -> None:
    """The loss over t with 95 % bands and a dot at each maximum; logarithmic where it spans much."""
    colours = path_colours(map(path, datasets))
    for dataset in datasets:
        t, loss, colour = values(dataset, "t"), values(dataset, "loss"), colours[path(dataset)]
        band(axes, t, dataset, "loss", colour, errors_wide=Z95, label=path(dataset))
        top = float(dataset["t_max"])
        if np.isfinite(top):
            axes.plot(top, np.interp(top, t, loss), "o", color=colour, markersize=3)
    axes.set(xlabel="$t$", ylabel="loss", xlim=(0, 1))
    log_if_wide(axes, *(values(dataset, "loss") for dataset in datasets), ratio=8)
    if legend:
        axes.legend(loc="best", handlelength=1.2, borderaxespad=0.2, labelspacing=0.2)
