"""Published numbers and ours in one figure and one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import values
from lossatlas.drawing.style import BLUE, GREY, panels, styled
from lossatlas.results.blocks import FigureGroup, Picture, Table
from lossatlas.results.uncertainty import number, plus_minus

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue

WIDTHS = (0.31, 0.13, 0.19, 0.37)


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A figure and a table for each comparison."""
    for dataset in datasets:
        caption = (
            f"{dataset.attrs['title']}: our value as a multiple of the published one, ± one standard error where it is "
            "known. Published numbers without a dot were not measured here."
        )
        yield FigureGroup(
            (dataset,), (Picture("comparison", partial(comparison, dataset), caption),), (table(dataset),)
        )


@styled
def comparison(dataset: xr.Dataset) -> Figure:
    """Our value over the published one, a row a quantity; the line is at equality."""
    rows = np.arange(dataset.sizes["quantity"])
    figure, (axes,) = panels(1, height=0.9 + 0.22 * len(rows))
    ratio = values(dataset, "ours") / values(dataset, "published")
    error = np.abs(values(dataset, "ours_stderr") / values(dataset, "published"))
    axes.axvline(1, color=GREY, linewidth=0.6, linestyle=":")
    axes.errorbar(ratio, rows, xerr=np.nan_to_num(error), fmt="o", color=BLUE, capsize=2)
    axes.set_yticks(rows, [str(name) for name in dataset["quantity"].to_numpy()])
    axes.set(xlabel="ours / published", ylim=(len(rows) - 0.4, -0.6))
    return figure


def table(dataset: xr.Dataset) -> Table:
    """Published and ours with its error, and why they may differ."""
    rows = tuple(
        (str(name), number(float(published)), plus_minus(float(ours), float(error)), str(reason))
        for name, published, ours, error, reason in zip(
            *(dataset[key].to_numpy() for key in ("quantity", "published", "ours", "ours_stderr", "reason")),
            strict=True,
        )
    )
    title = dataset.attrs["title"]
    caption = f"{title}. Ours ± one standard error where it is known."
    return Table(caption, ("quantity", "published", "ours", "reason for the difference"), rows, WIDTHS)


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """How many quantities could be compared."""
    known = int(np.isfinite(values(dataset, "ours")).sum())
    yield f"{dataset.attrs['title']}: {known} of {dataset.sizes['quantity']} published numbers were measured here."
