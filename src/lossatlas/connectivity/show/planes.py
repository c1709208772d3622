"""The plane through two networks, with the paths between them on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show.captions import pair
from lossatlas.results.blocks import FigureGroup, Picture
from lossatlas.results.captions import count, data_basis, joined, sentence
from lossatlas.surfaces.show import numbers as of_surface
from lossatlas.surfaces.show.interactive import surface_3d as interactive_3d
from lossatlas.surfaces.show.surfaces import surface, surface_3d

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

VIEW = (
    "The same plane as a surface: height and colour are the logarithm to base 10 of the loss. The paths lie on the "
    "surface where they project to."
)


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """Each plane as contours and as a surface in space."""
    for dataset in datasets:
        flat = Picture("paths-plane", partial(surface, dataset), caption(dataset), 0.9)
        turned = partial(interactive_3d, dataset)
        view = Picture("paths-plane-3d", partial(surface_3d, dataset), VIEW, 0.62, view=turned, vector=False)
        yield FigureGroup((dataset,), (flat, view))


def caption(dataset: xr.Dataset) -> str:
    lengths = np.atleast_1d(dataset.attrs["direction_norms"]).astype(float)
    return joined(
        f"Loss on a plane through {pair([dataset])}, with the paths between them. Colour: the logarithm to base 10 of "
        "the loss; lines carry the loss itself. A path that is not in the plane is drawn dashed where it projects to; "
        "the legend says how far off it is at most, and the loss below it is not its own.",
        "Both directions have length 1 and are orthogonal: distances on the picture are distances in parameter space."
        if np.allclose(lengths, 1, rtol=0, atol=1e-3)
        else "",
        sentence([dataset], "directions", "Plane: {}."),
        sentence([dataset], "n_evaluations", "Evaluations of the whole data: {}.", count),
        data_basis([dataset]),
    )


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """Those of a surface; the plane is of no single network, whatever the objective's label."""
    plane = dataset.assign_attrs(name="plane of the paths")
    plane.attrs.pop("network", None)
    yield from of_surface.numbers(plane)
