"""Loss surfaces: an objective on a region, in full or to a stated accuracy."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from lossatlas.errors import InputError
from lossatlas.evaluation.points.tuning import Evaluator, Plan
from lossatlas.geometry.directions import cosine, normalisation
from lossatlas.geometry.regions import Region
from lossatlas.objective import Objective
from lossatlas.surfaces.adaptive import Picture, picture
from lossatlas.surfaces.cells import CLASS_LOSS, Cells, Row
from lossatlas.surfaces.interpolation import Floats
from lossatlas.surfaces.pictures import drawn, evidence, quadratic, together
from lossatlas.surfaces.store import Store

_SAME = 1e-5  # relative: what rounding may do to a loss between two machines
_RESOLUTION = 100  # units in the last place: a relative tolerance below so many is rounding
_EXPECTED = 0.1  # of the pixels: how many evaluations a tolerance is expected to take, for what tuning may cost


def surface(
    objective: Objective,
    region: Region | Sequence[Region],
    *,
    tol: float | None = None,
    coverage: float = 0.95,
    confidence: float = 0.95,
    seed: int = 0,
    also: Mapping[str, Objective] | None = None,
    subset: int | None = None,
    by_class: bool = False,
    store: str | Path | None = None,
    reuse: xr.Dataset | None = None,
    fast: bool | str = True,
    progress: bool = True,
) -> xr.Dataset:
    """L(center + alpha d_1 + beta d_2 + ..) at every point of the region's grid, with the metrics.

    With ``tol`` the model is evaluated at as few pixels as it takes for a share ``coverage`` of all of them to be
    within the relative error ``tol``, at the stated ``confidence``; the others are interpolated. The evidence is that
    random pixels which the interpolation has not seen are within ``tol`` (``picture``); a picture that does not
    interpolate is evaluated in full. Errors are relative to the loss, or to its largest value where it is not
    positive. ``seed`` draws those pixels. ``tol=None`` evaluates every pixel.

    Parameters
    ----------
    region : a line, plane, volume or polar region; or several of one shape, whose mean and spread are added.
    also : further objectives of the same model, such as ``{"test": objective_test}``, measured in the same sweep:
        ``test_loss``, ``test_accuracy`` and their standard errors. The tolerance is the first one's alone.
    subset : evaluate on about so many examples, drawn class by class; ``loss_subset_stderr`` is what that costs.
    by_class : add ``class_loss``, the mean loss of each class.
    store : a folder in which evaluated points are kept, block by block. The same call goes on where it was interrupted
        and ends bit for bit as if it had not been.
    reuse : an earlier surface of the same objective, center and directions: its evaluated points are taken over.
    fast : prepare the evaluation (``objective.explain()`` says how, by what measurements). Means agree with the plain
        loop's to 1e-6 in float32 and 1e-12 in float64. ``False`` runs the plain loop. Since trials depend on the
        clock, two runs may differ in the last digits: an earlier surface's ``attrs["evaluation"]`` given here repeats
        it bit for bit.

    Returns
    -------
    Dataset over the region's dims: ``loss`` and each metric with their standard errors over the data's examples, and
    ``loss_rise_stderr``, the standard error of the loss's *difference* from the region's center: every point sees the
    same examples, so differences are surer than the two errors together suggest. With ``tol``: ``loss_error``, below
    which the relative interpolation error of 95 % of the pixels is expected (0 where evaluated), and the evaluated
    points with their exact values (``evaluation_*``). ``attrs``: how the directions are scaled (measured, not
    asserted), what was asked and what was shown, how many evaluations it took. A cell whose loss is not finite holds
    that NaN or infinity, and ``n_nonfinite`` counts them.

    Raises ``NonFiniteLoss`` when the loss is not finite at the model's own point, ``DirectionError`` for a region of
    another model, ``InputError`` for an impossible ``tol``, ``OutputError`` for a store of another surface.
    """
    options: dict[str, Any] = dict(tol=tol, coverage=coverage, confidence=confidence, seed=seed, subset=subset)
    options |= dict(also=also or {}, by_class=by_class, reuse=reuse, fast=fast, progress=progress)
    if isinstance(region, Region):
        return _one(objective, region, store, **options)
    if len(region) < 2:
        raise InputError(f"{len(region)} regions: give one, or a list of at least two of the same axes.")
    folders = [None if store is None else Path(store) / f"plane_{i}" for i in range(len(region))]
    return together([_one(objective, one, folder, **options) for one, folder in zip(region, folders, strict=True)])


def refine(earlier: xr.Dataset, objective: Objective, region: Region, **options: Any) -> xr.Dataset:
    """The surface on ``region``, a zoom of the earlier one's (``Region.zoom``), with the points that it has already.

    ``options`` as in ``surface``. Raises ``InputError`` where center, directions, model or data are others.
    """
    return surface(objective, region, reuse=earlier, **options)


def _one(
    objective: Objective,
    region: Region,
    store: str | Path | None,
    *,
    tol: float | None,
    coverage: float,
    confidence: float,
    seed: int,
    also: Mapping[str, Objective],
    subset: int | None,
    by_class: bool,
    reuse: xr.Dataset | None,
    fast: bool | str,
    progress: bool,
) -> xr.Dataset:
    _check(objective, region, tol, coverage, confidence, seed)
    started = time.perf_counter()
    used, strata = (objective, None) if subset is None else objective.subset(subset, seed=seed)
    center = _center(used, region)
    row = Row(center["loss"], strata, _labels(used) if by_class else None)
    others = {name: _center(other, region) for name, other in also.items()}
    columns = list(row(center, others))
    asked = {"tol": tol, "coverage": coverage, "confidence": confidence, "seed": seed, "subset": subset, "fast": fast}
    # Last, so that what differs first is named first: another loss or metric shows in nothing but its value.
    identity = _identity(used, region) | asked
    identity |= {name: repr(sample.mean) for name, sample in center.items()}
    identity |= {f"also {name}": _identity(other, region) for name, other in also.items()}
    with nullcontext() if store is None else Store(store, identity, columns) as kept:
        evaluate = _evaluator(used, region, tol, fast, kept, "plan")
        further = {name: _evaluator(o, region, tol, fast, kept, f"plan of {name}") for name, o in also.items()}
        prepared = time.perf_counter() - started
        cells = Cells(evaluate, further, region, row, columns, kept)
        if reuse is not None:
            cells.know(_known(reuse, used, region, columns, center["loss"].mean))
        found = _searched(cells, tol, coverage, confidence, seed, progress)
    dataset = drawn(cells, found)
    dataset.attrs = {"kind": "surface"} | used.provenance() | _geometry(objective, region) | dataset.attrs
    dataset.attrs |= {"stderr_over": center["loss"].over, "center_loss": center["loss"].mean}
    dataset.attrs |= {"n_evaluations": cells.evaluations}
    dataset.attrs |= {"evaluation": str(evaluate.plan), "preparation_seconds": prepared}
    if strata is not None:
        dataset.attrs |= {"subset": len(strata.indices), "n_examples_all": objective.n_examples}
    if found is not None and tol is not None:
        dataset.attrs |= evidence(found, tol, coverage, confidence, dataset) | {"held_out_seed": seed}
    if region.curvatures is not None:
        dataset["quadratic"] = dataset["loss"].copy(data=quadratic(region, center["loss"].mean))
    dataset.attrs["n_nonfinite"] = int((~np.isfinite(dataset["loss"])).sum())
    dataset.attrs["seconds"] = time.perf_counter() - started
    return dataset


def _check(
    objective: Objective, region: Region, tol: float | None, coverage: float, confidence: float, seed: int
) -> None:
    objective.space.check(region.center, "region's center")
    for name, share in (("coverage", coverage), ("confidence", confidence)):
        if not 0 < share < 1:
            raise InputError(f"{name}={share}: give a number between 0 and 1, such as 0.95.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed={seed!r}: give a whole number that is not negative.")
    if tol is None:
        return
    if not isinstance(tol, int | float) or not 0 < tol < 1:
        raise InputError(
            f"tol={tol!r}: give a relative error between 0 and 1, such as 0.01, or None for the exact grid."
        )
    least = _RESOLUTION * torch.finfo(objective.dtype).eps
    if tol < least:
        raise InputError(
            f"tol={tol:g} is below what {str(objective.dtype).removeprefix('torch.')} resolves: give at least "
            f"{least:.1g}, an objective with dtype=torch.float64, or tol=None for the exact grid."
        )


def _center(objective: Objective, region: Region) -> dict[str, Any]:
    objective.space.check(region.center, "region's center")
    center = objective.samples(region.center)
    own = torch.equal(region.center.to(objective.point), objective.point)
    if not own or not np.isfinite(center["loss"].mean):
        objective.require_finite()
    return center


def _labels(objective: Objective) -> Tensor:
    labels = objective.labels()
    if labels is None:
        raise InputError("by_class needs the class of each example: give data as (inputs, class indices) in memory.")
    return labels


def _identity(objective: Objective, region: Region) -> dict[str, Any]:
    axes = hashlib.sha256(b"".join(axis.tobytes() for axis in region.coordinates)).hexdigest()[:16]
    return objective.provenance() | {"region": region.fingerprint(), "axes": axes}


def _evaluator(
    objective: Objective, region: Region, tol: float | None, fast: bool | str, store: Store | None, name: str
) -> Evaluator:
    """The plan that the store was begun with, or a new one."""
    corner = region.weights(*(float(axis[0]) for axis in region.coordinates))
    probes = [tuple(w / 3 for w in corner), corner]
    noted = store.notes.get(name) if store else None
    wanted = noted or fast
    plan = Plan.parse(wanted) if isinstance(wanted, str) else (None if wanted else Plan())
    pixels = math.prod(region.shape)
    count = pixels if tol is None else math.ceil(_EXPECTED * pixels)
    evaluator = objective.evaluator(region.center, region.directions, probes, count, plan)
    if store and not noted:
        store.note(**{name: str(evaluator.plan)})
    return evaluator


def _searched(
    cells: Cells, tol: float | None, coverage: float, confidence: float, seed: int, progress: bool
) -> Picture | None:
    """Evaluate every pixel, or those that the search for a picture asks for."""
    pixels = math.prod(cells.region.shape)
    total = pixels if tol is None else None
    with tqdm(total=total, desc="surface", unit="point", disable=not progress, leave=False) as bar:
        if tol is None:
            cells(np.arange(pixels), bar.update)
            return None
        search = picture(cells.region.shape, tol=tol, coverage=coverage, confidence=confidence, seed=seed)
        block = next(search)
        while True:
            try:
                block = search.send(cells(block, bar.update)[:, 0])
            except StopIteration as stop:
                found: Picture = stop.value
                return found


def _known(
    earlier: xr.Dataset, objective: Objective, region: Region, columns: list[str], center: float
) -> dict[Any, Floats]:
    """The rows of an earlier surface's evaluated pixels, by their weights."""
    mine = _identity(objective, region)
    if missing := {"batch_norm", "center_loss", "region_fingerprint"} - earlier.attrs.keys():
        raise InputError(f"The earlier surface does not say its {min(missing)}: give one that surface() made.")
    same = {"region": "center and directions", "model_fingerprint": "model", "data_fingerprint": "data"}
    for name, what in same.items():
        if earlier.attrs.get("region_fingerprint" if name == "region" else name) != mine[name]:
            raise InputError(f"The earlier surface has another {what}: give one of this model, data and region.zoom().")
    if "plane" in earlier.dims:
        raise InputError("Several planes at once cannot be re-used: give a surface of one region.")
    if earlier.attrs["batch_norm"] != mine["batch_norm"]:
        raise InputError("The earlier surface has another batch_norm policy: give one of this objective.")
    if not math.isclose(earlier.attrs["center_loss"], center, rel_tol=_SAME):
        raise InputError("The earlier surface has another loss: its value at the center is not this objective's.")
    values = []
    for name in columns:
        grid = earlier.get("class_loss") if name.startswith(CLASS_LOSS) else earlier.get(name)
        if grid is None:
            raise InputError(f"The earlier surface has no {name}: make it with the same metrics, subset and by_class.")
        values.append(grid.sel({"class": int(name.removeprefix(CLASS_LOSS))}) if "class" in grid.dims else grid)
    rows = np.stack([np.asarray(v).ravel() for v in values], axis=1)
    axes = [np.asarray(earlier[dim]) for dim in region.dims]
    pixels = np.flatnonzero(np.asarray(earlier["evaluated"]).ravel())
    places = np.stack(np.unravel_index(pixels, tuple(map(len, axes))), axis=1)
    weights = [region.weights(*(float(a[i]) for a, i in zip(axes, place, strict=True))) for place in places]
    return dict(zip(weights, rows[pixels], strict=True))


def _geometry(objective: Objective, region: Region) -> dict[str, object]:
    center, point = region.center.to(objective.point), objective.point
    norms = torch.linalg.vector_norm(region.directions.double(), dim=1)
    length = torch.linalg.vector_norm(center.double())
    measured = {normalisation(objective.space, center, direction.to(point)) for direction in region.directions}
    scaling, one_d = measured.pop() if len(measured) == 1 else ("none", "scaled")
    found: dict[str, object] = {
        "region": region.name,
        "region_fingerprint": region.fingerprint(),
        "normalisation": scaling,
        "one_d": one_d,
        "direction_norms": norms.tolist(),
        "relative_norms": (norms / length.to(norms)).tolist(),
        "center_is_model": int(torch.equal(center, point)),
    }
    if len(norms) == 2:
        found["cosine"] = cosine(*region.directions)
    return found
