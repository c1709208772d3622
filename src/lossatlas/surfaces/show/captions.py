"""Captions of loss surfaces: what a figure shows, how it was made, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from lossatlas.drawing.grids import axes_of, has_error_map, is_polar
from lossatlas.drawing.scales import scale_of
from lossatlas.results.captions import count, data_basis, joined, sentence
from lossatlas.results.provenance import Provenance
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
SCALES = {"log": "logarithmic", "symlog": "logarithmic on both sides of zero and linear near it"}
HELD_OUT = "open circles: pixels held out at random, crossed where the prediction made before was beyond the tolerance."


def line(datasets: Sequence[xr.Dataset]) -> str:
    """Of losses along one direction, or along several in one Dataset."""
    bands = "Bands: ± one standard error."
    if n := _planes(datasets):
        bands = (
            f"Thin: each of {n} directions by itself; thick: their mean, with a band of one standard deviation over "
            "the directions."
        )
    nodes = any(has_error_map(dataset) for dataset in datasets)
    return joined(
        f"Loss and accuracy along one direction through {_point(datasets)} (dotted line). {bands}",
        f"Dots: nodes of the interpolation; {HELD_OUT}" if nodes else "",
        quadratic(datasets),
        _scales(datasets[0]),
        directions(datasets),
        data_basis(datasets),
    )


def surface(datasets: Sequence[xr.Dataset]) -> str:
    """Of contours of the loss on planes."""
    several = " All panels share one colour scale." if len(datasets) > 1 else ""
    return joined(
        f"Loss on a plane through {_point(datasets)} (cross). Colour: the logarithm to base 10 of the loss; lines "
        f"carry the loss itself.{several}",
        "The angle counts from the first direction towards the second." if is_polar(datasets[0]) else "",
        quadratic(datasets, ", at the same levels"),
        second_panel(datasets),
        _scales(datasets[0]),
        directions(datasets),
        data_basis(datasets),
    )


def second_panel(datasets: Sequence[xr.Dataset]) -> str:
    """What the panel next to the loss shows."""
    if n := _planes(datasets):
        return f"Left: the mean over {n} planes. Right: the standard deviation over the planes, relative to the mean."
    if any(has_error_map(dataset) for dataset in datasets):
        return (
            "Right: the estimated interpolation error of each pixel, with a line at the tolerance; dots: nodes; "
            f"{HELD_OUT}"
        )
    return ""


def volume(dataset: xr.Dataset) -> str:
    """Of the three slices through a volume, and of its interactive view."""
    return joined(
        f"Loss in a volume through {_point([dataset])} (cross), {Provenance.of(dataset).who}: three slices at right "
        "angles, each at the value that its title names, on one colour scale of the logarithm to base 10 of the loss. "
        "The interactive view shows surfaces of equal loss; each can be switched off in its legend.",
        quadratic([dataset], ", at the same levels"),
        _scales(dataset),
        directions([dataset]),
        data_basis([dataset]),
    )


def classes(dataset: xr.Dataset) -> str:
    """Of the losses of single classes."""
    every = dataset.sizes["class"]
    left_out = f" The {MOST_CLASSES} of {every} classes with the highest mean loss." if every > MOST_CLASSES else ""
    mean = f" Mean over {dataset.sizes['plane']} planes." if "plane" in dataset.dims else ""
    scale = " All pictures share one colour scale; lines lie at the same levels." if len(axes_of(dataset)) > 1 else ""
    return joined(
        f"The loss of the examples of each class by itself, {Provenance.of(dataset).who}.{scale}{left_out}{mean}",
        data_basis([dataset]),
    )


def surface_3d(dataset: xr.Dataset, *, with_trajectory: bool = False) -> str:
    """Of a plane as a surface in space."""
    which = f"The mean over {dataset.sizes['plane']} planes" if "plane" in dataset.dims else "The same plane"
    return joined(
        f"{which} as a surface, {Provenance.of(dataset).who}: height and colour are the logarithm to base 10 of the "
        "loss.",
        "The line with dots is the trajectory of training, at the true loss of its snapshots."
        if with_trajectory
        else "",
        "In the interactive view, points mark where it was evaluated." if has_error_map(dataset) else "",
        "In the interactive view, the legend switches the quadratic model on." if "quadratic" in dataset else "",
    )


def directions(datasets: Sequence[xr.Dataset]) -> str:
    """How the directions of a slice were made, and how many evaluations it took."""
    exact = [dataset for dataset in datasets if "tolerance" not in dataset.attrs]
    normalised = [dataset for dataset in datasets if dataset.attrs["normalisation"] != "none"]
    return joined(
        sentence(datasets, "directions", "Directions: {}."),
        sentence(datasets, "normalisation", "They are {}.", lambda value: NORMALISATIONS[str(value)]),
        sentence(normalised, "one_d", "Their part is {}.", lambda value: ONE_D[str(value)]),
        sentence(datasets, "relative_norms", "Norms relative to the parameters: {}.", _each),
        sentence(datasets, "cosine", "Cosine of the two directions: {}.", _each),
        sentence(datasets, "seed", "Seed: {}.", _each),
        sentence(exact, "n_evaluations", "Evaluations of the whole data: {}.", count),
        *(accuracy(dataset, named=len(datasets) > 1) for dataset in datasets),
    )


def accuracy(dataset: xr.Dataset, *, named: bool = False) -> str:
    """How a surface asked for to a tolerance was made, and how sure it is; empty for an exact one."""
    a = dataset.attrs
    if "tolerance" not in a:
        return ""
    of = f", {Provenance.of(dataset).who}" if named else ""
    return joined(
        f"Accuracy{of}: {a['method']}, {count(a['n_evaluations'])} evaluations of the whole data for "
        f"{dataset['loss'].size:,} pixels, tolerance {percent_of(a['tolerance'])}.",
        held_out(dataset),
        f"Largest error of a pixel: {share(a['error_estimate'])}, an estimate.",
        f"Error of the data: {share(a['data_error'])} (median of the standard error of the loss over the loss).",
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
    if not a["held_out"]:
        return ""
    tested, beyond, bound = int(a["held_out"]), int(a["held_out_beyond"]), ""
    if math.isfinite(a["coverage_bound"]):
        least = percent(math.floor(1000 * float(a["coverage_bound"]) + 1e-9) / 1000)
        bound = f": at least {least} of the pixels at {percent_of(a['confidence'])} confidence"
    return f"{tested - beyond} of {tested} random held-out pixels within {percent_of(a['tolerance'])}{bound}."


def quadratic(datasets: Sequence[xr.Dataset], where: str = "") -> str:
    """What the dashed lines are; empty where no Dataset has the quadratic model."""
    if not any("quadratic" in dataset for dataset in datasets):
        return ""
    return f"Dashed: the quadratic model of the loss about {_point(datasets)}{where}."


def _point(datasets: Sequence[xr.Dataset]) -> str:
    """What lies at the center of the slices."""
    trained = all(dataset.attrs["center_is_model"] for dataset in datasets)
    return "the trained point" if trained else "the center of the region"


def _planes(datasets: Sequence[xr.Dataset]) -> int:
    """How many regions a Dataset has at once; 0 where each has one."""
    return next((dataset.sizes["plane"] for dataset in datasets if "plane" in dataset.dims), 0)


def _scales(dataset: xr.Dataset) -> str:
    """Which axes are not linear."""
    found = {name: scale_of(dataset[name].to_numpy().astype(float)).kind for name in axes_of(dataset)}
    named = [f"{name} is {SCALES[kind]}" for name, kind in found.items() if kind in SCALES]
    return f"The scale of {', that of '.join(named)}." if named else ""


def _each(values: Any) -> str:
    """One number or several, to three digits."""
    listed = values if hasattr(values, "__len__") and not isinstance(values, str) else [values]
    return ", ".join(f"{value}" if isinstance(value, Integral) else number(float(value), 3) for value in listed)
