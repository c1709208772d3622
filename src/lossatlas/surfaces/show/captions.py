"""What is told of a picture of the loss: what is seen, how it was made, what it does not show, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from lossatlas.drawing.grids import axes_of, has_error_map, is_polar
from lossatlas.drawing.scales import scale_of
from lossatlas.results.captions import count, joined, listed, sentence
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, percent
from lossatlas.surfaces.show.classes import MOST as MOST_CLASSES
from lossatlas.surfaces.show.error_maps import percent_of
from lossatlas.surfaces.show.grouping import places, slices
from lossatlas.surfaces.show.numbers import share
from lossatlas.surfaces.show.reading import center_loss, highest_loss

if TYPE_CHECKING:
    import xarray as xr

NORMALISATIONS = {
    "filter": "normalised filter by filter",
    "layer": "normalised tensor by tensor",
    "model": "scaled to the norm of the whole model",
    "none": "not normalised",
}
ONE_D = {
    "zero": "Biases and other one-dimensional parameters are held fixed.",
    "scaled": "Biases and other one-dimensional parameters are varied too.",
}
SCALES = {"log": "logarithmic", "symlog": "logarithmic on both sides of zero and linear near it"}
HELD_OUT = "open circles: cells held out at random, crossed where the prediction made before was beyond the tolerance."
LOG_COLOUR = "Colour and height are logarithmic in the loss where it is positive everywhere; their ticks are losses."
PITFALLS = {
    "random": "A random slice rarely meets directions of negative curvature: a bowl on it does not exclude a saddle.",
    "Hessian axes": "The axes are eigenvectors at the center only; away from it the sharpest directions are others.",
    "principal components": "What is off the plane is not seen: the trajectory lies near it, not on it.",
}
PITFALL = "The loss in the directions that are not drawn can look different."
ORTHOGONAL = 1e-3  # cosines below it say nothing to a reader


class Told(TypedDict):
    """The texts of a picture other than its caption."""

    how: str
    pitfall: str
    method: tuple[str, ...]
    alt: str


def told(datasets: Sequence[xr.Dataset], *further: str) -> Told:
    """How slices were made, what they do not show, the method, and the finding in words."""
    accuracies = (accuracy(dataset, named=len(datasets) > 1) for dataset in datasets)
    methods = (*further, *(each(datasets) for each in METHOD), *accuracies)
    return Told(
        how=how(datasets),
        pitfall=PITFALLS.get(str(datasets[0].attrs["directions"]), PITFALL),
        method=tuple(filter(None, methods)),
        alt=alt(datasets),
    )


def line(datasets: Sequence[xr.Dataset]) -> str:
    """Of losses along one direction, or along several in one Dataset."""
    shown = "Loss and accuracy" if any("accuracy" in dataset for dataset in datasets) else "Loss"
    n = _planes(datasets)
    bands = (
        f"thin, {n} directions one by one; thick, their mean ± one standard deviation"
        if n
        else "bands, ± one standard error"
    )
    return f"{shown} along {slices(datasets, scaled=False)} through {_point(datasets)} (dotted); {bands}."


def surface(datasets: Sequence[xr.Dataset]) -> str:
    """Of contours of the loss on planes."""
    several = ", on one colour scale" if len(datasets) > 1 else ""
    center = "cross" if len(datasets) == 1 else "crosses"
    shown = f"Loss on {slices(datasets, scaled=False)} through {_point(datasets)} ({center}){several}."
    return joined(shown, second_panel(datasets))


def second_panel(datasets: Sequence[xr.Dataset]) -> str:
    """What the panel next to the loss shows."""
    if n := _planes(datasets):
        return f"Left: the mean over {n} planes. Right: the standard deviation over the planes, relative to the mean."
    if any(has_error_map(dataset) for dataset in datasets):
        error = "Right: the estimated interpolation error of each cell, with a line at the tolerance"
        return f"{error}; dots: nodes; {HELD_OUT}"
    return ""


def volume(dataset: xr.Dataset) -> str:
    """Of the three slices through a volume."""
    return (
        f"Loss in a volume through {_point([dataset])} (cross): three slices at right angles, each at the value "
        "that its title names, on one colour scale."
    )


def classes(dataset: xr.Dataset) -> str:
    """Of the losses of single classes."""
    every = dataset.sizes["class"]
    left_out = f"The {MOST_CLASSES} of {every} classes with the highest mean loss." if every > MOST_CLASSES else ""
    mean = f"Mean over {dataset.sizes['plane']} planes." if "plane" in dataset.dims else ""
    scale = ", on one colour scale with lines at the same levels" if len(axes_of(dataset)) > 1 else ""
    return joined(f"Loss of the examples of each class, {Provenance.of(dataset).who}{scale}.", left_out, mean)


def surfaces_3d(datasets: Sequence[xr.Dataset]) -> str:
    """Of planes as surfaces in space."""
    names = listed([Provenance.of(dataset).who for dataset in datasets])
    return f"Loss on {slices(datasets, scaled=False)} in space, {names}."


def how(datasets: Sequence[xr.Dataset]) -> str:
    """How the directions were made, and at how many points the loss was evaluated, on which data."""
    directions = sentence(datasets, "directions", "Directions: {}")
    scaled = sentence(datasets, "normalisation", ", {}", lambda value: NORMALISATIONS[str(value)])
    cells = datasets[0]["loss"].size
    evaluated = sentence(datasets, "n_evaluations", "{}", count)
    among = f" of {cells:,}" if "tolerance" in datasets[0].attrs else ""
    return (
        f"{directions}{scaled}; loss evaluated at {evaluated}{among} points on {Provenance.of(datasets[0]).data_label}."
    )


def alt(datasets: Sequence[xr.Dataset]) -> str:
    """The finding in words."""
    finite = [dataset for dataset in datasets if bool(np.isfinite(dataset["loss"]).any())]
    if not finite:
        return "No loss is finite."
    rises = [
        f"from {center_loss(dataset)} at {place} to {highest_loss(dataset)}"
        for dataset, place in zip(finite, places(finite), strict=True)
    ]
    return f"Loss on {slices(finite)}: it rises {listed(rises)}."


def _one_d(datasets: Sequence[xr.Dataset]) -> str:
    normalised = [dataset for dataset in datasets if dataset.attrs["normalisation"] != "none"]
    return sentence(normalised, "one_d", "{}", lambda value: ONE_D[str(value)])


def _filters(datasets: Sequence[xr.Dataset]) -> str:
    """The axes that count the filters, and which of them are assumed; what the directions leave as it is."""
    found = (
        sentence(datasets, "filters", "Filters: {}."),
        sentence(datasets, "filters_assumed", "Assumed, not seen in the model: {}."),
        sentence(datasets, "at_rest", "The directions do not vary: {}."),
    )
    return joined(*found)


def _norms(datasets: Sequence[xr.Dataset]) -> str:
    return sentence(datasets, "relative_norms", "Norms of the directions over that of the parameters: {}.", _each)


def _angle(datasets: Sequence[xr.Dataset]) -> str:
    """The cosine of two directions, in words where it is negligible."""
    cosines = [np.ravel(dataset.attrs["cosine"]) for dataset in datasets if "cosine" in dataset.attrs]
    if not cosines:
        return ""
    if np.abs(np.concatenate(cosines)).max() < ORTHOGONAL:
        return "The directions are orthogonal."
    return sentence(datasets, "cosine", "Cosine of the two directions: {}.", _each)


def _seed(datasets: Sequence[xr.Dataset]) -> str:
    return sentence(datasets, "seed", "Seed of the directions: {}.", _each)


def _polar(datasets: Sequence[xr.Dataset]) -> str:
    return "The angle counts from the first direction towards the second." if is_polar(datasets[0]) else ""


def _errors(datasets: Sequence[xr.Dataset]) -> str:
    return sentence(datasets, "stderr_over", "Standard errors are taken over {}, as independent.")


def _batch_norm(datasets: Sequence[xr.Dataset]) -> str:
    used = [dataset for dataset in datasets if dataset.attrs.get("batch_norm") != "none"]
    return sentence(used, "batch_norm", "Batch normalisation: {}.")


def quadratic(datasets: Sequence[xr.Dataset]) -> str:
    """What the dashed lines are; empty where no Dataset has the quadratic model."""
    if not any("quadratic" in dataset for dataset in datasets):
        return ""
    where = ", at the levels of the loss" if len(axes_of(datasets[0])) > 1 else ""
    return f"Dashed: the quadratic model of the loss about {_point(datasets)}{where}."


def _scales(datasets: Sequence[xr.Dataset]) -> str:
    """Which axes are not linear."""
    axes = {name: datasets[0][name].to_numpy().astype(float) for name in axes_of(datasets[0])}
    found = {name: scale_of(coordinates).kind for name, coordinates in axes.items()}
    named = [f"{name} is {SCALES[kind]}" for name, kind in found.items() if kind in SCALES]
    return f"The scale of {', that of '.join(named)}." if named else ""


METHOD: tuple[Callable[[Sequence[xr.Dataset]], str], ...] = (
    _polar,
    _scales,
    _one_d,
    _filters,
    _norms,
    _angle,
    _seed,
    _errors,
    _batch_norm,
)


def accuracy(dataset: xr.Dataset, *, named: bool = False) -> str:
    """How a surface asked for to a tolerance was made, and how sure it is; empty for an exact one."""
    a = dataset.attrs
    if "tolerance" not in a:
        return ""
    of = f" of {Provenance.of(dataset).who}" if named else ""
    return joined(
        f"The surface{of} was made by: {a['method']}, {count(a['n_evaluations'])} evaluations of the whole data for "
        f"{dataset['loss'].size:,} cells, tolerance {percent_of(a['tolerance'])}.",
        held_out(dataset),
        f"Its largest error of a cell is estimated to be {share(a['error_estimate'])}; the standard error of the "
        f"loss is {share(a['data_error'])} of it in the median.",
        f"Note: {a['note'].rstrip('.')}." if a.get("note") else "",
    )


def held_out(dataset: xr.Dataset) -> str:
    """What the held-out cells show: a bound on a share of the cells, rounded down; empty where there are none."""
    a = dataset.attrs
    if not a["held_out"]:
        return ""
    tested, beyond, bound = int(a["held_out"]), int(a["held_out_beyond"]), ""
    if math.isfinite(a["coverage_bound"]):
        least = percent(math.floor(1000 * float(a["coverage_bound"]) + 1e-9) / 1000)
        bound = f": at least {least} of the cells at {percent_of(a['confidence'])} confidence"
    return f"{tested - beyond} of {tested} random held-out cells within {percent_of(a['tolerance'])}{bound}."


def _point(datasets: Sequence[xr.Dataset]) -> str:
    """What lies at the center of the slices."""
    return listed(places(datasets))


def _planes(datasets: Sequence[xr.Dataset]) -> int:
    """How many regions a Dataset has at once; 0 where each has one."""
    return next((dataset.sizes["plane"] for dataset in datasets if "plane" in dataset.dims), 0)


def _each(values: Any) -> str:
    """One number or several, each once, to three digits."""
    listed = values if hasattr(values, "__len__") and not isinstance(values, str) else [values]
    texts = (f"{value}" if isinstance(value, Integral) else number(float(value), 3) for value in listed)
    return ", ".join(dict.fromkeys(texts))
