"""Scalings of hidden units that leave a network's function as it is, found by its derivatives.

A scaling multiplies every tensor that a unit meets by c^e, with an exponent e for each place: 1 for the weights that
make the unit of a ReLU network, -1 for those that take it in. The exponents are relations between derivatives: f stays
as it is for every c where sum_k e_k <df/dw_k, w_k> = 0 at every point.

Source: Kunin et al. 2021, "Neural Mechanics", section 3 (what a symmetry says of the gradient); Dinh et al. 2017,
"Sharp Minima Can Generalize For Deep Nets", section 4 (scaling of ReLU units).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lossatlas.connectivity.symmetry.symmetries import Symmetries
from lossatlas.sharpness.places import Place, Scaling, State, places
from lossatlas.sharpness.slopes import Network, Slopes

VANISHES, COARSE = {torch.float64: 1e-6}, 1e-3  # of a sum of derivatives, relative; in other types
PARTS = 12  # exponents are fractions with this denominator


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
    sizes = {name: math.prod(group.size for group in of.line(name)) for name in columns}
    slopes = Slopes.near(network, state, columns, sizes, seed)
    tol = VANISHES.get(network.dtype, COARSE)
    groups = {
        name: [_scaling(name, sizes[name], columns[name], e) for e in relations(matrix.flatten(0, 1), tol)]
        for name, matrix in slopes.columns.items()
    }
    return Scalings(groups, _last_layer(slopes, tol))


def _scaling(name: str, size: int, columns: Sequence[Sequence[Place]], exponents: Tensor) -> Scaling:
    pairs = zip(columns, exponents.tolist(), strict=True)
    return Scaling(name, size, tuple((place, e) for column, e in pairs if e for place in column))


def _last_layer(slopes: Slopes, tol: float) -> tuple[str, ...]:
    """The parameters of the last layer of which f is a multiple, by Euler's theorem; empty where there is none."""
    layers: dict[str, list[str]] = {}
    for name in slopes.tensors:
        layer, parametrised, _ = name.partition(".parametrizations.")
        layers.setdefault(layer if parametrised else name.rpartition(".")[0], []).append(name)
    size = torch.linalg.vector_norm(slopes.outputs)
    for names in reversed(layers.values()):
        off = torch.stack([slopes.tensors[name] for name in names]).sum(0) - slopes.outputs
        if torch.linalg.vector_norm(off) <= tol * size:
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
