"""What figures, sentences and claims on paths between networks call things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show import BARRIER
from lossatlas.results.blocks import capitalised
from lossatlas.results.captions import count, sentence, sentences
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, plus_minus, with_interval
from lossatlas.results.values import scalar

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

DEFINITIONS = {
    "entezari": "height above the straight line between the end losses (Entezari et al. 2022)",
    "frankle": "height above the mean of the ends (Frankle et al. 2020)",
    "draxler": "height above the worse end (Draxler et al. 2018)",
}


SHORT = {"line after alignment": "aligned line"}


def path(dataset: xr.Dataset) -> str:
    """What the path is called: "line", "line after alignment", "Bezier curve"."""
    return str(dataset.attrs["path"])


def pair(datasets: Sequence[xr.Dataset]) -> str:
    """Between whom the paths are: "networks A and B", or "the two networks" where no pair has labels."""
    labels = {Provenance.of(dataset).network or "" for dataset in datasets}
    label = labels.pop() if len(labels) == 1 else ""
    return f"networks {label}" if " and " in label else "the two networks"


def networks(dataset: xr.Dataset) -> tuple[str, str]:
    """What its two networks are called: "network A", "network B", or "first network", "second network"."""
    first, found, second = (Provenance.of(dataset).network or "").partition(" and ")
    return (f"network {first}", f"network {second}") if found else ("first network", "second network")


def mark_label(name: str) -> str:
    """A mark's name next to it: "A" for network A, "B aligned", "first" for the first network, "bend"."""
    return name.removesuffix(" network").replace("network, ", "").replace("network ", "").replace(",", "")


def examples(dataset: xr.Dataset) -> str:
    """On which data: "training data", "test data", or what they are called."""
    split = str(dataset.attrs.get("split", ""))
    return {"train": "training data", "test": "test data"}.get(split, Provenance.of(dataset).short_data)


def column(dataset: xr.Dataset) -> str:
    """Of which path on which data the numbers are, shortly: "A–B aligned line, train"."""
    first, between, second = (Provenance.of(dataset).network or "").partition(" and ")
    name = SHORT.get(path(dataset), path(dataset))
    data = str(dataset.attrs.get("split", "")) or Provenance.of(dataset).short_data
    return capitalised(f"{f'{first}–{second} ' if between else ''}{name}, {data}")


def has_barriers(catalogue: Catalogue) -> bool:
    """Whether a barrier was measured: it answers what the other kinds only hint at."""
    return bool(catalogue.of(BARRIER))


def bounds(dataset: xr.Dataset, name: str) -> tuple[float, float]:
    """The 95 % interval of a number; NaN where it is not known."""
    return scalar(dataset, f"{name}_low"), scalar(dataset, f"{name}_high")


def has_interval(dataset: xr.Dataset, name: str) -> bool:
    """Whether the 95 % interval of a number is known and finite."""
    return bool(np.isfinite(bounds(dataset, name)).all())


def height(dataset: xr.Dataset, name: str) -> str:
    """A height with its 95 % interval, else ± one standard error: "1.520 [1.504, 1.536]"."""
    if has_interval(dataset, name):
        return with_interval(float(dataset[name]), bounds(dataset, name))
    return plus_minus(scalar(dataset, name), scalar(dataset, f"{name}_stderr"))


def short_names(datasets: Sequence[xr.Dataset]) -> list[str]:
    """The data without the words that all have in common at their beginning: "train", "test"."""
    words = [Provenance.of(dataset).short_data.split() for dataset in datasets]
    common = next((k for k, column in enumerate(zip(*words, strict=False)) if len(set(column)) > 1), 0)
    return [" ".join(each[common:] or each) for each in words]


def definition(datasets: Sequence[xr.Dataset]) -> str:
    """What the height is measured from."""
    return sentence(datasets, "definition", "Barrier: {}.", DEFINITIONS.__getitem__)


def intervals(datasets: Sequence[xr.Dataset]) -> tuple[str, ...]:
    """How the interval of a height was had; empty where there is none."""
    if not any(has_interval(dataset, "barrier") for dataset in datasets):
        return ()
    return sentences(
        "Intervals: 95 %, by a paired bootstrap over the examples: the same examples at every t and at both ends, the "
        "maximum taken anew in each draw.",
        sentence(datasets, "draws", "Draws of the bootstrap: {}.", count),
        sentence(datasets, "seed", "Seed of the bootstrap: {}."),
    )


def resolution(datasets: Sequence[xr.Dataset]) -> str:
    """How well the refinement knows the maximum: of several, that known least."""
    height, t = (max(float(dataset.attrs[f"{of}_resolution"]) for dataset in datasets) for of in ("height", "t"))
    if not np.isfinite([height, t]).all():
        return ""
    several = "Heights of the maxima known to {} or better, their places to {}"
    text = several if len(datasets) > 1 else "Height of the maximum known to {}, its place to {}"
    return f"{text.format(number(height, 2), number(t, 2))}, estimated from the points about {_them(datasets)}."


def _them(datasets: Sequence[xr.Dataset]) -> str:
    return "them" if len(datasets) > 1 else "it"
