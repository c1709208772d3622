"""Each layer alone perturbed: a heat map."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from lossatlas.drawing.style import sized, styled
from lossatlas.results.blocks import Picture
from lossatlas.results.provenance import Provenance
from lossatlas.robustness.show.claims import most_sensitive
from lossatlas.robustness.show.words import (
    axis_label,
    dimension,
    from_mild_to_severe,
    of_size,
    perturbation,
    relative,
    row_of,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray

HIGHEST = 7.5  # inches, so that the figure of a deep network still fits a page with its caption
MOST_WRITTEN = 24  # layers whose numbers are written into their cells


def has_layers(dataset: xr.Dataset) -> bool:
    """Whether there is something to be seen: layers, perturbed."""
    return "layer" in dataset.dims and bool(from_mild_to_severe(dataset))


def layer_picture(dataset: xr.Dataset) -> Picture:
    """The heat map of one network."""
    of, (quantity, _) = Provenance.of(dataset), _judged(dataset)
    draws = ", and the draws are those of the figure of all layers" if dataset.sizes["draw"] > 1 else ""
    own = " The share is of the layer's own weights." if dimension(dataset) == "share" else ""
    written = "; pale numbers are within two standard errors of 0" if _written(dataset) else ""
    return Picture(
        f"{dataset.attrs['kind']}_layers",
        partial(layer_map, dataset),
        f"{quantity[0].upper()}{quantity[1:]} of {of.who} where one layer alone is perturbed by "
        f"{perturbation(dataset)}{relative(dataset)}{written}.",
        how=f"The other layers are as trained{draws}; on {of.data_label}.{own}",
        pitfall="Layers of many weights are perturbed at more places: sizes are per weight, not per layer.",
        alt=f"A heat map of layers by sizes.{_most_sensitive(dataset)}",
        width=0.7,
    )


def _most_sensitive(dataset: xr.Dataset) -> str:
    found = most_sensitive(dataset)
    if found is None:
        return ""
    return f" Layer {found.layer} loses most: {found.rise.text} of loss, under {of_size(dataset, found.size)}."


@styled
def layer_map(dataset: xr.Dataset) -> Figure:
    """A row a layer, a column a size, from mild to severe: the change from the unperturbed network."""
    change, stderr = _cells(dataset)
    quantity, _ = _judged(dataset)
    rows, columns = change.shape
    figure = sized(min(2.9 + 0.55 * columns, 6.3), min(1.0 + 0.27 * rows, HIGHEST))
    axes = figure.add_subplot()
    shown = np.where(np.isfinite(change), change, np.nan)
    low, high = min(float(np.nanmin(shown, initial=0.0)), 0.0), float(np.nanmax(shown, initial=0.0))
    image = axes.imshow(shown, aspect="auto", cmap="viridis", vmin=low, vmax=max(high, low + 1e-12))
    axes.set_yticks(range(rows), [str(name) for name in dataset["layer"].to_numpy()])
    axes.tick_params("y", labelsize=min(8, 200 / rows))
    sizes = from_mild_to_severe(dataset)
    axes.set_xticks(range(columns), [row_of(dataset, size).removesuffix(" %") for size in sizes])
    axes.tick_params(length=0)
    axes.set(xlabel=axis_label([dataset]), ylabel="layer")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=quantity.replace(" the ", " the\n"), pad=0.02)
    if _written(dataset):
        _write(axes, change, stderr, image)
    return figure


def _write(axes: Axes, change: FloatArray, stderr: FloatArray, image: mpl.image.AxesImage) -> None:
    """The number in each cell, dark on light cells and light on dark ones."""
    for (row, column), number in np.ndenumerate(change):
        red, green, blue, _ = image.to_rgba(np.array([number]))[0]
        light = not np.isfinite(number) or 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
        clear = abs(number) > 2 * stderr[row, column]
        text = f"{number:.2g}" if abs(number) < 10 else f"{number:.0f}"
        axes.text(
            column,
            row,
            text.replace("-", "−"),
            ha="center",
            va="center",
            fontsize=7,
            color="black" if light else "white",
            alpha=1.0 if clear else 0.55,
        )


def _judged(dataset: xr.Dataset) -> tuple[str, str]:
    """What is shown, in words, and the name of the variable."""
    if "layer_accuracy_change" in dataset:
        return "fall of the accuracy (points)", "accuracy"
    return "rise of the loss", "loss"


def _cells(dataset: xr.Dataset) -> tuple[FloatArray, FloatArray]:
    """The change and its standard error ``(layers, sizes)``."""
    _, name = _judged(dataset)
    scale = -100.0 if name == "accuracy" else 1.0
    at = dataset.sel({dimension(dataset): from_mild_to_severe(dataset)}).transpose("layer", dimension(dataset), ...)
    change = scale * at[f"layer_{name}_change"].to_numpy().astype(float) + 0.0  # no minus before a zero
    return change, abs(scale) * at[f"layer_{name}_change_stderr"].to_numpy().astype(float)


def _written(dataset: xr.Dataset) -> bool:
    return dataset.sizes["layer"] <= MOST_WRITTEN
