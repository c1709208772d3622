"""The figures of loss surfaces: lines, planes and volumes, each group with the pictures that belong to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lossatlas.drawing.grids import has_error_map
from lossatlas.results.blocks import FigureGroup, Picture
from lossatlas.results.views import View
from lossatlas.surfaces.show import captions, isosurfaces, views
from lossatlas.surfaces.show.captions import LOG_COLOUR, quadratic, told
from lossatlas.surfaces.show.classes import classes
from lossatlas.surfaces.show.grouping import LINE, TITLES, VOLUME, groups
from lossatlas.surfaces.show.lines import line
from lossatlas.surfaces.show.surfaces import surface, surfaces_3d
from lossatlas.surfaces.show.volumes import volume

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """Planes, volumes, lines, planes of principal components; of each part what agrees in data and directions."""
    for title in TITLES:
        for group in groups(datasets, title):
            for shown_together in _rows(group, title):
                yield FigureGroup(tuple(shown_together), _pictures(shown_together, title), title=title)


def _rows(group: list[xr.Dataset], title: str) -> list[list[xr.Dataset]]:
    """All lines in one figure, planes two by two; a volume by itself."""
    if title == LINE:
        return [group]
    n = 1 if title == VOLUME else 2
    return [group[k : k + n] for k in range(0, len(group), n)]


def _has_second_panel(dataset: xr.Dataset) -> bool:
    return has_error_map(dataset) or "plane" in dataset.dims


def _pictures(datasets: Sequence[xr.Dataset], title: str) -> tuple[Picture, ...]:
    if title == LINE:
        lines = Picture(
            "lines", partial(line, *datasets), captions.line(datasets), **told(datasets, quadratic(datasets))
        )
        return (lines, *_class_pictures(datasets, "line-classes", 0.75))
    if title == VOLUME:
        return tuple(_volume(dataset) for dataset in datasets)
    return (_planes(datasets), _in_space(datasets), *_class_pictures(datasets, "plane-classes", 1.0))


def _planes(datasets: Sequence[xr.Dataset]) -> Picture:
    """The contours; on a page all that is known of the planes, in space or from above."""
    width = 1.0 if len(datasets) > 1 or _has_second_panel(datasets[0]) else 0.72
    return Picture(
        "planes",
        partial(surface, *datasets),
        captions.surface(datasets),
        **told(datasets, LOG_COLOUR, quadratic(datasets)),
        width=width,
        view=partial(views.planes, *datasets),
    )


def _in_space(datasets: Sequence[xr.Dataset]) -> Picture:
    """The planes as surfaces, for print."""
    return Picture(
        "planes-3d",
        partial(surfaces_3d, *datasets),
        captions.surfaces_3d(datasets),
        **told(datasets, LOG_COLOUR),
        width=1.0 if len(datasets) > 1 else 0.62,
        vector=False,
    )


def _volume(dataset: xr.Dataset) -> Picture:
    return Picture(
        "volume",
        partial(volume, dataset),
        captions.volume(dataset),
        **told([dataset], LOG_COLOUR, quadratic([dataset])),
        view=lambda: View((isosurfaces.volume_3d(dataset),)),
    )


def _class_pictures(datasets: Sequence[xr.Dataset], name: str, width: float) -> list[Picture]:
    with_classes = [dataset for dataset in datasets if "class_loss" in dataset]
    return [
        Picture(name, partial(classes, each), captions.classes(each), **told([each]), width=width)
        for each in with_classes
    ]
