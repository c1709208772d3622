"""Scalings of hidden units that leave a network's function as it is, found by its derivatives.

A scaling multiplies every tensor that a unit meets by c^e, with an exponent e for each place: 1 for the weights that
make the unit of a ReLU network, -1 for those that take it in. The exponents are relations between derivatives: f stays
as it is for every c where sum_k e_k <df/dw_k, w_k> = 0 at every point.

Source: Kunin et al. 2021, "Neural Mechanics", section 3 (what a symmetry says of the gradient); Dinh et al. 2017,
"Sharp Minima Can Generalize For Deep Nets", section 4 (scaling of ReLU units).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lossatlas.connectivity.symmetry.notation import Axis
from lossatlas.connectivity.symmetry.states import movable_tensors, network_state
from lossatlas.connectivity.symmetry.symmetries import Symmetries, carrier, segments, sizes_of
from lossatlas.evaluation.looked import few_of
from lossatlas.evaluation.products.precision import in_float64
from lossatlas.model.data.batches import preserved_rng
from lossatlas.objective import Objective

State = Mapping[str, Tensor]
VANISHES = {torch.float64: 1e-6, torch.float32: 1e-3}  # of a sum of derivatives, relative
NOISE = 0.1  # of the weights, for a point where nothing holds by chance
SPARE = 8  # derivatives more than there are exponents
PARTS = 12  # exponents are fractions with this denominator


@dataclass(frozen=True)
class Place:
    """Where the units of a group lie in a tensor: entries ``start`` to ``start + length`` of its axis ``dim``.

    ``units`` broadcasts against that part of the tensor: the unit of each entry, counted through all outer groups.
    ``rest`` ``(length,)`` tells apart the entries of one unit (the pixels of a channel after flattening). ``eps``: of a
    running variance, whose root with it is what is scaled.
    """

    tensor: str
    dim: int
    start: int
    length: int
    units: Tensor
    rest: Tensor
    eps: float | None = None

    def of(self, tensors: State) -> Tensor:
        """The part of its tensor, a view."""
        return tensors[self.tensor].narrow(self.dim, self.start, self.length)

    @property
    def along_one_axis(self) -> bool:
        """Whether no other axis decides on the unit."""
        return self.units.numel() == self.length


@dataclass(frozen=True)
class Scaling:
    """A group of ``size`` units and the exponent of each place; ``statistics``: of BatchNorm's among them."""

    group: str
    size: int
    exponents: tuple[tuple[Place, float], ...]

    @property
    def statistics(self) -> bool:
        return any(place.eps is not None for place, _ in self.exponents)

    def applied(self, state: State, factors: Tensor) -> dict[str, Tensor]:
        """The state with unit j scaled by ``factors[j]``; the tensors that it meets are copies."""
        found = dict(state) | {place.tensor: state[place.tensor].clone() for place, _ in self.exponents}
        for place, exponent in self.exponents:
            part, scale = place.of(found), factors.to(found[place.tensor].real)[place.units] ** exponent
            part.copy_(part * scale if place.eps is None else (part + place.eps) * scale**2 - place.eps)
        return found

    def mixed(self, state: State, matrix: Tensor) -> dict[str, Tensor]:
        """The state with units u replaced by A u where they are made, and A^-T where they are taken in.

        ``matrix`` ``(size, size)``. It keeps the function where what lies between is linear.
        """
        found = dict(state) | {place.tensor: state[place.tensor].clone() for place, _ in self.exponents}
        other = torch.linalg.inv(matrix).T
        for place, exponent in self.exponents:
            part, units = place.of(found), place.units.flatten()
            along = (matrix if exponent > 0 else other).to(part)[units[:, None], units]
            along = along * (place.rest[:, None] == place.rest).to(part)
            part.copy_(torch.tensordot(along, part.clone(), ([1], [place.dim])).movedim(0, place.dim))
        return found

    @property
    def can_mix(self) -> bool:
        """Whether its exponents are those of a product of two, on axes of their own."""
        return all(abs(e) == 1 and p.eps is None and p.along_one_axis for p, e in self.exponents)


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


@dataclass(frozen=True)
class Scalings:
    """Group -> a basis of the scalings of its units that keep f, and the layer whose scale is that of f, if one is."""

    groups: dict[str, list[Scaling]]
    last_layer: tuple[str, ...]


def scalings(network: Network, state: State, of: Symmetries, seed: int) -> Scalings:
    """The scalings of the units of those groups that hold no others.

    Those of running statistics come with the fewest other tensors: the weights in front of a BatchNorm. Mean and
    deviation are scaled alike, as those of scaled units are.
    """
    innermost = [name for name in of.groups if not of.children(name)]
    columns = {name: _columns(name, of, network, state) for name in innermost}
    columns = {name: found for name, found in columns.items() if found}
    slopes = Slopes(network, state, max(map(len, columns.values()), default=0) + SPARE, seed)
    groups = {name: list(_basis(name, of, found, slopes, network.dtype)) for name, found in columns.items()}
    return Scalings(groups, _last_layer(slopes, network))


def _last_layer(slopes: Slopes, network: Network) -> tuple[str, ...]:
    """The parameters of the last layer of which f is a multiple, by Euler's theorem; empty where there is none."""
    layers: dict[str, list[str]] = {}
    for name in slopes.names:
        layers.setdefault(name.partition(".parametrizations.")[0].rpartition(".")[0], []).append(name)
    size = torch.linalg.vector_norm(slopes.outputs)
    for names in reversed(layers.values()):
        if torch.linalg.vector_norm(slopes.of_tensors(names) - slopes.outputs) <= VANISHES[network.dtype] * size:
            return tuple(names)
    return ()


def _columns(name: str, of: Symmetries, network: Network, state: State) -> list[list[Place]]:
    """The places of a group, those of one exponent together; statistics last, since it is they that are solved for."""
    own: dict[object, list[Place]] = {}
    for place in places(name, of, network.eps, state):
        layer = place.tensor.rpartition(".")[0]
        statistic = place.tensor in network.statistics
        own.setdefault((layer, place.start) if statistic else len(own), []).append(place)
    return sorted(own.values(), key=lambda column: column[0].tensor in network.statistics)


def places(name: str, of: Symmetries, eps: Mapping[str, float], state: State) -> Iterator[Place]:
    """Where the units of a group are."""
    for tensor, axes in of.axes.items():
        for dim, axis in enumerate(axes):
            for start, length, segment in segments(axis, of):
                if name in segment and tensor in state:
                    units = _units(name, axes, dim, segment, of)
                    rest = _ravelled([c for f, c in _coordinates(segment, of) if isinstance(f, int)], length)
                    yield Place(tensor, dim, start, length, units, rest, eps.get(tensor))


def _units(name: str, axes: Sequence[Axis], dim: int, segment: Sequence[str | int], of: Symmetries) -> Tensor:
    """The unit of each entry, which outer groups on other axes decide on too."""
    found, own = torch.zeros((1,) * len(axes), dtype=torch.long), dict(_coordinates(segment, of))
    for group in of.line(name):
        place = dim if group.name in segment else carrier(axes, group.name)
        along = own[group.name] if group.name in segment else _coordinate(axes[place], group.name, of)
        found = found * group.size + along.reshape([-1 if d == place else 1 for d in range(len(axes))])
    return found


def _coordinate(axis: Axis, name: str, of: Symmetries) -> Tensor:
    segment = next(segment for segment in axis if name in segment)
    return dict(_coordinates(segment, of))[name]


def _coordinates(segment: Sequence[str | int], of: Symmetries) -> list[tuple[str | int, Tensor]]:
    sizes = sizes_of(tuple(segment), of)
    return list(zip(segment, torch.unravel_index(torch.arange(math.prod(sizes)), sizes), strict=True))


def _ravelled(coordinates: Sequence[Tensor], length: int) -> Tensor:
    found = torch.zeros(length, dtype=torch.long)
    for one in coordinates:
        found = found * (int(one.max()) + 1) + one
    return found


class Slopes:
    """Derivatives of random sums <r, f> of the outputs in the logarithms of all tensors, near a point.

    The point has noise on it: what holds there holds at every point, but for chance.
    """

    def __init__(self, network: Network, state: State, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        names = [n for n, t in state.items() if n in network.movable and (t.is_floating_point() or t.is_complex())]
        moved = {name: _near(state[name], name in network.eps, generator).requires_grad_() for name in names}
        with torch.enable_grad(), DifferentiableStatistics():
            outputs = network.outputs({**state, **moved})
        sums = torch.randn(count, *outputs.shape, generator=generator, dtype=network.dtype).to(outputs.device)
        self._point = {name: tensor.detach() for name, tensor in moved.items()}
        self.names = [name for name in moved if name not in network.statistics]
        self._gradients = [_gradients(outputs, moved, one) for one in sums]
        self.outputs = torch.stack([(one * outputs.detach()).real.sum() for one in sums])

    def of_place(self, place: Place, size: int) -> Tensor:
        """``(count, size)``: in the logarithm of the factor of each unit."""
        units = place.units.expand(place.of(self._point).shape).flatten().to(self.outputs.device)
        rows = [self._product(gradients, place).flatten() for gradients in self._gradients]
        return torch.stack([row.new_zeros(size).index_add_(0, units, row) for row in rows])

    def of_tensors(self, names: Sequence[str]) -> Tensor:
        """``(count,)``: in the logarithm of one factor for all of these tensors."""
        rows = [[(g[name].conj() * self._point[name]).real.sum() for name in names] for g in self._gradients]
        return torch.stack([torch.stack(row).sum() for row in rows])

    def _product(self, gradients: State, place: Place) -> Tensor:
        scaled = place.of(self._point) if place.eps is None else 2 * (place.of(self._point) + place.eps)
        return (place.of(gradients).conj() * scaled).real


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


def _basis(
    name: str, of: Symmetries, columns: Sequence[Sequence[Place]], slopes: Slopes, dtype: torch.dtype
) -> Iterator[Scaling]:
    size = math.prod(group.size for group in of.line(name))
    each = [sum((slopes.of_place(p, size) for p in column[1:]), slopes.of_place(column[0], size)) for column in columns]
    for exponents in relations(torch.stack(each, dim=-1).flatten(0, 1), VANISHES[dtype]):
        pairs = zip(columns, exponents.tolist(), strict=True)
        yield Scaling(name, size, tuple((place, e) for column, e in pairs if e for place in column))


def relations(matrix: Tensor, tol: float) -> Iterator[Tensor]:
    """Vectors e ``(k,)`` with sum_k e_k column_k = 0: a basis in reduced echelon form from the last column on.

    Columns that vanish have e = 0. The first number of each e is 1; fractions are rounded to twelfths.
    """
    norms = torch.linalg.vector_norm(matrix, dim=0)
    live = (norms > tol * norms.max()).nonzero().flatten()
    if not len(live):
        return
    triangle = torch.linalg.qr(matrix[:, live] / norms[live], mode="r")[1]
    _, values, directions = torch.linalg.svd(triangle, full_matrices=True)
    rank = int((values > tol * values[0]).sum())
    for row in _echelon(directions[rank:], tol):
        found = matrix.new_zeros(len(norms))
        found[live] = row / norms[live]
        found = found / found[int(found.nonzero()[0])]
        rounded = (PARTS * found).round() / PARTS
        yield torch.where((found - rounded).abs() < math.sqrt(tol), rounded, found)


def _echelon(rows: Tensor, tol: float) -> Tensor:
    """Gauss-Jordan elimination from the last column on, with the numbers that vanish set to 0."""
    rows, done = rows.clone(), 0
    for column in reversed(range(rows.shape[1])):
        if done == len(rows):
            break
        pivot = done + int(rows[done:, column].abs().argmax())
        if float(rows[pivot, column].abs()) <= tol:
            continue
        rows[[done, pivot]] = rows[[pivot, done]]
        rows[done] /= rows[done, column].clone()
        others = torch.arange(len(rows)) != done
        rows[others] -= rows[others, column, None] * rows[done]
        done += 1
    return torch.where(rows.abs() > tol, rows, 0.0)
