"""Whether permuted tensors are the same function, seen on data, and which groups change it where they are not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import Tensor

from lossatlas.connectivity.symmetry.states import network_outputs
from lossatlas.connectivity.symmetry.symmetries import Symmetries
from lossatlas.objective import Objective

State = Mapping[str, Tensor]


def deviation(objective: Objective, before: State, after: State, examples: int) -> float:
    """max |f_after - f_before| / max(1, max |f_before|) on about ``examples`` examples; NaN where either is."""
    return difference(zip(network_outputs(objective, before), network_outputs(objective, after), strict=True), examples)


def difference(pairs: Iterable[tuple[Tensor, Tensor]], examples: int) -> float:
    """``deviation`` of pairs of outputs, one pair a batch."""
    largest, scale, seen = 0.0, 1.0, 0
    for one, other in pairs:
        off, size = float((one.double() - other.double()).abs().max()), float(one.double().abs().max())
        if not math.isfinite(off) or not math.isfinite(size):
            return math.nan
        largest, scale, seen = max(largest, off), max(scale, size), seen + (len(one) if one.ndim else 1)
        if seen >= examples:
            break
    return largest / scale


def failing_groups(objective: Objective, of: Symmetries, state: State, tol: float, examples: int) -> str:
    """The groups whose units alone change the function when they change places, with their tensors."""
    found = []
    for root in of.roots():
        family = of.family(root.name)
        alone = of.identity() | {name: p for name, p in of.random(0).items() if name in family}
        if not deviation(objective, state, of.permuted(state, alone), examples) <= tol:
            tensors = of.holders(root.name)
            found.append(f"{root.name!r} (of {', '.join(tensors[:4])}{', ...' if len(tensors) > 4 else ''})")
    return f"the units of {'; '.join(found[:3])}" if found else "only all groups together"
