"""Figures: matplotlib for paper, plotly for the screen, one function for each kind of Dataset.

A function takes Datasets and returns a figure that belongs to no global state. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lossatlas.errors import InputError
from lossatlas.plot.classes import classes
from lossatlas.plot.curves import barrier, history, robustness
from lossatlas.plot.grids import axes_of
from lossatlas.plot.lines import line
from lossatlas.plot.roads import explained, road
from lossatlas.plot.spectra import power_iteration, spectrum
from lossatlas.plot.style import save
from lossatlas.plot.surfaces import surface, surface_3d
from lossatlas.plot.volumes import volume

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = [
    "barrier",
    "classes",
    "explained",
    "figure",
    "history",
    "line",
    "power_iteration",
    "road",
    "robustness",
    "save",
    "spectrum",
    "surface",
    "surface_3d",
    "volume",
]

_BY_KIND: dict[str, Callable[[xr.Dataset], Figure]] = {
    "history": history,
    "trajectory": explained,
    "spectrum": spectrum,
    "power_iteration": power_iteration,
    "barrier": barrier,
    "robustness": robustness,
}


def figure(dataset: xr.Dataset) -> Figure:
    """The figure of one Dataset, chosen by `attrs["kind"]`, of a surface also by its axes: line, plane or volume.

    The loss of each class, where a surface has it, is another figure: `classes`.

    Raises InputError where the kind is missing or has no figure.
    """
    kind = dataset.attrs.get("kind")
    if kind == "surface":
        return (line, surface, volume)[len(axes_of(dataset)) - 1](dataset)
    if not isinstance(kind, str) or kind not in _BY_KIND:
        known = ", ".join(sorted([*_BY_KIND, "surface"]))
        raise InputError(f"A Dataset of kind {kind!r} has no figure; its attrs['kind'] must be one of: {known}.")
    return _BY_KIND[kind](dataset)
