"""Two-dimensional loss surfaces: contours and static 3D views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from lossatlas.plot.style import GREY, WIDTH, labels, network_label, styled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.contour import QuadContourSet

    from lossatlas.plot.style import FloatArray


def grid(dataset: xr.Dataset) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Alpha, beta and the loss in the shape (beta, alpha) that matplotlib draws; non-finite cells are NaN."""
    loss = dataset["loss"].transpose("beta", "alpha").to_numpy().astype(float)
    alpha, beta = (dataset[name].to_numpy().astype(float) for name in ("alpha", "beta"))
    return alpha, beta, np.where(np.isfinite(loss), loss, np.nan)


def colour_scale(*losses: FloatArray) -> tuple[bool, FloatArray]:
    """Whether to draw log10 of the loss (all finite values are positive), and 25 levels shared by all."""
    finite = np.concatenate([loss[np.isfinite(loss)] for loss in losses])
    if finite.size == 0:
        return False, np.linspace(0, 1, 25)
    logarithmic = bool(finite.min() > 0)
    low, high = (np.log10(finite) if logarithmic else finite).min(), finite.max()
    high = float(np.log10(high) if logarithmic else high)
    margin = max(1e-9, 1e-9 * abs(high)) if high > low else 0.5
    return logarithmic, np.linspace(low - margin, high + margin, 25)


def shown(loss: FloatArray, logarithmic: bool) -> FloatArray:
    return np.log10(loss) if logarithmic else loss


def round_levels(low: float, high: float, most: int = 9) -> list[float]:
    """Round losses (1, 2 and 5 times powers of ten) strictly between two bounds, thinned to `most`.

    >>> round_levels(0.25, 12)
    [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    tens = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        levels = [float(f"{d * 10.0**e:.6g}") for e in tens for d in digits if low < d * 10.0**e < high]
        if len(levels) <= (5 if len(digits) == 6 else most):
            break
    return levels


def draw_contours(
    axes: Axes,
    dataset: xr.Dataset,
    logarithmic: bool,
    levels: FloatArray,
    cmap: str | Colormap = "viridis",
    lines_in: str = "white",
) -> QuadContourSet:
    """Filled contours with labelled lines at round losses; cells that are not finite stay hatched."""
    alpha, beta, loss = grid(dataset)
    drawn = shown(loss, logarithmic)
    filled = axes.contourf(alpha, beta, np.ma.masked_invalid(drawn), levels=levels, cmap=cmap)
    filled.set_edgecolor("face")  # without it PDF viewers show white hairlines between the levels
    if not np.isfinite(loss).all():
        _hatch_missing(axes, alpha, beta, loss)
    if logarithmic:
        rounds = round_levels(10 ** float(levels[0]), 10 ** float(levels[-1]))
        at = {float(np.log10(level)): f"{level:g}" for level in rounds}
    else:
        at = {float(level): f"{level:.3g}" for level in levels[3::6]}
    finite = drawn[np.isfinite(drawn)]
    present = [level for level in at if finite.size and finite.min() < level < finite.max()]
    if present:
        lines = axes.contour(
            alpha,
            beta,
            np.ma.masked_invalid(drawn),
            levels=present,
            colors=lines_in,
            linewidths=0.7,
            linestyles="solid",
        )
        axes.clabel(lines, fmt={level: at[level] for level in present}, fontsize=7)
    return filled


def _hatch_missing(axes: Axes, alpha: FloatArray, beta: FloatArray, loss: FloatArray) -> None:
    whole = Rectangle(
        (alpha[0], beta[0]),
        alpha[-1] - alpha[0],
        beta[-1] - beta[0],
        facecolor="#eeeeee",
        edgecolor=GREY,
        hatch="////",
        linewidth=0,
        zorder=0.5,
    )
    axes.add_patch(whole)


def missing_note(dataset: xr.Dataset) -> list[str]:
    """What the hatching means, in a list of no or one line."""
    loss = grid(dataset)[2]
    missing = int((~np.isfinite(loss)).sum())
    return [f"hatched: {missing} of {loss.size} cells not finite"] if missing else []


def loss_bar(
    figure: Figure, drawn: QuadContourSet, axes: Axes | list[Axes], logarithmic: bool, shrink: float = 1.0
) -> None:
    """The colour bar of a loss surface; its cells have no white edges either."""
    bar = figure.colorbar(drawn, ax=axes, shrink=shrink, pad=0.02, ticks=MaxNLocator(7))
    bar.set_label(scale_label(logarithmic))
    if bar.solids is not None:
        bar.solids.set_edgecolor("face")


def scale_label(logarithmic: bool) -> str:
    return r"$\log_{10}$ loss" if logarithmic else "loss"


@styled
def surface(*datasets: xr.Dataset) -> Figure:
    """Filled contours of log10 loss over the plane, one panel a Dataset, all on one colour scale.

    Lines carry the loss itself; the cross is the trained point; equal aspect; hatched cells are not finite.
    """
    logarithmic, levels = colour_scale(*(grid(d)[2] for d in datasets))
    several = len(datasets) > 1
    figure = Figure(figsize=(WIDTH, 3.0) if several else (4.4, 3.6), layout="constrained")
    axes = list(figure.subplots(1, len(datasets), squeeze=False)[0])
    for panel, dataset, label in zip(axes, datasets, labels(datasets), strict=True):
        filled = draw_contours(panel, dataset, logarithmic, levels)
        panel.plot(0, 0, marker="+", color="white", markersize=9, markeredgewidth=1.6)
        panel.set(xlabel=r"$\alpha$", ylabel=r"$\beta$", aspect="equal")
        panel.locator_params(nbins=5)
        panel.set_title("\n".join([*([label] if several else []), *missing_note(dataset)]))
    loss_bar(figure, filled, axes, logarithmic, shrink=0.9)
    return figure


@styled
def surface_3d(dataset: xr.Dataset, road: xr.Dataset | None = None) -> Figure:
    """The surface as a static 3D view of log10 loss (of the loss where some is not positive), rasterised.

    A road is drawn at the true loss of its snapshots, in front of the surface.
    """
    alpha, beta, loss = grid(dataset)
    logarithmic, levels = colour_scale(loss)
    figure = Figure(figsize=(4.9, 3.6))  # placed by hand: no layout engine knows 3D labels
    axes: Any = figure.add_axes((0.0, 0.02, 0.78, 0.98), projection="3d", computed_zorder=False)
    a, b = np.meshgrid(alpha, beta)
    drawn = axes.plot_surface(
        a,
        b,
        shown(loss, logarithmic),
        cmap="viridis",
        vmin=levels[0],
        vmax=levels[-1],
        rcount=80,
        ccount=80,
        linewidth=0.15,
        edgecolor=(0, 0, 0, 0.25),
        rasterized=True,
    )
    if road is not None and "loss" in road:
        height = shown(road["loss"].to_numpy().astype(float), logarithmic)
        axes.plot(road["alpha"].to_numpy(), road["beta"].to_numpy(), height, "k.-", linewidth=1, markersize=3)
    axes.set(xlabel=r"$\alpha$", ylabel=r"$\beta$", zlim=(levels[0], levels[-1]))
    axes.locator_params(nbins=5)
    axes.view_init(elev=32, azim=-55)
    axes.set_box_aspect((1, 1, 0.7), zoom=0.95)
    axes.set_title(network_label(dataset), y=0.97)
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.86, 0.22, 0.022, 0.55)))
    bar.set_label(scale_label(logarithmic))
    return figure
