"""Published numbers and ours: the figure, the table with the reason of each difference, how many agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.ticker import FuncFormatter

from lossatlas.drawing.style import BLUE, GREY, panels, styled
from lossatlas.results.blocks import Answer, FigureGroup, Number, Picture, Table, capitalised
from lossatlas.results.uncertainty import DASH, Z95, number, plus_minus

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue

WIDE = 8  # ratios that span more than this factor are drawn on a logarithmic axis
WIDTHS = (0.29, 0.11, 0.17, 0.11, 0.32)
HEADER = ("quantity", "published", "ours", "difference", "reason of the difference")


class Row(NamedTuple):
    """A quantity, the published number, ours with its standard error (NaN where unknown), and why they may differ."""

    quantity: str
    published: float
    ours: float
    error: float
    reason: str

    @property
    def measured(self) -> bool:
        return bool(np.isfinite(self.ours))

    @property
    def has_interval(self) -> bool:
        return bool(self.measured and self.error > 0)

    @property
    def inside(self) -> bool:
        """Whether the published number lies inside our normal 95 % interval."""
        return self.has_interval and abs(self.ours - self.published) <= Z95 * self.error

    @property
    def difference(self) -> float:
        """Ours over the published one, minus 1."""
        return self.ours / self.published - 1


def rows_of(dataset: xr.Dataset) -> list[Row]:
    """The quantities in the order of the Dataset."""
    columns = (dataset[name].to_numpy() for name in ("quantity", "published", "ours", "ours_stderr", "reason"))
    return [Row(str(q), float(p), float(o), float(e), str(r)) for q, p, o, e, r in zip(*columns, strict=True)]


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A figure and a table for each comparison."""
    for dataset in datasets:
        yield FigureGroup((dataset,), (_picture(dataset),), (table(dataset),))


def _picture(dataset: xr.Dataset) -> Picture:
    rows = rows_of(dataset)
    found = "; ".join(f"{row.quantity} {row.ours / row.published:.2g}" for row in rows if row.measured)
    return Picture(
        "comparison",
        partial(comparison, dataset),
        f"Our values as multiples of those that {_study(dataset)} published. Filled: the published number lies inside "
        "our 95 % interval. A quantity without a dot was not measured here.",
        how="Bars: our normal 95 % interval, where a standard error is known.",
        pitfall="The interval is over our examples or draws: another training of the network is not in it.",
        alt=f"Ours over published: {found}." if found else "None of the published numbers was measured here.",
    )


@styled
def comparison(dataset: xr.Dataset) -> Figure:
    """Our value over the published one with its 95 % interval, a row a quantity; the line is at equality."""
    rows = rows_of(dataset)
    figure, (axes,) = panels(1, height=0.9 + 0.22 * len(rows))
    axes.axvline(1, color=GREY, linewidth=0.6, linestyle=":")
    for k, row in enumerate(rows):
        bar = Z95 * row.error / abs(row.published) if row.has_interval else 0.0
        face = BLUE if row.inside else "white"
        axes.errorbar(row.ours / row.published, k, xerr=bar, fmt="o", color=BLUE, markerfacecolor=face, capsize=2)
    ratios = [row.ours / row.published for row in rows if row.measured and row.ours * row.published > 0]
    if ratios and max(ratios) > WIDE * min(ratios):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_yticks(range(len(rows)), [row.quantity for row in rows])
    axes.set(xlabel="ours / published", ylim=(len(rows) - 0.4, -0.6))
    return figure


def table(dataset: xr.Dataset) -> Table:
    """Published and ours with its error, by how much they differ, and why."""
    rows = tuple(
        (
            row.quantity,
            number(row.published),
            plus_minus(row.ours, row.error),
            _difference(row),
            row.reason if row.measured else "Not measured here.",
        )
        for row in rows_of(dataset)
    )
    caption = (
        f"{dataset.attrs['title']}. Ours ± one standard error where it is known. Difference: of ours from the "
        "published number, or how many times as large it is; inside: the published number lies in our 95 % interval."
    )
    return Table(caption, HEADER, rows, WIDTHS, lead=True)


def _difference(row: Row) -> str:
    if not row.measured:
        return DASH
    signed = f"{100 * row.difference:+.2g} %" if abs(row.difference) < 0.995 else f"× {row.difference + 1:.2g}"
    return f"{signed.replace('-', '−')}{', inside' * row.inside}"


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """How many quantities could be compared, and how many agree."""
    rows, of = rows_of(dataset), capitalised(_study(dataset))
    measured, judged = [row for row in rows if row.measured], [row for row in rows if row.has_interval]
    yield Number("published numbers measured here", f"{len(measured)} of {len(rows)}", of)
    yield Number("inside our 95 % interval", f"{sum(row.inside for row in judged)} of {len(judged)}", of)
    if without := len(measured) - len(judged):
        yield Number("measured without an interval", f"{without}", of)


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """How many of the published numbers lie inside our intervals, and which differs most."""
    for dataset in datasets:
        rows = [row for row in rows_of(dataset) if row.measured]
        if rows:
            yield _answer(rows, dataset)


def _answer(rows: Sequence[Row], dataset: xr.Dataset) -> Answer:
    judged, study = [row for row in rows if row.has_interval], _study(dataset)
    far = max(rows, key=lambda row: abs(row.difference))
    agree = f"{sum(row.inside for row in judged)} of {len(judged)}"
    rest = f"; {len(rows) - len(judged)} without an interval" if len(judged) < len(rows) else ""
    told = f": {agree} lie inside our 95 % interval{rest}" if judged else ", without an interval"
    return Answer(
        sentence=f"Of the {dataset.sizes['quantity']} numbers that {study} published, {len(rows)} were measured here"
        f"{told}. The largest difference is in the {far.quantity}: {number(far.published)} published and "
        f"{plus_minus(far.ours, far.error)} here.",
        short=f"{agree} published numbers of {study} lie inside our 95 % intervals."
        if judged
        else f"{len(rows)} published numbers of {study} were measured here, without intervals.",
        finding=f"{agree} inside our intervals" if judged else "measured without intervals",
        quantity="published numbers",
        limit="The published numbers are of single runs without errors; how trainings scatter is in neither.",
    )


def _study(dataset: xr.Dataset) -> str:
    """Whose numbers: "the Fashion-MNIST study"."""
    title = str(dataset.attrs["title"]).partition(":")[0]
    return title[:1].lower() + title[1:]
