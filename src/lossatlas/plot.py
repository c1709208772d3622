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
    """The main figure of a Dataset, or of several of one kind that belong together.

    Returns a matplotlib figure that belongs to no global state. Raises ``InputError`` for Datasets of no kind or of
    several.

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
    """Every picture of these Datasets of one kind, the main one first, each with its caption."""
    if len({dataset.attrs.get("kind") for dataset in datasets}) != 1:
        raise InputError(f"{len(datasets)} Datasets of different kinds: give one Dataset, or several of one kind.")
    kind, catalogue = kind_of(datasets[0]), Catalogue(datasets)
    return [picture for group in kind.figures(list(catalogue), catalogue) for picture in group.pictures]
