"""Captions: what a figure shows and how it was computed, read from the attributes of its Datasets.

An attribute that is missing drops its half-sentence, never the caption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lossatlas.drawing.grids import axes_of, has_error_map, is_polar
from lossatlas.drawing.scales import scale_of
from lossatlas.results.uncertainty import number, percent
from lossatlas.surfaces.show.classes import MOST as MOST_CLASSES
from lossatlas.surfaces.show.error_maps import percent_of

if TYPE_CHECKING:
    import xarray as xr

NORMALISATIONS = {
    "filter": "normalised filter by filter",
    "layer": "normalised tensor by tensor",
    "model": "scaled to the norm of the whole model",
    "none": "not normalised",
}
ONE_D = {"zero": "zero on one-dimensional parameters", "scaled": "scaled on one-dimensional parameters too"}
CENTRES = {"mean": "their mean", "last": "the last one"}
DEFINITIONS = {
    "entezari": "height above the straight line between the end losses (Entezari et al. 2022)",
    "frankle": "height above the mean of the ends (Frankle et al. 2020)",
    "draxler": "height above the worse end (Draxler et al. 2018)",
}


def distinct(datasets: Sequence[xr.Dataset], key: str, spell: Any = str) -> str:
    """The values of an attribute over the Datasets, each once, joined; empty where none has it."""
    found = dict.fromkeys(spell(d.attrs[key]) for d in datasets if key in d.attrs)
    return "; ".join(found)


def count(value: Any) -> str:
    return f"{int(value):,}"


def _each(values: Any) -> str:
    listed = values if hasattr(values, "__len__") and not isinstance(values, str) else [values]
    return ", ".join(number(float(value), 3) for value in listed)


def said(datasets: Sequence[xr.Dataset], key: str, sentence: str, spell: Any = str) -> str:
    value = distinct(datasets, key, spell)
    return sentence.format(value) if value else ""


def joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def basis(datasets: Sequence[xr.Dataset]) -> str:
    """On which examples, and over what the standard errors are taken."""
    return joined(
        said(datasets, "data", "Data: {}."),
        said(datasets, "stderr_over", "Standard errors over {}, taken as independent."),
        said(datasets, "batch_norm", "Batch normalisation: {}."),
    )


def history(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "Training. Faint lines: the loss and the gradient norm of single mini-batches (the gradient norm with its "
        "running "
        "mean); markers: the loss and the accuracy of the model after each epoch on the training data (open, dashed) "
        "and "
        "on the test data (filled), ± one standard error.",
        said(datasets, "optimizer", "Optimiser: {}."),
        said(datasets, "batch_size", "Batch size: {}."),
        said(datasets, "seed", "Seeds: {}."),
        said(datasets, "stderr_over", "Standard errors over {}, taken as independent."),
    )


def directions(datasets: Sequence[xr.Dataset]) -> str:
    """How the directions of a slice were made."""
    exact = [dataset for dataset in datasets if "tolerance" not in dataset.attrs]
    normalised = [dataset for dataset in datasets if dataset.attrs.get("normalisation") != "none"]
    return joined(
        said(datasets, "directions", "Directions: {}."),
        said(datasets, "normalisation", "They are {}.", lambda value: NORMALISATIONS.get(str(value), str(value))),
        said(normalised, "one_d", "Their part is {}.", lambda value: ONE_D.get(str(value), str(value))),
        said(datasets, "relative_norms", "Norms relative to the parameters: {}.", _each),
        said(datasets, "cosine", "Cosine of the two directions: {}.", _each),
        said(datasets, "seed", "Seed: {}."),
        said(exact, "n_evaluations", "Evaluations of the whole data: {}.", count),
        *(accuracy(dataset, len(datasets) > 1) for dataset in datasets),
    )


def accuracy(dataset: xr.Dataset, named: bool = False) -> str:
    """How a surface asked for to a tolerance was made, and how sure it is; empty for an exact one."""
    a = dataset.attrs
    if "tolerance" not in a:
        return ""
    evaluated = f"{count(a['n_evaluations'])} evaluations of the whole data" if "n_evaluations" in a else ""
    made = [
        str(a.get("method", "")),
        f"{evaluated} for {dataset['loss'].size:,} pixels" if evaluated else "",
        f"tolerance {percent_of(a['tolerance'])}",
    ]
    return joined(
        f"{'Accuracy' if not named else f'Accuracy, {who(dataset)}'}: {', '.join(part for part in made if part)}.",
        held_out(dataset),
        f"Largest error of a pixel: {share(a['error_estimate'])}, an estimate." if "error_estimate" in a else "",
        f"Error of the data: {share(a['data_error'])} (median of the standard error of the loss over the loss)."
        if "data_error" in a
        else "",
        f"Note: {a['note'].rstrip('.')}." if a.get("note") else "",
    )


def share(value: float) -> str:
    """A small share in per cent, to two digits.

    >>> share(0.0314), share(0.00012)
    ('3.1 %', '0.012 %')
    """
    return f"{number(100 * float(value), 2)} %"


def held_out(dataset: xr.Dataset) -> str:
    """What the held-out pixels show: a bound on a share of the pixels, rounded down; empty where there are none."""
    a = dataset.attrs
    if not a.get("held_out"):
        return ""
    tested, beyond = int(a["held_out"]), int(a.get("held_out_beyond", 0))
    bound = ""
    if "coverage_bound" in a and math.isfinite(a["coverage_bound"]):
        least = percent(math.floor(1000 * float(a["coverage_bound"]) + 1e-9) / 1000)
        confidence = f" at {percent_of(a['confidence'])} confidence" if "confidence" in a else ""
        bound = f": at least {least} of the pixels{confidence}"
    return f"{tested - beyond} of {tested} random held-out pixels within {percent_of(a['tolerance'])}{bound}."


def _quadratic(datasets: Sequence[xr.Dataset], where: str = "") -> str:
    if not any("quadratic" in dataset for dataset in datasets):
        return ""
    return f"Dashed: the quadratic model of the loss about the trained point{where}."


def _scales(dataset: xr.Dataset) -> str:
    """Which axes are not linear."""
    kinds = {name: scale_of(dataset[name].to_numpy().astype(float)).kind for name in axes_of(dataset)}
    ways = {"log": "logarithmic", "symlog": "logarithmic on both sides of zero and linear near it"}
    named = [f"{name} is {ways[kind]}" for name, kind in kinds.items() if kind in ways]
    return f"The scale of {', that of '.join(named)}." if named else ""


def line(datasets: Sequence[xr.Dataset]) -> str:
    bands = "Bands: ± one standard error."
    families = [dataset.sizes["plane"] for dataset in datasets if "plane" in dataset.dims]
    if families:
        bands = (
            f"Thin: each of {families[0]} directions by itself; thick: their mean, with a band of one standard "
            "deviation over the directions."
        )
    points = (
        "Dots: nodes of the interpolation; open circles: pixels held out at random, crossed where the prediction made "
        "before was beyond the tolerance."
        if any(has_error_map(dataset) for dataset in datasets)
        else ""
    )
    return joined(
        f"Loss and accuracy along one direction through the trained point (dotted line). {bands}",
        points,
        _quadratic(datasets),
        _scales(datasets[0]),
        directions(datasets),
        basis(datasets),
    )


def surface(datasets: Sequence[xr.Dataset]) -> str:
    several = " All panels share one colour scale." if len(datasets) > 1 else ""
    return joined(
        "Loss on a plane through the trained point (cross). Colour: the logarithm to base 10 of the loss; lines carry "
        "the "
        f"loss itself.{several}",
        "The angle counts from the first direction towards the second." if is_polar(datasets[0]) else "",
        _quadratic(datasets, ", at the same levels"),
        _beside(datasets),
        _scales(datasets[0]),
        directions(datasets),
        basis(datasets),
    )


def _beside(datasets: Sequence[xr.Dataset]) -> str:
    """What the panel beside the loss shows."""
    families = [dataset.sizes["plane"] for dataset in datasets if "plane" in dataset.dims]
    if families:
        return (
            f"Left: the mean over {families[0]} planes. Right: the standard deviation over the planes, relative to "
            "the mean."
        )
    if any(has_error_map(dataset) for dataset in datasets):
        return (
            "Right: the estimated interpolation error of each pixel, with a line at the tolerance; dots: nodes; open "
            "circles: pixels held out at random, crossed where the prediction made before was beyond the tolerance."
        )
    return ""


def volume(dataset: xr.Dataset) -> str:
    return joined(
        f"Loss in a block through the trained point (cross), {who(dataset)}: three slices at right angles, each at the "
        "value that its title names, on one colour scale of the logarithm to base 10 of the loss. The view to turn "
        "shows surfaces of equal loss; each can be switched off in its legend.",
        _quadratic([dataset], ", at the same levels"),
        _scales(dataset),
        directions([dataset]),
        basis([dataset]),
    )


def classes(dataset: xr.Dataset) -> str:
    every = dataset.sizes["class"]
    left_out = f" The {MOST_CLASSES} of {every} classes with the highest mean loss." if every > MOST_CLASSES else ""
    mean = f" Mean over {dataset.sizes['plane']} planes." if "plane" in dataset.dims else ""
    scale = " All pictures share one colour scale; lines lie at the same levels." if len(axes_of(dataset)) > 1 else ""
    return joined(
        f"The loss of the examples of each class by itself, {who(dataset)}.{scale}{left_out}{mean}", basis([dataset])
    )


def surface_3d(dataset: xr.Dataset, with_road: bool) -> str:
    road = " The line with dots is the road of training, at the true loss of its snapshots." if with_road else ""
    which = f"The mean over {dataset.sizes['plane']} planes" if "plane" in dataset.dims else "The same plane"
    points = " In the view to turn, points mark where it was evaluated." if has_error_map(dataset) else ""
    model = " In the view to turn, the legend switches the quadratic model on." if "quadratic" in dataset else ""
    return joined(
        f"{which} as a surface, {who(dataset)}: height and colour are the logarithm to base 10 of the "
        f"loss.{road}{points}{model}",
    )


def road(surface_dataset: xr.Dataset, trajectory: xr.Dataset) -> str:
    return joined(
        f"The road of {who(trajectory)} projected on the plane of its first two principal components, over the loss on "
        "that plane. The plane passes through the last snapshot. The points are snapshots, coloured by training step.",
        said([trajectory], "n_snapshots", "Snapshots: {}."),
        said(
            [trajectory],
            "center",
            "Components of the snapshots centred at {}.",
            lambda value: CENTRES.get(value, value),
        ),
        "The road lies near the plane, not on it; the next figure shows how far away.",
        accuracy(surface_dataset)
        or said([surface_dataset], "n_evaluations", "Evaluations of the whole data: {}.", count),
        basis([surface_dataset]),
    )


def explained(trajectory: xr.Dataset) -> str:
    loss = (
        " Right: the true loss of each snapshot and the loss of its projection on the plane."
        if "loss" in trajectory and "plane_loss" in trajectory
        else ""
    )
    return joined(
        f"How much of the road of {who(trajectory)} its principal plane shows. Left: explained variance of the first "
        "components beside that of a random walk of as many steps (Antognini & Sohl-Dickstein 2018). Middle: distance "
        "of "
        f"each snapshot from the plane and from the last snapshot.{loss}",
        basis([trajectory]) if loss else "",
    )


def robustness(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "Loss and accuracy under Gaussian noise on all parameters. Faint lines: single draws; markers: their mean ± "
        "one "
        "standard error.",
        said(
            datasets,
            "relative",
            "Noise {}.",
            lambda value: "relative to the norm of each filter" if value == "filter" else "absolute, the same for all",
        ),
        said(datasets, "draws", "Draws: {}."),
        said(datasets, "seed", "Seed: {}."),
        basis(datasets),
    )


def who(dataset: xr.Dataset) -> str:
    return f"network {dataset.attrs['network']}" if "network" in dataset.attrs else "the network"
