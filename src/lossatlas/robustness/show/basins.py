"""The basin of a score: figure, caption, table, numbers, claims, answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lossatlas.drawing.axes import values
from lossatlas.drawing.style import COLOURS, GREY, MARKERS, labels, legend_above, panels, styled
from lossatlas.results.blocks import Answer, FigureGroup, Number, Picture, Table
from lossatlas.results.captions import listed, sentence, sentences
from lossatlas.results.claim import Claim, Interval
from lossatlas.results.groups import alike
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import interval, number, with_interval
from lossatlas.robustness.show.words import RELATIVE

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue

BEYOND = (1e-12, 1e12)  # ends of an axis on which an interval is open
FAR = 0.1  # the share of the random size below which the worst one is called far below
WORDS = {"random": "random noise", "worst": "the worst direction found"}
SHORT = {"random": "random", "worst": "worst direction"}
BRIEFLY = {"filter": ", relative to filters", "weight": ", relative to weights"}
BASIS = "quotient of two 95 % intervals"
LIMIT = (
    "The worst direction is what an ascent on the loss found: there may be worse ones, so its size is an upper bound."
)


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each score, fall and data set."""
    for group in alike(datasets, "metric", "fall", "relative", "data"):
        yield FigureGroup(tuple(group), (_picture(group),), (table(group),))


def _picture(datasets: Sequence[xr.Dataset]) -> Picture:
    first = datasets[0]
    found = "; ".join(f"{each.of}: {each.name} {each.text}" for dataset in datasets for each in numbers(dataset))
    return Picture(
        "basin",
        partial(basin, *datasets),
        f"The {_fallen(first)} against the size of weight perturbations, mean ± one standard error; dashed, "
        f"{_amount(first)}; bars on it, the 95 % interval of the size at which it is reached.",
        how="Random: Gaussian noise on all weights, the mean over its draws. Worst: one direction of the same length, "
        f"found by ascent on the loss{_relative(first)}.",
        pitfall=LIMIT,
        method=sentences(
            "Sizes by bisection with the same draws at every size; differences are paired over the examples.",
            sentence(datasets, "limit", "Evaluations of the data for each direction: at most {}."),
            sentence(datasets, "steps", "Steps of the ascent: {}."),
            "A size is the root mean square of the perturbation of a weight, in the units given.",
            "The worst direction is fitted to the examples on which it is measured.",
            sentence(datasets, "filters", "Filters: {}."),
            sentence(datasets, "seed", "Seed of the draws: {}."),
        ),
        alt=f"The basin of the {first.attrs['metric']}. {found}.",
        width=0.75,
    )


def _fallen(dataset: xr.Dataset) -> str:
    metric = str(dataset.attrs["metric"])
    return "rise of the loss" if metric == "loss" else f"fall of the {metric}"


def _verb(dataset: xr.Dataset) -> str:
    return "rises" if dataset.attrs["metric"] == "loss" else "falls"


def _relative(dataset: xr.Dataset) -> str:
    return RELATIVE.get(str(dataset.attrs["relative"]), "")


def _scale(dataset: xr.Dataset) -> float:
    return 100.0 if dataset.attrs["metric"] == "accuracy" else 1.0


def _amount(dataset: xr.Dataset) -> str:
    amount = f"{_scale(dataset) * float(dataset.attrs['fall']):g}"
    unit = "" if _scale(dataset) == 1 else " percentage point" + ("s" if amount != "1" else "")
    return f"{amount}{unit}"


def _rows(dataset: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    for name in dataset["direction"].to_numpy():
        yield str(name), dataset.sel(direction=name)


def _bounds(row: xr.Dataset) -> Interval:
    return float(row["low"]), float(row["high"])


def size_of(row: xr.Dataset) -> str:
    """The size with its interval; an end that was not found is told."""
    size, (low, high) = float(row["size"]), _bounds(row)
    if math.isnan(size):
        return f"above {number(low, 3)}" if low > 0 else "not reached"
    if math.isfinite(high) and low > 0:
        digits = max(2 - math.floor(math.log10(high - low)), 0) if high > low else 4
        return with_interval(size, (low, high)) if digits < 8 else f"{number(size)} {interval((low, high))}"
    return f"{number(size, 3)} [{number(low, 3)}, {number(high, 3)}]"


def table(datasets: Sequence[xr.Dataset]) -> Table:
    """Each network's sizes, how they were found and at what cost."""
    rows = [
        (
            label,
            WORDS[name],
            size_of(row),
            str(row["outcome"].item()),
            f"{int(row['evaluations'])}" + (f" ({int(row['gradients'])} gradients)" if int(row["gradients"]) else ""),
        )
        for dataset, label in zip(datasets, labels(datasets), strict=True)
        for name, row in _rows(dataset)
    ]
    first = datasets[0]
    return Table(
        f"The size at which the {_fallen(first)} is {_amount(first)}, with its 95 % interval.",
        ("network", "perturbation", "size", "outcome", "evaluations"),
        tuple(rows),
    )


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """The size of each direction."""
    of = Provenance.of(dataset)
    for name, row in _rows(dataset):
        what = f"{WORDS[name]} for a {_fallen(dataset)} of {_amount(dataset)} ({of.short_data})"
        yield Number(f"size of {what}", size_of(row), of.subject)


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """Whether the worst direction is far below random noise."""
    for dataset in datasets:
        if claim := far_below(dataset):
            yield claim


def far_below(dataset: xr.Dataset) -> Claim | None:
    """Whether the size in the worst direction found is below a tenth of that of random noise; None without both."""
    rows = dict(_rows(dataset))
    if set(rows) != {"random", "worst"}:
        return None
    (low, high), of = _bounds(rows["worst"]), Provenance.of(dataset)
    random_low, random_high = _bounds(rows["random"])
    return Claim(
        hypothesis=f"In the worst direction found the {dataset.attrs['metric']} of {of.who} "
        f"{_verb(dataset)} by {_amount(dataset)} at a size{_relative(dataset)} far below that of random noise, less "
        "than a tenth of it",
        statistic="size in the worst direction over that of random noise, threshold 0.1",
        value=_quotient(float(rows["worst"]["size"]), float(rows["random"]["size"])),
        interval=(_quotient(low, random_high), _quotient(high, random_low)),
        threshold=FAR,
        direction="below",
        detail=f"On {of.data_label}. Both ends of the interval take the far ends of the two. {LIMIT}",
        datasets=(dataset.attrs["id"],),
        basis=BASIS,
    )


def _quotient(above: float, below: float) -> float:
    """above / below; infinite by 0, and not a number where both are."""
    if below == 0 or math.isnan(above) or math.isnan(below):
        return math.inf if above > 0 and below == 0 else math.nan
    return above / below if math.isfinite(below) else (0.0 if math.isfinite(above) else math.nan)


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """At which size the score of each network falls, at random and in the worst direction."""
    for dataset in datasets:
        rows, claim, who = dict(_rows(dataset)), far_below(dataset), Provenance.of(dataset).who
        lead = f"The {dataset.attrs['metric']} of {who} {_verb(dataset)} by {_amount(dataset)} at"
        told = "" if claim is None else f"; that the worst one is far below random noise is {claim.verdict}"
        yield Answer(
            sentence=f"{lead} sigma = {listed([f'{size_of(row)} {_for(name)}' for name, row in rows.items()])}"
            f"{_relative(dataset)}{told}.",
            short=_short(lead, rows, dataset),
            claim=claim,
            finding="worst direction far below random noise" if claim else "",
            quantity="worst over random size" if claim else "",
            limit=LIMIT,
        )


def _short(lead: str, rows: dict[str, xr.Dataset], dataset: xr.Dataset) -> str:
    each = [f"{_size_briefly(row)} {_for(name).removesuffix(' found')}" for name, row in rows.items()]
    unit = BRIEFLY.get(str(dataset.attrs["relative"]), "")
    return f"{lead} sigma = {listed(each)}{unit}.".replace(" percentage point", " point").replace(" network ", " ")


def _size_briefly(row: xr.Dataset) -> str:
    size = float(row["size"])
    return f"above {number(float(row['low']), 2)}" if math.isnan(size) else number(size, 2)


def _for(name: str) -> str:
    return {"random": "at random", "worst": "in the worst direction found"}[name]


@styled
def basin(*datasets: xr.Dataset) -> Figure:
    """The fall of the score against the size: all sizes tried near the crossing, and its interval."""
    first = datasets[0]
    figure, (axes,) = panels(1, height=3.0, width=4.6)
    goal = _scale(first) * float(first.attrs["fall"])
    axes.axhline(goal, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    axes.axhline(0, color=GREY, linestyle=":", linewidth=0.6, zorder=0)
    for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
        for j, (name, row) in enumerate(_rows(dataset)):
            series = f"{label}, {SHORT[name]}" if len(datasets) > 1 else WORDS[name]
            look = {"color": COLOURS[(2 * k + j) % len(COLOURS)], "marker": MARKERS[(2 * k + j) % len(MARKERS)]}
            _draw(axes, row, goal, look, series)
    axes.set_xscale("log")
    unit = {"filter": " / filter norm", "weight": " / weight"}.get(str(first.attrs["relative"]), "")
    points = " (points)" if _scale(first) == 100 else ""
    axes.set(xlabel=rf"size of the perturbation $\sigma${unit}", ylabel=f"{_fallen(first)}{points}")
    axes.set_ylim(-0.8 * goal, 6 * goal)
    axes.set_xlim(*_window(datasets))
    legend_above(figure, axes, columns=2)
    return figure


def _draw(axes: Axes, row: xr.Dataset, goal: float, look: dict[str, Any], label: str) -> None:
    size, fall = values(row, "trial_size"), _scale(row) * values(row, "trial_fall")
    error = _scale(row) * values(row, "trial_fall_stderr")
    known = np.isfinite(size) & np.isfinite(fall)
    axes.errorbar(size[known], fall[known], yerr=error[known], linewidth=0.8, elinewidth=0.7, **look)
    low, high = (float(row[end]) for end in ("low", "high"))
    ends = low if low > 0 else BEYOND[0], high if math.isfinite(high) else BEYOND[1]
    axes.plot(ends, (goal, goal), color=look["color"], linewidth=4, alpha=0.45, solid_capstyle="butt")
    axes.plot([], [], label=label, **look)


def _window(datasets: Sequence[xr.Dataset]) -> tuple[float, float]:
    """Somewhat more than the intervals; where an end was not found, all sizes tried."""
    ends = np.concatenate([np.concatenate([values(d, "low"), values(d, "high"), values(d, "size")]) for d in datasets])
    inside = ends[np.isfinite(ends) & (ends > 0)]
    tried = np.concatenate([values(d, "trial_size").ravel() for d in datasets])
    found = inside if inside.size else tried[np.isfinite(tried)]
    return (float(found.min()) / 4, float(found.max()) * 4) if found.size else (1e-6, 100.0)
