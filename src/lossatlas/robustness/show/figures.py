"""The figures of perturbations, their captions, tables and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import log_if_wide, loss_and_accuracy, values
from lossatlas.drawing.style import COLOURS, MARKERS, errors, labels, legend_above, styled
from lossatlas.results.blocks import FigureGroup, Number, Panel, Picture, Table
from lossatlas.results.captions import listed, sentence, sentences
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import percent, plus_minus
from lossatlas.results.values import value
from lossatlas.robustness.show.claims import most_sensitive
from lossatlas.robustness.show.estimates import change
from lossatlas.robustness.show.layers import has_layers, layer_picture
from lossatlas.robustness.show.words import (
    attribute,
    axis_label,
    dimension,
    finite,
    from_mild_to_severe,
    groups,
    is_noise,
    of_size,
    perturbation,
    relative,
    row_of,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue


UNDER = {
    "gaussian": "under Gaussian weight noise",
    "uniform": "under uniform weight noise",
    "multiplicative": "under multiplicative Gaussian weight noise",
    "input": "under Gaussian noise on the inputs",
    "quantise": "after quantisation of the weights",
    "prune": "after pruning of the weights",
    "flip": "under random flips of the weights' bits",
}
NOISE = {
    "filter": "relative to the norm of each filter",
    "weight": "relative to each weight",
    "none": "of one size for all parameters",
}
PITFALLS = {
    "none": "Networks with larger weights look more robust to absolute noise than they are as functions.",
    "filter": "Parameters without a filter, such as biases, are scaled as one filter a tensor.",
    "weight": "Weights that are zero get no noise.",
    "input": "Noisy inputs are not clipped to the range of the data.",
    "quantise": "Activations, biases and norms keep their precision, and nothing is trained afterwards.",
    "prune": "Nothing is trained after pruning.",
    "flip": "Where a loss is not finite its mean is not shown; the table has the share of such draws.",
}


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each perturbation and each data set, absolute noise first."""
    for group in groups(datasets):
        curves = Picture(
            f"{group[0].attrs['kind']}",
            partial(robustness, *group),
            caption(group),
            how=how(group),
            pitfall=pitfall(group[0]),
            method=method(group),
            alt=alt(group),
        )
        layers = [layer_picture(dataset) for dataset in group if has_layers(dataset)]
        yield FigureGroup(tuple(group), (curves, *layers), tuple(map(table, group)))


def caption(datasets: Sequence[xr.Dataset]) -> str:
    """What is seen."""
    shown = "Loss and accuracy" if any("accuracy" in dataset for dataset in datasets) else "Loss"
    first = datasets[0]
    drawn = "faint, single draws; markers, their mean" if first.sizes["draw"] > 1 else "markers, the mean"
    clean = "" if _has_zero(first) else " Dotted: the unperturbed network."
    return f"{shown} {UNDER[str(first.attrs['noise'])]}; {drawn} ± one standard error.{clean}"


def how(datasets: Sequence[xr.Dataset]) -> str:
    """What is done to the weights, how often it was drawn, and the data, in one line."""
    first = datasets[0]
    draws, data = sentence(datasets, "draws", "{}"), Provenance.of(first).data_label
    noise = str(first.attrs["noise"])
    each = "channel" if attribute(first, "per") == "channel" else "tensor"
    integers = f", after quantisation with a step for each {each}," if attribute(first, "per") else ""
    told = {
        "quantise": f"Symmetric uniform levels, rounded to nearest, with a step for each {each}; biases and norms are "
        f"not quantised; on {data}.",
        "prune": f"The smallest of all weights by magnitude are set to 0, biases and norms are not; on {data}.",
        "flip": f"Each bit of the weights in {attribute(first, 'representation')}{integers} is flipped with this "
        f"probability; {draws} draws serve every rate, on {data}.",
        "input": f"Noise of one size for all inputs; {draws} draws serve every sigma, on {data}.",
    }
    weights = f"Noise {NOISE[attribute(first, 'relative') or 'none']}; {draws} draws serve every sigma, on {data}."
    return told.get(noise, weights)


def pitfall(dataset: xr.Dataset) -> str:
    """What the figure does not show."""
    return PITFALLS.get(str(dataset.attrs["noise"])) or PITFALLS[attribute(dataset, "relative")]


def method(datasets: Sequence[xr.Dataset]) -> tuple[str, ...]:
    """Filters, seed, errors and batch normalisation."""
    used = [dataset for dataset in datasets if dataset.attrs["batch_norm"] != "none"]
    drawn = "join those over the draws and those" if datasets[0].sizes["draw"] > 1 else "are those"
    return sentences(
        sentence(datasets, "filters", "Filters: {}."),
        sentence(datasets, "filters_assumed", "Assumed, not seen in the model: {}."),
        sentence(datasets, "seed", "Seed of the draws: {}."),
        sentence(datasets, "stderr_over", f"Standard errors {drawn} over {{}}."),
        "Changes from the unperturbed network are paired over the examples.",
        sentence(used, "batch_norm", "Batch normalisation: {}."),
    )


def alt(datasets: Sequence[xr.Dataset]) -> str:
    """The finding in words: the accuracy, or the loss where there is none, unperturbed and at the severest size."""
    name = "accuracy" if all("accuracy" in dataset for dataset in datasets) else "loss"
    each = [
        f"{_clean(d, name)} to {_value_at(d, name, from_mild_to_severe(d)[-1])} for {Provenance.of(d).who} under "
        f"{of_size(d, from_mild_to_severe(d)[-1])}"
        for d in datasets
        if from_mild_to_severe(d)
    ]
    return f"The {name} goes from {listed(each)}." if each else caption(datasets)


def _clean(dataset: xr.Dataset, name: str) -> str:
    return plus_minus(float(dataset[f"{name}_clean"]), float(dataset[f"{name}_clean_stderr"]))


def _value_at(dataset: xr.Dataset, name: str, size: float) -> str:
    return value(dataset, name, **{dimension(dataset): values(dataset, dimension(dataset)).tolist().index(size)})


def _has_zero(dataset: xr.Dataset) -> bool:
    return 0.0 in values(dataset, dimension(dataset))


def table(dataset: xr.Dataset) -> Table:
    """Loss and accuracy at each size, with the paired change of the accuracy, or of the loss."""
    judged, scale = ("accuracy", 100.0) if "accuracy" in dataset else ("loss", 1.0)
    names = [name for name in ("loss", "accuracy") if name in dataset]
    lost = bool((finite(dataset) < 1).any())
    rows = []
    for k, size in enumerate(values(dataset, dimension(dataset)).tolist()):
        at = [value(dataset, name, **{dimension(dataset): k}) for name in names]
        shares = (percent(1 - float(finite(dataset)[k])),) if lost else ()
        rows.append((row_of(dataset, size), *at, change(dataset, judged, size, scale).text, *shares))
    unit = " (points)" if judged == "accuracy" else ""
    header = (dimension(dataset), *names, f"change of {judged}{unit}", *(("loss not finite",) if lost else ()))
    what = f"{perturbation(dataset)}{relative(dataset)}"
    return Table(
        f"{Provenance.of(dataset).subject}, {what}: mean ± one standard error; the change from the unperturbed network "
        "is paired over the examples.",
        header,
        tuple(rows),
    )


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """Accuracy and loss without noise and under the largest; of other perturbations, at the mildest and severest."""
    of, sizes = Provenance.of(dataset), from_mild_to_severe(dataset)
    gaussian = attribute(dataset, "noise") == "gaussian"
    shown = [0.0] * (gaussian and _has_zero(dataset)) + sizes[:: max(len(sizes) - 1, 1)][(1 if gaussian else 0) :]
    for name in ("accuracy", "loss"):
        for size in dict.fromkeys(shown or sizes) if name in dataset else ():
            yield Number(
                f"{name} {_where(dataset, size)} ({of.short_data})", _value_at(dataset, name, size), of.subject
            )
    if layer := most_sensitive(dataset):
        text = f"layer {layer.layer}, {layer.rise.text}"
        yield Number(f"largest rise of the loss by {perturbation(dataset)} in one layer", text, of.subject)


def _where(dataset: xr.Dataset, size: float) -> str:
    if size == 0:
        return "without noise"
    if attribute(dataset, "noise") == "gaussian":
        kinds = {"filter": ", relative", "weight": ", relative to each weight"}
        return f"at sigma = {size:g}{kinds.get(attribute(dataset, 'relative'), '')}"
    return f"{'under' if is_noise(dataset) or dimension(dataset) == 'rate' else 'after'} {of_size(dataset, size)}"


def panels(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Panel]:
    """The accuracy of the first two networks under noise; the loss where there is no accuracy."""
    for group in groups(datasets)[:1]:
        name = "accuracy" if all("accuracy" in dataset for dataset in group[:2]) else "loss"
        yield Panel(f"{name.capitalize()} under noise", partial(draw_panel, group[:2], name))


def draw_panel(datasets: Sequence[xr.Dataset], name: str, axes: Axes) -> None:
    """Mean ± one standard error against the size of the noise."""
    for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
        _curve(axes, dataset, name, k, label)
    _size_axis(axes, *datasets)
    axes.set_ylabel(name)
    if name == "loss":
        log_if_wide(axes, *(values(dataset, "loss") for dataset in datasets), ratio=8)
    if len(datasets) > 1:
        axes.legend(loc="best", fontsize=6.5)


@styled
def robustness(*datasets: xr.Dataset) -> Figure:
    """Loss and accuracy against the size of a perturbation: draws faint, mean ± one standard error.

    The axis of sigma and of the rate is logarithmic above the smallest positive one and linear below it: 0 has a
    place. Bits run from many to few, so that perturbations grow to the right in every figure.
    """
    figure, axes = loss_and_accuracy(datasets, _curve, height=2.8)
    for panel in axes:
        _size_axis(panel, *datasets)
    log_if_wide(axes[0], *(values(d, "loss") for d in datasets), ratio=8)
    legend_above(figure, axes[0])
    return figure


def _curve(axes: Axes, dataset: xr.Dataset, name: str, k: int, label: str) -> None:
    size = dimension(dataset)
    ordered = dataset.sortby(size)
    colour, at = COLOURS[k % len(COLOURS)], values(ordered, size)
    if ordered.sizes.get("draw", 0) > 1 and f"{name}_draws" in ordered:
        draws = ordered[f"{name}_draws"].transpose(size, "draw").to_numpy()
        axes.plot(at, draws, color=colour, alpha=0.25, linewidth=0.6, zorder=1)
    if not _has_zero(dataset) and f"{name}_clean" in dataset:
        axes.axhline(float(dataset[f"{name}_clean"]), color=colour, linestyle=":", linewidth=0.9, zorder=0)
    axes.errorbar(
        at,
        values(ordered, name),
        yerr=errors(ordered, name),
        color=colour,
        marker=MARKERS[k % len(MARKERS)],
        linestyle="-" if k % 2 == 0 else "--",
        capsize=2,
        label=label,
    )


def _size_axis(axes: Axes, *datasets: xr.Dataset) -> None:
    """The axis of sizes, with a tick at each of them where there is room."""
    name = dimension(datasets[0])
    positive = np.unique(np.concatenate([values(d, name)[values(d, name) > 0] for d in datasets]))
    axes.set_xlabel(axis_label(datasets))
    if name in ("sigma", "rate") and positive.size:
        zero = name == "sigma" or any(map(_has_zero, datasets))
        linear = {"linthresh": float(positive.min()), "linscale": 0.6} if zero else {}
        axes.set_xscale("symlog" if zero else "log", **linear)
        shown = [0.0] * zero + [*positive]
        axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axes.set_xticks([], minor=True)
    if name == "bits":
        axes.set_xticks(positive, [f"{tick:g}" for tick in positive])
        axes.set_xlim(positive.max() + 0.5, positive.min() - 0.5)
    if name == "share":
        ticks = [0.0, *positive] if any(map(_has_zero, datasets)) else [*positive]
        axes.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
