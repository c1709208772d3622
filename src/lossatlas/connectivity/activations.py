"""What units do on data: the correlations between those of two networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from lossatlas.connectivity.matching import Solver, Tables, assigned, units_of
from lossatlas.connectivity.symmetry.discovery import Discovered
from lossatlas.connectivity.symmetry.notation import Axis, Segment, names_in
from lossatlas.connectivity.symmetry.states import graph_batches, output_graph
from lossatlas.connectivity.symmetry.symmetries import Permutations, Symmetries, permute, segments
from lossatlas.evaluation.forward import Forward
from lossatlas.model.data.batches import leading_size
from lossatlas.model.parameters import real
from lossatlas.objective import Objective


def match_activations(
    objective: Objective,
    found: Discovered,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    examples: int,
    solver: Solver,
) -> tuple[Permutations, list[str]]:
    """For each group the permutation with the largest sum of correlations between matched units of a and b.

    And the groups whose units no layer gives out (heads inside of nn.MultiheadAttention, inner layers of an nn.LSTM),
    which are left as they are.

    Over the outputs of layers, norms and residual sums, on about ``examples`` examples (and all positions). Units that
    never change have correlation 0. Li et al. 2016; Ainsworth et al. 2023, section 3.1, with correlations.
    """
    of = found.symmetries
    permutations = of.identity()
    # Where two groups lie on one output, the units of the one are compared over those of the other, which must be in
    # order for it: found once, they are compared again.
    for _ in range(2 if any(len(_families(axes, of)) > 1 for axes in found.layers.values()) else 1):
        moments: dict[tuple[str, int, int], _Moments] = {}
        for graph, batch in graphs(objective, found, examples):
            seen: dict[str, Tensor] = {}
            graph.run(a, batch, partial(_keep, found, seen))
            graph.run(b, batch, partial(_compare, found, permutations, seen, moments))
        tables: Tables = {}
        for one in moments.values():
            tables[one.line[-1]] = tables.get(one.line[-1], 0) + one.correlation().reshape(*one.sizes, *one.sizes)
        shown = [root for root in of.roots() if any(name in tables for name in of.family(root.name))]
        for root in shown:
            permutations = permutations | assigned(tables, root, of, solver)
    return permutations, [root.name for root in of.roots() if root not in shown]


def _families(axes: tuple[Axis, ...], of: Symmetries) -> set[str]:
    return {of.line(name)[0].name for axis in axes for name in names_in(axis)}


def some_batches(objective: Objective, examples: int) -> Iterator[Any]:
    """Whole batches of the first one's form until there are so many examples."""
    count = 0
    for batch in graph_batches(objective):
        if count >= examples:
            return
        yield batch
        count += leading_size(batch)


def graphs(objective: Objective, found: Discovered, examples: int) -> Iterator[tuple[Forward, Any]]:
    """Batches with their graphs: where values decide, each has one of its own, and those that differ are left out."""
    for batch in some_batches(objective, examples):
        graph = output_graph(objective, batch) if found.graph.trace.by_values else found.graph
        if graph.names == found.graph.names:
            yield graph, batch


@dataclass
class _Moments:
    """Sums of x, y, x^2, y^2 and x y' for units x of a and y of b."""

    line: list[str]
    sizes: list[int]
    count: int = 0
    x: Tensor | float = 0.0
    y: Tensor | float = 0.0
    xx: Tensor | float = 0.0
    yy: Tensor | float = 0.0
    xy: Tensor | float = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in values ``(units, m)``."""
        x, y = real(x).double(), real(y).double()
        self.count += x.shape[1]
        self.x, self.y = self.x + x.sum(1), self.y + y.sum(1)
        self.xx, self.yy = self.xx + (x * x).sum(1), self.yy + (y * y).sum(1)
        self.xy = self.xy + x @ y.T

    def correlation(self) -> Tensor:
        x, y = torch.as_tensor(self.x) / self.count, torch.as_tensor(self.y) / self.count
        spread_x = (torch.as_tensor(self.xx) / self.count - x * x).clamp_min(0).sqrt()
        spread_y = (torch.as_tensor(self.yy) / self.count - y * y).clamp_min(0).sqrt()
        covariance = torch.as_tensor(self.xy) / self.count - torch.outer(x, y)
        scale = torch.outer(spread_x, spread_y)
        constant = scale <= 1e-10 * scale.max()
        return torch.where(constant, 0.0, covariance / torch.where(constant, 1.0, scale)).cpu()


def _keep(found: Discovered, seen: dict[str, Tensor], node: fx.Node, value: Any) -> None:
    if node.name in found.layers:
        seen[node.name] = value


def _compare(
    found: Discovered,
    permutations: Permutations,
    seen: dict[str, Tensor],
    moments: dict[tuple[str, int, int], _Moments],
    node: fx.Node,
    value: Any,
) -> None:
    if node.name not in found.layers:
        return
    of, axes, ours = found.symmetries, found.layers[node.name], seen.pop(node.name)
    for dim, axis in enumerate(axes):
        theirs = permute(value, axes, of, permutations, {dim: of.identity()}) if len(_families(axes, of)) > 1 else value
        for start, length, segment in segments(axis, of):
            if line := _whole_line(segment, of):
                sizes = [of.groups[name].size for name in line]
                own = moments.setdefault((node.name, dim, start), _Moments(line, sizes))
                parts = (values.narrow(dim, start, length) for values in (ours, theirs))
                own.add(*(units_of(part, axes, dim, segment, line, of) for part in parts))


def _whole_line(segment: Segment, of: Symmetries) -> list[str]:
    """The innermost group of a segment with all that it lies within, where the segment holds all of them."""
    named = [factor for factor in segment if isinstance(factor, str)]
    line = [group.name for group in of.line(named[-1])] if named else []
    return line if all(name in segment for name in line) else []
