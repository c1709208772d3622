"""How early in training the minimum is decided: runs from a shared prefix, and the barriers between their ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm.auto import tqdm

from lossatlas.connectivity.barrier import barrier, check, with_statistics_on_paths
from lossatlas.connectivity.refinement import first_places
from lossatlas.errors import InputError
from lossatlas.geometry.curves import Segment
from lossatlas.objective import Objective, Source
from lossatlas.results.making import result

_LOSS = ("barrier", "barrier_low", "barrier_high")
_ERROR = ("barrier_error", "barrier_error_low", "barrier_error_high")


def instability(
    objective: Objective,
    spawn: Callable[[int, int], Source],
    ks: Sequence[int],
    *,
    pairs: int = 1,
    steps: int = 25,
    draws: int = 1000,
    seed: int = 0,
    total_steps: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """sup_t E(theta_t) - (E_1 + E_2) / 2 between two runs that share their first k steps, for each k.

    Runs whose barrier of the error is below 2 % are *stable to SGD noise from step k on*: their ends are linearly
    connected. E is the error 1 - accuracy; the barrier of the loss is measured too. Whether runs are stable is a claim
    on the intervals, not part of the result.

    Parameters
    ----------
    objective : where the barriers are measured; its model is of the runs' architecture.
    spawn : ``spawn(k, order)`` trains from the prefix that all runs share up to step k, with the data in the order
        that the number ``order`` stands for from there on, and returns the network: a module, a state dict, a file of
        weights, or a point. ``zoo.fit(..., fork=(k, order))`` is such a training.
    ks : numbers of shared steps, in any order, none twice.
    pairs : independent pairs of runs for each k; pair p are the orders 2 p and 2 p + 1.
    steps, draws, seed : of each ``barrier``: its first grid over t, the bootstrap draws of its intervals.
    total_steps : how long a whole run is, if it is to be noted; by default ``spawn.total_steps``, where it has that.

    Returns
    -------
    Dataset over ``("k", "pair")``, k increasing: ``barrier``, of the loss, with its interval ``barrier_low``,
    ``barrier_high``; where the objective has an accuracy ``barrier_error`` likewise, and ``end_error``, the mean error
    of the two ends; ``barrier_error`` is NaN where the error is the same in all runs and on all paths, which tells
    nothing. Runs that end in the same point (k = ``total_steps``) have barriers of exactly 0.

    Raises
    ------
    InputError : k or pairs that cannot be; ``spawn`` returns no network.
    DirectionError, CheckpointError : it returns one of another architecture, or with weights that are not finite.
    NonFiniteLoss : the loss of a run's end is not finite.

    Source: Frankle et al. (2020), "Linear mode connectivity and the lottery ticket hypothesis", sections 2 and 3.

    Examples
    --------
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> loss = lambda outputs, _: (outputs[:, 0] ** 2 - 1) ** 2   # for x = 1: minima at w = -1 and w = 1
    >>> objective = Objective(model, loss, (torch.ones(8, 1), torch.zeros(8)), metrics=None)
    >>> def spawn(k, order):   # before step 10 the order of the data decides between the two minima
    ...     return torch.tensor([-1.0 if k < 10 and order % 2 else 1.0])
    >>> instability(objective, spawn, [0, 10], progress=False)["barrier"].values.tolist()
    [[1.0], [0.0]]
    """
    total_steps = getattr(spawn, "total_steps", None) if total_steps is None else total_steps
    shared = _checked(ks, pairs, total_steps)
    first_places(steps)  # found out now, not after the training
    check("frankle", None, 1.0, draws, seed)
    started = time.perf_counter()
    objective = with_statistics_on_paths(objective)  # the objective's own statistics belong to no run
    found: dict[tuple[int, int], dict[str, float]] = {}
    with tqdm(total=len(shared) * pairs, desc="instability", unit="pair", disable=not progress, leave=False) as bar:
        for k, pair in np.ndindex(len(shared), pairs):
            ends = [_point(objective, spawn, shared[k], order) for order in (2 * pair, 2 * pair + 1)]
            found[k, pair] = _between(objective, *ends, steps=steps, draws=draws, seed=seed)
            bar.update()
    _without_still_errors(found)
    dataset = xr.Dataset(
        {
            name: (("k", "pair"), [[found[k, pair][name] for pair in range(pairs)] for k in range(len(shared))])
            for name in found[0, 0]
        },
        coords={"k": shared, "pair": np.arange(pairs)},
    )
    options = {"definition": "frankle", "draws": draws, "seed": seed, "total_steps": total_steps}
    seconds = time.perf_counter() - started
    return result("instability", dataset, objective.provenance(), options, seconds=seconds)


def _checked(ks: Sequence[int], pairs: int, total_steps: int | None) -> list[int]:
    whole = all(isinstance(k, int | np.integer) and k >= 0 for k in ks)
    if not len(ks) or not whole or len(set(ks)) < len(ks):
        raise InputError(f"ks={ks}: give numbers of shared steps, whole, from 0 up, none twice.")
    if total_steps is not None and max(ks) > total_steps:
        raise InputError(f"ks={ks}, but a run has {total_steps:,} steps: give numbers up to that.")
    if pairs < 1:
        raise InputError(f"pairs={pairs}: give at least 1.")
    return sorted(int(k) for k in ks)


def _point(objective: Objective, spawn: Callable[[int, int], Source], k: int, order: int) -> Tensor:
    network = spawn(k, order)
    if not isinstance(network, Tensor | nn.Module | Mapping | str | Path):  # the members of Source
        raise InputError(
            f"spawn({k}, {order}) returned a {type(network).__name__}: return the trained network, as a module, a "
            "state dict, a file of weights or a point."
        )
    if not isinstance(network, Tensor):
        return objective.end_of(network)
    # A copy: spawn may train on in the same memory.
    return objective.space.check(network, f"point of spawn({k}, {order})").detach().to(objective.point, copy=True)


def _between(objective: Objective, a: Tensor, b: Tensor, *, steps: int, draws: int, seed: int) -> dict[str, float]:
    if torch.equal(a, b):
        samples = objective.samples(a)
        if "accuracy" not in samples:
            return dict.fromkeys(_LOSS, 0.0)
        return dict.fromkeys(_LOSS + _ERROR, 0.0) | {"end_error": 1 - samples["accuracy"].mean}
    profile = barrier(
        objective, Segment(a, b), definition="frankle", steps=steps, draws=draws, seed=seed, progress=False
    )
    if "error" not in profile:
        return {name: float(profile[name]) for name in _LOSS}
    ends = float(profile["error"][[0, -1]].mean())
    return {name: float(profile[name]) for name in _LOSS + _ERROR} | {"end_error": ends}


def _without_still_errors(found: dict[Any, dict[str, float]]) -> None:
    """NaN for the barriers of an error that is the same in all runs and on all paths: it tells nothing of any."""
    errors = {one.get("end_error", math.nan) for one in found.values()}
    moves = len(errors) > 1 or any(one.get("barrier_error", 0.0) != 0 for one in found.values())
    for one in found.values():
        if not moves and "barrier_error" in one and one["barrier"] != 0:
            one.update(dict.fromkeys(_ERROR, math.nan))
