"""The figures of weight noise, their captions, tables and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import log_if_wide, loss_and_accuracy, values
from lossatlas.drawing.style import COLOURS, MARKERS, errors, labels, legend_above, styled
from lossatlas.results.blocks import FigureGroup, Number, Panel, Picture, Table
from lossatlas.results.captions import listed, sentence
from lossatlas.results.groups import alike
from lossatlas.results.provenance import Provenance
from lossatlas.results.values import value

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue


NOISE = {"filter": "relative to the norm of each filter", "none": "of one size for all parameters"}
PITFALLS = {
    "none": "Networks with larger weights look more robust to absolute noise than they are as functions.",
    "filter": "Parameters without a filter, such as biases, are scaled as one filter a tensor.",
}


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each kind of noise and each data set, absolute noise first."""
    for group in groups(datasets):
        picture = Picture(
            "robustness",
            partial(robustness, *group),
            caption(group),
            how=how(group),
            pitfall=PITFALLS[str(group[0].attrs["relative"])],
            method=method(group),
            alt=alt(group),
        )
        yield FigureGroup(tuple(group), (picture,), tuple(table(group[j : j + 2]) for j in range(0, len(group), 2)))


def groups(datasets: Sequence[xr.Dataset]) -> list[list[xr.Dataset]]:
    """Those of one kind of noise and on the same data, absolute noise first."""
    return sorted(alike(datasets, "relative", "data"), key=lambda group: group[0].attrs["relative"] == "filter")


def caption(datasets: Sequence[xr.Dataset]) -> str:
    shown = "Loss and accuracy" if any("accuracy" in dataset for dataset in datasets) else "Loss"
    return f"{shown} under Gaussian weight noise; faint, single draws; markers, their mean ± one standard error."


def how(datasets: Sequence[xr.Dataset]) -> str:
    """The noise, how often it was drawn, and the data, in one line."""
    noise = NOISE[str(datasets[0].attrs["relative"])]
    draws = sentence(datasets, "draws", "{}")
    return f"Noise {noise}; {draws} draws serve every sigma, on {Provenance.of(datasets[0]).data_label}."


def method(datasets: Sequence[xr.Dataset]) -> tuple[str, ...]:
    """Filters, seed, errors and batch normalisation."""
    used = [dataset for dataset in datasets if dataset.attrs["batch_norm"] != "none"]
    found = (
        sentence(datasets, "filters", "Filters: {}."),
        sentence(datasets, "filters_assumed", "Assumed, not seen in the model: {}."),
        sentence(datasets, "seed", "Seed of the noise: {}."),
        sentence(datasets, "stderr_over", "Standard errors join those over the draws and those over {}."),
        sentence(used, "batch_norm", "Batch normalisation: {}."),
    )
    return tuple(filter(None, found))


def alt(datasets: Sequence[xr.Dataset]) -> str:
    """The finding in words: the accuracy, or the loss where there is none, without noise and under the largest."""
    name = "accuracy" if all("accuracy" in dataset for dataset in datasets) else "loss"
    each = [
        f"{value(d, name, sigma=int(sigma.argmin()))} to {value(d, name, sigma=int(sigma.argmax()))} at sigma = "
        f"{sigma.max():g} for {Provenance.of(d).who}"
        for d, sigma in ((dataset, values(dataset, "sigma")) for dataset in datasets)
    ]
    return f"Under weight noise the {name} goes from {listed(each)}."


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


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """Accuracy and loss without noise, and under the largest."""
    sigma, of = values(dataset, "sigma"), Provenance.of(dataset)
    kind = ", relative" if dataset.attrs["relative"] == "filter" else ""
    for name in ("accuracy", "loss"):
        for k in dict.fromkeys((int(sigma.argmin()), int(sigma.argmax()))) if name in dataset else ():
            noise = "without noise" if sigma[k] == 0 else f"at sigma = {sigma[k]:g}{kind}"
            yield Number(f"{name} {noise} ({of.short_data})", value(dataset, name, sigma=k), of.subject)


def panels(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Panel]:
    """The accuracy of the first two networks under noise; the loss where there is no accuracy."""
    for group in groups(datasets)[:1]:
        name = "accuracy" if all("accuracy" in dataset for dataset in group[:2]) else "loss"
        yield Panel(f"{name.capitalize()} under noise", partial(draw_panel, group[:2], name))


def draw_panel(datasets: Sequence[xr.Dataset], name: str, axes: Axes) -> None:
    """Mean ± one standard error against the size of the noise."""
    for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
        _noise(axes, dataset, name, k, label)
    _sigma_axis(axes, *datasets)
    axes.set_ylabel(name)
    if name == "loss":
        log_if_wide(axes, *(values(dataset, "loss") for dataset in datasets), ratio=8)
    if len(datasets) > 1:
        axes.legend(loc="best", fontsize=6.5)


@styled
def robustness(*datasets: xr.Dataset) -> Figure:
    """Loss and accuracy against the size of Gaussian weight noise: draws faint, mean ± one standard error.

    The horizontal axis is logarithmic above the smallest positive sigma and linear below it: 0 has a place.
    """
    figure, axes = loss_and_accuracy(datasets, _noise, height=2.8)
    for panel in axes:
        _sigma_axis(panel, *datasets)
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


def _sigma_axis(axes: Axes, *datasets: xr.Dataset) -> None:
    """Logarithmic above the smallest positive sigma and linear below it."""
    positive = np.unique(np.concatenate([values(d, "sigma")[values(d, "sigma") > 0] for d in datasets]))
    relative = {str(dataset.attrs["relative"]) for dataset in datasets}
    axes.set_xlabel(rf"weight noise $\sigma${' / filter norm' if relative == {'filter'} else ''}")
    if positive.size:
        axes.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.6)
        ticks = [0.0, *positive]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
