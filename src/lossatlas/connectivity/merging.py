"""Many networks in one basin, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lossatlas.connectivity.alignment import Given, align
from lossatlas.connectivity.matching import WeightMatching
from lossatlas.connectivity.symmetry.states import network_state
from lossatlas.errors import InputError
from lossatlas.model.data.containers import cast_floats
from lossatlas.objective import Objective, Source

State = dict[str, Tensor]


@dataclass(frozen=True)
class Merged:
    """The mean of aligned networks: ``point`` ``(n,)`` and ``state_dict`` (BatchNorm statistics estimated anew).

    ``points`` ``(k, n)``: each network in the common order of units; ``rounds``: passes over the networks.
    """

    point: Tensor
    state_dict: State
    points: Tensor
    rounds: int


def merge_many(
    objective: Objective,
    sources: Sequence[Source],
    *,
    symmetries: Given | None = None,
    restarts: int = 1,
    examples: int = 1000,
    tol: float = 1e-5,
    seed: int = 0,
    rounds: int = 20,
) -> Merged:
    """mean_i P_i(theta_i), where each P_i matches its network with the mean of the others (MergeMany).

    First all are aligned with the first one, then one after another, in random order, with the mean of the others,
    until none gains. Arguments as in ``align``; the statistics of the mean are
    put right by ``repair(objective, merged.points)``.

    Raises
    ------
    InputError : fewer than two networks; and as ``align``.
    CheckpointError, DirectionError, NumericalError : as ``align``.

    Source: Ainsworth, Hayase & Srinivasa 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries",
    Algorithm 3.

    Examples
    --------
    >>> import lossatlas as la
    >>> networks = [la.zoo.mlp(2, (3,), 1, seed=seed) for seed in (1, 2)]
    >>> objective = Objective(networks[0], torch.nn.functional.mse_loss, (torch.randn(10, 2), torch.randn(10, 1)))
    >>> merged = merge_many(objective, networks)
    >>> torch.allclose(merged.point, merged.points.mean(0))
    True
    """
    if len(sources) < 2:
        raise InputError(f"{len(sources)} networks: give at least two to merge.")
    if rounds < 1:
        raise InputError(f"rounds={rounds}: give at least 1.")
    reference = network_state(objective, sources[0])
    given = {"symmetries": symmetries, "restarts": restarts, "examples": examples, "tol": tol, "seed": seed}
    aligned = [align(objective, reference, source, **given) for source in sources[1:]]  # type: ignore[arg-type]
    states = [reference, *(network_state(objective, one.state_dict) for one in aligned)]
    of, generator = aligned[0].symmetries, torch.Generator().manual_seed(seed)
    weights = of.among({entry.name for entry in objective.space})
    count = 0
    for count in range(1, rounds + 1):  # noqa: B007
        before = [dict(state) for state in states]
        for index in torch.randperm(len(states), generator=generator).tolist():
            others = _mean([state for i, state in enumerate(states) if i != index], weights.axes)
            match = WeightMatching(others, states[index], weights).improve(of.identity(), seed)
            states[index] = of.permuted(states[index], match.permutations)
        if all(torch.equal(old[name], new[name]) for old, new in zip(before, states, strict=True) for name in of.axes):
            break
    points = torch.stack([objective.space.flatten(state) for state in states])
    point = points.double().mean(0).to(points)
    return Merged(point, network_state(objective, point), points, count)


def _mean(states: Sequence[Mapping[str, Tensor]], names: Mapping[str, object]) -> State:
    doubled = {name: [cast_floats(state[name], torch.float64) for state in states] for name in names}
    return {name: torch.stack(tensors).mean(0).to(states[0][name]) for name, tensors in doubled.items()}
