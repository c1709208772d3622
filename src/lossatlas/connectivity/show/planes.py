"""The planes through two networks, with the paths between them on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show import BARRIER
from lossatlas.connectivity.show.answers import on_decisive_data
from lossatlas.connectivity.show.barriers import between_the_same
from lossatlas.connectivity.show.captions import has_barriers, height, networks, pair, path
from lossatlas.connectivity.show.paths import by_path
from lossatlas.connectivity.show.plane_figures import planes_and_profiles
from lossatlas.connectivity.show.plane_views import plane_view
from lossatlas.drawing.overlays import off_plane, paths
from lossatlas.results.blocks import Answer, FigureGroup, Number, Picture
from lossatlas.results.captions import basis, count, sentence, sentences
from lossatlas.results.groups import alike
from lossatlas.results.uncertainty import number
from lossatlas.surfaces.show.surfaces import surface_3d

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

ALIGNED, BEND = "second network, aligned", "bend"  # what connectivity calls the third point of its planes


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """The planes of the same networks in one figure, next to the loss on their paths; each as a surface in space."""
    for group in of_the_same(datasets):
        planes, profiles = [named(dataset) for dataset in group], profiles_of(group[0], catalogue)
        spatial = [_in_space(plane) for plane in planes]
        yield FigureGroup(tuple(group), (_picture(planes, profiles), *spatial))


def of_the_same(datasets: Sequence[xr.Dataset]) -> list[list[xr.Dataset]]:
    """Groups between the same networks on the same data, the plane of the alignment last."""
    ordered = sorted(datasets, key=lambda dataset: ALIGNED in dataset["mark"].to_numpy())
    return alike(
        ordered,
        *("network", "model_fingerprint", "data_fingerprint", "batch_norm"),
        also=lambda dataset: f"{float(dataset.attrs['center_loss']):.4e}",
    )


def named(dataset: xr.Dataset) -> xr.Dataset:
    """The plane called after its third point, with its networks by their labels; it is of no single network."""
    calls = dict(zip(("first network", "second network"), networks(dataset), strict=True))
    calls[ALIGNED] = f"{calls['second network']}, aligned"
    marks = [calls.get(str(mark), str(mark)) for mark in dataset["mark"].to_numpy()]
    plane = dataset.assign_coords(mark=marks).assign_attrs(name=through(dataset))
    plane.attrs.pop("network", None)
    return plane


def through(dataset: xr.Dataset) -> str:
    """What the plane goes through besides the two networks, as its title."""
    marks = [str(mark) for mark in dataset["mark"].to_numpy()]
    if ALIGNED in marks:
        second = networks(dataset)[1]
        return f"through {'the ' * (second == 'second network')}{second} aligned"
    return "through the curve's bend" if any(mark.startswith(BEND) for mark in marks) else "through a third point"


def profiles_of(plane: xr.Dataset, catalogue: Catalogue) -> list[xr.Dataset]:
    """The barriers between the same networks: on the plane's own data where there are such, else on training data."""
    barriers = catalogue.of(BARRIER)
    keys = ("network", "model_fingerprint", "batch_norm")
    for group in between_the_same(by_path([d for d in barriers if _agree(d, plane, *keys)])):
        own = [dataset for dataset in group if _agree(dataset, plane, "data", "data_fingerprint")]
        if not own:
            return on_decisive_data(group)
        if np.isclose(float(own[0]["loss"][0]), float(plane.attrs["center_loss"]), rtol=1e-3, atol=1e-6):
            return own
    return []


def _agree(a: xr.Dataset, b: xr.Dataset, *keys: str) -> bool:
    return all(a.attrs.get(key) == b.attrs.get(key) for key in keys)


def _picture(planes: Sequence[xr.Dataset], profiles: Sequence[xr.Dataset]) -> Picture:
    who = " and ".join(plane.attrs["name"] for plane in planes)
    beside = " Right: the loss along the paths." if profiles else ""
    return Picture(
        "paths-plane",
        partial(planes_and_profiles, planes, profiles),
        f"Loss on the plane{'s' * (len(planes) > 1)} of the two networks {who}, with the paths between them.{beside}",
        how="The loss was evaluated at each point of a grid; colour is its logarithm, lines carry the loss itself.",
        pitfall="The loss under a path that is drawn dashed is not its own: it lies off the plane.",
        method=_method(planes),
        alt=_alt(planes, profiles),
        width=1.0 if profiles or len(planes) > 1 else 0.9,
        view=partial(plane_view, planes, profiles),
        lead=True,
    )


def _method(planes: Sequence[xr.Dataset]) -> tuple[str, ...]:
    lengths = np.concatenate([np.atleast_1d(plane.attrs["direction_norms"]).astype(float) for plane in planes])
    return sentences(
        "Both directions have length 1 and are orthogonal: distances on the picture are distances in parameter space."
        if np.allclose(lengths, 1, rtol=0, atol=1e-3)
        else "",
        sentence(planes, "directions", "Plane: {}."),
        sentence(planes, "n_evaluations", "Evaluations of the whole data for a plane: {}.", count),
        sentence(planes, "ends_note", "{}"),
        *basis(planes),
    )


def _alt(planes: Sequence[xr.Dataset], profiles: Sequence[xr.Dataset]) -> str:
    span = " and ".join(f"{_range(plane)} {plane.attrs['name']}" for plane in planes)
    heights = ", ".join(f"{path(dataset)} {height(dataset, 'barrier')}" for dataset in profiles)
    return f"The loss on the plane is {span}.{f' Barriers of the paths: {heights}.' if heights else ''}"


def _range(plane: xr.Dataset) -> str:
    low, high = _extremes(plane)
    return f"from {number(low, 2)} to {number(high, 2)}" if np.isfinite(low) else "nowhere finite"


def _extremes(plane: xr.Dataset) -> tuple[float, float]:
    """The lowest and the highest finite loss; NaN where none is."""
    loss = plane["loss"].to_numpy().astype(float)
    finite = loss[np.isfinite(loss)]
    return (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)


def _in_space(plane: xr.Dataset) -> Picture:
    return Picture(
        "paths-plane-3d",
        partial(surface_3d, plane),
        f"The plane {plane.attrs['name']} as a surface: height and colour are the logarithm of the loss.",
        how="The paths lie on the surface where they project to.",
        alt=f"Surface of the loss, {_range(plane)}, on the plane {plane.attrs['name']}.",
        width=0.62,
        vector=False,
    )


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """The range of the loss on the plane, and how far its paths are from it, where they are."""
    of = f"Plane {through(dataset)}"
    for name, extreme in zip(("lowest loss", "highest loss"), _extremes(dataset), strict=True):
        yield Number(f"{name} on the grid", number(extreme), of)
    missing = int((~np.isfinite(dataset["loss"].to_numpy())).sum())
    if missing:
        yield Number("grid points without a finite loss", f"{missing} of {dataset['loss'].size:,}", of)
    for each in paths(dataset):
        if off_plane(dataset, each):
            yield Number(f"{each.name}, greatest distance from the plane", number(each.off, 2), of)


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """How the loss lies between two networks, where no barrier was measured."""
    for dataset in [] if has_barriers(catalogue) else datasets:
        where = f"On the plane of {pair([dataset])} {through(dataset)} the loss"
        yield Answer(
            f"{where} on the grid is {_range(dataset)}. No barrier was measured on the paths drawn on it.",
            f"{where} is {_range(dataset)}; no barrier was measured.",
            finding="a plane of the loss",
            quantity="highest loss on the plane",
            limit="A grid shows the loss at its points only, and a plane is a thin slice of the space of weights.",
        )
