"""Derivatives of a network's outputs in the scales of its units, at a point where nothing holds by chance."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lossatlas.connectivity.symmetry.states import movable_tensors, network_state
from lossatlas.evaluation.looked import few_of
from lossatlas.evaluation.products.precision import in_float64
from lossatlas.model.data.batches import preserved_rng
from lossatlas.objective import Objective
from lossatlas.sharpness.places import Place, State

NOISE = 0.1  # of the weights
SPARE = 8  # derivatives more than there are exponents


class Network:
    """f on a few examples, with all tensors from a state: in float64 where the model works in it."""

    def __init__(self, objective: Objective) -> None:
        function = objective.with_batch_norm("frozen").function
        batch = few_of(objective.batches, objective.n_parameters)[0]
        precise = in_float64(function, function.point, batch)
        self._function, self._batch, self.dtype = precise.function, precise.batch, precise.dtype
        self.movable = movable_tensors(objective)
        self.eps = {name: _eps(function.module, name) for name in function.statistics if name.endswith("var")}
        self.statistics = function.statistics

    def outputs(self, state: State) -> Tensor:
        """f, or the losses of a step."""
        with preserved_rng(self._function.point.device):
            tensors = self._function.tensors_of(state)
            if self._function.supervised:
                return self._function.outputs(tensors, self._batch, 0)
            return self._function.measure(tensors, self._batch, 0)["loss"]

    def state(self, objective: Objective) -> dict[str, Tensor]:
        """The tensors of the objective at its point, in the type of this one."""
        return {name: _cast(tensor, self.dtype) for name, tensor in network_state(objective).items()}

    def deviation(self, before: State, after: State, factor: float = 1.0) -> float:
        """max |f_after - factor f_before| / max(1, max |factor f_before|)."""
        with torch.no_grad():
            one, other = factor * self.outputs(before), self.outputs(after)
        found = float((one - other).abs().max()) / max(1.0, float(one.abs().max()))
        return found if math.isfinite(found) else math.inf


def _eps(module: torch.nn.Module, name: str) -> float:
    return float(module.get_submodule(name.rpartition(".")[0]).eps)  # type: ignore[arg-type]


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.to(dtype.to_complex() if tensor.is_complex() else dtype)


Columns = Mapping[str, Sequence[Sequence[Place]]]


@dataclass(frozen=True)
class Slopes:
    """Derivatives of random sums <r, f> of the outputs, near a point, in the logarithms of factors.

    ``columns``, by group ``(sums, units, columns)``: of the factor of each unit at the places of a column. ``tensors``
    ``(sums,)``: of a factor of a whole parameter. ``outputs`` ``(sums,)``: <r, f> itself. The point has noise on it:
    what holds there holds at every point, but for chance.
    """

    columns: dict[str, Tensor]
    tensors: dict[str, Tensor]
    outputs: Tensor

    @staticmethod
    def near(network: Network, state: State, columns: Columns, sizes: Mapping[str, int], seed: int) -> Slopes:
        """From a backward pass for each column of the largest group, and some more."""
        generator = torch.Generator().manual_seed(seed)
        names = [n for n, t in state.items() if n in network.movable and (t.is_floating_point() or t.is_complex())]
        moved = {name: _near(state[name], name in network.eps, generator).requires_grad_() for name in names}
        with torch.enable_grad(), DifferentiableStatistics():
            outputs = network.outputs({**state, **moved})
        point, found, totals, sums = {n: t.detach() for n, t in moved.items()}, dict[str, list[Tensor]](), [], []
        for _ in range(max(map(len, columns.values()), default=0) + SPARE):
            direction = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype).to(outputs.device)
            gradients = _gradients(outputs, moved, direction)
            for name, several in columns.items():
                found.setdefault(name, []).append(_of_units(several, sizes[name], gradients, point))
            totals.append({name: (g.conj() * point[name]).real.sum() for name, g in gradients.items()})
            sums.append((direction.conj() * outputs.detach()).real.sum())
        whole = {name: torch.stack([one[name] for one in totals]) for name in names if name not in network.statistics}
        return Slopes({name: torch.stack(several) for name, several in found.items()}, whole, torch.stack(sums))


def _of_units(columns: Sequence[Sequence[Place]], size: int, gradients: State, point: State) -> Tensor:
    """``(size, columns)``: the derivative in the logarithm of each unit's factor, over the places of a column."""
    found = torch.zeros(size, len(columns), dtype=torch.float64)
    for k, column in enumerate(columns):
        for place in column:
            part = place.of(point)
            scaled = part if place.eps is None else 2 * (part + place.eps)
            product = (place.of(gradients).conj() * scaled).real.double().cpu()
            found[:, k].index_add_(0, place.units.expand(product.shape).flatten(), product.flatten())
    return found


def _gradients(outputs: Tensor, tensors: Mapping[str, Tensor], direction: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(outputs, list(tensors.values()), direction, retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(tensors.items(), found, strict=True)}


def _near(tensor: Tensor, positive: bool, generator: torch.Generator) -> Tensor:
    noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)
    if positive:
        return tensor * (NOISE * noise).exp()
    size = tensor.abs() + (float(tensor.abs().mean()) or 1.0)
    return tensor + NOISE * size * noise


class DifferentiableStatistics(TorchFunctionMode):
    """Frozen batch normalisation by its formula: PyTorch's own has no derivative in the running statistics."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.nn.functional.batch_norm:
            given = inspect.signature(function).bind(*args, **(kwargs or {}))
            given.apply_defaults()
            if not given.arguments["training"]:
                return _normalised(**given.arguments)
        return function(*args, **(kwargs or {}))


def _normalised(
    input: Tensor,  # noqa: A002
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    **_: object,
) -> Tensor:
    shape = (1, -1, *[1] * (input.ndim - 2))
    found = (input - running_mean.reshape(shape)) / (running_var + eps).sqrt().reshape(shape)
    found = found if weight is None else found * weight.reshape(shape)
    return found if bias is None else found + bias.reshape(shape)
