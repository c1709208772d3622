"""The mean of networks with the statistics of its units put right (REPAIR)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import xarray as xr
from torch import Tensor, fx

from lossatlas.connectivity.activations import graphs
from lossatlas.connectivity.symmetry.discovery import Discovered, discover
from lossatlas.connectivity.symmetry.notation import names_in
from lossatlas.connectivity.symmetry.states import network_state
from lossatlas.connectivity.symmetry.walk import base_name
from lossatlas.errors import InputError
from lossatlas.objective import Objective, Source
from lossatlas.results.making import result

State = dict[str, Tensor]
Statistics = tuple[Tensor, Tensor]  # mean and standard deviation of each unit


@dataclass(frozen=True)
class Repaired:
    """A mean of networks after REPAIR: ``point`` ``(n,)``, ``state_dict``, and what was corrected.

    ``statistics``, over ``("layer",)``: ``units``, and the mean over units of standard deviation / target before
    (below 1: variance collapse) and after. Its attrs name the layers that could not be corrected.
    """

    point: Tensor
    state_dict: State
    statistics: xr.Dataset = field(repr=False)


@dataclass(frozen=True)
class _Layer:
    node: str
    weight: str
    bias: str
    dim: int  # of the units in what the layer gives out
    axis: int  # of the units in the weight


def repair(
    objective: Objective, sources: Sequence[Source], weights: Sequence[float] | None = None, *, examples: int = 1000
) -> Repaired:
    """theta = sum_i w_i theta_i, its units' pre-activations moved and scaled to sum_i w_i mu_i and sum_i w_i sd_i.

    Layer after layer, z <- mu + sd (z - mean z) / sd z, written into the layer's weight and bias: the units of an
    average of networks vary less than those of the networks, which costs accuracy (variance collapse). Align the
    networks first. Statistics are over about ``examples`` examples and all positions. The outputs themselves are left
    as they are. What a BatchNorm follows needs nothing but statistics estimated anew, which ``barrier`` does and
    ``state_dict`` holds.

    ``weights`` are equal by default and need not be positive, but sum to 1: (1 - t, t) for a point of the line.

    Raises
    ------
    InputError : fewer than two networks, weights that do not sum to 1, a model that cannot be traced, or one without
        a hidden layer that has a weight and a bias of its own.
    CheckpointError, DirectionError : weights of another network, or NaN among them, with the tensor's name.

    Source: Jordan, Sedghi, Saukh, Entezari & Neyshabur 2023, "REPAIR: REnormalizing Permuted Activations for
    Interpolation Repair", section 3.

    Examples
    --------
    >>> import lossatlas as la
    >>> networks = [la.zoo.mlp(2, (3,), 1, seed=seed) for seed in (1, 2)]
    >>> objective = Objective(networks[0], torch.nn.functional.mse_loss, (torch.randn(10, 2), torch.randn(10, 1)))
    >>> repaired = repair(objective, networks)
    >>> repaired.statistics["layer"].values.tolist(), round(float(repaired.statistics["sd_ratio_after"][0]), 3)
    (['fc1'], 1.0)
    """
    share = [1 / max(len(sources), 1)] * len(sources) if weights is None else list(weights)
    if len(sources) < 2 or len(share) != len(sources) or not abs(sum(share) - 1) <= 1e-6:
        raise InputError(
            f"{len(sources)} networks with weights {share}: give two or more, and as many weights with the sum 1."
        )
    if examples < 1:
        raise InputError(f"examples={examples}: give at least 1.")
    found = discover(objective)
    layers, skipped = _layers(found)
    if not layers:
        raise InputError(
            "No hidden layer has a weight and a bias of its own to correct; with BatchNorm, estimate its statistics "
            "anew: objective.with_batch_norm('recompute')."
        )
    states = [network_state(objective, source) for source in sources]
    seen = [_statistics(objective, found, state, layers, examples) for state in states]
    point = sum(w * objective.space.flatten(s).double() for w, s in zip(share, states, strict=True))
    assert isinstance(point, Tensor)
    mean = network_state(objective, point.to(objective.dtype))
    rows = []
    for layer in layers:
        # One layer at a time: the statistics of a layer are those behind the corrected ones, BatchNorm's too.
        own = _statistics(objective, found, mean, [layer], examples)[layer.node]
        target = _weighted([one[layer.node] for one in seen], share)
        _correct(mean, layer, own, target)
        mean = network_state(objective, objective.space.flatten(mean))
        rows.append((layer, own, target))
    after = _statistics(objective, found, mean, layers, examples)
    repaired = objective.space.flatten(mean)
    dataset = xr.Dataset(
        {
            "units": ("layer", [len(own[0]) for _, own, _ in rows]),
            "sd_ratio_before": ("layer", [_ratio(own, target) for _, own, target in rows]),
            "sd_ratio_after": ("layer", [_ratio(after[layer.node], target) for layer, _, target in rows]),
        },
        coords={"layer": [layer.weight.rpartition(".")[0] for layer in layers]},
    )
    options = {"weights": share, "skipped": "; ".join(skipped)}
    dataset = result("repair", dataset, objective.provenance(), options)
    return Repaired(repaired, network_state(objective, repaired), dataset)


def _layers(found: Discovered) -> tuple[list[_Layer], list[str]]:
    """The hidden layers with a weight and a bias that nothing else uses, in order; and why others are left out."""
    layers, skipped = [], []
    for node in found.graph.trace.graph.nodes:
        name = base_name(node)
        if name != "linear" and not name.startswith("conv"):
            continue
        given = [*node.args, *[None] * 3][1:3]
        weight, bias = (node.kwargs.get(k, v) for k, v in zip(("weight", "bias"), given, strict=True))
        names = [found.graph.tensors.get(str(p.target)) if isinstance(p, fx.Node) else None for p in (weight, bias)]
        dim = -1 if name == "linear" else -1 - int(name[-2])  # conv2d gives (..., units, height, width)
        label = (names[0] or node.name).rpartition(".")[0] or node.name
        if names[0] is None or names[1] is None:
            skipped.append(f"{label} has no bias of its own")
        elif (axes := found.layers.get(node.name)) is None or not names_in(axes[dim]):
            skipped.append(f"{label} keeps its units in order")
        elif len(weight.users) > 1 or len(bias.users) > 1:
            skipped.append(f"{label} is used more than once")
        elif (axis := _unit_axis(name, node)) is None:
            skipped.append(f"{label} is a grouped transposed convolution")
        else:
            layers.append(_Layer(node.name, names[0], names[1], dim, axis))
    return layers, skipped


def _unit_axis(name: str, node: fx.Node) -> int | None:
    if not name.startswith("conv_transpose"):
        return 0
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    return 1 if groups == 1 else None


def _statistics(
    objective: Objective, found: Discovered, state: Mapping[str, Tensor], layers: Sequence[_Layer], examples: int
) -> dict[str, Statistics]:
    """Mean and standard deviation of each unit of these layers, over examples and positions."""
    sums: dict[str, list[Any]] = {layer.node: [0, 0.0, 0.0] for layer in layers}
    dims = {layer.node: layer.dim for layer in layers}

    def watch(node: fx.Node, value: Any) -> None:
        if node.name in dims:
            if value.is_complex():
                raise InputError("Repair is defined for real units, and this model has complex ones: use align alone.")
            units = value.double().movedim(dims[node.name], 0).flatten(1)
            own = sums[node.name]
            sums[node.name] = [own[0] + units.shape[1], own[1] + units.sum(1), own[2] + (units * units).sum(1)]
            if node.name == layers[-1].node:
                raise _FarEnough

    for graph, batch in graphs(objective, found, examples):
        with contextlib.suppress(_FarEnough):
            graph.run(state, batch, watch)
    return {node: _moments(*own) for node, own in sums.items()}


class _FarEnough(Exception):
    """The rest of the graph is not needed."""


def _moments(count: int, total: Tensor, squares: Tensor) -> Statistics:
    mean = total / count
    return mean, (squares / count - mean**2).clamp_min(0).sqrt()


def _weighted(statistics: Sequence[Statistics], share: Sequence[float]) -> Statistics:
    mean, deviation = (
        sum((w * one[k] for w, one in zip(share, statistics, strict=True)), torch.zeros(())) for k in (0, 1)
    )
    return mean, deviation.clamp_min(0)


def _correct(state: State, layer: _Layer, own: Statistics, target: Statistics) -> None:
    """z <- mu + sd (z - mean) / deviation, in the layer's weight and bias; a unit that never varies is only moved."""
    varies = own[1] > 10 * torch.finfo(state[layer.weight].dtype).eps * own[1].max()
    factor = torch.where(varies, target[1] / torch.where(varies, own[1], 1.0), 1.0)
    weight, bias = state[layer.weight], state[layer.bias]
    shape = [1] * weight.ndim
    shape[layer.axis] = -1
    state[layer.weight] = (weight.double() * factor.reshape(shape)).to(weight)
    state[layer.bias] = (target[0] + factor * (bias.double() - own[0])).to(bias)


def _ratio(own: Statistics, target: Statistics) -> float:
    alive = target[1] > 0
    return float((own[1][alive] / target[1][alive]).mean()) if bool(alive.any()) else float("nan")
