"""Captions: what a figure shows and how it was computed, read from the attributes of its Datasets.

An attribute that is missing drops its half-sentence, never the caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lossatlas.uncertainty import number

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


def _count(value: Any) -> str:
    return f"{int(value):,}"


def _each(values: Any) -> str:
    listed = values if hasattr(values, "__len__") and not isinstance(values, str) else [values]
    return ", ".join(number(float(value), 3) for value in listed)


def _said(datasets: Sequence[xr.Dataset], key: str, sentence: str, spell: Any = str) -> str:
    value = distinct(datasets, key, spell)
    return sentence.format(value) if value else ""


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def basis(datasets: Sequence[xr.Dataset]) -> str:
    """On which examples, and over what the standard errors are taken."""
    return _joined(
        _said(datasets, "data", "Data: {}."),
        _said(datasets, "stderr_over", "Standard errors over {}, taken as independent."),
        _said(datasets, "batch_norm", "Batch normalisation: {}."),
    )


def history(datasets: Sequence[xr.Dataset]) -> str:
    return _joined(
        "Training. Faint lines: the loss and the gradient norm of single mini-batches (the gradient norm with its "
        "running "
        "mean); markers: the loss and the accuracy of the model after each epoch on the training data (open, dashed) "
        "and "
        "on the test data (filled), ± one standard error.",
        _said(datasets, "optimizer", "Optimiser: {}."),
        _said(datasets, "batch_size", "Batch size: {}."),
        _said(datasets, "seed", "Seeds: {}."),
        _said(datasets, "stderr_over", "Standard errors over {}, taken as independent."),
    )


def directions(datasets: Sequence[xr.Dataset]) -> str:
    """How the directions of a slice were made."""
    normalised = [dataset for dataset in datasets if dataset.attrs.get("normalisation") != "none"]
    return _joined(
        _said(datasets, "directions", "Directions: {}."),
        _said(datasets, "normalisation", "They are {}.", lambda value: NORMALISATIONS.get(str(value), str(value))),
        _said(normalised, "one_d", "Their part is {}.", lambda value: ONE_D.get(str(value), str(value))),
        _said(datasets, "relative_norms", "Norms relative to the parameters: {}.", _each),
        _said(datasets, "cosine", "Cosine of the two directions: {}.", lambda value: number(float(value), 2)),
        _said(datasets, "seed", "Seed: {}."),
        _said(datasets, "n_evaluations", "Evaluations of the whole data: {}.", _count),
    )


def line(datasets: Sequence[xr.Dataset]) -> str:
    return _joined(
        "Loss and accuracy along one direction through the trained point (dotted line). Bands: ± one standard error.",
        directions(datasets),
        basis(datasets),
    )


def surface(datasets: Sequence[xr.Dataset]) -> str:
    several = " All panels share one colour scale." if len(datasets) > 1 else ""
    return _joined(
        "Loss on a plane through the trained point (cross). Colour: the logarithm to base 10 of the loss; lines carry "
        "the "
        f"loss itself.{several}",
        directions(datasets),
        basis(datasets),
    )


def surface_3d(dataset: xr.Dataset, with_road: bool) -> str:
    road = " The line with dots is the road of training, at the true loss of its snapshots." if with_road else ""
    return _joined(
        f"The same plane as a surface, {who(dataset)}: height and colour are the logarithm to base 10 of the "
        f"loss.{road}",
    )


def road(surface_dataset: xr.Dataset, trajectory: xr.Dataset) -> str:
    return _joined(
        f"The road of {who(trajectory)} projected on the plane of its first two principal components, over the loss on "
        "that plane. The plane passes through the last snapshot. The points are snapshots, coloured by training step.",
        _said([trajectory], "n_snapshots", "Snapshots: {}."),
        _said(
            [trajectory],
            "center",
            "Components of the snapshots centred at {}.",
            lambda value: CENTRES.get(value, value),
        ),
        "The road lies near the plane, not on it; the next figure shows how far away.",
        _said([surface_dataset], "n_evaluations", "Evaluations of the whole data: {}.", _count),
        basis([surface_dataset]),
    )


def explained(trajectory: xr.Dataset) -> str:
    loss = (
        " Right: the true loss of each snapshot and the loss of its projection on the plane."
        if "loss" in trajectory and "plane_loss" in trajectory
        else ""
    )
    return _joined(
        f"How much of the road of {who(trajectory)} its principal plane shows. Left: explained variance of the first "
        "components beside that of a random walk of as many steps (Antognini & Sohl-Dickstein 2018). Middle: distance "
        "of "
        f"each snapshot from the plane and from the last snapshot.{loss}",
        basis([trajectory]) if loss else "",
    )


def spectrum(datasets: Sequence[xr.Dataset]) -> str:
    has_stderr = any("eigenvalue_stderr" in d for d in datasets)
    thin = "; thin bars: one standard error from the sampling of the data" if has_stderr else ""
    return _joined(
        "The largest and the smallest eigenvalues of the Hessian at the trained point, by Lanczos with full "
        f"reorthogonalisation. Thick bars: residual of the solver (mostly within the marker){thin}.",
        _said(datasets, "tol", "Relative tolerance asked: {}.", lambda value: number(float(value), 2)),
        _said(datasets, "products", "Hessian-vector products: {}."),
        basis(datasets),
    )


def power_iteration(datasets: Sequence[xr.Dataset], spectra: Sequence[xr.Dataset]) -> str:
    line_there = (
        " Dashed: the largest eigenvalue by Lanczos, with its residual and one standard error as a band."
        if spectra
        else ""
    )
    return _joined(
        "Rayleigh quotients of power iteration, on one fixed batch or on another batch at each product; kept as a "
        "baseline, "
        f"since it carries no error.{line_there}",
        _said(datasets, "batch_size", "Batch size: {}."),
        _said(spectra, "data", "Data of the Lanczos run: {}."),
    )


def barrier(datasets: Sequence[xr.Dataset]) -> str:
    return _joined(
        "Loss and error on the straight line between the two networks. Bands: ± one standard error. Dashed: the "
        "straight "
        "line between the ends. Arrows: the barrier.",
        _said(datasets, "definition", "Barrier: {}.", lambda value: DEFINITIONS.get(str(value), str(value))),
        basis(datasets),
    )


def robustness(datasets: Sequence[xr.Dataset]) -> str:
    return _joined(
        "Loss and accuracy under Gaussian noise on all parameters. Faint lines: single draws; markers: their mean ± "
        "one "
        "standard error.",
        _said(
            datasets,
            "relative",
            "Noise {}.",
            lambda value: "relative to the norm of each filter" if value == "filter" else "absolute, the same for all",
        ),
        _said(datasets, "draws", "Draws: {}."),
        _said(datasets, "seed", "Seed: {}."),
        basis(datasets),
    )


def who(dataset: xr.Dataset) -> str:
    return f"network {dataset.attrs['network']}" if "network" in dataset.attrs else "the network"
