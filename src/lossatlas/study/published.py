"""The numbers that the two seed projects published, and ours beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

Results = Mapping[str, xr.Dataset]
Estimate = tuple[float, float]  # the value and its standard error


class _Row(NamedTuple):
    quantity: str
    published: float
    ours: Callable[[Results], Estimate]
    reason: str


def comparison(preset: str, results: Results) -> xr.Dataset | None:
    """Published and measured values side by side over ``("quantity",)``, and how differently they were obtained."""
    if preset not in _TABLES:
        return None
    title, rows = _TABLES[preset]
    ours = np.array([row.ours(results) for row in rows])
    return xr.Dataset(
        {
            "published": ("quantity", [row.published for row in rows]),
            "ours": ("quantity", ours[:, 0]),
            "ours_stderr": ("quantity", ours[:, 1]),
            "reason": ("quantity", [row.reason for row in rows]),
        },
        coords={"quantity": [row.quantity for row in rows]},
        attrs={"kind": "comparison", "name": "comparison", "title": title, "source": title},
    )


def _last(variable: str) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        history = results["history_a"]
        return float(history[variable][-1]), float(history[f"{variable}_stderr"][-1])

    return read


def _lambda_max(network: str) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        top = results[f"spectrum_{network}"].sel(end="top", rank=1)
        return float(top["eigenvalue"]), float(top["eigenvalue_stderr"])

    return read


def _half_way(split: str) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        middle = results[f"barrier_{split}"].sel(t=0.5, method="nearest")
        return float(middle["loss"]), float(middle["loss_stderr"])

    return read


def _height(results: Results) -> Estimate:
    found = results["barrier_test"]
    return float(found["barrier"]), float(found["barrier_stderr"])


def _noisy(variable: str, sigma: float) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        row = results["robustness_a"].sel(sigma=sigma, method="nearest")
        if not math.isclose(float(row["sigma"]), sigma):
            return math.nan, math.nan  # this study was set to other sigmas
        return float(row[variable]), float(row[f"{variable}_stderr"])

    return read


def _singular_ratio(k: int) -> Callable[[Results], Estimate]:
    def read(results: Results) -> Estimate:
        ratio = results["trajectory_a"]["explained_variance_ratio"].values
        return (math.sqrt(ratio[k - 1] / ratio[0]) if k <= len(ratio) else math.nan), math.nan

    return read


_SAME = "The same protocol with other random numbers (initial weights, order of the data)."
_POWER = (
    "There: 15 power iterations, each on another random batch of 256, which do not converge. "
    "Here: Lanczos to the stated residual on a fixed set of training examples."
)
_LINE = "There: 5 batches of 128 examples. Here: the stated number of examples."
_DRAW = "There: one draw of the noise. Here: the mean over several draws."

_NOISE = [(0.01, 0.2924, 0.8910), (0.02, 0.2923, 0.8926), (0.05, 0.5399, 0.8237), (0.1, 5.188, 0.380)]

_FASHION = [
    _Row("test accuracy of A after the last epoch", 0.8996, _last("test_accuracy"), _SAME),
    _Row("test loss of A after the last epoch", 0.2708, _last("test_loss"), _SAME),
    _Row("largest Hessian eigenvalue of A", 13.0, _lambda_max("a"), _POWER),
    _Row("largest Hessian eigenvalue of B", 15.6, _lambda_max("b"), _POWER),
    _Row("train loss half-way from A to B", 1.844, _half_way("train"), _LINE),
    _Row("test loss half-way from A to B", 1.846, _half_way("test"), _LINE),
    _Row("test-loss barrier", 1.6, _height, _LINE + " The published height is read off its curve."),
    *[_Row(f"test loss at noise {s:g}", loss, _noisy("loss", s), _DRAW) for s, loss, _ in _NOISE],
    *[_Row(f"test accuracy at noise {s:g}", right, _noisy("accuracy", s), _DRAW) for s, _, right in _NOISE],
]

_MNIST = [
    _Row(
        "largest Hessian eigenvalue of A",
        1.6377,
        _lambda_max("a"),
        "There: 15 power iterations on one training batch of 128. Here: Lanczos on more examples.",
    ),
    _Row("second singular value of the road over the first", 6.01 / 13.20, _singular_ratio(2), _SAME),
    _Row("third singular value of the road over the first", 3.35 / 13.20, _singular_ratio(3), _SAME),
]

_TABLES = {
    "fashion": ("The second seed project: a CNN on Fashion-MNIST", _FASHION),
    "mnist": ("The first seed project: a wide CNN on MNIST", _MNIST),
}
