"""Loss surfaces: an objective on a region, in full or to a stated accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from lossatlas.errors import InputError
from lossatlas.geometry.blocks import at_rest, normalisation
from lossatlas.geometry.directions import cosine
from lossatlas.geometry.region import Region
from lossatlas.model.filters import Filters, described
from lossatlas.objective import Objective
from lossatlas.results.making import result
from lossatlas.surfaces.adaptive import AdaptiveSurface, adaptive_surface
from lossatlas.surfaces.assembly import evidence, grid, joined, quadratic
from lossatlas.surfaces.cells import LOSS, Cells
from lossatlas.surfaces.options import SurfaceOptions
from lossatlas.surfaces.sweep import OpenSweep, opened, prepared


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
    random pixels which are no nodes of the interpolation are within ``tol`` (``adaptive_surface``); a surface that
    cannot be interpolated is evaluated in full. Errors are relative to the loss, or to its largest value where it is
    not positive. ``tol=None`` evaluates every pixel.

    Parameters
    ----------
    region : a line, plane, volume or polar region; or several of one shape, whose mean and spread are added.
    tol : relative error of the loss, between 0 and 1, or None for the exact grid.
    coverage, confidence : the share of the pixels that must be within ``tol``, and how sure that must be.
    seed : draws the held-out pixels and the subset; ``attrs["held_out_seed"]``. ``attrs["seed"]`` is the directions'.
    also : further objectives of the same model, such as ``{"test": objective_test}``, measured in the same sweep:
        ``test_loss``, ``test_accuracy`` and their standard errors. The tolerance is the first one's alone.
    subset : evaluate on about so many examples, drawn class by class; ``loss_subset_stderr`` is what that costs.
    by_class : add ``class_loss`` over ``("class",)``, the mean loss of each class.
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
    points with their exact values (``evaluation_*``). ``attrs``: what the objective and the region say of themselves
    (network, data, directions with their seed, the trajectory of a principal plane), how the directions are scaled
    (measured, not asserted; ``filters`` lists the axes of filters, ``at_rest`` the filters that do not vary), what was
    asked and what was shown, how many evaluations it took, by which plan (``evaluation``), and why by the plain loop
    where a faster one was asked for (``evaluation_fallback``). A cell whose loss is not finite holds that NaN or
    infinity, and ``n_nonfinite`` counts them.

    Raises
    ------
    NonFiniteLoss : the loss is not finite at the model's own point.
    DirectionError : a region of another model.
    InputError : an impossible option, ``by_class`` or ``subset`` without classes, ``reuse`` of another surface.
    OutputError : a store of another surface, in use, damaged, or that cannot be written.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 3 (the grids); Rippa 1999 (the
    leave-one-out errors of the interpolation).

    Examples
    --------
    >>> import lossatlas as la
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> objective = la.Objective(model, torch.nn.functional.mse_loss, (torch.ones(4, 1), torch.zeros(4, 1)))
    >>> line = la.line(torch.tensor([1.0]), torch.tensor([1.0]), span=1.0, steps=3)
    >>> surface(objective, line, progress=False)["loss"].values.tolist()
    [0.0, 1.0, 4.0]
    """
    options = SurfaceOptions(
        tol=tol,
        coverage=coverage,
        confidence=confidence,
        seed=seed,
        also=also or {},
        subset=subset,
        by_class=by_class,
        reuse=reuse,
        fast=fast,
        progress=progress,
    )
    if isinstance(region, Region):
        return _surface(objective, region, store, options)
    if len(region) < 2:
        raise InputError(f"{len(region)} regions: give one, or a list of at least two of the same axes.")
    folders = [None if store is None else Path(store) / f"plane_{i}" for i in range(len(region))]
    several = [_surface(objective, one, folder, options) for one, folder in zip(region, folders, strict=True)]
    return result("surface", joined(several))


def refine(earlier: xr.Dataset, objective: Objective, region: Region, **options: Any) -> xr.Dataset:
    """L on ``region``, a zoom of the earlier surface's (``Region.zoom``); points that it has are not evaluated again.

    The same as ``surface(objective, region, reuse=earlier, **options)``, with a Dataset of the same form over the new
    region's dims.

    Raises
    ------
    InputError : center, directions, model or data are others, or the earlier surface lacks a metric.

    Source: the points of a zoom that coincide with the earlier grid's are recognised bit for bit (``Region.zoom``).

    Examples
    --------
    >>> import lossatlas as la
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> objective = la.Objective(model, torch.nn.functional.mse_loss, (torch.ones(4, 1), torch.zeros(4, 1)))
    >>> line = la.line(torch.tensor([1.0]), torch.tensor([1.0]), span=1.0, steps=5)
    >>> whole = la.surface(objective, line, progress=False)
    >>> near = refine(whole, objective, line.zoom(0.5), progress=False)
    >>> near["loss"].values.tolist(), near.attrs["n_evaluations"]
    ([0.25, 0.5625, 1.0, 1.5625, 2.25], 2)
    """
    return surface(objective, region, reuse=earlier, **options)


def _surface(objective: Objective, region: Region, folder: str | Path | None, options: SurfaceOptions) -> xr.Dataset:
    """The surface on one region."""
    started = time.perf_counter()
    sweep = prepared(objective, region, options)
    with opened(sweep, folder) as ready:
        preparation = time.perf_counter() - started
        found = _searched(ready.cells, options)
    dataset = grid(ready.cells, found)
    dataset.attrs = _geometry(objective, region) | _evaluation(ready, objective)
    if found is not None and options.tol is not None:
        dataset.attrs |= evidence(found, options, options.tol, dataset) | {"held_out_seed": options.seed}
    if region.curvatures is not None:
        dataset["quadratic"] = dataset["loss"].copy(data=quadratic(region, sweep.loss))
    dataset.attrs["n_nonfinite"] = int((~np.isfinite(dataset["loss"])).sum())
    seconds = {"preparation_seconds": preparation, "seconds": time.perf_counter() - started}
    return result("surface", dataset, region.provenance(), sweep.objective.provenance(), seconds)


def _searched(cells: Cells, options: SurfaceOptions) -> AdaptiveSurface | None:
    """Evaluate every pixel, or those that the search for an adaptive surface asks for."""
    pixels = math.prod(cells.region.shape)
    total = pixels if options.tol is None else None
    with tqdm(total=total, desc="surface", unit="point", disable=not options.progress, leave=False) as bar:
        if options.tol is None:
            cells(np.arange(pixels), bar.update)
            return None
        return _adaptive(cells, options, options.tol, bar)


def _adaptive(cells: Cells, options: SurfaceOptions, tol: float, bar: Any) -> AdaptiveSurface:
    search = adaptive_surface(
        cells.region.shape, tol=tol, coverage=options.coverage, confidence=options.confidence, seed=options.seed
    )
    block = next(search)
    while True:
        try:
            block = search.send(cells(block, bar.update)[:, LOSS])
        except StopIteration as stop:
            found: AdaptiveSurface = stop.value
            return found


def _evaluation(ready: OpenSweep, objective: Objective) -> dict[str, object]:
    """What was evaluated, how often and how, for ``attrs``."""
    sweep, evaluator = ready.sweep, ready.evaluator
    found: dict[str, object] = {
        "stderr_over": sweep.center["loss"].over,
        "center_loss": sweep.loss,
        "n_evaluations": ready.cells.evaluations,
        "evaluation": evaluator.plan.to_json(),
    }
    if evaluator.findings.fallback:
        found["evaluation_fallback"] = evaluator.findings.fallback
    if sweep.strata is not None:
        found |= {"subset": len(sweep.strata.indices), "n_examples_all": objective.n_examples}
    return found


def _geometry(objective: Objective, region: Region) -> dict[str, object]:
    """What is measured of the directions, for ``attrs``."""
    center, point = region.center.to(objective.point), objective.function.point
    norms = torch.linalg.vector_norm(region.directions, dim=1, dtype=torch.float64)
    length = torch.linalg.vector_norm(center, dtype=torch.float64)
    filters = region.filters or objective.filters()
    scaling, one_d = _normalisation(objective, region, filters)
    found: dict[str, object] = {
        "normalisation": scaling,
        "one_d": one_d,
        "direction_norms": norms.tolist(),
        "relative_norms": (norms / length.to(norms)).tolist(),
        "center_is_model": int(torch.equal(center, point)),
    }
    found |= described(filters) if scaling == "filter" else {}
    if still := at_rest(objective.space, region.directions, filters):
        found["at_rest"] = still
    return found | ({"cosine": cosine(*region.directions)} if len(norms) == 2 else {})


def _normalisation(objective: Objective, region: Region, filters: Mapping[str, Filters]) -> tuple[str, str]:
    """How the directions are scaled against the center, where all of them are scaled alike."""
    center, space = region.center.to(objective.function.point), objective.space
    measured = {normalisation(space, center, direction.to(center), filters) for direction in region.directions}
    return measured.pop() if len(measured) == 1 else ("none", "scaled")
