"""The loss of each class by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lossatlas.drawing.axes import log_if_wide, values
from lossatlas.drawing.contours import loss_bar, loss_panel, projection
from lossatlas.drawing.grids import axes_of, colour_scale, grid
from lossatlas.drawing.scales import apply_scale
from lossatlas.drawing.style import COLOURS, GREY, WIDTH, sized, styled
from lossatlas.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

MOST = 10
ACROSS = 5  # small multiples in a row
STROKES = ("-", "--", ":")


@styled
def classes(dataset: xr.Dataset) -> Figure:
    """The loss of each class: a curve a class along a line, a small contour picture a class on a plane.

    Of more than ten classes the ten with the highest loss, averaged over the picture, are drawn. All pictures share
    one colour scale. Over several planes the mean of each class is shown. Raises InputError for a Dataset without
    `class_loss` and for a volume.
    """
    if "class_loss" not in dataset or len(axes_of(dataset)) > 2:
        raise InputError(
            f"A Dataset over {tuple(dataset['loss'].dims)} {'with' if 'class_loss' in dataset else 'without'} "
            "class_loss has no picture of its classes; it must have class_loss on a line or a plane."
        )
    loss = dataset["class_loss"]
    loss = loss.mean("plane") if "plane" in loss.dims else loss
    chosen = loss.isel({"class": worst_classes(loss)})
    return _curves(dataset, chosen) if len(axes_of(dataset)) == 1 else _pictures(dataset, chosen)


def worst_classes(loss: xr.DataArray) -> list[int]:
    """The indices of the (at most ten) classes to draw, in the order of the Dataset."""
    averaged = loss.where(np.isfinite(loss)).mean([dim for dim in loss.dims if dim != "class"])
    highest = np.argsort(-averaged.fillna(-np.inf).to_numpy(), kind="stable")[:MOST]
    return sorted(int(k) for k in highest)


def _curves(dataset: xr.Dataset, loss: xr.DataArray) -> Figure:
    figure = sized(4.9, 2.9)
    axes, alpha = figure.add_subplot(), values(dataset, "alpha")
    for k, name in enumerate(_names(loss)):
        curve = loss.isel({"class": k}).to_numpy().astype(float)
        axes.plot(alpha, curve, color=COLOURS[k % len(COLOURS)], linestyle=STROKES[k // len(COLOURS)], label=name)
    mean = values(dataset, "loss_mean" if "plane" in dataset["loss"].dims else "loss")
    axes.plot(alpha, mean, color="black", linewidth=2, zorder=1, label="all examples")
    axes.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
    axes.set(xlabel=r"$\alpha$ (multiples of the direction)", ylabel="loss")
    if apply_scale(axes, "x", alpha).kind == "linear":
        axes.locator_params(axis="x", nbins=5)
    axes.set_title(_left_out(dataset, loss))
    log_if_wide(axes, *(np.asarray(curve.get_ydata(), float) for curve in axes.lines[:-1]))
    figure.legend(loc="outside right upper", title="class")
    return figure


def _pictures(dataset: xr.Dataset, loss: xr.DataArray) -> Figure:
    each = [dataset[list(axes_of(dataset))].assign(loss=loss.isel({"class": k})) for k in range(loss.sizes["class"])]
    logarithmic, levels = colour_scale(*(grid(picture)[2] for picture in each))
    across = min(ACROSS, len(each))
    rows = -(-len(each) // across)
    figure = sized(WIDTH, 0.5 + 1.15 * rows)
    panels = [figure.add_subplot(rows, across, k + 1, projection=projection(p)) for k, p in enumerate(each)]
    for k, (panel, picture, name) in enumerate(zip(panels, each, _names(loss), strict=True)):
        filled = loss_panel(panel, picture, logarithmic, levels, labels=0)
        panel.set_title(f"class {name}", fontsize=8)
        _few_ticks(panel)
        panel.tick_params(labelsize=6.5, length=2, labelbottom=k + across >= len(each), labelleft=k % across == 0)
        panel.set(**({} if k % across == 0 else {"ylabel": ""}), **({} if k + across >= len(each) else {"xlabel": ""}))
    loss_bar(figure, filled, panels, logarithmic)
    figure.suptitle(_left_out(dataset, loss), fontsize=9)
    return figure


def _few_ticks(panel: Axes) -> None:
    """The ends and the middle: more would run together in a picture this small."""
    if panel.name == "polar":
        return
    for axis in (panel.xaxis, panel.yaxis):
        ticks, names = axis.get_ticklocs(), [label.get_text() for label in axis.get_ticklabels()]
        if axis.get_scale() == "linear":
            axis.set_major_locator(MaxNLocator(2))
        else:
            kept = sorted({0, len(ticks) // 2, len(ticks) - 1})
            axis.set_ticks(ticks[kept], [names[k] for k in kept])


def _left_out(dataset: xr.Dataset, loss: xr.DataArray) -> str:
    shown, all_of_them = loss.sizes["class"], dataset.sizes["class"]
    return f"the {shown} of {all_of_them} classes with the highest mean loss" if shown < all_of_them else ""


def _names(loss: xr.DataArray) -> list[str]:
    labels = loss["class"].to_numpy() if "class" in loss.coords else np.arange(loss.sizes["class"])
    return [str(label) for label in labels]
