"""Training histories, of networks and of curves between them, and weight noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lossatlas.plot.style import (
    BLUE,
    COLOURS,
    MARKERS,
    ORANGE,
    errors,
    labels,
    legend_above,
    panels,
    styled,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.plot.style import FloatArray


ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2, "ncols": 2}  # of a panel


def values(dataset: xr.Dataset, name: str) -> FloatArray:
    return dataset[name].to_numpy().astype(float)


def log_if_wide(axes: Axes, *curves: FloatArray, ratio: float = 20.0) -> None:
    """A logarithmic y axis where positive values span more than `ratio`; otherwise a linear one."""
    everything = np.concatenate([curve[np.isfinite(curve)].ravel() for curve in curves])
    if everything.size and everything.min() > 0 and everything.max() > ratio * everything.min():
        axes.set_yscale("log")
        few_decades = everything.max() < 200 * everything.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


@styled
def history(*datasets: xr.Dataset) -> Figure:
    """Loss, accuracy and gradient norm while training, of one network or several.

    Faint: each mini-batch. Markers: test data (solid) and training data (dashed), ± one standard error.
    The line through the gradient norms is a running mean over 1/25 of the steps.
    """
    has_accuracy = any("test_accuracy" in d or "train_accuracy" in d for d in datasets)
    figure, axes = panels(2 + has_accuracy, height=2.7)
    for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
        _epochs(axes[0], dataset, "loss", k, label)
        if has_accuracy:
            _epochs(axes[1], dataset, "accuracy", k, label)
        _steps(axes[0], dataset, "loss", k)
        _steps(axes[-1], dataset, "gradient_norm", k)
    named = ["loss", *(["accuracy"] if has_accuracy else []), "gradient norm (mini-batch)"]
    for panel, name in zip(axes, named, strict=True):
        panel.set(xlabel="epoch", ylabel=name)
    for panel in (axes[0], axes[-1]):
        log_if_wide(panel, *(np.asarray(line.get_ydata(), float) for line in panel.lines), ratio=8)
    if axes[0].get_legend_handles_labels()[1]:
        legend_above(figure, axes[0])
    return figure


def _epochs(axes: Axes, dataset: xr.Dataset, quantity: str, k: int, label: str) -> None:
    for split, line in (("train", "--"), ("test", "-")):
        name = f"{split}_{quantity}"
        if name in dataset:
            axes.errorbar(
                values(dataset, "epoch"),
                values(dataset, name),
                yerr=errors(dataset, name),
                color=COLOURS[k % len(COLOURS)],
                linestyle=line,
                marker=MARKERS[k % len(MARKERS)],
                markersize=3.5,
                markerfacecolor="white" if split == "train" else None,
                label=f"{label}, {split}",
            )


def _steps(axes: Axes, dataset: xr.Dataset, name: str, k: int) -> None:
    if name not in dataset or not dataset.sizes["step"]:
        return
    step = values(dataset, "step")
    last_epoch = dataset["epoch"].max().item() if dataset.sizes.get("epoch") else 1
    known = np.isfinite(values(dataset, name))
    x, y = (step / max(step.max(), 1) * last_epoch)[known], values(dataset, name)[known]
    colour, window = COLOURS[k % len(COLOURS)], len(y) // 25
    axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.6, zorder=1)
    if name == "gradient_norm" and window > 1:
        mean = np.convolve(y, np.full(window, 1 / window), mode="valid")
        axes.plot(x[window // 2 :][: len(mean)], mean, color=colour, zorder=3)


@styled
def connection(dataset: xr.Dataset) -> Figure:
    """The training of a curve between two networks: its mini-batch losses over the epochs, and over t.

    Left, faint: the loss of each mini-batch at its random t; line: the mean of each epoch. Right, where the t drawn
    were kept: the same losses against t, in the first epoch and in the last.
    """
    has_t = "t_drawn" in dataset
    figure, axes = panels(1 + has_t, height=2.8, width=6.3 if has_t else 4.2)
    _steps(axes[0], dataset, "loss", 0)
    epoch, means = values(dataset, "epoch"), values(dataset, "epoch_loss")
    axes[0].plot(epoch - 0.5, means, "o-", color=BLUE, markersize=3.5, label="mean of an epoch", zorder=3)
    axes[0].set(xlabel="epoch", ylabel="loss of a mini-batch on the curve")
    log_if_wide(axes[0], values(dataset, "loss"), ratio=8)
    axes[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[0].legend(**ABOVE)
    if has_t:
        _losses_over_t(axes[1], dataset)
    return figure


def _losses_over_t(axes: Axes, dataset: xr.Dataset) -> None:
    each = max(dataset.sizes["step"] // max(dataset.sizes["epoch"], 1), 1)
    drawn = [("first epoch", slice(0, each), ORANGE), ("last epoch", slice(-each, None), BLUE)]
    for name, steps, colour in drawn[-dataset.sizes["epoch"] :]:
        of_epoch = dataset.isel(step=steps)
        t, loss = values(of_epoch, "t_drawn"), values(of_epoch, "loss")
        axes.plot(
            t, loss, "o", color=colour, markersize=2 if each > 200 else 3.5, alpha=0.6, markeredgewidth=0, label=name
        )
    axes.set(xlabel=r"$t$  (0: first network, 1: second network)", ylabel="loss of a mini-batch", xlim=(0, 1))
    log_if_wide(axes, values(dataset, "loss"), ratio=8)
    axes.legend(**ABOVE, markerscale=2.5)


@styled
def robustness(*datasets: xr.Dataset) -> Figure:
    """Loss and accuracy against the size of Gaussian weight noise: draws faint, mean ± one standard error.

    The horizontal axis is logarithmic above the smallest positive sigma and linear below it: 0 has a place.
    """
    has_accuracy = any("accuracy" in d for d in datasets)
    figure, axes = panels(1 + has_accuracy, height=2.8, width=6.3 if has_accuracy else 4.2)
    for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
        for panel, name in zip(axes, ("loss", "accuracy"), strict=False):
            if name in dataset:
                _noise(panel, dataset, name, k, label)
    relative = {str(d.attrs.get("relative", "none")) for d in datasets}
    unit = " / filter norm" if relative == {"filter"} else ""
    positive = np.concatenate([values(d, "sigma")[values(d, "sigma") > 0] for d in datasets])
    for panel, name in zip(axes, ("loss", "accuracy"), strict=False):
        _sigma_axis(panel, positive)
        panel.set(xlabel=rf"weight noise $\sigma${unit}", ylabel=name)
    log_if_wide(axes[0], *(values(d, "loss") for d in datasets), ratio=8)
    legend_above(figure, axes[0])
    return figure


def _noise(axes: Axes, dataset: xr.Dataset, name: str, k: int, label: str) -> None:
    colour, sigma = COLOURS[k % len(COLOURS)], values(dataset, "sigma")
    if f"{name}_draws" in dataset:
        draws = dataset[f"{name}_draws"].transpose("sigma", "draw").to_numpy()
        axes.plot(sigma, draws, color=colour, alpha=0.25, linewidth=0.6, zorder=1)
    axes.errorbar(
        sigma,
        values(dataset, name),
        yerr=errors(dataset, name),
        color=colour,
        marker=MARKERS[k % len(MARKERS)],
        linestyle="-" if k % 2 == 0 else "--",
        capsize=2,
        label=label,
    )


def _sigma_axis(axes: Axes, positive: FloatArray) -> None:
    if positive.size:
        axes.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.6)
        ticks = [0.0, *np.unique(positive)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
