"""The figure of any result, and how to save it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossatlas.drawing.style import save as save
from lossatlas.errors import InputError
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.discovery import kind_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from lossatlas.results.blocks import Picture

__all__ = ["figure", "pictures", "save"]


def figure(*datasets: xr.Dataset) -> Figure:
    """The main figure of the first Dataset, together with the others: of its kind next to it, of other kinds where its
    figure shows them.

    ``figure(spectrum_a, spectrum_b)`` compares two networks, ``figure(trajectory, surface)`` draws a trajectory on the
    surface of its own plane, ``figure(power_iteration, spectrum)`` has the eigenvalues that it should converge to.

    Returns a matplotlib figure that belongs to no global state. Raises ``InputError`` for no Dataset, or one
    of no kind.

    Examples
    --------
    >>> import torch, lossatlas as la
    >>> data = torch.ones(8, 1), torch.zeros(8, 1)
    >>> objective = la.Objective(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, data)
    >>> line = la.surface(objective, la.line(objective.point, torch.ones(2), steps=3), progress=False)
    >>> la.plot.figure(line).axes[0].get_ylabel()
    'loss'
    """
    return pictures(*datasets)[0].figure


def pictures(*datasets: xr.Dataset) -> list[Picture]:
    """Every picture of the first Dataset's kind that these Datasets allow, the main one first, with their captions."""
    if not datasets:
        raise InputError("There is no Dataset to draw: give one, or several that belong together.")
    kind, catalogue = kind_of(datasets[0]), Catalogue(datasets)
    return [picture for group in kind.figures(catalogue.of(kind), catalogue) for picture in group.pictures]
