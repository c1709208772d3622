"""Curves on a pair of axes: what several figures need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lossatlas.drawing.style import COLOURS, WIDTH, labels, panels

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray

ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2, "ncols": 2}  # of a panel


def values(dataset: xr.Dataset, name: str) -> FloatArray:
    """A variable as an array of floats."""
    return dataset[name].to_numpy().astype(float)


def loss_and_accuracy(
    datasets: Sequence[xr.Dataset], draw: Callable[[Axes, xr.Dataset, str, int, str], None], height: float
) -> tuple[Figure, list[Axes]]:
    """A panel of the loss and, if there is any, one of the accuracy; ``draw(axes, dataset, quantity, k, label)``."""
    quantities = ["loss", *(["accuracy"] if any("accuracy" in dataset for dataset in datasets) else [])]
    figure, axes = panels(len(quantities), height=height, width=WIDTH if len(quantities) > 1 else 4.2)
    for panel, quantity in zip(axes, quantities, strict=True):
        panel.set_ylabel(quantity)
        for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
            if quantity in dataset:
                draw(panel, dataset, quantity, k, label)
    return figure, axes


def log_if_wide(axes: Axes, *curves: FloatArray, ratio: float = 20.0) -> None:
    """A logarithmic y axis where positive values span more than `ratio`; otherwise a linear one."""
    everything = np.concatenate([curve[np.isfinite(curve)].ravel() for curve in curves])
    if everything.size and everything.min() > 0 and everything.max() > ratio * everything.min():
        axes.set_yscale("log")
        few_decades = everything.max() < 200 * everything.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def each_step(axes: Axes, dataset: xr.Dataset, name: str, k: int) -> None:
    """A variable over the steps of a training, faint; of a gradient norm its running mean too.

    On an axis of epochs where the Dataset has them, of steps otherwise.
    """
    if name not in dataset or not dataset.sizes["step"]:
        return
    step = values(dataset, "step")
    if dataset.sizes.get("epoch"):
        step = step / max(step.max(), 1) * dataset["epoch"].max().item()
    known = np.isfinite(values(dataset, name))
    x, y = step[known], values(dataset, name)[known]
    colour, window = COLOURS[k % len(COLOURS)], len(y) // 25
    axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.6, zorder=1)
    if name == "gradient_norm" and window > 1:
        mean = np.convolve(y, np.full(window, 1 / window), mode="valid")
        axes.plot(x[window // 2 :][: len(mean)], mean, color=colour, zorder=3)
