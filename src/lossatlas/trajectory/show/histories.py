"""The figure of a training history, its tables, and rows of the set-up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.drawing.axes import each_step, log_if_wide, values
from lossatlas.drawing.style import COLOURS, MARKERS, errors, labels, legend_above, panels, styled
from lossatlas.results.blocks import FigureGroup, Picture, Table
from lossatlas.results.groups import alike, distinct
from lossatlas.results.provenance import Provenance
from lossatlas.results.values import value
from lossatlas.trajectory.show import captions, generalisation
from lossatlas.trajectory.show.reading import after_epochs, has_epochs, known

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue

PANELS = {"loss": "loss", "accuracy": "accuracy", "gradient_norm": "gradient norm (mini-batch)"}
SETUP = {"optimizer": "optimiser", "batch_size": "batch size", "epochs": "epochs", "seed": "seeds of the training"}


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """All histories with epochs in one figure, those of steps alone in another; then sharpness and test results."""
    for group in sorted(alike(datasets, also=has_epochs), key=lambda group: not has_epochs(group[0])):
        picture = Picture("history", partial(history, *group), **captions.history(group))
        yield FigureGroup(tuple(group), (picture,), tuple(table(each) for each in group if has_epochs(each)))
    yield from generalisation.figures(datasets, catalogue)


def table(dataset: xr.Dataset) -> Table:
    """Loss and accuracy after each epoch."""
    names = sorted([*after_epochs(dataset, "loss"), *after_epochs(dataset, "accuracy")], key=_train_first)
    rows = tuple(
        (f"{epoch:g}", *(value(dataset, name, epoch=k) for name in names))
        for k, epoch in enumerate(dataset["epoch"].to_numpy())
    )
    return Table(
        f"Training of {Provenance.of(dataset).who}: value ± one standard error after each epoch.",
        ("epoch", *(name.replace("_", " ") for name in names)),
        rows,
    )


def _train_first(name: str) -> bool:
    return not name.startswith("train")


def setup(datasets: Sequence[xr.Dataset]) -> dict[str, str]:
    """How the networks were trained."""
    found = {name: distinct(datasets, key) for key, name in SETUP.items()}
    return {name: text for name, text in found.items() if text}


@styled
def history(*datasets: xr.Dataset) -> Figure:
    """Loss, accuracy and gradient norm while training, of one network or several, whatever of them was recorded.

    Faint: each mini-batch. Markers: test data (solid) and training data (dashed), ± one standard error.
    The line through the gradient norms is a running mean over 1/25 of the steps.
    """
    shown = [name for name in PANELS if any(_shows(dataset, name) for dataset in datasets)] or ["loss"]
    figure, axes = panels(len(shown), height=2.7, width=6.3 if len(shown) > 1 else 4.2)
    for panel, name in zip(axes, shown, strict=True):
        for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
            _epochs(panel, dataset, name, k, label)
            _steps(panel, dataset, name, k, label)
        panel.set(xlabel="epoch" if any(map(has_epochs, datasets)) else "step", ylabel=PANELS[name])
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if name != "accuracy" and panel.lines:
            log_if_wide(panel, *(np.asarray(line.get_ydata(), float) for line in panel.lines), ratio=8)
    if axes[0].get_legend_handles_labels()[1]:
        legend_above(figure, axes[0])
    return figure


def _shows(dataset: xr.Dataset, name: str) -> bool:
    return known(dataset, name, "step") or bool(after_epochs(dataset, name))


def _steps(axes: Axes, dataset: xr.Dataset, name: str, k: int, label: str) -> None:
    if known(dataset, name, "step"):
        each_step(axes, dataset, name, k)
        if not has_epochs(dataset):  # with epochs, their markers carry the label
            axes.plot([], [], color=COLOURS[k % len(COLOURS)], label=label)


def _epochs(axes: Axes, dataset: xr.Dataset, quantity: str, k: int, label: str) -> None:
    for name in after_epochs(dataset, quantity):
        split = name.split("_")[0]
        axes.errorbar(
            values(dataset, "epoch"),
            values(dataset, name),
            yerr=errors(dataset, name),
            color=COLOURS[k % len(COLOURS)],
            linestyle="--" if split == "train" else "-",
            marker=MARKERS[k % len(MARKERS)],
            markersize=3.5,
            markerfacecolor="white" if split == "train" else None,
            label=f"{label}, {split}",
        )
