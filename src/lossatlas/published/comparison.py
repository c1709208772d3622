"""The numbers that the two student projects published, and the same quantities as measured here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import xarray as xr

from lossatlas.connectivity.show import BARRIER
from lossatlas.curvature.show import SPECTRUM
from lossatlas.results.making import result
from lossatlas.robustness.show import ROBUSTNESS
from lossatlas.trajectory.show import HISTORY, TRAJECTORY

if TYPE_CHECKING:
    from lossatlas.results.catalogue import Catalogue
    from lossatlas.results.kind import Kind

Measured = tuple[float, float]  # the value and its standard error
UNKNOWN: Measured = (math.nan, math.nan)


class Quantity(NamedTuple):
    """A quantity, the published number, how it is read off the results, and why the two may differ."""

    quantity: str
    published: float
    ours: Callable[[Catalogue], Measured]
    reason: str


def comparison(catalogue: Catalogue, *, study: Literal["fashion", "mnist"], progress: bool = False) -> xr.Dataset:
    """Published and measured values of the same quantities, over ``("quantity",)``, and how their methods differed.

    ``published``, ``ours`` with ``ours_stderr`` and ``reason``; NaN where the catalogue has no such result of network
    A (B). ``study`` names the student project; ``progress`` is there as for every verb: this one takes no time.
    """
    title, rows = TABLES[study]
    ours = np.array([row.ours(catalogue) for row in rows])
    columns = {
        "published": ("quantity", [row.published for row in rows]),
        "ours": ("quantity", ours[:, 0]),
        "ours_stderr": ("quantity", ours[:, 1]),
        "reason": ("quantity", [row.reason for row in rows]),
    }
    dataset = xr.Dataset(columns, coords={"quantity": [row.quantity for row in rows]})
    return result("comparison", dataset, title=title, study=study)


def _found(catalogue: Catalogue, kind: Kind, **attrs: str) -> xr.Dataset | None:
    """The first Dataset of a kind with these attributes."""
    of = [d for d in catalogue.of(kind) if all(d.attrs.get(key) == value for key, value in attrs.items())]
    return of[0] if of else None


def _last(variable: str) -> Callable[[Catalogue], Measured]:
    def read(catalogue: Catalogue) -> Measured:
        history = _found(catalogue, HISTORY, network="A")
        return UNKNOWN if history is None else _pair(history.isel(epoch=-1), variable)

    return read


def _lambda_max(network: str) -> Callable[[Catalogue], Measured]:
    def read(catalogue: Catalogue) -> Measured:
        spectrum = _found(catalogue, SPECTRUM, network=network)
        return UNKNOWN if spectrum is None else _pair(spectrum.sel(end="top", rank=1), "eigenvalue")

    return read


def _half_way(split: str) -> Callable[[Catalogue], Measured]:
    def read(catalogue: Catalogue) -> Measured:
        line = _found(catalogue, BARRIER, path="line", split=split)
        return UNKNOWN if line is None else _pair(line.sel(t=0.5, method="nearest"), "loss")

    return read


def _height(catalogue: Catalogue) -> Measured:
    line = _found(catalogue, BARRIER, path="line", split="test")
    return (
        UNKNOWN if line is None else (float(line["height"].sel(definition="entezari")), float(line["barrier_stderr"]))
    )


def _noisy(variable: str, sigma: float) -> Callable[[Catalogue], Measured]:
    def read(catalogue: Catalogue) -> Measured:
        noise = _found(catalogue, ROBUSTNESS, network="A", relative="none")
        row = None if noise is None else noise.sel(sigma=sigma, method="nearest")
        # NaN where this study was set to other sigmas.
        return _pair(row, variable) if row is not None and math.isclose(float(row["sigma"]), sigma) else UNKNOWN

    return read


def _singular_ratio(k: int) -> Callable[[Catalogue], Measured]:
    def read(catalogue: Catalogue) -> Measured:
        trajectory = _found(catalogue, TRAJECTORY, network="A")
        ratio = np.array([]) if trajectory is None else trajectory["explained_variance_ratio"].to_numpy()
        return (math.sqrt(ratio[k - 1] / ratio[0]) if k <= len(ratio) else math.nan), math.nan

    return read


def _pair(dataset: xr.Dataset, name: str) -> Measured:
    return float(dataset[name]), float(dataset[f"{name}_stderr"])


_SAME = "The same protocol with other random numbers (initial weights, order of the data)."
_POWER = (
    "There: 15 power iterations, each on another random batch of 256, which do not converge. "
    "Here: Lanczos to the stated residual on a fixed set of training examples."
)
_LINE = "There: 5 batches of 128 examples. Here: the stated number of examples."
_DRAW = "There: one draw of the noise. Here: the mean over several draws."

_NOISE = [(0.01, 0.2924, 0.8910), (0.02, 0.2923, 0.8926), (0.05, 0.5399, 0.8237), (0.1, 5.188, 0.380)]

_FASHION = [
    Quantity("test accuracy of A after the last epoch", 0.8996, _last("test_accuracy"), _SAME),
    Quantity("test loss of A after the last epoch", 0.2708, _last("test_loss"), _SAME),
    Quantity("largest Hessian eigenvalue of A", 13.0, _lambda_max("A"), _POWER),
    Quantity("largest Hessian eigenvalue of B", 15.6, _lambda_max("B"), _POWER),
    Quantity("train loss half-way from A to B", 1.844, _half_way("train"), _LINE),
    Quantity("test loss half-way from A to B", 1.846, _half_way("test"), _LINE),
    Quantity("test-loss barrier", 1.6, _height, _LINE + " The published height is read off its curve."),
    *[Quantity(f"test loss at noise {s:g}", loss, _noisy("loss", s), _DRAW) for s, loss, _ in _NOISE],
    *[Quantity(f"test accuracy at noise {s:g}", right, _noisy("accuracy", s), _DRAW) for s, _, right in _NOISE],
]

_MNIST = [
    Quantity(
        "largest Hessian eigenvalue of A",
        1.6377,
        _lambda_max("A"),
        "There: 15 power iterations on one training batch of 128. Here: Lanczos on more examples.",
    ),
    Quantity("second singular value of the trajectory over the first", 6.01 / 13.20, _singular_ratio(2), _SAME),
    Quantity("third singular value of the trajectory over the first", 3.35 / 13.20, _singular_ratio(3), _SAME),
]

TABLES = {
    "fashion": ("The Fashion-MNIST study: a CNN on Fashion-MNIST", _FASHION),
    "mnist": ("The MNIST study: a wide CNN on MNIST", _MNIST),
}
