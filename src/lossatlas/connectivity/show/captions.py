"""Captions of the figures and tables on the ways between two networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lossatlas.drawing.axes import values
from lossatlas.report.captions import DEFINITIONS, accuracy, basis, count, distinct, joined, said
from lossatlas.results.uncertainty import number

if TYPE_CHECKING:
    import xarray as xr

METHODS = {
    "weights": "weight matching (Ainsworth et al. 2023)",
    "activations": "activation matching: units paired by the correlation of their activations on the data",
}


def _definition(datasets: Sequence[xr.Dataset]) -> str:
    return said(datasets, "definition", "Barrier: {}.", lambda value: DEFINITIONS.get(str(value), str(value)))


def _interval(datasets: Sequence[xr.Dataset]) -> str:
    """How the interval of a height was had; empty where there is none."""
    if not any("barrier_low" in dataset for dataset in datasets):
        return ""
    return joined(
        "Intervals: 95 %, by a paired bootstrap over the examples: the same examples at every t and at both ends, the "
        "maximum taken anew in each draw.",
        said(datasets, "draws", "Draws: {}.", count),
        said(datasets, "seed", "Seed: {}."),
    )


def _refinement(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        said(datasets, "height_resolution", "Height of the maximum known to {}", lambda value: number(float(value), 2))
        + said(datasets, "t_resolution", ", its place to {}", lambda value: number(float(value), 2))
        + ", estimated from the points about it."
        if distinct(datasets, "height_resolution") and distinct(datasets, "t_resolution")
        else ""
    )


def barrier(datasets: Sequence[xr.Dataset]) -> str:
    curved = {str(dataset.attrs.get("curve", "Segment")) for dataset in datasets} - {"Segment"}
    where = "on the way" if curved else "on the straight line"
    bars = "; bars at its tip: the intervals of the height and of its place" if _interval(datasets) else ""
    return joined(
        f"Loss and error {where} between the two networks. Bands: 95 %, ± 1.96 standard errors. Dashed: what the "
        f"height is measured from. Arrows: the barrier{bars}.",
        _definition(datasets),
        _interval(datasets),
        _refinement(datasets),
        basis(datasets),
    )


def ways(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "Loss and error on several ways between the same two networks. Colour: the way; solid and dashed lines: the "
        "data. Bands: 95 %, ± 1.96 standard errors. Dots: the maxima. The legends give the barriers, the left one of "
        "the loss, the right one, in the same order, of the error.",
        _definition(datasets),
        _interval(datasets),
        _refinement(datasets),
        basis(datasets),
    )


def barrier_table(datasets: Sequence[xr.Dataset]) -> str:
    errors = "with their 95 % bootstrap interval" if _interval(datasets) else "± one standard error"
    return joined(f"Barriers {errors}.", _definition(datasets))


def heights_table(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "The same barriers by each definition, with 95 % intervals: above the line between the ends (Entezari), above "
        "their mean (Frankle), above the worse end (Draxler).",
        "Length: of the way, as a multiple of the straight line between its ends.",
    )


def connection(dataset: xr.Dataset) -> str:
    over_t = (
        " Right: the same losses against the t at which they were drawn, in the first epoch and in the last."
        if "t_drawn" in dataset
        else ""
    )
    rates = values(dataset, "learning_rate").tolist() if "learning_rate" in dataset else []
    falls = ", decreasing over the training" if rates and rates[-1] < rates[0] else ""
    how = (
        "by the expected loss (Garipov et al. 2018): each step one random t and one mini-batch. Left, faint: the loss "
        "of each mini-batch"
    )
    if dataset.attrs.get("engine") == "elastic_band":
        how = (
            "as a nudged elastic band (Draxler et al. 2018): each step all bends and one mini-batch. Left, faint: the "
            "loss at the highest bend"
        )
    return joined(
        f"The training of a curve between the two networks, the ends fixed, {how}; line with dots: the mean of each "
        f"epoch.{over_t}",
        said([dataset], "curve", "Curve: {}."),
        said([dataset], "bends", "Bends: {}."),
        said([dataset], "optimizer", "Optimiser: {}."),
        said([dataset], "learning_rate", f"Learning rate: {{}}{falls}.", lambda value: number(float(value), 3)),
        said([dataset], "momentum", "Momentum: {}."),
        said([dataset], "batch_size", "Batch size: {}."),
        said([dataset], "seed", "Seed: {}."),
        said([dataset], "data", "Data: {}."),
        said([dataset], "batch_norm", "Batch normalisation: {}."),
    )


def alignment(dataset: xr.Dataset) -> str:
    return joined(
        "The permutation of the second network that brings it to the first. A group holds the units that have to move "
        "together, such as those joined by a residual addition. Left: the share of each group's units that change "
        "place. Right: the cosine of the weights, incoming and outgoing, of units at the same place, mean over the "
        "group, before (open) and after (filled) the permutation.",
        _method(dataset),
        said([dataset], "sweeps", "Sweeps over the groups: {}."),
        said([dataset], "assignments", "Assignment problems solved: {}.", count),
        said([dataset], "seed", "Seed: {}."),
        said([dataset], "data", "Checked on the data: {}."),
    )


def _method(dataset: xr.Dataset) -> str:
    return said([dataset], "method", "Method: {}.", lambda value: METHODS.get(str(value), str(value)))


def alignment_table(dataset: xr.Dataset) -> str:
    return joined("The alignment by groups of units.", _method(dataset))


def plane(dataset: xr.Dataset) -> str:
    """Of the plane on which the ways are drawn."""
    return joined(
        "Loss on a plane through the two networks, with the ways between them. Colour: the logarithm to base 10 of the "
        "loss; lines carry the loss itself. A way that is not in the plane is drawn dashed where it projects to; the "
        "legend says how far off it is at most, and the loss below it is not its own.",
        "Both directions have length 1 and are orthogonal: distances on the picture are distances in parameter space."
        if all(abs(norm - 1) < 1e-3 for norm in _norms(dataset))
        else "",
        said([dataset], "directions", "Plane: {}."),
        accuracy(dataset) or said([dataset], "n_evaluations", "Evaluations of the whole data: {}.", count),
        basis([dataset]),
    )


def _norms(dataset: xr.Dataset) -> Sequence[float]:
    """Lengths of the directions; infinite where they are not recorded, so that nothing is said of them."""
    found = dataset.attrs.get("direction_norms", float("inf"))
    return [float(norm) for norm in (found if hasattr(found, "__len__") else [found])]


def plane_3d() -> str:
    return (
        "The same plane as a surface: height and colour are the logarithm to base 10 of the loss. The ways lie on the "
        "surface where they project to."
    )


def instability(dataset: xr.Dataset) -> str:
    line = " Line: the mean over the pairs." if dataset.sizes["pair"] > 1 else ""
    return joined(
        "Instability analysis (Frankle et al. 2020): the barrier on the straight line between two runs that share "
        "their first k training steps and see the data in different orders after them. Dots: pairs of runs, with the "
        f"95 % "
        f"bootstrap interval over the examples.{line} Dashed: the error below which they are called stable. The scale "
        "of k is logarithmic where it spans much, and linear below the smallest positive k.",
        _definition([dataset]),
        said([dataset], "draws", "Draws: {}.", count),
        basis([dataset]),
    )


def instability_table(dataset: xr.Dataset) -> str:
    return joined(
        "Barriers between runs that share their first k steps, mean over the pairs, and in brackets the lowest and the "
        "highest end of their 95 % intervals. Error of the ends: the mean error of the runs themselves.",
        said([dataset], "total_steps", "Steps of a whole run: {}.", count),
    )
