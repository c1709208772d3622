"""The eigenvalues of batches: figure, caption, numbers, the claim on their mean, theory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.drawing.axes import values
from lossatlas.drawing.style import COLOURS, GREY, labels, panels, styled
from lossatlas.results.blocks import FigureGroup, Formula, Picture, Topic, paragraph
from lossatlas.results.captions import data_basis, joined, sentence
from lossatlas.results.claim import UNKNOWN, Claim
from lossatlas.results.groups import alike
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, plus_minus, with_interval
from lossatlas.results.values import value

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue

Datasets = Sequence["xr.Dataset"]

TOPICS = (
    Topic(
        "Curvature of batches",
        (
            paragraph(
                "A step of SGD sees the Hessian $H_b$ of its batch alone. The largest eigenvalue is a convex function "
                "of a matrix, being a maximum of linear ones, $\\max_{\\lVert v \\rVert = 1} v^{\\top} H v$, so that "
                "by Jensen's inequality"
            ),
            Formula(r"\mathrm{E} \, \lambda_{\max}(H_b) \geq \lambda_{\max}(\mathrm{E} \, H_b) = \lambda_{\max}(H)"),
            paragraph(
                "for batches drawn at random, and likewise $\\mathrm{E} \\, \\lambda_{\\min}(H_b) \\leq "
                "\\lambda_{\\min}(H)$. The smaller the batches, the further their eigenvalues lie from those of all "
                "the data; the stability of SGD depends on the curvature of batches, not on that of their mean "
                "[@andreyev2024]."
            ),
        ),
    ),
)


def figures(datasets: Datasets, catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each data set and each end."""
    for group in alike(datasets, "data", "which"):
        picture = Picture("batch-eigenvalues", partial(batch_eigenvalues, *group), caption(group), _width(group))
        yield FigureGroup(tuple(group), (picture,))


def _width(group: Datasets) -> float:
    return 1.0 if len(group) > 1 else 0.7


def caption(datasets: Datasets) -> str:
    """What the figure shows and how it was computed."""
    return joined(
        f"The {_end(datasets[0])} eigenvalue of the Hessian of each batch. Steps: the share of the batches with at "
        "most this value; dotted: their mean, with its 95 % interval as a band; dashed: all the data.",
        sentence(datasets, "tol", "Relative tolerance asked: {}.", lambda tol: number(float(tol), 2)),
        data_basis(datasets),
    )


@styled
def batch_eigenvalues(*datasets: xr.Dataset) -> Figure:
    """The cumulative distribution over the batches of the outermost eigenvalue; a panel a network."""
    figure, axes = panels(len(datasets), height=3.1, width=6.3 if len(datasets) > 1 else 4.4)
    for k, (panel, dataset, label) in enumerate(zip(axes, datasets, labels(datasets), strict=True)):
        _distribution(panel, dataset.isel(rank=0), COLOURS[k % len(COLOURS)])
        symbol = r"\lambda_{\max}" if dataset.attrs["which"] == "largest" else r"\lambda_{\min}"
        panel.set(xlabel=f"{_end(dataset)} eigenvalue ${symbol}$ of a batch", title=label, ylim=(0, 1))
    axes[0].set_ylabel("share of the batches")
    return figure


def _distribution(axes: Axes, first: xr.Dataset, colour: str) -> None:
    axes.ecdf(values(first, "eigenvalue"), color=colour, label=_batches(first))
    mean, low, high = (float(first[f"eigenvalue_mean{part}"]) for part in ("", "_low", "_high"))
    axes.axvline(mean, color=colour, linestyle=":", label=f"their mean: {with_interval(mean, (low, high))}")
    if math.isfinite(low):
        axes.axvspan(low, high, color=colour, alpha=0.2, linewidth=0)
    whole, residual = float(first["eigenvalue_all"]), float(first["residual_all"])
    axes.axvspan(whole - residual, whole + residual, color=GREY, alpha=0.25, linewidth=0)
    axes.axvline(whole, color="black", linestyle="--", label=f"all the data: {number(whole)}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)


def _end(dataset: xr.Dataset) -> str:
    return str(dataset.attrs["which"])


def _batches(dataset: xr.Dataset) -> str:
    """How many batches of how many examples: "8 batches of 32 examples"."""
    sizes = np.unique(dataset["batch_examples"].to_numpy())
    span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    n = int(dataset.attrs["batches"])
    return f"{n:,} {'batches' if n > 1 else 'batch'} of {span} examples"


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """The mean over the batches, its spread, and the whole data's value."""
    first = dataset.isel(rank=0)
    yield (
        f"{Provenance.of(dataset).subject}: the {_end(dataset)} eigenvalue of {_batches(dataset)} has the mean "
        f"{value(dataset, 'eigenvalue_mean', rank=0)}, its quantiles at 5, 50 and 95 % are "
        + ", ".join(number(float(first["eigenvalue_quantile"].sel(quantile=q))) for q in (0.05, 0.5, 0.95))
        + f"; that of all the data is {plus_minus(float(first['eigenvalue_all']), float(first['residual_all']))} "
        "(± the solver's residual)."
    )
    if not dataset.attrs["converged"]:
        yield "Some searches did not reach the tolerance; the residuals say how far they came."


def claims(datasets: Datasets, catalogue: Catalogue) -> Iterator[Claim]:
    """Whether batches are more curved than all the data, for each Dataset."""
    yield from map(batches_are_sharper, datasets)


def batches_are_sharper(dataset: xr.Dataset) -> Claim:
    """Whether the mean over batches lies above the eigenvalue of all the data; below it for the smallest."""
    first, largest = dataset.isel(rank=0), dataset.attrs["which"] == "largest"
    whole, residual = float(first["eigenvalue_all"]), float(first["residual_all"])
    difference = float(first["eigenvalue_mean"]) - whole
    low, high = (float(first[f"eigenvalue_mean_{end}"]) - whole for end in ("low", "high"))
    known = math.isfinite(low)
    return Claim(
        hypothesis=f"The {_end(dataset)} eigenvalue of the Hessian of a batch is on average "
        f"{'above' if largest else 'below'} that of all the data, at the trained point of {Provenance.of(dataset).who}",
        statistic="mean over the batches minus the value of all the data, threshold 0",
        value=difference,
        interval=(low - residual, high + residual) if known else UNKNOWN,
        direction="above" if largest else "below",
        detail="By Jensen's inequality it cannot be on the other side in expectation; the question is whether the "
        f"difference shows. {_batches(dataset)} of {int(dataset.attrs['batches_available']):,}. "
        f"On {Provenance.of(dataset).data_label}.",
        datasets=(dataset.attrs["id"],),
        basis="Student's 95 % interval over the batches, widened by the residuals",
    )


def theory() -> tuple[Topic, ...]:
    """Jensen's inequality for the eigenvalues of batches."""
    return TOPICS
