"""The measures of sharpness in a report: their figure with its captions, their tables, the most telling numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lossatlas.results.blocks import FigureGroup, Number, Picture
from lossatlas.results.captions import basis, listed, sentence, sentences
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number
from lossatlas.sharpness.show import tables
from lossatlas.sharpness.show.forest import sharpness
from lossatlas.sharpness.show.reading import (
    CHANGED,
    each,
    groups,
    invariant,
    is_bound,
    of,
    sharper_by,
    smaller_is_sharper,
    title,
    without_data,
)

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

Datasets = Sequence["xr.Dataset"]
MOST = 5  # key numbers
TELLING = (
    *("adaptive_average", "adaptive_worst", "lambda_max", "trace", "llc", "pac_bayes_adaptive", "fisher_rao"),
    *("relative_flatness", "sam", "asam", "average", "batch_sharpness", "critical"),
)
PITFALL = (
    "A rescaling of weights that keeps the function changes the open markers by any factor, so they compare networks "
    "as they are written down, not as functions."
)


def figures(datasets: Datasets, catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for those measured alike; its table holds two networks."""
    for group in groups(datasets):
        picture = Picture(
            "sharpness-measures",
            partial(sharpness, *group),
            caption(group),
            how=how(group),
            pitfall=PITFALL if not all(map(invariant, each(group[0]))) else "",
            method=method(group),
            alt=alt(group),
        )
        pairs = [group[k : k + 2] for k in range(0, len(group), 2)]
        yield FigureGroup(tuple(group), (picture,), (*map(tables.measures, pairs), *tables.remarks(group, catalogue)))


def caption(datasets: Datasets) -> str:
    """What is seen: values of one network, or ratios of several."""
    marked = "Filled: rescaling layers or neurons leaves the measure unchanged; open: it changes it."
    bound = any(is_bound(at) for at in each(datasets[0]))
    if len(datasets) == 1:
        arrows = " Arrows: lower bounds." if bound else ""
        smaller = [title(at) for at in each(datasets[0]) if smaller_is_sharper(at)]
        told = f" Larger is sharper, except for {listed(smaller)}." if smaller else " Larger is sharper."
        return f"Measures of sharpness of {Provenance.of(datasets[0]).who} with 95 % intervals. {marked}{arrows}{told}"
    first = Provenance.of(datasets[0]).label
    bounded = " (≥): ratios of lower bounds." if bound else ""
    return f"How many times sharper than {first}, by each measure, with 95 % intervals. {marked}{bounded}"


def how(datasets: Datasets) -> str:
    """On which data, how ratios got their intervals, and what is missing, in one line."""
    parts = [f"On {Provenance.of(datasets[0]).data_label}"]
    if len(datasets) > 1:
        parts.append("a ratio's interval has the ends of the two intervals, one over the other")
    missing = any(math.isnan(float(at["value"])) for d in datasets for at in each(d))
    parts += ["why some are not measured is among the remarks"] if missing else []
    parts += [f"without the data's error: {listed(exact)}"] if (exact := without_error_of_data(datasets)) else []
    return f"{'; '.join(parts)}."


def without_error_of_data(datasets: Datasets) -> list[str]:
    """The measures whose intervals hold for the examples given, not for others."""
    several = [at for dataset in datasets for at in each(dataset) if not math.isnan(float(at["value"]))]
    return list(dict.fromkeys(title(at) for at in several if without_data(at)))


def method(datasets: Datasets) -> tuple[str, ...]:
    """Tolerance, batches, seed and cost, and where the numbers come from."""
    return sentences(
        sentence(datasets, "tol", "Relative error allowed to what is solved or drawn: {}."),
        sentence(datasets, "batch_size", "Means over batches take {} examples each."),
        sentence(datasets, "seed", "Seed of the noise: {}."),
        sentence(datasets, "passes", "All measures together took {} gradient passes.", lambda n: number(float(n), 3)),
        *basis(datasets),
    )


def alt(datasets: Datasets) -> str:
    """The finding in words: the first measures with their numbers."""
    if len(datasets) == 1:
        found = [f"{title(at)} {tables.value(at)}" for at in each(datasets[0])]
    else:
        pairs = zip(each(datasets[1]), each(datasets[0]), strict=True)
        found = [f"{title(b)} {number(sharper_by(b, a).value, 3)}" for b, a in pairs]
    return f"{caption(datasets).partition('. ')[0]}: {'; '.join(found)}."


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """The most telling measures; one that rescaling changes says so."""
    found = [at for name in TELLING if (at := of(dataset, name)) is not None]
    for at in (found or [at for at in each(dataset) if of(dataset, str(at["measure"].item())) is not None])[:MOST]:
        name = title(at) if invariant(at) else f"{title(at)} ({CHANGED})"
        yield Number(name, tables.value(at), Provenance.of(dataset).subject)
