"""What REPAIR did to the units of a mean of networks: figure, table, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show.alignments import HIGHEST, MOST_ROWS, before_and_after, name_rows
from lossatlas.connectivity.show.captions import has_barriers
from lossatlas.drawing.axes import values
from lossatlas.drawing.style import legend_above, panels, styled
from lossatlas.results.blocks import Answer, FigureGroup, Number, Picture, Table
from lossatlas.results.captions import sentence, sentences
from lossatlas.results.uncertainty import number

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from lossatlas.results.catalogue import Catalogue


def figures(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A figure for each mean of networks; a table too where it has few layers."""
    for dataset in datasets:
        tables = (table(dataset),) if dataset.sizes["layer"] <= MOST_ROWS else ()
        yield FigureGroup((dataset,), (_picture(dataset),), tables)


def _picture(dataset: xr.Dataset) -> Picture:
    return Picture(
        "repair",
        partial(repair, dataset),
        "REPAIR of a mean of networks: for each hidden layer (number of units) how much its units vary over the data, "
        "before it is corrected (open) and at the end (filled). Dotted: what REPAIR aims at.",
        how="The standard deviation of the units' pre-activations over the same mean of the networks' own (Jordan et "
        "al. 2023), mean over the units.",
        pitfall="Units whose variance is restored need not give a low loss, which is not shown here.",
        method=sentences(
            "Before: behind the layers corrected already.",
            "Below 1 the units vary too little (variance collapse).",
            f"Weights of the networks: {_weights(dataset)}.",
            sentence([dataset], "data", "Data: {}."),
            sentence([dataset], "batch_norm", "Batch normalisation: {}."),
        ),
        alt=f"The units' standard deviation over its target is {_range(dataset, 'sd_ratio_before')} before REPAIR and "
        f"{_range(dataset, 'sd_ratio_after')} after it.",
        width=0.75,
    )


def table(dataset: xr.Dataset) -> Table:
    """A row for each layer that was corrected."""
    columns = [dataset[name].to_numpy() for name in ("layer", "units", "sd_ratio_before", "sd_ratio_after")]
    rows = tuple(
        (str(layer), f"{int(units):,}", number(before, 3), number(after, 3))
        for layer, units, before, after in zip(*columns, strict=True)
    )
    caption = "Standard deviation of the units' pre-activations over its target, mean over the units of each layer."
    return Table(caption, ("layer", "units", "before", "after"), rows)


def numbers(dataset: xr.Dataset) -> Iterator[Number]:
    """The range over the layers before and after, and which layers were left as they are."""
    of = f"Mean with weights {_weights(dataset)}"
    for end in ("before", "after"):
        yield Number(f"deviation of the units over its target, {end}", _range(dataset, f"sd_ratio_{end}"), of)
    yield Number("layers corrected", f"{dataset.sizes['layer']}, with {int(dataset['units'].sum()):,} units", of)
    if dataset.attrs["skipped"]:
        yield Number("not corrected", str(dataset.attrs["skipped"]).rstrip("."), of)


def answers(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Answer]:
    """What REPAIR changes, where no barrier was measured."""
    for dataset in [] if has_barriers(catalogue) else datasets:
        before, after = (_range(dataset, f"sd_ratio_{end}") for end in ("before", "after"))
        yield Answer(
            "In the mean of the networks the hidden units' standard deviation over its target (1) is "
            f"{before} over the layers, and {after} after REPAIR. No barrier was measured.",
            f"REPAIR takes the units' standard deviation from {before} of its target to {after}.",
            finding="variance restored by REPAIR",
            quantity="standard deviation over its target",
            limit="How good the corrected mean is, its loss says; it is not in this result.",
        )


def _weights(dataset: xr.Dataset) -> str:
    return ", ".join(number(float(weight), 3) for weight in np.atleast_1d(dataset.attrs["weights"]))


def _range(dataset: xr.Dataset, name: str) -> str:
    """The smallest to the largest, over the layers whose units vary at all: "0.61 to 0.83"."""
    found = values(dataset, name)
    known = found[np.isfinite(found)]
    if not known.size:
        return "not known"
    ends = dict.fromkeys(number(float(end), 3) for end in (known.min(), known.max()))
    return " to ".join(ends)


@styled
def repair(dataset: xr.Dataset) -> Figure:
    """For each corrected layer the units' standard deviation over its target, before (open) and after (filled)."""
    figure, (axes,) = panels(1, height=min(1.3 + 0.26 * max(dataset.sizes["layer"], 3), HIGHEST), width=4.7)
    before_and_after(axes, values(dataset, "sd_ratio_before"), values(dataset, "sd_ratio_after"), "REPAIR")
    axes.axvline(1, color="black", linewidth=0.7, linestyle=":")
    axes.set(xlabel="standard deviation / target, mean over units", ylabel="layer (units)")
    axes.set_xlim(0, max(1.05, axes.get_xlim()[1]))
    name_rows(axes, dataset["layer"].to_numpy(), dataset["units"].to_numpy())
    legend_above(figure, axes)
    return figure
