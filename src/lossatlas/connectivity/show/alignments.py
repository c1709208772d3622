"""What a permutation alignment did to each group of units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lossatlas.drawing.axes import values
from lossatlas.drawing.style import BLUE, GREY, VERMILLION, legend_above, panels, styled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

HIGHEST = 7.5  # inches, so that the figure of a deep network still fits a page with its caption


@styled
def alignment(dataset: xr.Dataset) -> Figure:
    """For each group of units that move together: the share that changed place, and how alike matched units are.

    Right: the mean cosine of the weights of unit i of the first network and the unit of the second that stands at its
    place, before (open) and after (filled) the permutation.
    """
    names, rows = dataset["group"].to_numpy(), np.arange(dataset.sizes["group"])
    figure, (left, right) = panels(2, height=min(1.3 + 0.22 * max(len(rows), 3), HIGHEST))
    left.barh(rows, 100 * values(dataset, "moved"), height=0.62, color=BLUE)
    left.set(xlabel="units that changed place (%)", ylabel="group of units (size)", xlim=(0, 100))
    before, after = values(dataset, "cosine_before"), values(dataset, "cosine_after")
    right.hlines(rows, before, after, color=GREY, linewidth=0.9)
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": VERMILLION}
    right.plot(before, rows, markerfacecolor="white", label="before the permutation", **look)
    right.plot(after, rows, label="after it", **look)
    right.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
    right.set(xlabel="mean cosine of the weights\nof matched units")
    small = min(8.0, 230 / max(len(rows), 1))
    for panel in (left, right):
        panel.set_ylim(len(rows) - 0.4, -0.6)  # the first group on top
        panel.set_yticks(rows, [f"{name} ({int(n):,})" for name, n in zip(names, values(dataset, "size"), strict=True)])
        panel.tick_params("y", labelsize=small)
    right.tick_params("y", labelleft=False)
    legend_above(figure, right)
    return figure
