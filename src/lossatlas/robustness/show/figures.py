"""The figures of weight noise, their captions, tables and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import log_if_wide, loss_and_accuracy, values
from lossatlas.drawing.style import COLOURS, MARKERS, errors, legend_above, styled
from lossatlas.results.blocks import FigureGroup, Picture, Table
from lossatlas.results.captions import data_basis, joined, sentence
from lossatlas.results.groups import alike
from lossatlas.results.provenance import Provenance
from lossatlas.results.values import value

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.drawing.style import FloatArray
    from lossatlas.results.catalogue import Catalogue


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each kind of noise and each data set, absolute noise first."""
    for group in sorted(alike(datasets, "relative", "data"), key=lambda group: group[0].attrs["relative"] == "filter"):
        yield FigureGroup(
            tuple(group),
            (Picture("robustness", partial(robustness, *group), caption(group)),),
            tuple(table(group[j : j + 2]) for j in range(0, len(group), 2)),
        )


def caption(datasets: Sequence[xr.Dataset]) -> str:
    noise = {"filter": "relative to the norm of each filter", "none": "absolute, the same for all"}
    return joined(
        "Loss and accuracy under Gaussian noise on all parameters. Faint lines: single draws; markers: their mean ± "
        "one standard error.",
        sentence(datasets, "relative", "Noise {}.", noise.__getitem__),
        sentence(datasets, "draws", "Draws: {}."),
        sentence(datasets, "seed", "Seed: {}."),
        data_basis(datasets),
    )


def table(datasets: Sequence[xr.Dataset]) -> Table:
    """Loss and accuracy at each sigma, a pair of columns a network."""
    names = [name for name in ("loss", "accuracy") if any(name in d for d in datasets)]
    rows = []
    for sigma in np.unique(np.concatenate([d["sigma"].to_numpy() for d in datasets])):
        at = [d.sel(sigma=sigma) if sigma in d["sigma"].to_numpy() else d.isel(sigma=0) * np.nan for d in datasets]
        rows.append((f"{sigma:g}", *(value(each, name) for each in at for name in names)))
    header = ("sigma", *(f"{Provenance.of(d).who}: {name}" for d in datasets for name in names))
    noise = "relative to each filter's norm" if datasets[0].attrs["relative"] == "filter" else "absolute"
    return Table(f"Weight noise ({noise}): mean over the draws ± one standard error.", header, tuple(rows))


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """Loss and accuracy at the smallest and at the largest sigma."""
    sigma, subject = dataset["sigma"].to_numpy(), Provenance.of(dataset).subject
    lowest, highest = int(sigma.argmin()), int(sigma.argmax())
    for name in ("loss", "accuracy"):
        if name in dataset:
            yield (
                f"{subject}: {name} {value(dataset, name, sigma=lowest)} at sigma = {sigma[lowest]:g} and "
                f"{value(dataset, name, sigma=highest)} at sigma = {sigma[highest]:g}."
            )


@styled
def robustness(*datasets: xr.Dataset) -> Figure:
    """Loss and accuracy against the size of Gaussian weight noise: draws faint, mean ± one standard error.

    The horizontal axis is logarithmic above the smallest positive sigma and linear below it: 0 has a place.
    """
    figure, axes = loss_and_accuracy(datasets, _noise, height=2.8)
    relative = {str(d.attrs["relative"]) for d in datasets}
    unit = " / filter norm" if relative == {"filter"} else ""
    positive = np.concatenate([values(d, "sigma")[values(d, "sigma") > 0] for d in datasets])
    for panel in axes:
        _sigma_axis(panel, positive)
        panel.set_xlabel(rf"weight noise $\sigma${unit}")
    log_if_wide(axes[0], *(values(d, "loss") for d in datasets), ratio=8)
    legend_above(figure, axes[0])
    return figure


def _noise(axes: Axes, dataset: xr.Dataset, name: str, k: int, label: str) -> None:
    colour, sigma = COLOURS[k % len(COLOURS)], values(dataset, "sigma")
    if f"{name}_draws" in dataset:
        draws = dataset[f"{name}_draws"].transpose("sigma", "draw").to_numpy()
        axes.plot(sigma, draws, color=colour, alpha=0.25, linewidth=0.6, zorder=1)
    axes.errorbar(
        sigma,
        values(dataset, name),
        yerr=errors(dataset, name),
        color=colour,
        marker=MARKERS[k % len(MARKERS)],
        linestyle="-" if k % 2 == 0 else "--",
        capsize=2,
        label=label,
    )


def _sigma_axis(axes: Axes, positive: FloatArray) -> None:
    if positive.size:
        axes.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.6)
        ticks = [0.0, *np.unique(positive)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
