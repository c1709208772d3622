"""The eigenvalues of batches: figure, caption, numbers, the claim on their mean, theory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lossatlas.curvature.show.captions import each
from lossatlas.curvature.show.numbers import named
from lossatlas.drawing.axes import values
from lossatlas.drawing.style import COLOURS, GREY, labels, panels, styled
from lossatlas.results.blocks import Answer, FigureGroup, Formula, Number, Picture, Topic, paragraph
from lossatlas.results.captions import basis, sentence, sentences
from lossatlas.results.claim import UNKNOWN, Claim, Verdict
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

JENSEN = "A batch's largest eigenvalue is in expectation at least that of all the data, and its smallest at most"

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
        picture = Picture(
            "batch-eigenvalues", partial(batch_eigenvalues, *group), width=_width(group), **caption(group)
        )
        yield FigureGroup(tuple(group), (picture,))


def _width(group: Datasets) -> float:
    return 1.0 if len(group) > 1 else 0.7


def caption(datasets: Datasets) -> dict[str, Any]:
    """What is said of the figure."""
    means = [value(dataset, "eigenvalue_mean", rank=0) for dataset in datasets]
    return {
        "caption": f"The {_end(datasets[0])} eigenvalue of the Hessian of each batch. Steps are the share of the "
        "batches with at most this value; dotted is their mean with its 95 % interval, dashed that of all the data.",
        "how": "Lanczos on the mean loss of each batch by itself.",
        "pitfall": "The smaller the batches, the further their eigenvalues lie from those of all the data.",
        "method": sentences(
            sentence(datasets, "tol", "Relative tolerance asked of a batch: {}.", lambda tol: number(float(tol), 2)),
            *basis(datasets),
        ),
        "alt": f"The mean of the {_end(datasets[0])} eigenvalue over the batches is {each(datasets, means)}.",
    }


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


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """The mean over the batches, its spread, and the whole data's value."""
    yield from named(dataset, _rows(dataset))


def _rows(dataset: xr.Dataset) -> Iterator[tuple[str, str]]:
    first, name = dataset.isel(rank=0), f"{_end(dataset)} eigenvalue"
    spread = (number(float(first["eigenvalue_quantile"].sel(quantile=q))) for q in (0.05, 0.5, 0.95))
    yield f"{name} of a batch, mean", value(dataset, "eigenvalue_mean", rank=0)
    yield f"{name} of a batch, 5, 50, 95 %", ", ".join(spread)
    yield f"{name} of all the data", plus_minus(float(first["eigenvalue_all"]), float(first["residual_all"]))
    yield "batches", _batches(dataset)
    if not dataset.attrs["converged"]:
        yield "solver", "tolerance not reached in some batches"


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


def answers(datasets: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """For each Dataset how the curvature that a step of SGD meets stands to that of all the data."""
    for dataset in datasets:
        if bool(dataset["eigenvalue_mean"].isel(rank=0).isnull()):
            continue
        claim, first = batches_are_sharper(dataset), dataset.isel(rank=0)
        yield Answer(
            sentence=f"Over {_batches(dataset)} of {Provenance.of(dataset).who} the {_end(dataset)} eigenvalue has the "
            f"mean {_mean(dataset)}, {_beside(claim)} the {number(float(first['eigenvalue_all']), 3)} of all the data.",
            short=f"Single batches have a mean {_end(dataset)} eigenvalue of {_mean(dataset)}, "
            f"{_beside(claim)} that of all the data.",
            claim=claim,
            finding=f"batches are {'more' if claim.direction == 'above' else 'further'} curved than all the data",
            quantity="mean over batches minus all the data",
            limit=f"{JENSEN}.",
        )


def _mean(dataset: xr.Dataset) -> str:
    first = dataset.isel(rank=0)
    low, high = (float(first[f"eigenvalue_mean_{end}"]) for end in ("low", "high"))
    return with_interval(float(first["eigenvalue_mean"]), (low, high))


def _beside(claim: Claim) -> str:
    beyond = {"above": "above", "below": "below"}[claim.direction]
    short_of = {"above": "below", "below": "above"}[claim.direction]
    return {
        Verdict.SUPPORTED: beyond,
        Verdict.CONTRADICTED: short_of,
        Verdict.UNDECIDED: f"which does not decide whether they lie {beyond}",
    }[claim.verdict]


def theory() -> tuple[Topic, ...]:
    """Jensen's inequality for the eigenvalues of batches."""
    return TOPICS
