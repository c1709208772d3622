"""What a permutation alignment did to each group of units: figure, table, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lossatlas.drawing.axes import values
from lossatlas.drawing.style import BLUE, GREY, VERMILLION, legend_above, panels, styled
from lossatlas.results.blocks import FigureGroup, Picture, Table
from lossatlas.results.captions import count, joined, sentence
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
        picture = Picture("alignment", partial(alignment, dataset), caption(dataset))
        yield FigureGroup((dataset,), (picture,), tables)


def caption(dataset: xr.Dataset) -> str:
    return joined(
        "The permutation of the second network that brings it to the first. A group holds the units that have to move "
        "together, such as those joined by a residual addition. Left: the share of each group's units that change "
        "place. Right: the cosine of the weights, incoming and outgoing, of units at the same place, mean over the "
        "group, before (open) and after (filled) the permutation.",
        _method(dataset),
        sentence([dataset], "sweeps", "Sweeps over the groups: {}."),
        sentence([dataset], "assignments", "Assignment problems solved: {}.", count),
        sentence([dataset], "seed", "Seed: {}."),
        sentence([dataset], "data", "Checked on the data: {}."),
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
    return Table(joined("The alignment by groups of units.", _method(dataset)), header, rows)


def numbers(dataset: xr.Dataset) -> Iterator[str]:
    """How many units moved, how near the networks came, whether the function stayed, and how it was found."""
    groups = dataset.sizes["group"]
    yield (
        f"The permutation moves {percent(moved(dataset))} of the {int(dataset['size'].sum()):,} units, in {groups} "
        f"group{'s' if groups != 1 else ''} that move together."
    )
    yield (
        f"The cosine of the two networks' permuted tensors goes from {_number(dataset, 'similarity_before')} to "
        f"{_number(dataset, 'similarity_after')}, the distance between the networks from "
        f"{_number(dataset, 'distance_before')} to {_number(dataset, 'distance_after')}."
    )
    yield (
        f"The outputs of the permuted network differ by {_number(dataset, 'deviation', 2)} at most from those of the "
        "given one, relative to the largest output or to 1."
    )
    yield from _search(dataset)


def _search(dataset: xr.Dataset) -> Iterator[str]:
    a = dataset.attrs
    if a["starts"]:
        yield f"Starts and the similarity that each reached: {a['starts']}; kept: {a['start']}."
    if a["half_way"]:
        yield f"Of those within 1 % of the best, the loss half-way to the first network decided: {a['half_way']}."
    if a.get("seconds", 0) > 0 and "seconds_assignment" in a:
        share_of_solver = percent(float(a["seconds_assignment"]) / float(a["seconds"]))
        yield f"It took {number(float(a['seconds']), 3)} s, of which the assignment solver had {share_of_solver}."
    if a["pinned"]:
        yield f"Not permuted: {str(a['pinned']).rstrip('.')}."


def moved(dataset: xr.Dataset) -> float:
    """The share of all units that change place: of each group, weighted by its size."""
    return float((dataset["moved"] * dataset["size"]).sum(skipna=False) / dataset["size"].sum())


def _number(dataset: xr.Dataset, name: str, digits: int = 4) -> str:
    return number(scalar(dataset, name), digits)


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
