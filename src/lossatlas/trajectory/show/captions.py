"""What is said of the figures of a training: what is seen, how it was computed, what it does not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lossatlas.drawing.grids import has_error_map
from lossatlas.drawing.style import labels
from lossatlas.results.captions import basis, count, joined, listed, sentence, sentences
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, percent
from lossatlas.results.values import value
from lossatlas.trajectory.show.claims import shares_of_two
from lossatlas.trajectory.show.numbers import farthest
from lossatlas.trajectory.show.numbers import sharpness as along
from lossatlas.trajectory.show.reading import after_epochs, has_epochs

if TYPE_CHECKING:
    import xarray as xr

Told = dict[str, Any]  # the keywords of a Picture

CENTERS = {"mean": "their mean", "last": "the last one"}
LOOKS_LOW = "The first components hold most of any random walk too, and draw it as a smooth curve."


def history(datasets: Sequence[xr.Dataset]) -> Told:
    epochs = has_epochs(datasets[0])
    markers = " Markers are the values after each epoch, on training data (open) and on test data (filled)."
    return {
        "caption": f"Loss, accuracy and gradient norm while training; faint lines are single mini-batches."
        f"{markers if epochs else ''}",
        "how": "Markers are of the model in evaluation mode, ± one standard error." if epochs else "",
        "pitfall": "A mini-batch's loss is of weights that change from step to step, not that of one network.",
        "method": sentences(
            "The line through the gradient norms is a running mean over 1/25 of the steps.",
            sentence(datasets, "optimizer", "Optimiser: {}."),
            sentence(datasets, "batch_size", "Batch size: {}."),
            sentence(datasets, "seed", "Seeds: {}."),
            sentence(datasets, "stderr_over", "Standard errors over {}, taken as independent."),
        ),
        "alt": _ends(datasets),
    }


def _ends(datasets: Sequence[xr.Dataset]) -> str:
    """What the last epoch left of each network."""
    told = []
    for dataset, label in zip(datasets, labels(datasets), strict=True):
        names = [*after_epochs(dataset, "loss"), *after_epochs(dataset, "accuracy")]
        parts = [f"{name.replace('_', ' ')} {value(dataset, name, epoch=-1)}" for name in names]
        told += [f"{label[0].upper()}{label[1:]} ends with {listed(parts)}."] if parts else []
    return joined(*told)


def projection(plane: xr.Dataset, trajectory: xr.Dataset) -> Told:
    """Of the trajectory on its plane."""
    return {
        "caption": f"The trajectory of {Provenance.of(trajectory).who} (dots, coloured by step) projected on the plane "
        "of its first two principal components, over the loss on that plane.",
        "how": joined(
            f"Principal components of {count(trajectory.attrs['n_snapshots'])} snapshots centered at "
            f"{CENTERS[str(trajectory.attrs['center'])]};",
            _evaluated(plane),
        ),
        "pitfall": "The trajectory lies near the plane, not on it, so the loss under a snapshot is not its own.",
        "method": sentences("The plane passes through the last snapshot.", *basis([plane])),
        "alt": f"Two components hold {percent(shares_of_two(trajectory)[0])} of the variance; the snapshot farthest "
        f"off the plane lies {farthest(trajectory)}.",
    }


def _evaluated(plane: xr.Dataset) -> str:
    """How the loss on the plane was made."""
    a = plane.attrs
    if "tolerance" in a:
        tolerance = number(100 * float(a["tolerance"]), 2)
        return f"loss interpolated to {tolerance} % from {count(a['n_evaluations'])} evaluations."
    return f"loss evaluated at all {plane['loss'].size:,} points of the plane."


def in_space(plane: xr.Dataset, raised: bool) -> Told:
    """Of the plane as a surface; ``raised``: with the trajectory at the true loss of its snapshots."""
    line = " The line with dots is the trajectory, at the true loss of its snapshots." if raised else ""
    return {
        "caption": f"The same plane as a surface in space, {Provenance.of(plane).who}: height and colour are the "
        f"logarithm to base 10 of the loss.{line}",
        "how": f"L{_evaluated(plane)[1:]}",
        "pitfall": "A snapshot above the surface lies off the plane, where the loss is another one." if raised else "",
        "alt": "The loss falls from the start of training towards its end.",
    }


def error_map(plane: xr.Dataset) -> Told:
    """Of the plane beside its estimated error."""
    a = plane.attrs
    return {
        "caption": "The loss on the plane of the trajectory (left) and the estimated interpolation error of each pixel "
        "(right), with a line at the tolerance; dots are nodes, open circles pixels held out at random.",
        "how": f"L{_evaluated(plane)[1:]}",
        "pitfall": "The error of a pixel is an estimate; the held-out pixels bound a share of the pixels, not the "
        "worst one.",
        "method": sentences(
            f"{int(a['held_out']) - int(a['held_out_beyond'])} of {int(a['held_out'])} held-out pixels lie within the "
            "tolerance."
            if has_error_map(plane) and a.get("held_out")
            else "",
        ),
    }


def shares(trajectory: xr.Dataset) -> Told:
    """Of how much the plane shows."""
    observed, walk = shares_of_two(trajectory)
    loss = "; right, the true loss of each snapshot and that of its projection" if "loss" in trajectory else ""
    return {
        "caption": f"How much of the trajectory of {Provenance.of(trajectory).who} its plane shows. Left, the variance "
        "that each component explains, and of a random walk; middle, the distance of each snapshot from the plane and "
        f"from the end{loss}.",
        "how": "The random walk is isotropic and has as many steps (Antognini & Sohl-Dickstein 2018).",
        "pitfall": LOOKS_LOW,
        "method": basis([trajectory]) if "loss" in trajectory else (),
        "alt": f"Two components explain {percent(observed)} of the variance, and {percent(walk)} of a random walk's.",
    }


def sharpness(trajectory: xr.Dataset) -> Told:
    """Of lambda_max along the trajectory."""
    return {
        "caption": f"The largest eigenvalue of the Hessian at {count(trajectory['lambda_max'].count())} snapshots of "
        f"the training of {Provenance.of(trajectory).who}.",
        "how": f"Lanczos to a relative residual of {percent(float(trajectory.attrs['sharpness_tol']))}; "
        "bars, where they can be seen, are residuals.",
        "pitfall": "Between the snapshots the sharpness is not known: a short peak can be missed.",
        "method": basis([trajectory]),
        "alt": f"λ_max at the first and the last snapshot, and the highest: {along(trajectory)}.",
    }
