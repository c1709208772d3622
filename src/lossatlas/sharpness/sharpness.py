"""How sharp the loss is at a point, by every measure that is asked for."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from lossatlas.errors import ConvergenceWarning, InputError, LossAtlasError
from lossatlas.objective import Objective
from lossatlas.results.making import result
from lossatlas.results.mistakes import suggestion
from lossatlas.sharpness.measure import REPARAMETRISATIONS, Estimate, Measure
from lossatlas.sharpness.measures import MEASURES
from lossatlas.sharpness.problem import Cost, Problem

Sizes = float | Mapping[str, float] | None


def sharpness(
    objective: Objective,
    measures: str | Sequence[str] | None = None,
    *,
    rho: Sizes = None,
    tol: float = 0.01,
    batch_size: int = 64,
    previous: Tensor | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """S(L, w): how sharp the loss is at w, by several definitions, each with its error, its cost and its invariances.

    Parameters
    ----------
    measures : names; by default those that take fewer than 100 gradient passes over the data, on any network: a search
        or an ascent that has not converged by then has a wider interval, or says so in ``note``. ``"all"`` are all.
    rho : the size of perturbations, for every measure that has one, or name -> size; each one's own by default.
    tol : the relative error that is enough for what is solved or drawn. Noise is drawn until its error is below that,
        or below half of the data's own.
    batch_size : of the measures that are means over batches.
    previous : ``(n,)``, the parameters before the last update, for the measure along it.

    Returns
    -------
    Dataset over ``("measure",)``. ``value`` with ``stderr`` and the 95 % interval ``low`` to ``high``; ``errors`` names
    what these are made of (``solver``, ``draws``, ``data``). ``bound`` is ``lower`` where the value is a lower bound of
    what is defined. ``rho``, the size that was used; ``sharper``, whether a larger or a smaller value is sharper;
    ``note``, what one must know besides, or why a value is NaN. ``products`` with a curvature matrix, ``passes``, all
    passes in gradient passes over the data (forward 1/3, product 2), and ``seconds``, each as if it had been asked for
    alone; in ``attrs``, of all together, what is shared counted once. ``title``, ``formula`` (TeX) and ``source``.
    ``invariant`` over ``("measure", "reparametrisation")``: whether theory says that it stays as it is.

    Raises
    ------
    InputError : a measure that does not exist, a size, tolerance or batch size that is not positive, or no measure that
        can be computed, with the reasons.
    NonFiniteLoss : the loss is NaN or infinite at w.

    Source: Andriushchenko et al. 2023, "A Modern Look at the Relationship between Sharpness and Generalization"; Jiang
    et al. 2020, "Fantastic Generalization Measures and Where to Find Them"; ``source`` names that of each measure.

    Examples
    --------
    >>> import torch
    >>> model, data = torch.nn.Linear(1, 1, bias=False), (torch.ones(4, 1), torch.zeros(4, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data).at(torch.tensor([1.0]))  # L(w) = w^2
    >>> found = sharpness(objective, ["sam", "lambda_max"], rho=0.1, progress=False)
    >>> found["value"].values.round(4).tolist()  # 1.1^2 - 1, and the second derivative
    [0.21, 2.0]
    """
    chosen = selected(measures, of_update=previous is not None)
    sizes = sizes_of(chosen, rho)
    check(tol, batch_size)
    objective.require_finite()
    problem = Problem(objective, tol=tol, batch_size=batch_size, previous=previous, seed=seed)
    started = time.perf_counter()
    found = [
        measured(problem, measure, sizes.get(measure.name))
        for measure in tqdm(chosen, desc="sharpness", disable=not progress, leave=False)
    ]
    tell_missing(found, named=measures is not None)
    whole = problem.total
    return result(
        "sharpness",
        dataset_of(found),
        objective.provenance(),
        products=round(whole.products, 3),
        passes=round(whole.passes, 3),
        tol=tol,
        batch_size=batch_size,
        seed=seed,
        loss=problem.clean["loss"].mean,
        loss_stderr=problem.clean["loss"].stderr,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class Measured:
    """A measure, its size if it has one, what was found, and what that cost."""

    measure: Measure
    rho: float | None
    estimate: Estimate
    cost: Cost


def selected(measures: str | Sequence[str] | None, of_update: bool = False) -> list[Measure]:
    """The measures with these names, each once; all for ``"all"``; for None the cheap ones, with those of the last
    update if there is one.
    """
    if measures is None:
        there = ("", "update") if of_update else ("",)
        return [each for each in MEASURES.values() if each.cheap and each.needs in there]
    names = [measures] if isinstance(measures, str) else list(measures)
    names = list(MEASURES) if names == ["all"] else names
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names:
        given = f"There is no measure {unknown[0]!r}{suggestion(unknown[0], MEASURES)}" if unknown else "No measures"
        raise InputError(f"{given}: choose from {', '.join(MEASURES)}.")
    return [MEASURES[name] for name in dict.fromkeys(names)]


def sizes_of(chosen: Sequence[Measure], rho: Sizes) -> dict[str, float]:
    """Name -> rho, of those that have one."""
    own = {measure.name: measure.rho for measure in chosen if measure.rho is not None}
    if rho is not None and not own:
        raise InputError(f"rho={rho} is given, but none of the measures asked for has a size: leave it out.")
    given = dict(rho) if isinstance(rho, Mapping) else {} if rho is None else dict.fromkeys(own, rho)
    if without := [name for name in given if name not in own]:
        close = suggestion(without[0], own)
        raise InputError(f"rho is given for {without[0]!r}{close}, but those with one are {', '.join(own)}.")
    sizes = own | given
    for name, size in sizes.items():
        if not (size > 0 and math.isfinite(size)):
            raise InputError(f"rho={size} for {name!r}: give a positive number, such as {own[name]:g}.")
    return sizes


def check(tol: float, batch_size: int) -> None:
    """``InputError`` for a tolerance or a batch size that is none."""
    if not (tol > 0 and math.isfinite(tol)):
        raise InputError(f"tol={tol}: give a positive relative error, such as 0.01.")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: give at least one example a batch.")


def measured(problem: Problem, measure: Measure, rho: float | None) -> Measured:
    """Its estimate; NaN with the reason where it cannot be computed, so that the others are not lost."""
    with problem.metered() as meter:
        try:
            estimate = measure.of(problem) if rho is None else measure.of(problem, rho)
        except LossAtlasError as error:
            estimate = Estimate.missing(str(error))
    return Measured(measure, rho, estimate, problem.alone(meter))


def tell_missing(found: Sequence[Measured], named: bool) -> None:
    """Raises where there is nothing at all, and warns of what was asked for by name."""
    missing = [each for each in found if math.isnan(each.estimate.value)]
    reasons = "; ".join(f"{each.measure.name}: {each.estimate.note}" for each in missing)
    if len(missing) == len(found):
        raise InputError(f"None of the measures can be computed here. {reasons}")
    if missing and named:
        warnings.warn(f"Not measured: {reasons}", ConvergenceWarning, stacklevel=3)


def dataset_of(found: Sequence[Measured]) -> xr.Dataset:
    """The Dataset of ``sharpness``."""
    estimates, measures = [each.estimate for each in found], [each.measure for each in found]
    columns: dict[str, list[object]] = {
        **{name: [getattr(each, name) for each in estimates] for name in ("value", "stderr", "low", "high")},
        "errors": [", ".join(each.errors) for each in estimates],
        **{name: [getattr(each, name) for each in estimates] for name in ("bound", "note")},
        **{name: [getattr(each.cost, name) for each in found] for name in ("products", "passes", "seconds")},
        **{name: [getattr(each, name) for each in measures] for name in ("title", "formula", "source", "sharper")},
        "rho": [math.nan if each.rho is None else each.rho for each in found],
    }
    invariant = [[name in measure.invariant for name in REPARAMETRISATIONS] for measure in measures]
    dims = ("measure", "reparametrisation")
    return xr.Dataset(
        {name: ("measure", np.array(values)) for name, values in columns.items()} | {"invariant": (dims, invariant)},
        coords={"measure": [measure.name for measure in measures], "reparametrisation": list(REPARAMETRISATIONS)},
    )
