"""Where the units of a group lie in a network's tensors, and what scaling or mixing them does to these."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lossatlas.connectivity.symmetry.notation import Axis
from lossatlas.connectivity.symmetry.symmetries import Symmetries, carrier, segments, sizes_of

State = Mapping[str, Tensor]


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
    def order(self) -> Tensor:
        """``(length,)``: the entries unit by unit, where all units lie along its axis."""
        return (self.units.flatten() * (int(self.rest.max()) + 1) + self.rest).argsort()


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

    def mixed(self, state: State, blocks: Tensor, inverses: Tensor) -> dict[str, Tensor]:
        """The state with units u replaced by A u where they are made, and by A^-T u where they are taken in.

        ``blocks`` ``(outer, inner, inner)``: a matrix A for the units of each outer one; ``inverses``, its A^-T. It
        keeps the function where what lies between is linear.
        """
        found = dict(state) | {place.tensor: state[place.tensor].clone() for place, _ in self.exponents}
        for place, exponent in self.exponents:
            part, matrices = place.of(found), (blocks if exponent > 0 else inverses).to(found[place.tensor])
            sorted_ = part.movedim(place.dim, 0)[place.order]
            rows = sorted_.reshape(*matrices.shape[:2], -1)
            mixed = (matrices @ rows).reshape(sorted_.shape)
            part.copy_(mixed[place.order.argsort()].movedim(0, place.dim))
        return found

    @property
    def can_mix(self) -> bool:
        """Whether its exponents are those of a product of two, on axes of their own."""
        return all(
            abs(e) == 1 and p.eps is None and p.units.numel() == p.length == self.size * (int(p.rest.max()) + 1)
            for p, e in self.exponents
        )


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
