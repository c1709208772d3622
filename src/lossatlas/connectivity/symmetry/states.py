"""A network as named tensors, parameters and buffers, and what an objective's model gives out with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lossatlas.errors import DirectionError
from lossatlas.evaluation.forward import Forward
from lossatlas.model.data.batches import form, preserved_rng
from lossatlas.model.functional import BatchNormPolicy, FunctionalModel
from lossatlas.objective import Objective, Source


def network_state(objective: Objective, source: Source | None = None) -> dict[str, Tensor]:
    """Every parameter and buffer by name: of a point, a module, a state dict or a file; of the objective's own point.

    A tied parameter is there once, under the first of its names. A point has no BatchNorm statistics: they are
    estimated on the data, unless it is the objective's own. Other buffers are those of the model that it was read from.
    Raises ``CheckpointError`` for the weights of another network, ``DirectionError`` for NaN, with the tensor's name.
    """
    if source is None or isinstance(source, Tensor):
        return _state_at(objective, objective.point if source is None else objective.point_of(source))
    function = objective.function
    state = function.state_of(source)
    function.space.check(function.space.flatten(state), "checkpoint")
    numbers = {name: t for name, t in state.items() if t.is_floating_point() or t.is_complex()}
    if bad := [name for name, tensor in numbers.items() if not bool(torch.isfinite(tensor).all())]:
        raise DirectionError(f"The checkpoint holds NaN or infinite numbers, in {', '.join(bad[:5])}: check the file.")
    return {name.removeprefix("model."): tensor for name, tensor in function.tensors_of(state).items()}


def _state_at(objective: Objective, point: Tensor) -> dict[str, Tensor]:
    function = objective.function
    own = torch.equal(point, objective.point) or not function.keeps_statistics
    policy: BatchNormPolicy = "frozen" if own else "recompute"
    with torch.no_grad(), preserved_rng(objective.device):
        tensors = objective.with_batch_norm(policy).function.tensors(point)
    fixed = dict(function.module.named_parameters(prefix="model"))
    state = {name.removeprefix("model."): tensor.detach().clone() for name, tensor in (fixed | tensors).items()}
    buffers, known = function.buffers_besides_norms(), function.belongings(point)
    rest = {} if known is None else known.tensors
    return state | {name: rest[name].to(buffer, copy=True) for name, buffer in buffers.items() if name in rest}


def network_outputs(objective: Objective, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """f, batch by batch, with every parameter and buffer from ``state``; of a step its losses."""
    function = _with_given_statistics(objective)
    for index, batch in enumerate(objective.batches):
        # Nothing is yielded inside: whoever takes one batch and leaves would stay without gradients.
        with torch.no_grad(), preserved_rng(objective.device):
            tensors = function.tensors_of(state)
            run = function.outputs if function.supervised else function.measure
            found = run(tensors, batch, index)
        yield found if isinstance(found, Tensor) else found["loss"]


def output_graph(objective: Objective, batch: Any) -> Forward:
    """The model's outputs on a batch as a graph of functions of its tensors, BatchNorm statistics as they are given.

    Raises ``Untraceable`` for a model that is no fixed sequence of functions.
    """
    return Forward(_with_given_statistics(objective), batch)


def graph_batches(objective: Objective) -> Iterator[Any]:
    """The batches of the first one's form: those that its ``output_graph`` can be run on."""
    first = None
    for batch in objective.batches:
        first = form(batch) if first is None else first
        if form(batch) == first:
            yield batch


def movable_tensors(objective: Objective) -> set[str]:
    """The tensors that theta decides: its parameters, and the running statistics of BatchNorm."""
    return {entry.name for entry in objective.space} | objective.function.statistics


def _with_given_statistics(objective: Objective) -> FunctionalModel:
    return objective.with_batch_norm("frozen").function
