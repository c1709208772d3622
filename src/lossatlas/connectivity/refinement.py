"""Where on a path to evaluate: first points, then more of them until the maximum is known to a tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from lossatlas.connectivity.heights import FloatArray, Profile, summit
from lossatlas.errors import InputError, NonFiniteLoss
from lossatlas.geometry.curves import Curve
from lossatlas.model.loss.samples import Sample
from lossatlas.objective import Objective

FURTHER = 40  # points at most beyond the first ones

Samples = dict[str, Sample]


@dataclass(frozen=True)
class Refinement:
    """Whether the tolerances of a maximum were met, and the reason where they were not."""

    met: bool
    reason: str = ""


@dataclass(frozen=True)
class Tolerance:
    """How well a maximum shall be known: its height, its place, and the step below which values say nothing."""

    height: float
    t: float
    step: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """How well a maximum is known (half of its bracket; how much higher it may be), and what to evaluate next."""

    height_resolution: float
    t_resolution: float
    further: FloatArray


def evidence(t: FloatArray, values: FloatArray, tolerance: Tolerance) -> Evidence:
    """What the values ``(n_t,)`` at t ``(n_t,)`` tell of the maximum between them.

    The further places are the midpoints of the intervals that may rise above the highest value by more than the
    tolerance: as parabolas through three neighbours do or, next to the highest value, as a kink could (half of the
    second difference, four times what a parabola rises at most). And of those next to the highest value while they are
    wider than t's, unless they rise by no more than a step. A maximum at an end needs no bracket. A peak that is
    narrower than the points are apart is not seen. A value that is not finite is a maximum as it is.
    """
    if not np.isfinite(values).all():
        return Evidence(math.nan, math.nan, np.array([]))
    top, widths = int(np.argmax(values)), np.diff(t)
    rises = vertices(t, values) - values[top]
    adjacent = np.zeros(len(widths), dtype=bool)
    if 0 < top < len(t) - 1:
        adjacent[[top - 1, top]] = True
        slopes = np.diff(values[top - 1 : top + 2]) / widths[adjacent]
        kink = (slopes[0] - slopes[1]) / widths[adjacent].sum() * widths[adjacent].max() ** 2
        rises[adjacent] = np.maximum(rises[adjacent], kink)
    split = (rises > max(tolerance.height, tolerance.step)) | (
        adjacent & (widths > tolerance.t) & (np.abs(np.diff(values)) > tolerance.step)
    )
    halfway = t[:-1] + widths / 2
    return Evidence(max(0.0, float(rises.max())), float(widths[adjacent].max(initial=0.0)), halfway[split])


def vertices(t: FloatArray, values: FloatArray) -> FloatArray:
    """``(n_t - 1,)``: the highest vertex in each interval of the parabolas through three neighbours; else -inf.

    >>> vertices(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0]))
    array([ -inf, 1.125])
    """
    slopes = np.diff(values) / np.diff(t)
    bends = np.diff(slopes) / (t[2:] - t[:-2])
    hollow = np.flatnonzero(bends < 0)
    first, middle, slope, bend = t[hollow], t[hollow + 1], slopes[hollow], bends[hollow]
    where = (first + middle) / 2 - slope / (2 * bend)
    inside = (where >= first) & (where <= t[hollow + 2])
    height = values[hollow] + slope * (where - first) + bend * (where - first) * (where - middle)
    highest = np.full(len(t) - 1, -np.inf)
    np.maximum.at(highest, (hollow + (where > middle))[inside], height[inside])
    return highest


def first_places(steps: int | Sequence[float] | FloatArray) -> FloatArray:
    if isinstance(steps, int | np.integer):
        if steps < 3:
            raise InputError(f"steps={steps}: give at least 3, the two ends and a point between.")
        return np.linspace(0.0, 1.0, int(steps))
    t = np.array(steps, dtype=np.float64)
    if t.ndim != 1 or len(t) < 3 or t[0] != 0 or t[-1] != 1 or not (np.diff(t) > 0).all():
        raise InputError("steps is no path from 0 to 1: give at least 3 increasing t, the first 0 and the last 1.")
    return t


def explored(
    objective: Objective, curve: Curve, first: FloatArray, tol: float | None, t_tol: float, progress: bool
) -> tuple[dict[float, Samples], Refinement]:
    """The samples at each t, sorted, and whether the tolerances were met."""
    # The ends first: a model that cannot be measured is found out before the rest is computed.
    known = {x: _end(objective, curve, x) for x in (0.0, 1.0)}
    refinement, places = Refinement(False, "not asked for"), first[1:-1]
    with tqdm(total=len(first), initial=2, desc="barrier", disable=not progress, leave=False) as bar:
        while len(places):
            for x in places.tolist():
                known[x] = objective.samples(curve.point(x))
                bar.update()
            known = dict(sorted(known.items()))
            if tol is None:
                break
            places, refinement = _further(known, tol, t_tol, 8 * torch.finfo(objective.dtype).eps)
            if len(known) + len(places) > len(first) + FURTHER:
                refinement = Refinement(False, f"{len(known) - len(first)} further points do not suffice")
                break
            bar.total = len(known) + len(places)
    return known, refinement


def profiles(known: dict[float, Samples]) -> tuple[Profile, Profile | None]:
    """The loss and, where there is an accuracy, the error."""
    t, points = np.array(list(known)), list(known.values())
    loss = Profile(t, [point["loss"] for point in points])
    if "accuracy" not in points[0]:
        return loss, None
    right = [point["accuracy"] for point in points]
    return loss, Profile(t, [Sample(1 - each.values, each.weights, each.over) for each in right])


def _end(objective: Objective, curve: Curve, t: float) -> Samples:
    samples = objective.samples(curve.point(t))
    if not np.isfinite(samples["loss"].mean):
        raise NonFiniteLoss(f"The loss at the end t = {t:.0f} is {samples['loss'].mean}: check that model's weights.")
    return samples


def _further(known: dict[float, Samples], tol: float, t_tol: float, rounding: float) -> tuple[FloatArray, Refinement]:
    """The places to evaluate next, and what is reached when there are none."""
    loss, error = profiles(known)
    found = _evidence(loss, Tolerance(tol * _level(loss), t_tol, rounding * _level(loss)))
    if error is not None:
        found += _evidence(error, Tolerance(tol * _level(error), t_tol, 1 / float(error.samples[0].weights.sum())))
    reached = Refinement(True) if loss.finite else Refinement(False, "the loss is not finite on the path")
    return np.unique(np.concatenate([each.further for each in found])), reached


def _evidence(profile: Profile, tolerance: Tolerance) -> list[Evidence]:
    """For both bases that tilt a profile differently: the line between the ends and a constant."""
    return [evidence(profile.t, profile.heights(base), tolerance) for base in ("entezari", "frankle")]


def _level(profile: Profile) -> float:
    return abs(float(profile.means[summit(profile.means)]))
