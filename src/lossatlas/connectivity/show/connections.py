"""The training of a curve between two networks: figure, caption, numbers, answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.connectivity.show.captions import column, has_barriers, pair, path
from lossatlas.drawing.axes import ABOVE, each_step, log_if_wide, values
from lossatlas.drawing.style import BLUE, ORANGE, panels, styled
from lossatlas.results.blocks import Answer, FigureGroup, Number, Picture
from lossatlas.results.captions import basis, sentence, sentences
from lossatlas.results.uncertainty import number, plus_minus

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue

SHOWN = {"expected_loss": "the loss of each mini-batch", "elastic_band": "the loss at the highest bend"}
ENGINES = {
    "expected_loss": "by the expected loss (Garipov et al. 2018): each step one random t and one mini-batch",
    "elastic_band": "as a nudged elastic band (Draxler et al. 2018): each step all bends and one mini-batch",
}


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A figure for each training of a curve."""
    for dataset in datasets:
        yield FigureGroup((dataset,), (_picture(dataset),))


def _picture(dataset: xr.Dataset) -> Picture:
    engine, (first, last) = dataset.attrs["engine"], means(dataset)
    return Picture(
        "connection",
        partial(connection, dataset),
        f"The training of a curve between {pair([dataset])}. Left: {SHOWN[engine]} (faint) and the mean of each epoch. "
        "Right: the same losses over the t at which they were drawn.",
        how=f"The ends are fixed, and the bends are trained {ENGINES[engine]}.",
        pitfall="A mean over t says nothing of the highest loss on the curve: that is its barrier.",
        method=_settings(dataset),
        alt=f"The mean loss on the curve goes from {first} in the first epoch to {last} in the last.",
    )


def _settings(dataset: xr.Dataset) -> tuple[str, ...]:
    rates = values(dataset, "learning_rate")
    falls = ", decreasing over the training" if rates[-1] < rates[0] else ""
    return sentences(
        sentence([dataset], "curve", "Curve: {}."),
        sentence([dataset], "bends", "Bends: {}."),
        sentence([dataset], "optimizer", "Optimiser of the curve: {}."),
        sentence([dataset], "learning_rate", f"Learning rate: {{}}{falls}.", lambda value: number(float(value), 3)),
        sentence([dataset], "batch_size", "Batch size: {}."),
        sentence([dataset], "seed", "Seed of the curve's training: {}."),
        *basis([dataset]),
    )


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """The mean loss over the first and the last epoch, with the standard error over its mini-batches."""
    of = column(dataset)
    for name, mean in zip(("first", "last"), means(dataset), strict=True):
        yield Number(f"loss in training, mean of the {name} epoch", mean, of)
    yield Number("epochs of training", f"{dataset.sizes['epoch']}", of)


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """How low a curve was trained, where no barrier was measured."""
    for dataset in [] if has_barriers(catalogue) else datasets:
        (first, last), name = means(dataset), path(dataset)
        yield Answer(
            f"Training took the mean loss on a {name} between {pair([dataset])} from {first} in the first epoch to "
            f"{last} in the last (± one standard error over mini-batches). No barrier was measured on it.",
            f"The mean loss on a {name} between {pair([dataset])} fell to {last} in training.",
            finding=f"a trained {name}",
            quantity="mean loss on the curve",
            limit="A curve of low mean loss can still cross a barrier: that takes the highest loss on it.",
        )


def means(dataset: xr.Dataset) -> tuple[str, str]:
    """The mean loss of the first and of the last epoch, ± one standard error over the mini-batches."""
    each, epochs = _steps_an_epoch(dataset), values(dataset, "epoch_loss")
    steps = values(dataset, "loss")[: each * len(epochs)].reshape(len(epochs), each)
    errors = [float(steps[k].std(ddof=1) / np.sqrt(each)) if each > 1 else np.nan for k in (0, -1)]
    first, last = (plus_minus(float(epochs[k]), error) for k, error in zip((0, -1), errors, strict=True))
    return first, last


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
