"""Figures: matplotlib for paper, plotly for the screen, one function for each kind of Dataset.

A function takes Datasets and returns a figure that belongs to no global state. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lossatlas.errors import InputError
from lossatlas.plot.alignment import alignment
from lossatlas.plot.classes import classes
from lossatlas.plot.curves import connection, history, robustness
from lossatlas.plot.densities import spectral_density
from lossatlas.plot.grids import axes_of
from lossatlas.plot.instability import instability
from lossatlas.plot.layers import gauss_newton_split, layers
from lossatlas.plot.lines import line
from lossatlas.plot.roads import explained, road
from lossatlas.plot.spectra import power_iteration, spectrum
from lossatlas.plot.style import save
from lossatlas.plot.surfaces import surface, surface_3d
from lossatlas.plot.trends import gabdullin, trend
from lossatlas.plot.volumes import volume
from lossatlas.plot.ways import barrier, ways

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = [
    "alignment",
    "barrier",
    "classes",
    "connection",
    "explained",
    "figure",
    "gabdullin",
    "gauss_newton_split",
    "history",
    "instability",
    "layers",
    "line",
    "power_iteration",
    "road",
    "robustness",
    "save",
    "spectral_density",
    "spectrum",
    "surface",
    "surface_3d",
    "trend",
    "volume",
    "ways",
]

_BY_KIND: dict[str, Callable[[xr.Dataset], Figure]] = {
    "history": history,
    "trajectory": explained,
    "spectrum": spectrum,
    "spectral_density": spectral_density,
    "gabdullin": gabdullin,
    "gauss_newton_split": gauss_newton_split,
    "power_iteration": power_iteration,
    "alignment": alignment,
    "connection": connection,
    "barrier": barrier,
    "instability": instability,
    "robustness": robustness,
}


def figure(dataset: xr.Dataset) -> Figure:
    """The figure of one Dataset, chosen by `attrs["kind"]`, of a surface also by its axes: line, plane or volume.

    Some Datasets have further figures: of a surface with `class_loss`, `classes`; of a spectrum with a density,
    `spectral_density`, with a trend, `trend`, with layers, `layers`. Several barriers between the same networks have
    one together: `ways`.

    Raises InputError where the kind is missing or has no figure.
    """
    kind = dataset.attrs.get("kind")
    if kind == "surface":
        return (line, surface, volume)[len(axes_of(dataset)) - 1](dataset)
    if not isinstance(kind, str) or kind not in _BY_KIND:
        known = ", ".join(sorted([*_BY_KIND, "surface"]))
        raise InputError(f"A Dataset of kind {kind!r} has no figure; its attrs['kind'] must be one of: {known}.")
    return _BY_KIND[kind](dataset)
