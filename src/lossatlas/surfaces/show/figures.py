"""The figures of loss surfaces: lines, planes and volumes, each group with the pictures that belong to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lossatlas.drawing.grids import axes_of, has_error_map, is_plain
from lossatlas.drawing.scales import scale_of
from lossatlas.results.blocks import FigureGroup, Picture
from lossatlas.results.groups import alike
from lossatlas.surfaces.show import captions, interactive, isosurfaces
from lossatlas.surfaces.show.classes import classes
from lossatlas.surfaces.show.lines import line
from lossatlas.surfaces.show.surfaces import surface, surface_3d
from lossatlas.surfaces.show.volumes import volume

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

LINE, PLANE, VOLUME = "Loss along a line", "Loss on a plane", "Loss in a volume"
PRINCIPAL_PLANE = "Loss on a plane of principal components"
TITLES = (LINE, PLANE, VOLUME, PRINCIPAL_PLANE)  # in the order of the report


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """Lines, planes, volumes, planes of principal components; of each part what agrees in data and directions."""
    for title in TITLES:
        for group in _alike([dataset for dataset in datasets if part(dataset) == title]):
            for shown_together in _rows(group, title):
                yield FigureGroup(tuple(shown_together), _pictures(shown_together, title), title=title)


def part(dataset: xr.Dataset) -> str:
    """The title of the part of the chapter to which a surface belongs."""
    title = (LINE, PLANE, VOLUME)[len(axes_of(dataset)) - 1]
    principal = title == PLANE and dataset.attrs["directions"] == "principal components"
    return PRINCIPAL_PLANE if principal and is_plain(dataset) else title


def plane_3d(dataset: xr.Dataset, trajectory: xr.Dataset | None = None, name: str = "plane-3d") -> Picture:
    """The plane as a surface in space, with a trajectory on it if one is given: static and interactive."""
    return Picture(
        name,
        partial(surface_3d, dataset, trajectory),
        captions.surface_3d(dataset, with_trajectory=trajectory is not None),
        width=0.62,
        view=partial(interactive.surface_3d, dataset, trajectory),
        vector=False,
    )


def _alike(datasets: Sequence[xr.Dataset]) -> list[list[xr.Dataset]]:
    return alike(datasets, "data", "directions", "normalisation", also=_drawn)


def _drawn(dataset: xr.Dataset) -> tuple[object, ...]:
    """What is drawn of a surface: its axes, their scales, and the panels and curves besides the loss."""
    scales = [scale_of(dataset[name].to_numpy().astype(float)).kind for name in axes_of(dataset)]
    return (*axes_of(dataset), *scales, "plane" in dataset.dims, "quadratic" in dataset, has_error_map(dataset))


def _rows(group: list[xr.Dataset], title: str) -> list[list[xr.Dataset]]:
    """All lines in one figure, two planes side by side; a volume, and a plane with a second panel, by itself."""
    if title == LINE:
        return [group]
    n = 1 if title == VOLUME or _has_second_panel(group[0]) else 2
    return [group[k : k + n] for k in range(0, len(group), n)]


def _has_second_panel(dataset: xr.Dataset) -> bool:
    return has_error_map(dataset) or "plane" in dataset.dims


def _pictures(datasets: Sequence[xr.Dataset], title: str) -> tuple[Picture, ...]:
    if title == LINE:
        lines = Picture("lines", partial(line, *datasets), captions.line(datasets))
        return (lines, *_class_pictures(datasets, "line-classes", 0.75))
    if title == VOLUME:
        return tuple(_volume(dataset) for dataset in datasets)
    width = 1.0 if len(datasets) > 1 or _has_second_panel(datasets[0]) else 0.72
    planes = Picture("planes", partial(surface, *datasets), captions.surface(datasets), width)
    views = [plane_3d(dataset) for dataset in datasets]
    return (planes, *views, *_class_pictures(datasets, "plane-classes", 1.0))


def _volume(dataset: xr.Dataset) -> Picture:
    interactive_view = partial(isosurfaces.volume_3d, dataset)
    return Picture("volume", partial(volume, dataset), captions.volume(dataset), view=interactive_view)


def _class_pictures(datasets: Sequence[xr.Dataset], name: str, width: float) -> list[Picture]:
    with_classes = [dataset for dataset in datasets if "class_loss" in dataset]
    return [Picture(name, partial(classes, each), captions.classes(each), width) for each in with_classes]
