"""The height of the loss on a path between two models above its ends, by the definitions of the literature."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
import xarray as xr

from lossatlas.connectivity.buffers import carried_names, carrying_buffers, compared_ends
from lossatlas.connectivity.heights import (
    TAIL,
    UNKNOWN,
    Definition,
    FloatArray,
    Profile,
    heights,
    interval,
    relative_interval,
    summit,
)
from lossatlas.connectivity.refinement import Refinement, Samples, Tolerance, evidence, explored, first_places, profiles
from lossatlas.errors import InputError
from lossatlas.geometry.curves import Curve, Segment
from lossatlas.model.functional import BatchNormPolicy
from lossatlas.objective import Objective
from lossatlas.results.making import result

DEFINITIONS: tuple[Definition, ...] = get_args(Definition)
SAME = (
    "The two ends are the same point, so their barrier is 0: right after an alignment that finds one network in the "
    "other; if two different models were meant, check which weights were loaded."
)
RELATIVE = ("relative_height", "relative_height_low", "relative_height_high")
PATH_NAMES = {"Segment": "line", "Bezier": "Bezier curve", "PolygonalChain": "polygonal chain"}


def barrier(
    objective: Objective,
    curve: Curve,
    *,
    definition: Definition = "entezari",
    steps: int | Sequence[float] | FloatArray = 25,
    tol: float | None = 0.01,
    t_tol: float = 0.02,
    draws: int = 1000,
    seed: int = 0,
    batch_norm: BatchNormPolicy | None = None,
    path: str | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """max over t of L(theta(t)) - base(t), where the base is

    - ``"entezari"``: (1 - t) L(theta(0)) + t L(theta(1)), the line between the ends' losses
      (Entezari et al. 2022);
    - ``"frankle"``: the mean of the ends (Frankle et al. 2020, who call two models linearly connected when the
      barrier of the *error* is below 2 %);
    - ``"draxler"``: the worse end (Draxler et al. 2018).

    The three agree when the ends do. Along a path, BatchNorm statistics of either end are wrong for every other
    point: with ``batch_norm=None`` an objective that holds them frozen has them estimated anew at each t
    (``"recompute"``); another policy of the objective's own is kept.

    **Where.** First at ``steps`` equally spaced t (or at the t given, from 0 to 1), then halfway between neighbours
    about the maximum until it is known to ``tol`` and ``t_tol``: for the loss and the error, above the line between
    the ends and above their mean (above the worse end the maximum has the same place). ``tol`` is a share of the
    highest loss (error) on the path; an error is not refined below the share of one example. ``t_tol`` is half of the
    bracket about the maximum. The evidence for the height is what a parabola or a kink through neighbouring points may
    rise: it assumes that no peak is narrower than the first points are apart. At most 40 further points. ``tol=None``
    keeps to the first ones.

    **Uncertainty.** ``draws`` replicates of a bootstrap draw the examples anew, the same ones at every t and at both
    ends, and take every maximum anew; the 95 % interval corrects for the bias of a maximum over noisy points
    (``connectivity.heights.interval``); where no example shows an error it ends at 3.7 / N, since what is
    rarer may not be seen among N. It takes the examples as independent draws and the t as given. With a loss
    that has one value a batch the batches are drawn. No draws, two batches or fewer: NaN. ``barrier_stderr`` is the
    paired standard error at the t of the maximum alone.

    Parameters
    ----------
    curve : theta(t), ``(n,)`` for each t in [0, 1]: a ``Segment``, a fitted curve, or any object with ``point(t)`` and
        ``length``.
    path : what the path is called in figures and claims: "line", "line after alignment", "Bezier curve" or "polygonal
        chain"; by default after the kind of the curve.

    Returns
    -------
    Dataset over ``("t",)``: ``loss`` and each metric with standard errors, ``error`` = 1 - accuracy. Scalars:
    ``barrier``, ``barrier_stderr``, ``barrier_low``, ``barrier_high``, ``t_max``, ``t_max_low``, ``t_max_high``; the
    same of the error (``barrier_error``, ``t_max_error``, ...); ``highest_loss``, the largest on the path, with its
    standard error; ``length_ratio``, the length of the path over |theta(1) - theta(0)|. Over ``("definition",)``, all
    three: ``height``, ``height_low``, ``height_high``, and of the error ``height_error``, ... Without an accuracy
    ``relative_height``, ``relative_height_low``, ``relative_height_high``: Frankle's loss barrier as a share of the
    mean loss of the ends, NaN where that is not positive. ``attrs["refined"]`` is 1 where the tolerances were met, for
    loss and error, else 0 with the reason in ``attrs["refinement_note"]``.

    ``attrs["carried_buffers"]`` names the buffers that are not BatchNorm's and differ between the two models: they are
    carried along the path, (1 - t) B_a + t B_b, and the vectors of ``spectral_norm`` computed anew at each point.
    ``attrs["ends_note"]`` tells where an end's loss is not its model's own, with that model's own buffers, or cannot be
    compared: of a bare vector that was read from no model the buffers are not known until
    ``objective.point_of(model)`` reads it. A metric that is the same at every t decides nothing: then the loss is
    taken, with ``relative_height``.

    Warns (``UserWarning``) where both ends are one point; (``BufferWarning``) where an end's loss is not its model's
    own, or where its model may have other buffers than the objective's, which are taken.

    Raises
    ------
    NonFiniteLoss : an end's loss is not finite.
    InputError : an impossible setting.
    DirectionError : the points of the curve are not of the objective's size.

    Source: Frankle et al. (2020), "Linear mode connectivity and the lottery ticket hypothesis", section 2; Entezari et
    al. (2022), "The role of permutation invariance in linear mode connectivity of neural networks";
    Draxler et al. (2018), "Essentially no barriers in neural network energy landscape". Intervals: Chernozhukov, Lee &
    Rosen (2013).

    Examples
    --------
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> loss = lambda outputs, _: (outputs[:, 0] ** 2 - 1) ** 2   # for x = 1: minima at w = -1 and w = 1
    >>> objective = Objective(model, loss, (torch.ones(8, 1), torch.zeros(8)), metrics=None)
    >>> found = barrier(objective, Segment(torch.tensor([-1.0]), torch.tensor([1.0])), progress=False)
    >>> float(found["barrier"]), float(found["t_max"])
    (1.0, 0.5)
    """
    check(definition, tol, t_tol, draws, seed)
    straight = Segment(curve.point(0.0), curve.point(1.0))
    if same := torch.equal(straight.a, straight.b):
        warnings.warn(SAME, UserWarning, stacklevel=2)
    started = time.perf_counter()
    objective = carrying_buffers(with_statistics_on_paths(objective, batch_norm), straight.a, straight.b)
    known, refinement = explored(objective, curve, first_places(steps), tol, t_tol, progress)
    loss, error = profiles(known)
    variables = _means(known) | _highest(loss) | _heights_found(loss, error, definition, draws, seed)
    variables["length_ratio"] = 1.0 if same else curve.length / straight.length
    dataset = xr.Dataset(variables, coords={"t": loss.t, "definition": list(DEFINITIONS)})
    name = type(curve).__name__
    dataset.attrs = {"definition": definition, "curve": name, "path": path or PATH_NAMES.get(name, name)}
    dataset.attrs |= {"draws": draws, "seed": seed, "tol": math.nan if tol is None else tol, "t_tol": t_tol}
    dataset.attrs |= _refined(refinement) | _resolutions(loss, error, definition)
    dataset.attrs |= {"stderr_over": loss.samples[0].over, "bootstrap": _bootstrap(loss, draws)}
    _widen_places(dataset)
    ends = {
        f"the end t = {t:.0f} of the path": (p, known[t]["loss"]) for t, p in ((0.0, straight.a), (1.0, straight.b))
    }
    note = compared_ends(objective, ends)
    dataset.attrs |= {"ends_note": note, "carried_buffers": carried_names(objective)}
    return result("barrier", dataset, objective.provenance(), seconds=time.perf_counter() - started)


def with_statistics_on_paths(objective: Objective, batch_norm: BatchNormPolicy | None = None) -> Objective:
    """The objective with ``batch_norm``, by default with frozen BatchNorm statistics estimated anew at each point."""
    if batch_norm is None and objective.function.frozen_statistics:
        batch_norm = "recompute"
    return objective if batch_norm is None else objective.with_batch_norm(batch_norm)


def check(definition: Definition, tol: float | None, t_tol: float, draws: int, seed: int) -> None:
    """``InputError`` for a question that cannot be."""
    if definition not in DEFINITIONS:
        raise InputError(f"definition={definition!r}: choose one of {', '.join(DEFINITIONS)}.")
    if tol is not None and not 0 < tol < math.inf:
        raise InputError(f"tol={tol}: give a positive share of the highest loss, or None for no refinement.")
    if not 0 < t_tol <= 1:
        raise InputError(f"t_tol={t_tol}: give a distance in t above 0, at most 1.")
    if draws < 0 or 0 < draws < 100:
        raise InputError(f"draws={draws}: give at least 100, or 0 for no intervals.")
    if seed < 0:
        raise InputError(f"seed={seed}: give a whole number from 0 up.")


def _means(known: dict[float, Samples]) -> dict[str, object]:
    points = list(known.values())
    variables: dict[str, object] = {}
    for name in points[0]:
        variables[name] = ("t", [point[name].mean for point in points])
        variables[f"{name}_stderr"] = ("t", [point[name].stderr for point in points])
    return variables


def moves(profile: Profile) -> bool:
    """Whether the mean is not the same at every t: one that is tells nothing of a path."""
    return bool(np.ptp(profile.means) > 0)


def _highest(loss: Profile) -> dict[str, object]:
    top = summit(loss.means)
    return {"highest_loss": loss.means[top], "highest_loss_stderr": loss.stderrs[top]}


def _heights_found(
    loss: Profile, error: Profile | None, definition: Definition, draws: int, seed: int
) -> dict[str, object]:
    """All heights with their intervals: of the loss, and of the error or, without one, of the loss as a share."""
    replicates = loss.replicates(draws, seed)
    variables = _summits(loss, replicates, definition, "")
    if error is None or not moves(error):
        variables |= dict(zip(RELATIVE, relative_interval(loss, replicates), strict=True))
    if error is None:
        return variables
    variables |= {"error": ("t", error.means), "error_stderr": ("t", error.stderrs)}
    return variables | _summits(error, error.replicates(draws, seed), definition, "_error")


def _summits(profile: Profile, replicates: FloatArray | None, definition: Definition, suffix: str) -> dict[str, object]:
    """The height by each definition, and as ``barrier`` by the one asked for, with place and intervals."""
    found = {name: profile.heights(name) for name in DEFINITIONS}
    tops = {name: summit(each) for name, each in found.items()}
    bounds = dict.fromkeys(DEFINITIONS, UNKNOWN)
    if replicates is not None:
        for name, each in found.items():
            bounds[name] = interval(profile.t, each, heights(replicates, profile.t, name), profile.units)
    if suffix:  # an error that none of N examples shows may still be that of 3.7 in N (no event seen, 97.5 %)
        unseen = -math.log(TAIL) / profile.units
        bounds = {name: each._replace(high=unseen) if each.high == 0 else each for name, each in bounds.items()}
    own, top = bounds[definition], tops[definition]
    return {
        f"barrier{suffix}": found[definition][top],
        f"barrier{suffix}_stderr": profile.paired_stderr(top, definition),
        f"barrier{suffix}_low": own.low,
        f"barrier{suffix}_high": own.high,
        f"t_max{suffix}": profile.t[top],
        f"t_max{suffix}_low": own.t_low,
        f"t_max{suffix}_high": own.t_high,
        f"height{suffix}": ("definition", [found[name][tops[name]] for name in DEFINITIONS]),
        f"height{suffix}_low": ("definition", [bounds[name].low for name in DEFINITIONS]),
        f"height{suffix}_high": ("definition", [bounds[name].high for name in DEFINITIONS]),
    }


def _bootstrap(loss: Profile, draws: int) -> str:
    if draws == 0:
        return "none: not asked for"
    if loss.units < 3:
        return f"none: {loss.units} {loss.samples[0].over} are too few"
    if not loss.finite:
        return "none for the loss, which is not finite on the path"
    return f"paired over {loss.samples[0].over}"


def _refined(refinement: Refinement) -> dict[str, int | str]:
    return {"refined": int(refinement.met), "refinement_note": refinement.reason}


def _resolutions(loss: Profile, error: Profile | None, definition: Definition) -> dict[str, float]:
    reached = {}
    for profile, suffix in ((loss, ""), (error, "_error")):
        if profile is not None:
            seen = evidence(profile.t, profile.heights(definition), Tolerance(math.inf, math.inf))
            reached[f"height_resolution{suffix}"] = seen.height_resolution
            reached[f"t_resolution{suffix}"] = seen.t_resolution
    return reached


def _widen_places(dataset: xr.Dataset) -> None:
    """The examples say where among the points evaluated the maximum is, refinement how near to them."""
    for suffix in ("", "_error"):
        name, resolution = f"t_max{suffix}", dataset.attrs.get(f"t_resolution{suffix}", math.nan)
        if name in dataset and math.isfinite(resolution):
            place = float(dataset[name])
            dataset[f"{name}_low"] = np.minimum(dataset[f"{name}_low"], max(place - resolution, 0.0))
            dataset[f"{name}_high"] = np.maximum(dataset[f"{name}_high"], min(place + resolution, 1.0))
