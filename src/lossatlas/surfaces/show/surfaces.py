"""Two-dimensional loss surfaces: contours, with what is known of their accuracy, and static 3D views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.drawing.axes import values
from lossatlas.drawing.contours import (
    hatch_missing,
    loss_bar,
    loss_panel,
    name_axes,
    place_for_bar,
    projection,
    quadratic_handles,
)
from lossatlas.drawing.grids import (
    SYMBOLS,
    axes_of,
    colour_scale,
    grid,
    has_error_map,
    is_polar,
    loss_ticks,
    mesh,
    missing_note,
    over_planes,
    shown,
)
from lossatlas.drawing.overlays import draw_overlays_3d, has_overlays, overlay_handles
from lossatlas.drawing.scales import scale_of, tick_names
from lossatlas.drawing.style import WIDTH, asked_width, columns_of, labels, legend_over, sized, styled
from lossatlas.surfaces.show.error_maps import draw_error_map, evaluation_handles, tolerance_handle

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray

SIDES = 0.95  # inches beside a panel: its labels and the colour bar


@styled
def surface(*datasets: xr.Dataset) -> Figure:
    """Filled contours of log10 loss over the plane, one panel a Dataset, all on one colour scale.

    Lines carry the loss itself; the cross is the center; equal aspect; hatched cells are not finite. Dashed:
    the quadratic model, where the Dataset has one, at the same levels. A second panel shows the error map
    of an interpolated surface, or the spread over several planes next to their mean; each Dataset then has its own
    row. Paths between networks replace the cross on a plane that has them, dashed where they are off the plane.
    """
    pictures = [over_planes(dataset) for dataset in datasets]
    logarithmic, levels = colour_scale(*(grid(picture)[2] for picture in pictures))
    two_panels = any(has_error_map(p) or "relative_spread" in p for p in pictures)
    figure, rows = (_rows if two_panels else _row)(pictures)
    names = labels(datasets) if len(datasets) > 1 else [""]
    for (panel, *_), picture, name in zip(rows, pictures, names, strict=True):
        filled = loss_panel(panel, picture, logarithmic, levels)
        title = [name, *_planes_note(picture, "mean"), *missing_note(picture)]
        panel.set_title("\n".join(part for part in title if part))
        if two_panels or panel is rows[-1][0]:
            loss_bar(figure, filled, panel, logarithmic)
    if two_panels:
        for (_, panel), picture in zip(rows, pictures, strict=True):
            _second_panel(figure, panel, picture)
    _legend(figure, pictures)
    return figure


def _row(pictures: list[xr.Dataset]) -> tuple[Figure, list[list[Axes]]]:
    """One panel a picture, side by side."""
    n, legend = len(pictures), 0.17 * max(_overlay_rows(picture) for picture in pictures)
    width, panel = (WIDTH, 2.2) if n > 1 else (4.7, 3.0) if not legend else (WIDTH, 4.6)
    across = columns_of(n, 3.0)
    if asked := asked_width():
        width, panel = asked, min(asked / across - SIDES, 4.0 if across == n else 2.6)
    rows = -(-n // across)
    height = legend + rows * (0.55 + max(_height(picture, panel) for picture in pictures) + (0.2 if n > 1 else 0))
    figure = sized(width, height)
    return figure, [[figure.add_subplot(rows, across, k, projection=projection(p))] for k, p in enumerate(pictures, 1)]


def _rows(pictures: list[xr.Dataset]) -> tuple[Figure, list[list[Axes]]]:
    """Two panels a picture, one picture below the other."""
    n, across, asked = len(pictures), columns_of(2), asked_width()
    rows, panel = 2 // across, asked / across - SIDES if asked else 1.9
    height = 0.4 + rows * sum(0.7 + _height(picture, panel) for picture in pictures)
    height += 0.17 * max(_overlay_rows(picture) for picture in pictures)
    figure = sized(asked or WIDTH, height)
    return figure, [
        [figure.add_subplot(n * rows, across, 2 * k + j, projection=projection(p)) for j in (1, 2)]
        for k, p in enumerate(pictures)
    ]


def _overlay_rows(picture: xr.Dataset) -> int:
    """The rows of the legend of paths and marked points, which has two columns."""
    return len(overlay_handles(picture)) // 2


def _height(picture: xr.Dataset, width: float) -> float:
    """Of a panel of this width, so that equal aspect leaves little paper empty; with the lines of its title."""
    notes = 0.15 * (len(missing_note(picture)) + ("quadratic" in picture))
    x, y, _ = grid(picture)
    if is_polar(picture) or scale_of(x).kind != "linear" or scale_of(y).kind != "linear":
        return width + notes
    return width * float(np.clip(np.ptp(y) / np.ptp(x), 0.5, 1.6)) + notes


def _planes_note(picture: xr.Dataset, of: str) -> list[str]:
    if "relative_spread" not in picture:
        return []
    return [f"{of} of {picture.attrs['n_planes']} planes"]


def _second_panel(figure: Figure, axes: Axes, picture: xr.Dataset) -> None:
    """The second panel: the spread over the planes, or the error map, or nothing."""
    if "relative_spread" in picture:
        _draw_spread(figure, axes, picture)
    elif has_error_map(picture):
        draw_error_map(figure, axes, picture)
        axes.set_title("estimated interpolation error")
    else:
        axes.remove()


def _draw_spread(figure: Figure, axes: Axes, picture: xr.Dataset) -> None:
    across, up, spread = grid(picture, "relative_spread")
    worst = 100 * float(np.nanmax(spread, initial=0.0))
    levels = MaxNLocator(12).tick_values(0, worst or 1.0)
    name_axes(axes, picture)
    drawn = axes.contourf(across, up, np.ma.masked_invalid(100 * spread), levels=levels, cmap="cividis")
    drawn.set_edgecolor("face")
    hatch_missing(axes, picture)
    axes.set_title("\n".join(_planes_note(picture, "spread")))
    bar = figure.colorbar(drawn, cax=place_for_bar(axes))
    bar.set_label("standard deviation / mean (%)")
    if bar.solids is not None:
        bar.solids.set_edgecolor("face")


def _legend(figure: Figure, pictures: list[xr.Dataset]) -> None:
    """One legend above the panels, of what is drawn in them."""
    handles = quadratic_handles() if any("quadratic" in picture for picture in pictures) else []
    for picture in pictures:
        handles += overlay_handles(picture)
        if has_error_map(picture) and "relative_spread" not in picture:
            handles += [*evaluation_handles(picture, counted=len(pictures) == 1), *tolerance_handle(picture)]
    once = list({str(handle.get_label()): handle for handle in handles}.values())
    if once:
        columns = len(once) if len(once) <= 4 else 3
        if any(has_overlays(picture) for picture in pictures):
            columns = 2
        names = [str(handle.get_label()) for handle in once]
        legend_over(figure, once, names, columns, columnspacing=1.2)


@styled
def surface_3d(dataset: xr.Dataset, trajectory: xr.Dataset | None = None) -> Figure:
    """The surface as a static 3D view of log10 loss (of the loss where some is not positive), rasterised.

    Of several planes their mean is shown. In front of the surface: a trajectory, at the true loss of its
    snapshots, and paths between networks, where the Dataset has them, at the height of the surface.
    """
    return _in_space([dataset], trajectory)


@styled
def surfaces_3d(*datasets: xr.Dataset) -> Figure:
    """Surfaces as static 3D views side by side, on one scale of heights and colours."""
    return _in_space(datasets)


def _in_space(datasets: Sequence[xr.Dataset], trajectory: xr.Dataset | None = None) -> Figure:
    """Placed by hand: no layout engine knows 3D labels."""
    pictures = [over_planes(dataset) for dataset in datasets]
    logarithmic, levels = colour_scale(*(grid(picture)[2] for picture in pictures))
    figure = sized(*((4.9, 3.6) if len(pictures) == 1 else (WIDTH, 2.7)), layout=None)
    at, losses = loss_ticks(logarithmic, float(levels[0]), float(levels[-1]))
    inch = 1 / figure.get_figwidth()
    bar_at = 1 - inch * (0.45 + 0.065 * max(map(len, losses)))  # room for the longest loss
    wide = (bar_at - 0.35 * inch) / len(pictures)
    for k, (picture, name) in enumerate(zip(pictures, labels(datasets), strict=True)):
        axes: Any = figure.add_axes((k * wide, 0.02, wide, 0.98), projection="3d", computed_zorder=False)
        axes.patch.set_visible(False)  # it would cover labels of the panel before
        drawn = _draw_3d(axes, picture, logarithmic, levels)
        if trajectory is not None and "loss" in trajectory:
            alpha, beta, height = (values(trajectory, name) for name in ("alpha", "beta", "loss"))
            axes.plot(alpha, beta, shown(height, logarithmic), "k.-", linewidth=1, markersize=3)
        draw_overlays_3d(axes, picture, logarithmic)
        _turned(axes, picture, levels, logarithmic, zoom=0.95 if len(pictures) == 1 else 0.86)
        axes.set_title(name, y=0.97)
    bar = figure.colorbar(drawn, cax=figure.add_axes((bar_at, 0.22, 0.11 * inch, 0.55)))
    bar.set_ticks(at, labels=losses)
    bar.set_label("loss")
    return figure


def _turned(axes: Any, picture: xr.Dataset, levels: FloatArray, logarithmic: bool, zoom: float) -> None:
    """From where it is looked at, with its labels."""
    axes.set(zlim=(levels[0], levels[-1]))
    axes.locator_params(nbins=5 if zoom > 0.9 else 4)
    axes.tick_params(labelsize=8 if zoom > 0.9 else 7, pad=0)
    axes.tick_params("z", pad=3)
    axes.set_zticks(*loss_ticks(logarithmic, float(levels[0]), float(levels[-1]), most=5))
    _name_3d(axes, picture)
    axes.view_init(elev=32, azim=-55)
    axes.set_box_aspect((1, 1, 0.7), zoom=zoom)


def _draw_3d(axes: Any, picture: xr.Dataset, logarithmic: bool, levels: FloatArray) -> Any:
    x, y, loss = mesh(picture)
    return axes.plot_surface(
        x,
        y,
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


def _name_3d(axes: Any, picture: xr.Dataset) -> None:
    """Labels, and on axes that are not linear ticks where their positions are."""
    if is_polar(picture):
        axes.set(xlabel=r"radius $\times$ cos(angle)", ylabel=r"radius $\times$ sin(angle)")
        return
    for name, axis in zip(axes_of(picture), (axes.xaxis, axes.yaxis), strict=True):
        coordinates = picture[name].to_numpy().astype(float)
        scale = scale_of(coordinates)
        if scale.kind != "linear":
            ticks = scale.ticks(coordinates, most=2)
            axis.set_ticks(scale.positions(ticks), tick_names(ticks))
        axis.set_label_text(SYMBOLS[name])
