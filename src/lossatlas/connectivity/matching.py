"""Which unit of one network is which of another: assignments that make weights, or activations, agree."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lossatlas.connectivity.symmetry.notation import Axis, Factor, Segment, names_in
from lossatlas.connectivity.symmetry.symmetries import (
    Group,
    Permutations,
    Symmetries,
    carrier,
    foreign,
    permute,
    segments,
    sizes_of,
)
from lossatlas.errors import NumericalError
from lossatlas.model.parameters import real

Tensors = Mapping[str, Tensor]
Found = dict[tuple[str, tuple[int, ...]], Tensor]  # group, units of the outer ones -> assignment
Tables = dict[str, Tensor]  # group -> agreement of its units, with a pair of axes for each group of its line


@dataclass
class Solver:
    """scipy's assignments, counted and timed."""

    calls: int = 0
    seconds: float = 0.0

    def assign(self, agreement: Tensor) -> Tensor:
        """``(n,)``: for each unit of a the unit of b, so that the sum of their agreements is the largest."""
        if not bool(torch.isfinite(agreement).all()):
            raise NumericalError(
                "Units cannot be matched: the products of their weights or activations are not finite. Check both "
                "networks for weights that are far too large."
            )
        started = time.perf_counter()
        chosen = torch.as_tensor(linear_sum_assignment(agreement.numpy(force=True), maximize=True)[1])
        self.calls, self.seconds = self.calls + 1, self.seconds + time.perf_counter() - started
        return chosen


@dataclass
class Match:
    """Permutations of b, the agreement sum_l <a_l, P(b)_l> that they reach, and the sweeps that it took."""

    permutations: Permutations
    agreement: float
    sweeps: int = 0


@dataclass
class WeightMatching:
    """max over permutations of <a, P(b)>, the sum over all tensors that a group moves (Ainsworth et al. 2023, Alg. 1).

    One group at a time, in random order: with the others as they are, the best permutation of its units is a linear
    assignment. It ends when no group gains; such an optimum is local, so several starts are worth their time.
    """

    a: Tensors
    b: Tensors
    of: Symmetries
    solver: Solver = field(default_factory=Solver)

    @cached_property
    def bound(self) -> float:
        """No permutation agrees better: |a| |b| over the tensors that are moved (Cauchy and Schwarz)."""
        return math.sqrt(_inner(self.a, self.a, self.of) * _inner(self.b, self.b, self.of))

    def similarity(self, agreement: float) -> float:
        """The cosine of a and P(b) over those tensors; 0 where one of them is 0."""
        return agreement / self.bound if self.bound else 0.0

    def agreement(self, permutations: Permutations) -> float:
        """<a, P(b)> over the tensors that a group moves."""
        return _inner(self.a, self.of.permuted(self.b, permutations), self.of)

    def improve(self, start: Permutations, seed: int, only: Collection[str] | None = None, most: int = 100) -> Match:
        """From ``start`` to where no single group (of those in ``only``) gains."""
        generator = torch.Generator().manual_seed(seed)
        roots = [root for root in self.of.roots() if only is None or root.name in only]
        best = Match(dict(start), self.agreement(start))
        moved = self.of.permuted({name: self.b[name] for name in self.of.axes}, start)
        for sweep in range(1, most + 1):
            before, best.sweeps = best.agreement, sweep
            for index in torch.randperm(len(roots), generator=generator).tolist():
                self._improve_group(roots[index], best, moved)
            if best.agreement <= before + 1e-12 * abs(self.bound):
                break
        return best

    def _improve_group(self, root: Group, best: Match, moved: dict[str, Tensor]) -> None:
        """Assign one group anew; kept if <a, P(b)> grows, which a group on two axes of a tensor does not promise."""
        family = self.of.family(root.name)
        names = self.of.holders(root.name)
        tables: Tables = {}
        for name in names:
            self._add(tables, name, family, best.permutations)
        found = best.permutations | assigned(tables, root, self.of, self.solver)
        trial = {name: permute(self.b[name], self.of.axes[name], self.of, found) for name in names}
        gain = sum(_dot(self.a[name], trial[name]) - _dot(self.a[name], moved[name]) for name in names)
        if gain > 1e-12 * self.bound:
            best.permutations, best.agreement = found, best.agreement + gain
            moved.update(trial)

    def _add(self, tables: Tables, name: str, family: list[str], permutations: Permutations) -> None:
        """The agreement of the units of one family along each axis of a tensor, with all else as it is."""
        axes, identity = self.of.axes[name], self.of.identity()
        others = permutations | {member: identity[member] for member in family}
        holding = [dim for dim, axis in enumerate(axes) if any(member in family for member in names_in(axis))]
        # Axes of which one depends on a group along another are compared unit by unit, all in b's own order; what a's
        # other one is compared with must then be in that order too.
        tied = {dim for dim in holding if foreign(axes[dim], self.of)}
        tied |= {carrier(axes, outer) for dim in tied for outer in foreign(axes[dim], self.of)}
        for dim in holding:
            together = tied if dim in tied else {dim}
            b = permute(self.b[name], axes, self.of, permutations, dict.fromkeys(together, others))
            back = {m: permutations[m].argsort(-1) if self.of.groups[m].within else identity[m] for m in family}
            undone = {d: identity | back if d in together and d != dim else identity for d in range(len(axes))}
            a = permute(self.a[name], axes, self.of, identity, undone) if len(together) > 1 else self.a[name]
            add_agreement(tables, family[0], a, b, axes, dim, self.of, 1 / len(together))


def add_agreement(
    tables: Tables, root: str, a: Tensor, b: Tensor, axes: Sequence[Axis], dim: int, of: Symmetries, weight: float = 1.0
) -> None:
    """Add sum over all else of a_i b_j for the units i, j of a family along one axis of two tensors."""
    for start, length, segment in segments(axes[dim], of):
        own = [f for f in segment if isinstance(f, str) and of.line(f)[0].name == root]
        if own:
            line = [group.name for group in of.line(own[-1])]
            sizes = [of.groups[name].size for name in line]
            x, y = (real(units_of(t.narrow(dim, start, length), axes, dim, segment, line, of)) for t in (a, b))
            agreement = weight * (x @ y.T).double().reshape(*sizes, *sizes)
            tables[own[-1]] = tables[own[-1]] + agreement if own[-1] in tables else agreement


def units_of(
    tensor: Tensor, axes: Sequence[Axis], dim: int, segment: Segment, line: Sequence[str], of: Symmetries
) -> Tensor:
    """``(units, all else)``: the units of the last group of ``line`` in those of the ones before it."""
    shape: list[int] = []
    place: dict[Factor, int] = {}
    for other, axis in enumerate(axes):
        factors = segment if other == dim else (tensor.shape[other],)
        missing = [name for name in line if name not in segment and name in names_in(axis)]
        if other != dim and missing:  # an outer group that lies along another axis
            start, length, factors = next(s for s in segments(axis, of) if missing[0] in s[2])
            tensor = tensor.narrow(other, start, length)
        for factor, size in zip(factors, sizes_of(factors, of), strict=True):
            place.setdefault(factor, len(shape))
            shape.append(size)
    units = math.prod(of.groups[name].size for name in line)
    return tensor.reshape(shape).movedim([place[name] for name in line], list(range(len(line)))).reshape(units, -1)


def assigned(tables: Tables, root: Group, of: Symmetries, solver: Solver) -> Permutations:
    """The best permutation of a group and of those within it.

    Two units of an outer group agree as well as the best assignment inside of them lets them.
    """
    found: Found = {}
    _assign(tables, root, of, solver, (), (), found)
    return {name: _stacked(found, name, (), of) for name in of.family(root.name)}


def _assign(
    tables: Tables,
    group: Group,
    of: Symmetries,
    solver: Solver,
    ours: tuple[int, ...],
    theirs: tuple[int, ...],
    found: Found,
) -> float:
    """Assign the units of a group inside given units of its outer ones; the agreement that is reached."""
    inside = torch.zeros(group.size, group.size, dtype=torch.float64)
    if group.name in tables:
        place: tuple[int | slice, ...] = (*ours, slice(None), *theirs)
        inside += tables[group.name][place].cpu()
    pairs: dict[tuple[int, int], Found] = {}
    for child in of.children(group.name):
        for i, j in itertools.product(range(group.size), repeat=2):
            own = pairs.setdefault((i, j), {})
            inside[i, j] += _assign(tables, child, of, solver, (*ours, i), (*theirs, j), own)
    chosen = found[group.name, ours] = solver.assign(inside)
    for pair in enumerate(chosen.tolist()):
        found.update(pairs.get(pair, {}))
    return float(inside[torch.arange(group.size), chosen].sum())


def _stacked(found: Found, name: str, places: tuple[int, ...], of: Symmetries) -> Tensor:
    outer = of.line(name)[:-1]
    if len(places) == len(outer):
        return found[name, places]
    return torch.stack([_stacked(found, name, (*places, i), of) for i in range(outer[len(places)].size)])


def _inner(a: Tensors, b: Tensors, of: Symmetries) -> float:
    return sum(_dot(a[name], b[name]) for name in of.axes)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(real(a).double().flatten() @ real(b).double().flatten())
