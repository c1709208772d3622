"""What a permutation alignment did to each group of units: figure, table, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lossatlas.connectivity.show.captions import has_barriers, pair
from lossatlas.drawing.axes import values
from lossatlas.drawing.style import BLUE, GREY, VERMILLION, legend_above, panels, styled
from lossatlas.results.blocks import Answer, FigureGroup, Number, Picture, Table, capitalised
from lossatlas.results.captions import count, sentence, sentences
from lossatlas.results.uncertainty import number, percent
from lossatlas.results.values import scalar

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lossatlas.drawing.style import FloatArray
    from lossatlas.results.catalogue import Catalogue

HIGHEST = 7.5  # inches, so that the figure of a deep network still fits a page with its caption
MOST_ROWS = 12  # of the table: beyond it the figure says enough
METHODS = {
    "weights": "weight matching (Ainsworth et al. 2023)",
    "activations": "activation matching: units paired by the correlation of their activations on the data",
}


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A figure for each alignment; a table too where it has few groups."""
    for dataset in datasets:
        tables = (table(dataset),) if dataset.sizes["group"] <= MOST_ROWS else ()
        yield FigureGroup((dataset,), (_picture(dataset),), tables)


def _picture(dataset: xr.Dataset) -> Picture:
    return Picture(
        "alignment",
        partial(alignment, dataset),
        "The permutation of the second network that brings it to the first. Left: the units of each group that change "
        "place. Right: how alike the weights of units at the same place are, before (open) and after (filled).",
        how=_method(dataset),
        pitfall="The search for a permutation has local optima: a better one may exist.",
        method=_details(dataset),
        alt=f"Alignment moves {percent(moved(dataset))} of the hidden units and raises the cosine of the weights from "
        f"{_cosine(dataset, 'before')} to {_cosine(dataset, 'after')}.",
    )


def _details(dataset: xr.Dataset) -> tuple[str, ...]:
    """What a group is, how the permutation was searched, and on what it was checked."""
    a = dataset.attrs
    seconds = a.get("seconds", 0)
    solver = percent(float(a.get("seconds_assignment", 0)) / float(seconds)) if seconds else ""
    return sentences(
        "A group holds the units that have to move together, such as those joined by a residual addition; the cosine "
        "is of their incoming and outgoing weights, mean over the group.",
        f"Starts and the similarity that each reached: {a['starts']}; kept: {a['start']}." if a["starts"] else "",
        f"Of those within 1 % of the best, the loss half-way to the first network decided: {a['half_way']}."
        if a["half_way"]
        else "",
        sentence([dataset], "sweeps", "Sweeps over the groups: {}."),
        sentence([dataset], "assignments", "Assignment problems solved: {}.", count),
        sentence([dataset], "seed", "Seed of the alignment: {}."),
        f"It took {number(float(seconds), 3)} s, of which the assignment solver had {solver}." if solver else "",
        sentence([dataset], "data", "That the permuted network is the same function was checked on: {}."),
    )


def _method(dataset: xr.Dataset) -> str:
    return sentence([dataset], "method", "Method: {}.", METHODS.__getitem__)


def table(dataset: xr.Dataset) -> Table:
    """A row for each group of units."""
    columns = [dataset[name].to_numpy() for name in ("group", "size", "moved", "cosine_before", "cosine_after")]
    rows = tuple(
        (str(name), f"{int(size):,}", percent(moved), number(before, 3), number(after, 3))
        for name, size, moved, before, after in zip(*columns, strict=True)
    )
    header = ("group", "units", "changed place", "cosine before", "cosine after")
    return Table("The alignment by groups of units.", header, rows)


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """How many units moved, how near the networks came, and whether the function stayed."""
    of, units = capitalised(pair([dataset])), int(dataset["size"].sum())
    yield Number("hidden units that change place", f"{percent(moved(dataset))} of {units:,}", of)
    for name, quantity in (("cosine of the weights", "similarity"), ("distance of the networks", "distance")):
        before, after = (number(scalar(dataset, f"{quantity}_{end}"), 3) for end in ("before", "after"))
        yield Number(name, f"{before} before alignment, {after} after", of)
    yield Number("largest change of an output", f"{number(scalar(dataset, 'deviation'), 2)}, relative", of)
    yield Number("groups of units", f"{dataset.sizes['group']}", of)
    if dataset.attrs["pinned"]:
        yield Number("not permuted", str(dataset.attrs["pinned"]).rstrip("."), of)


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """How near an alignment brings two networks, where no barrier was measured."""
    for dataset in [] if has_barriers(catalogue) else datasets:
        before, after = _cosine(dataset, "before"), _cosine(dataset, "after")
        yield Answer(
            f"A permutation of {percent(moved(dataset))} of the hidden units brings {pair([dataset])} nearer to each "
            f"other: the cosine of their weights goes from {before} to {after}. No barrier was measured.",
            f"Alignment takes the cosine of the weights of {pair([dataset])} from {before} to {after}.",
            finding="nearer after alignment",
            quantity="cosine of the weights",
            limit="Networks whose weights are alike need not be connected: that takes a barrier.",
        )


def _cosine(dataset: xr.Dataset, end: str) -> str:
    return number(scalar(dataset, f"similarity_{end}"), 2)


def moved(dataset: xr.Dataset) -> float:
    """The share of all units that change place: of each group, weighted by its size."""
    return float((dataset["moved"] * dataset["size"]).sum(skipna=False) / dataset["size"].sum())


@styled
def alignment(dataset: xr.Dataset) -> Figure:
    """For each group of units that move together: the share that changed place, and how alike matched units are.

    Right: the mean cosine of the weights of unit i of the first network and the unit of the second that stands at its
    place, before (open) and after (filled) the permutation.
    """
    rows = list(range(dataset.sizes["group"]))
    figure, (left, right) = panels(2, height=min(1.3 + 0.22 * max(len(rows), 3), HIGHEST))
    left.barh(rows, 100 * values(dataset, "moved"), height=0.62, color=BLUE)
    left.set(xlabel="units that changed place (%)", ylabel="group of units (size)", xlim=(0, 100))
    before_and_after(right, values(dataset, "cosine_before"), values(dataset, "cosine_after"))
    right.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
    right.set(xlabel="mean cosine of the weights\nof matched units")
    for panel in (left, right):
        name_rows(panel, dataset["group"].to_numpy(), dataset["size"].to_numpy())
    below = right.get_subplotspec()
    right.tick_params("y", labelleft=below is not None and below.is_first_col())
    legend_above(figure, right)
    return figure


def before_and_after(axes: Axes, before: FloatArray, after: FloatArray, of: str = "the permutation") -> None:
    """A row for each group or layer, the first on top: its value before (open) and after (filled) a correction."""
    rows = list(range(len(before)))
    axes.hlines(rows, before, after, color=GREY, linewidth=0.9)
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": VERMILLION}
    axes.plot(before, rows, markerfacecolor="white", label=f"before {of}", **look)
    axes.plot(after, rows, label="after it", **look)


def name_rows(axes: Axes, names: NDArray[Any], sizes: NDArray[Any]) -> None:
    """The rows of ``before_and_after`` by name and number of units, in type that shrinks where they are many."""
    rows = list(range(len(names)))
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    axes.set_yticks(rows, [f"{name} ({int(size):,})" for name, size in zip(names, sizes, strict=True)])
    axes.tick_params("y", labelsize=min(8.0, 230 / max(len(rows), 1)))
