"""One network with its hidden units permuted so that it is as near to another as its symmetries allow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lossatlas.connectivity.activations import match_activations
from lossatlas.connectivity.matching import Match, WeightMatching, units_of
from lossatlas.connectivity.symmetry.discovery import Discovered, discover
from lossatlas.connectivity.symmetry.notation import names_in
from lossatlas.connectivity.symmetry.states import movable_tensors, network_state
from lossatlas.connectivity.symmetry.symmetries import Permutations, Symmetries, segments
from lossatlas.connectivity.symmetry.verification import deviation, failing_groups
from lossatlas.errors import InputError, LossAtlasError, NumericalError
from lossatlas.model.parameters import real
from lossatlas.objective import Objective, Source
from lossatlas.results.making import result

Method = Literal["weights", "activations"]
Given = Symmetries | Mapping[str, Sequence[str | None]]
State = Mapping[str, Tensor]
NEAR = 0.01  # of the agreement: optima from other starts differ by less, and their barriers by a factor of two


@dataclass(frozen=True)
class Aligned:
    """b with its hidden units in a's order: the same function, at another point.

    ``point`` ``(n,)``; ``state_dict``, in which BatchNorm statistics moved with their units; ``permutations``, group ->
    which unit of b is in each place (a row for each unit of the outer group where one lies within another);
    ``symmetries``, the groups; ``summary``, a Dataset of kind "alignment".
    """

    point: Tensor
    state_dict: dict[str, Tensor]
    permutations: Permutations
    symmetries: Symmetries
    summary: xr.Dataset = field(repr=False)


def align(
    objective: Objective,
    a: Source,
    b: Source,
    *,
    method: Method = "weights",
    symmetries: Given | None = None,
    restarts: int = 1,
    examples: int = 1000,
    tol: float = 1e-5,
    seed: int = 0,
) -> Aligned:
    """P(b) with P = argmax <a, P(b)> over permutations of hidden units, for which f at P(b) is f at b.

    ``method="weights"`` is weight matching: one linear assignment a group, in
    turn, until none gains. Its optima are local, so it starts from the identity, from activation matching and from
    ``restarts`` random permutations. The best is kept; of those whose <a, P(b)> is within 1 % of the best, which says
    little by itself, the one with the lowest loss half-way to a, on the objective's data. A start that reaches |a| |b|,
    which nothing exceeds, ends the search. ``"activations"`` takes the permutation under which the units' activations
    correlate best, on about ``examples`` examples; units that no function gives out (heads inside of
    nn.MultiheadAttention, all but the last layer of an nn.LSTM) are matched by weights.

    Parameters
    ----------
    a, b : points ``(n,)``, modules, state dicts or files of the objective's architecture. A point brings no BatchNorm
        statistics: they are estimated on the objective's data.
    symmetries : what may be permuted; found in the traced graph by default. For a model that cannot be traced, a
        mapping as ``Symmetries.parse`` takes it.
    tol : the largest |f_P(b) - f_b| that is accepted on about ``examples`` examples, relative to max(1, max |f_b|).

    Returns
    -------
    Aligned. Its ``summary`` holds, over ``("group",)``, ``size``, ``moved`` (share of units that change place),
    ``cosine_before`` and ``cosine_after`` (mean cosine of matched units' weights), and scalars: ``deviation``,
    ``similarity_before`` and ``_after`` (cosine of a and b over the tensors that move), ``distance_before`` and
    ``_after`` (|a - b| over theta).

    Raises
    ------
    CheckpointError, DirectionError : weights of another network, or NaN among them, by name.
    InputError : a model that cannot be traced, symmetries that do not fit it or that change its function.
    NumericalError : symmetries that were found do not hold on the data.

    Source: Ainsworth, Hayase & Srinivasa 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries", section
    3.1 (activation matching) and Algorithm 1 (weight matching).

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> data = (torch.randn(10, 2), torch.randn(10, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
    >>> order = torch.tensor([2, 0, 1])  # the same network with its hidden units in another order
    >>> b = {"0.weight": model[0].weight[order], "0.bias": model[0].bias[order], "2.weight": model[2].weight[:, order]}
    >>> found = align(objective, model, b | {"2.bias": model[2].bias})
    >>> found.permutations["layer0"], torch.equal(found.point, objective.point)
    (tensor([1, 2, 0]), True)
    """
    if method not in get_args(Method):
        raise InputError(f"method={method!r}: choose one of {', '.join(get_args(Method))}.")
    if not isinstance(restarts, int) or restarts < 0 or examples < 1 or not tol > 0:
        raise InputError(f"restarts={restarts}, examples={examples}, tol={tol}: give at least 0, at least 1, above 0.")
    started = time.perf_counter()
    ours, theirs = network_state(objective, a), network_state(objective, b)
    of, found = _symmetries(objective, symmetries, ours)
    # Weights are matched; running statistics move with their units, and their scale says nothing about these.
    matching = WeightMatching(ours, theirs, of.among({entry.name for entry in objective.space}))
    before = matching.agreement(of.identity())
    starts = _starts(objective, method, matching, found, restarts, examples, seed)
    half_way = _half_way(objective, matching, starts)
    best_start = min(half_way, key=half_way.__getitem__)
    best = starts[best_start]
    state = of.permuted(theirs, best.permutations)
    off = deviation(objective, theirs, state, examples)
    if not off <= tol:
        raise _refusal(objective, of, theirs, off, tol, examples, by_hand=symmetries is not None)
    found_how = {
        "method": method,
        "start": best_start,
        "half_way": ", ".join(f"{name}: {loss:.6g}" for name, loss in half_way.items()) if len(half_way) > 1 else "",
        "starts": ", ".join(f"{name}: {matching.similarity(match.agreement):.6f}" for name, match in starts.items()),
        "sweeps": best.sweeps,
        "assignments": matching.solver.calls,
        "seconds": time.perf_counter() - started,
        "seconds_assignment": matching.solver.seconds,
        "pinned": "; ".join(of.pinned),
        "seed": seed,
        "examples_verified": examples,
    }
    summary = _summary(objective, matching, best, ours, state, before, off)
    summary = result("alignment", summary, objective.provenance(), found_how)
    point = objective.function.point_from(state)  # paths that end in it carry its buffers
    return Aligned(point, objective.function.saved(state), best.permutations, of, summary)


def _symmetries(objective: Objective, given: Given | None, state: State) -> tuple[Symmetries, Discovered | None]:
    if given is None:
        found = discover(objective)
        return found.symmetries, found
    return _written(objective, given, state), None


def symmetries_of(objective: Objective, given: Given | None) -> Symmetries:
    """The symmetries of the objective's network: those given, read anew, or those found in its graph."""
    return _symmetries(objective, given, network_state(objective))[0]


def _written(objective: Objective, given: Given, state: State) -> Symmetries:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    spec = given.spec if isinstance(given, Symmetries) else given  # read anew: it may belong to another model
    if not isinstance(spec, Mapping):
        raise InputError(f"symmetries is a {type(given).__name__}: give a mapping, name of a tensor -> its axes.")
    of = Symmetries.parse(spec, shapes, given.pinned if isinstance(given, Symmetries) else ())
    if fixed := sorted(of.axes.keys() - movable_tensors(objective)):
        raise InputError(
            f"The symmetries move {fixed[0]!r}, which is not among the parameters that vary: leave it out."
        )
    return of


def _starts(
    objective: Objective,
    method: Method,
    matching: WeightMatching,
    found: Discovered | None,
    restarts: int,
    examples: int,
    seed: int,
) -> dict[str, Match]:
    """Where each start of the search ends; none is made after one that cannot be exceeded."""
    of = matching.of
    if not of.groups:
        raise InputError(f"No unit of this model may change places: {'; '.join(of.pinned) or 'it has no hidden ones'}.")
    if method == "activations":
        if found is None:
            raise InputError("Activations are matched along the traced graph: leave out symmetries=, or match weights.")
        return {"activations": _activations(objective, matching, found, examples, seed)}
    makers: dict[str, Callable[[], Permutations]] = {"identity": of.identity}
    if found is not None:
        makers["activations"] = lambda: _activations(objective, matching, found, examples, seed).permutations
    makers |= {f"random {i}": partial(of.random, seed + i) for i in range(1, restarts + 1)}
    ends: dict[str, Match] = {}
    for name, make in makers.items():
        ends[name] = matching.improve(make(), seed)
        if ends[name].agreement >= matching.bound * (1 - 1e-9):
            break
    return ends


def _half_way(objective: Objective, matching: WeightMatching, starts: Mapping[str, Match]) -> dict[str, float]:
    """The starts that agree best, to 1 %, and for each the loss half-way from a, where there are several of them."""
    top = max(match.agreement for match in starts.values())
    least = top if top >= matching.bound * (1 - 1e-9) else top - NEAR * abs(top)
    near = {name: match for name, match in starts.items() if match.agreement >= least}
    if len(near) == 1:
        return dict.fromkeys(near, math.nan)
    if objective.function.frozen_statistics:
        objective = objective.with_batch_norm("recompute")
    space, a = objective.space, objective.space.flatten(matching.a)
    ends = {name: space.flatten(matching.of.permuted(matching.b, match.permutations)) for name, match in near.items()}
    losses = {name: objective.value(torch.lerp(a, b, 0.5)) for name, b in ends.items()}
    return {name: loss if math.isfinite(loss) else math.inf for name, loss in losses.items()}


def _activations(objective: Objective, matching: WeightMatching, found: Discovered, examples: int, seed: int) -> Match:
    permutations, unseen = match_activations(objective, found, matching.a, matching.b, examples, matching.solver)
    # Units that no layer shows are matched by their weights, with the others as they are.
    return matching.improve(permutations, seed, only=unseen)


def _refusal(
    objective: Objective, of: Symmetries, theirs: State, off: float, tol: float, examples: int, *, by_hand: bool
) -> LossAtlasError:
    """Which group changes the function, when its units alone change places."""
    failing = failing_groups(objective, of, theirs, tol, examples)
    text = f"The outputs are not those of b: they deviate by {off:.1e}, above {tol:.0e}, when {failing} change places."
    if by_hand:
        return InputError(f"{text} Correct these groups in symmetries=.")
    return NumericalError(
        f"{text} If it is rounding, make the objective with dtype=torch.float64; else give symmetries= by hand, "
        "starting from print(symmetries(objective).spec)."
    )


def _summary(
    objective: Objective,
    matching: WeightMatching,
    best: Match,
    ours: State,
    state: State,
    before: float,
    off: float,
) -> xr.Dataset:
    of, space, theirs = matching.of, objective.space, matching.b
    identity = of.identity()
    a, b, after = (space.flatten(s).double() for s in (ours, theirs, state))
    rows = [
        {
            "size": group.size,
            "moved": float((best.permutations[name] != identity[name]).double().mean()),
            "cosine_before": _cosine(ours, theirs, name, of),
            "cosine_after": _cosine(ours, state, name, of),
        }
        for name, group in of.groups.items()
    ]
    variables: dict[str, object] = {key: ("group", [row[key] for row in rows]) for key in rows[0]}
    variables |= {
        "deviation": off,
        "similarity_before": matching.similarity(before),
        "similarity_after": matching.similarity(best.agreement),
        "distance_before": float(torch.linalg.vector_norm(a - b)),
        "distance_after": float(torch.linalg.vector_norm(a - after)),
    }
    return xr.Dataset(variables, coords={"group": list(of.groups)})


def _cosine(a: State, b: State, name: str, of: Symmetries) -> float:
    """The mean over the group's units of the cosine between the two units' weights, incoming and outgoing."""
    pairs = [unit_weights(state, name, of) for state in (a, b)]
    cosines = torch.nn.functional.cosine_similarity(pairs[0], pairs[1], dim=1)
    return float(np.mean(cosines.numpy(force=True)))


def unit_weights(state: State, name: str, of: Symmetries) -> Tensor:
    """``(units, m)``: all weights of each unit of a group, from every tensor that it moves."""
    line = [group.name for group in of.line(name)]
    columns = []
    for tensor, axes in of.axes.items():
        for dim, axis in enumerate(axes):
            for start, length, segment in segments(axis, of):
                if name in segment and set(line) <= {f for a in axes for f in names_in(a)}:
                    part = state[tensor].narrow(dim, start, length)
                    columns.append(real(units_of(part, axes, dim, segment, line, of)).double())
    return torch.cat(columns, dim=1)
