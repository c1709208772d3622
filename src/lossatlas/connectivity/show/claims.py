"""Claims on the paths between two networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lossatlas.connectivity.show.captions import bounds, pair, path
from lossatlas.results.claim import Claim
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number
from lossatlas.results.values import scalar

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

_STILL = "The error is the same at every point, which tells nothing of the path: the loss is taken. "
FRANKLE_THRESHOLD = 0.02  # Frankle et al. 2020: instability below 2 % of error counts as linear connectivity
BOOTSTRAP = "95 % interval of a paired bootstrap"
DEFINITIONS = {
    "entezari": "the highest loss above the straight line between the end losses (Entezari et al. 2022)",
    "frankle": "the highest loss above the mean of the end losses (Frankle et al. 2020)",
    "draxler": "the highest loss above the worse end (Draxler et al. 2018)",
}


def claims(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Claim]:
    """Of each path whether it has a barrier and whether it connects; of the others whether theirs is lower."""
    for dataset in datasets:
        yield barrier_height(dataset)
        yield connected(dataset)
    for line in filter(unaligned, datasets):
        yield from (lower_path(line, o) for o in datasets if not unaligned(o) and _same_question(line, o))


def _same_question(a: xr.Dataset, b: xr.Dataset) -> bool:
    """One definition on the same data between the same networks, which are known by the losses at the two ends."""
    keys = ("data", "data_fingerprint", "definition", "batch_norm", "network")
    ends, others = (dataset["loss"].to_numpy()[[0, -1]].astype(float) for dataset in (a, b))
    same = bool(np.allclose(ends, others, rtol=1e-4, atol=1e-6))
    return same and all(a.attrs.get(key) == b.attrs.get(key) for key in keys)


def barrier_height(dataset: xr.Dataset) -> Claim:
    """Whether the loss on the path between two networks rises above the definition's reference (barrier > 0)."""
    return Claim(
        hypothesis=f"The {_name(dataset)} between {pair([dataset])} crosses a barrier of the loss on "
        f"{Provenance.of(dataset).data_label}",
        statistic="barrier of the loss, threshold 0",
        value=scalar(dataset, "barrier"),
        interval=bounds(dataset, "barrier"),
        detail=f"Barrier: {DEFINITIONS[dataset.attrs['definition']]}, over the {dataset.sizes['t']} points evaluated; "
        f"reached at t = {number(scalar(dataset, 't_max'), 3)}. The interval holds for the maximum over these points, "
        f"wherever it is. {_bootstrap(dataset, 'barrier')}These two networks only.",
        datasets=(dataset.attrs["id"],),
        basis=BOOTSTRAP,
    )


def linear_connectivity(dataset: xr.Dataset) -> Claim:
    """Whether sup_t E(t) - (E(0) + E(1)) / 2 is below 2 % of error on the line (Frankle et al. 2020)."""
    after = " after alignment" if "alignment" in path(dataset) else ""
    who = pair([dataset])
    return _connectivity(
        dataset,
        f"{who[0].upper()}{who[1:]} are linearly mode connected{after} in the sense of Frankle et al. (2020),",
        "line",
    )


def curve_connectivity(dataset: xr.Dataset) -> Claim:
    """Whether sup_t E(t) - (E(0) + E(1)) / 2 is below 2 % of error on a curve (Garipov et al. 2018)."""
    who = pair([dataset])
    return _connectivity(
        dataset, f"{who[0].upper()}{who[1:]} are connected by a curve, the {_name(dataset)}, with", "curve"
    )


def lower_path(line: xr.Dataset, other: xr.Dataset) -> Claim:
    """Whether the barrier of the loss is lower on another path between the same networks than on the straight line.

    Supported where the two intervals do not overlap: both hold at once in 90 % of the cases at least, however their
    errors depend on each other.
    """
    first, second = bounds(line, "barrier"), bounds(other, "barrier")
    heights = scalar(line, "barrier"), scalar(other, "barrier")
    return Claim(
        hypothesis=f"The {_name(other)} crosses a lower barrier of the loss than the {_name(line)} between "
        f"{_same_pair(line)} on {Provenance.of(line).data_label}",
        statistic="barrier on the line minus that on the other path, threshold 0",
        value=heights[0] - heights[1],
        interval=(first[0] - second[1], first[1] - second[0]),
        detail=f"{number(heights[0])} on the {_name(line)}, {number(heights[1])} on the {_name(other)}. The interval "
        "is the widest that the two barriers' own intervals allow. These two networks only.",
        datasets=(other.attrs["id"], line.attrs["id"]),
        basis="interval from the two 95 % intervals",
    )


def _same_pair(dataset: xr.Dataset) -> str:
    who = pair([dataset])
    return "the same two networks" if who == "the two networks" else who


def straight(dataset: xr.Dataset) -> bool:
    """Whether the path is a straight line in the space of the weights."""
    return bool(dataset.attrs["curve"] == "Segment")


def unaligned(dataset: xr.Dataset) -> bool:
    """Whether the path is the straight line between the networks as they were given."""
    return straight(dataset) and path(dataset) == "line"


def _name(dataset: xr.Dataset) -> str:
    return "straight line" if path(dataset) == "line" else path(dataset)


def connected(dataset: xr.Dataset) -> Claim:
    """Whether its path connects the two networks: the straight line, also after alignment, or a curve."""
    return linear_connectivity(dataset) if straight(dataset) else curve_connectivity(dataset)


def judged_by(dataset: xr.Dataset) -> str:
    """Of what the barrier decides on connectivity: of the error, without an accuracy that moves of the loss."""
    return "error" if "height_error" in dataset and _error_moves(dataset) else "loss"


def _connectivity(dataset: xr.Dataset, hypothesis: str, where: str) -> Claim:
    """From the Dataset's own barrier of the error above the mean of the ends; without an accuracy of the loss."""
    of = judged_by(dataset)
    if of == "error":
        own, name, height = dataset.sel(definition="frankle"), "height_error", "an error barrier"
        statistic = f"highest error on the {where} minus the mean error of the ends"
    else:
        own, name, height = dataset, "relative_height", "a loss barrier relative to the mean of the ends"
        statistic = f"highest loss on the {where} over the mean loss of the ends, minus 1"
    still = _STILL if of == "loss" and "height_error" in dataset else ""
    return Claim(
        hypothesis=f"{hypothesis} {height} below 2 %, on {Provenance.of(dataset).data_label}",
        statistic=f"{statistic}, threshold {FRANKLE_THRESHOLD:g}",
        value=scalar(own, name),
        interval=bounds(own, name),
        threshold=FRANKLE_THRESHOLD,
        direction="below",
        detail=f"{still}Highest {of} at t = {_place(dataset, of)}. The examples were drawn anew, "
        f"the same ones at every point. {_bootstrap(own, name)}These two networks only.",
        datasets=(dataset.attrs["id"],),
        basis=BOOTSTRAP,
    )


def _error_moves(dataset: xr.Dataset) -> bool:
    """Whether the error is not the same at every t: one that is tells nothing of a path, and the loss is taken."""
    return "relative_height" not in dataset or bool(np.ptp(dataset["error"].to_numpy().astype(float)) > 0)


def _place(dataset: xr.Dataset, name: str) -> str:
    """The t of the highest value; one that is not finite is higher than any other."""
    values = dataset[name].to_numpy().astype(float)
    top = int(np.argmax(np.where(np.isfinite(values), values, np.inf)))
    return f"{number(float(dataset['t'][top]), 3)} of {len(values)} points"


def _bootstrap(dataset: xr.Dataset, name: str) -> str:
    """What the Dataset says of its ends, and why there is no interval, where there is none."""
    known = np.isfinite(bounds(dataset, name)).all()
    ends = str(dataset.attrs.get("ends_note", ""))
    said = f"{ends} " if ends else ""
    return said if known else f"{said}Bootstrap: {dataset.attrs['bootstrap']}. "
