"""Which surfaces belong together, which tell most, and what a slice is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.grids import axes_of, has_error_map, is_plain
from lossatlas.drawing.scales import scale_of
from lossatlas.drawing.style import labels
from lossatlas.results.groups import alike
from lossatlas.results.provenance import Provenance

if TYPE_CHECKING:
    import xarray as xr

LINE, PLANE, VOLUME = "Loss along a line", "Loss on a plane", "Loss in a volume"
PRINCIPAL_PLANE = "Loss on a plane of principal components"
TITLES = (PLANE, VOLUME, LINE, PRINCIPAL_PLANE)  # the most telling first

REGIONS = {"polar": "polar plane"}
SCALED = {"filter": "filter-normalised", "layer": "layer-normalised"}


def part(dataset: xr.Dataset) -> str:
    """The title of the part of the chapter to which a surface belongs."""
    title = (LINE, PLANE, VOLUME)[len(axes_of(dataset)) - 1]
    principal = title == PLANE and dataset.attrs["directions"] == "principal components"
    return PRINCIPAL_PLANE if principal and is_plain(dataset) else title


def groups(datasets: Sequence[xr.Dataset], title: str) -> list[list[xr.Dataset]]:
    """Those of a part, in groups that agree in data, directions and in what is drawn: of most networks first."""
    those = [dataset for dataset in datasets if part(dataset) == title]
    found = alike(those, "data", "directions", "normalisation", also=_drawn)
    return sorted(found, key=lambda group: -len(_by_model(group)))


def _drawn(dataset: xr.Dataset) -> tuple[object, ...]:
    """What is drawn of a surface: its axes, their scales, and the panels and curves besides the loss."""
    scales = [scale_of(dataset[name].to_numpy().astype(float)).kind for name in axes_of(dataset)]
    return (*axes_of(dataset), *scales, "plane" in dataset.dims, "quadratic" in dataset, has_error_map(dataset))


def most_telling(datasets: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """One surface of each network, measured alike: planes before volumes and lines, the group of most networks first.

    Surfaces without any finite cell tell nothing.
    """
    finite = [dataset for dataset in datasets if bool(np.isfinite(dataset["loss"]).any())]
    for title in TITLES:
        if found := groups(finite, title):
            return list(_by_model(found[0]).values())
    return []


def _by_model(datasets: Sequence[xr.Dataset]) -> dict[tuple[object, ...], xr.Dataset]:
    """The first surface of each network."""
    found: dict[tuple[object, ...], xr.Dataset] = {}
    for dataset in datasets:
        found.setdefault((dataset.attrs.get("network"), dataset.attrs["model_fingerprint"]), dataset)
    return found


def slice_name(dataset: xr.Dataset) -> str:
    """What a slice is called: "random plane", "plane of Hessian axes"."""
    directions, region = str(dataset.attrs["directions"]), str(dataset.attrs["region"])
    region = REGIONS.get(region, region)
    if directions == "random":
        return f"random {region}"
    between = "" if directions.startswith("through ") else "of "
    return region if directions == "given" else f"{region} {between}{directions}"


def scaled_slice(dataset: xr.Dataset) -> str:
    """The name with how the directions are scaled: "random, filter-normalised plane"."""
    scaled, name = SCALED.get(str(dataset.attrs["normalisation"]), ""), slice_name(dataset)
    if not scaled:
        return name
    return name.replace("random ", f"random, {scaled} ", 1) if name.startswith("random ") else f"{scaled} {name}"


def slices(datasets: Sequence[xr.Dataset], *, scaled: bool = True) -> str:
    """One slice or several: "a random plane", "random planes", of several draws "the mean of 3 random planes"."""
    first = datasets[0]
    name, region = (scaled_slice if scaled else slice_name)(first), str(first.attrs["region"])
    if "plane" in first.dims:
        return f"the mean of {first.sizes['plane']} {name.replace(region, f'{region}s', 1)}"
    return f"a {name}" if len(datasets) == 1 else name.replace(region, f"{region}s", 1)


def places(datasets: Sequence[xr.Dataset]) -> list[str]:
    """What lies at the center of each: "network A", or "the trained point" of one that has no name."""
    if not all(dataset.attrs["center_is_model"] for dataset in datasets):
        return ["the center"] if len(datasets) == 1 else [f"the center of {name}" for name in labels(datasets)]
    if len(datasets) == 1:
        network = Provenance.of(datasets[0]).network
        return [f"network {network}" if network else "the trained point"]
    return labels(datasets)
