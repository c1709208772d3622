"""The training of a curve between two networks: figure, caption, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.connectivity.show.captions import pair, path
from lossatlas.drawing.axes import ABOVE, each_step, log_if_wide, values
from lossatlas.drawing.style import BLUE, ORANGE, panels, styled
from lossatlas.results.blocks import FigureGroup, Picture
from lossatlas.results.captions import joined, sentence
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, plus_minus

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue

ENGINES = {
    "expected_loss": "by the expected loss (Garipov et al. 2018): each step one random t and one mini-batch. Left, "
    "faint: the loss of each mini-batch",
    "elastic_band": "as a nudged elastic band (Draxler et al. 2018): each step all bends and one mini-batch. Left, "
    "faint: the loss at the highest bend",
}


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A figure for each training of a curve."""
    for dataset in datasets:
        yield FigureGroup((dataset,), (Picture("connection", partial(connection, dataset), caption(dataset)),))


def caption(dataset: xr.Dataset) -> str:
    rates = values(dataset, "learning_rate")
    falls = ", decreasing over the training" if rates[-1] < rates[0] else ""
    return joined(
        f"The training of a curve between {pair([dataset])}, the ends fixed, {ENGINES[dataset.attrs['engine']]}; line "
        "with dots: the mean of each epoch. Right: the same losses against the t at which they were drawn, in the "
        "first epoch and in the last.",
        sentence([dataset], "curve", "Curve: {}."),
        sentence([dataset], "bends", "Bends: {}."),
        sentence([dataset], "optimizer", "Optimiser: {}."),
        sentence([dataset], "learning_rate", f"Learning rate: {{}}{falls}.", lambda value: number(float(value), 3)),
        sentence([dataset], "batch_size", "Batch size: {}."),
        sentence([dataset], "seed", "Seed: {}."),
        sentence([dataset], "data", "Data: {}."),
        sentence([dataset], "batch_norm", "Batch normalisation: {}."),
    )


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """The mean loss over the first and the last epoch, with the standard error over its mini-batches."""
    means, each = values(dataset, "epoch_loss"), _steps_an_epoch(dataset)
    steps = values(dataset, "loss")[: each * len(means)].reshape(len(means), each)
    errors = [float(steps[k].std(ddof=1) / np.sqrt(each)) if each > 1 else np.nan for k in (0, -1)]
    first, last = (plus_minus(float(means[k]), error) for k, error in zip((0, -1), errors, strict=True))
    place = "the highest bend" if dataset.attrs["engine"] == "elastic_band" else "random t"
    name = path(dataset)
    yield (
        f"{name[0].upper()}{name[1:]} on {Provenance.of(dataset).short_data}: the mean of the mini-batch losses at "
        f"{place} is {first} over the first epoch and {last} over the last of {len(means)}."
    )


def _steps_an_epoch(dataset: xr.Dataset) -> int:
    return dataset.sizes["step"] // dataset.sizes["epoch"]


@styled
def connection(dataset: xr.Dataset) -> Figure:
    """The training of a curve between two networks: its mini-batch losses over the epochs, and over t.

    Left, faint: the loss of each mini-batch at its random t; line: the mean of each epoch. Right: the same losses
    against t, in the first epoch and in the last.
    """
    figure, (left, right) = panels(2, height=2.8)
    each_step(left, dataset, "loss", 0)
    epoch, means = values(dataset, "epoch"), values(dataset, "epoch_loss")
    left.plot(epoch - 0.5, means, "o-", color=BLUE, markersize=3.5, label="mean of an epoch", zorder=3)
    left.set(xlabel="epoch", ylabel="loss of a mini-batch on the curve")
    log_if_wide(left, values(dataset, "loss"), ratio=8)
    left.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    left.legend(**ABOVE)
    _losses_over_t(right, dataset)
    return figure


def _losses_over_t(axes: Axes, dataset: xr.Dataset) -> None:
    each = _steps_an_epoch(dataset)
    size = 2 if each > 200 else 3.5
    drawn = [("first epoch", slice(0, each), ORANGE), ("last epoch", slice(-each, None), BLUE)]
    for name, steps, colour in drawn[-dataset.sizes["epoch"] :]:
        t, loss = (values(dataset, of)[steps] for of in ("t_drawn", "loss"))
        axes.plot(t, loss, "o", color=colour, markersize=size, alpha=0.6, markeredgewidth=0, label=name)
    axes.set(xlabel=r"$t$  (0: first network, 1: second network)", ylabel="loss of a mini-batch", xlim=(0, 1))
    log_if_wide(axes, values(dataset, "loss"), ratio=8)
    axes.legend(**ABOVE, markerscale=2.5)
