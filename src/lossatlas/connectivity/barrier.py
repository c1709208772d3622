"""The height of the ground between two models, by the literature's definitions."""

from __future__ import annotations

import time
from typing import Literal, get_args

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from lossatlas.curves import Curve
from lossatlas.errors import InputError, NonFiniteLoss
from lossatlas.functional import BatchNormPolicy
from lossatlas.measures import Sample
from lossatlas.objective import Objective

Definition = Literal["entezari", "frankle", "draxler"]


def barrier(
    objective: Objective,
    curve: Curve,
    *,
    definition: Definition = "entezari",
    steps: int = 25,
    batch_norm: BatchNormPolicy | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """max over t of L(theta(t)) - base(t) on ``steps`` equally spaced t, where the base is

    - ``"entezari"``: (1 - t) L(theta(0)) + t L(theta(1)), the line between the ends' losses
      (Entezari et al. 2022);
    - ``"frankle"``: the mean of the ends (Frankle et al. 2020, who call two models linearly connected when the
      barrier of the *error* is below 2 %);
    - ``"draxler"``: the worse end (Draxler et al. 2018).

    The three agree when the ends do. Along a path, BatchNorm statistics of either end are wrong for every other
    point: with ``batch_norm=None`` an objective that holds them frozen has them estimated anew at each t
    (``"recompute"``); another policy of the objective's own is kept.

    Returns
    -------
    Dataset over ``("t",)``: ``loss`` and each metric with standard errors, ``error`` = 1 - accuracy; and the scalars
    ``barrier``, ``barrier_stderr``, ``t_max``, on the error ``barrier_error``, ``barrier_error_stderr``,
    ``t_max_error``. The standard error of a height is paired, example by example, at the t of the maximum; that the
    maximum was chosen among ``steps`` noisy heights is not in it.

    Raises ``NonFiniteLoss`` when an end's loss is not finite.
    """
    if definition not in get_args(Definition):
        raise InputError(f"definition={definition!r}: choose one of {', '.join(get_args(Definition))}.")
    if steps < 3:
        raise InputError(f"steps={steps}: give at least 3, the two ends and a point between.")
    started = time.perf_counter()
    if batch_norm is None and objective.has_batch_norm and objective.batch_norm == "frozen":
        batch_norm = "recompute"
    if batch_norm is not None:
        objective = objective.with_batch_norm(batch_norm)
    t = np.linspace(0.0, 1.0, steps)
    # The ends first: a model that cannot be measured is found out before the rest is computed.
    first, last = (_end(objective, curve, x) for x in (0.0, 1.0))
    between = tqdm(t[1:-1], desc="barrier", disable=not progress, leave=False)
    profile = [first, *(objective.samples(curve.point(float(x))) for x in between), last]
    dataset = _dataset(profile, t, definition)
    dataset.attrs = {"kind": "barrier"} | objective.provenance()
    dataset.attrs |= {
        "definition": definition,
        "curve": type(curve).__name__,
        "stderr_over": profile[0]["loss"].over,
        "seconds": time.perf_counter() - started,
    }
    return dataset


def _end(objective: Objective, curve: Curve, t: float) -> dict[str, Sample]:
    samples = objective.samples(curve.point(t))
    if not np.isfinite(samples["loss"].mean):
        raise NonFiniteLoss(f"The loss at the end t = {t:.0f} is {samples['loss'].mean}: check that model's weights.")
    return samples


def _dataset(profile: list[dict[str, Sample]], t: np.ndarray, definition: Definition) -> xr.Dataset:
    variables: dict[str, object] = {}
    for name in profile[0]:
        variables[name] = ("t", [point[name].mean for point in profile])
        variables[f"{name}_stderr"] = ("t", [point[name].stderr for point in profile])
    heights = _heights([point["loss"] for point in profile], t, definition)
    variables |= _summit(heights, t, "")
    if "accuracy" in profile[0]:
        errors = [Sample(1 - p["accuracy"].values, p["accuracy"].weights, p["accuracy"].over) for p in profile]
        variables["error"] = ("t", [error.mean for error in errors])
        variables["error_stderr"] = ("t", [error.stderr for error in errors])
        variables |= _summit(_heights(errors, t, definition), t, "_error")
    return xr.Dataset(variables, coords={"t": t})


def _heights(samples: list[Sample], t: np.ndarray, definition: Definition) -> list[Sample]:
    first, last = samples[0], samples[-1]
    shares = {
        "entezari": [(1 - x, x) for x in t],
        "frankle": [(0.5, 0.5)] * len(t),
        "draxler": [(1.0, 0.0) if first.mean >= last.mean else (0.0, 1.0)] * len(t),
    }[definition]
    return [s.combined(first, -a).combined(last, -b) for s, (a, b) in zip(samples, shares, strict=True)]


def _summit(heights: list[Sample], t: np.ndarray, suffix: str) -> dict[str, float]:
    means = np.array([height.mean for height in heights])
    # A point whose loss is infinite or NaN is higher than any other.
    top = int(np.argmax(np.where(np.isfinite(means), means, np.inf)))
    return {
        f"barrier{suffix}": means[top],
        f"barrier{suffix}_stderr": heights[top].stderr,
        f"t_max{suffix}": float(t[top]),
    }
