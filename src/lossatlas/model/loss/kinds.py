"""Whether a batch's loss is a mean or a sum over its examples, from its values on parts of it and on copies of it.

f(S) is the loss of the examples S, and f(S S) that of each of them twice. A mean is the mean of its parts by their
numbers and stays at f(S S) = f(S); a sum is the sum of its parts and doubles; a mean plus a sum grows by the same
amount with every copy. What does none of these depends on the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossatlas.model.bound import Bound
from lossatlas.model.data.containers import refill, tensors_in
from lossatlas.model.loss.criteria import Watch
from lossatlas.model.loss.reduction import quietly

Kind = Literal["mean", "sum", "both", "neither"]
Kinds = set[str] | None
_CHUNK = 16  # examples that are evaluated one by one
_FEW = 8  # examples that are repeated


@dataclass(frozen=True)
class Place:
    """The loss of any of the n examples of a batch, by their indices, at some outputs or some parameters."""

    loss: Callable[[Tensor], Tensor]
    n: int
    shared: bool = False  # parts count by what all of their criteria divide by

    def kinds(self) -> Kinds:
        """What the loss can be by its values here; empty where it is none of them, None where they decide nothing."""
        if not self._defined():
            return None
        if self.n < 2:
            return self._of_copies()
        found = self._of_parts()
        return {"both"} & (self._of_copies() or set()) if found == set() else found

    def varies(self) -> bool:
        """Whether examples alone have losses, and different ones: in a contrast between examples they have none."""
        try:
            alone = torch.stack([self._value(one)[0] for one in torch.arange(min(self.n, _CHUNK)).split(1)])
        except Exception:  # whatever a user's loss raises on one example
            return False
        known = alone[alone.isfinite()]
        return len(known) > 1 and bool(known.max() - known.min() > 1e-4 * known.abs().max())

    def grows(self) -> bool:
        """Whether the loss of copies grows as a power of their number, as a root of a sum or a sum over pairs."""
        try:
            one, two, three = self._copies(torch.arange(min(self.n, _FEW)))
        except Exception:  # whatever a user's loss raises on examples that come again
            return False
        power = float((two / one).log2())
        return power > 0.05 and abs(float(three / one) - 3**power) < 1e-3 * 3**power

    def _defined(self) -> bool:
        """Whether the loss has a value here, at outputs that the model may never give."""
        try:
            return bool(torch.isfinite(self._value(torch.arange(self.n))[0]))
        except Exception:  # whatever a user's loss raises outside of its domain
            return False

    def _of_parts(self) -> Kinds:
        """By the whole and two parts of unlike size, cut in two ways."""
        cut, order = (self.n + 2) // 3, torch.randperm(self.n, generator=torch.Generator().manual_seed(0))
        found = [self._of_split(which[:cut], which[cut:]) for which in (torch.arange(self.n), order)]
        known = [kinds for kinds in found if kinds is not None]
        return set.intersection(*known) if known else None

    def _of_split(self, one: Tensor, other: Tensor) -> Kinds:
        """Each part counts by what its criterion divides by, or by its size."""
        try:
            (whole, _), *parts = [self._value(which) for which in (torch.cat([one, other]), one, other)]
        except Exception:  # whatever a user's loss raises on few examples
            return set()
        each, sizes = torch.stack([value for value, _ in parts]), (len(one), len(other))
        weights = [float(size) if weight is None else weight for size, (_, weight) in zip(sizes, parts, strict=True)]
        counted = torch.tensor(weights).to(each)
        each, counted = each[counted > 0], counted[counted > 0]  # a part whose targets are all ignored has no mean
        return decided(kinds_of(each, whole, torch.stack([counted @ each / counted.sum(), each.sum()])))

    def _of_copies(self) -> Kinds:
        """By some examples once, twice and three times; of a mean plus a sum, the sum must be that of two parts."""
        some = torch.arange(min(self.n, _FEW))
        try:
            one, two, three = self._copies(some)
            found = decided(kinds_of(torch.stack([one, one]), two, torch.stack([one, 2 * one])))
            if found != set():
                return found
            summed = [float(two - one), *(float(b - a) for a, b, _ in map(self._copies, some.tensor_split(2)))]
        except Exception:  # whatever a user's loss raises on examples that come again
            return set()
        error = 1e-2 * abs(summed[0]) + 1e-6 * abs(float(one))
        even = abs(float(three - 2 * two + one)) <= error
        return {"both"} if even and (self.n < 2 or abs(summed[0] - summed[1] - summed[2]) <= error) else set()

    def _copies(self, some: Tensor) -> list[Tensor]:
        return [self._value(some.repeat(k))[0] for k in (1, 2, 3)]

    def _value(self, which: Tensor) -> tuple[Tensor, float | None]:
        with quietly(), Watch() as watch:
            value = self.loss(which)
        seen = watch.mean(value) or (watch.shared() if self.shared else None)
        return value.detach().mean(), None if seen is None else float(seen.weights().sum())


def is_shared_mean(places: Sequence[Place]) -> bool:
    """Whether the loss is a mean by what all of its criteria divide by."""
    return kind_of([replace(place, shared=True) for place in places]) == "mean"


def kind_of(places: Sequence[Place]) -> Kind | None:
    """What the loss is at all of these places; None where there are none."""
    found = [kinds for place in places if (kinds := place.kinds()) is not None]
    if not places:
        return None
    asked: tuple[Kind, ...] = ("mean", "sum")
    for kind in asked:
        if found and all(kind in kinds for kinds in found):
            return kind
    return "both" if all(found) and {"both"} in found else "neither"


def kinds_of(parts: Tensor, value: Tensor, means: Tensor) -> Kinds:
    """Which of the mean and the sum ``value`` is, of what is given for both; None where it is neither."""
    if not bool(torch.isfinite(value)):
        return None if bool(torch.isfinite(means).any()) else set()
    if not bool(parts.any()) and not bool(value):
        return {"zero"}
    close = torch.isclose(means, value.expand(2), rtol=_tolerance(value), atol=1e-7).tolist()
    return {name for name, holds in zip(("mean", "sum"), close, strict=True) if holds} or None


def _tolerance(value: Tensor) -> float:
    """For the same number by two ways, relative: sums of rounded terms in a type, and float32 inside of float64."""
    return min(max(1e-6, 1e3 * torch.finfo(value.dtype).eps), 3e-2)


def decided(kinds: Kinds) -> Kinds:
    """The same, with the empty set for neither and None for what decides nothing."""
    return None if kinds in ({"zero"}, set()) else kinds or set()


def taker(tree: Any, n: int) -> Callable[[Tensor], Any] | None:
    """The examples with given indices, of every tensor; None where some tensor has no equal number of rows for each."""
    tensors = list(tensors_in(tree))
    if not tensors or any(t.is_nested or t.layout is not torch.strided for t in tensors):
        return None
    if not n or any(not t.ndim or not len(t) or len(t) % n for t in tensors):
        return None

    def taken(which: Tensor) -> Any:
        rows = (t.unflatten(0, (n, len(t) // n))[which.to(t.device)].flatten(0, 1) for t in tensors)
        return refill(tree, iter(list(rows)))

    return taken


def places_at_parameters(
    model: nn.Module, step: Callable[[nn.Module, Any], Tensor], pieces: Iterable[tuple[int, Any]]
) -> list[Place]:
    """A step on parts of these batches, at the model's parameters and at moved ones; none where they cannot be cut."""
    run, at, places = Bound(model, step), [_moved(model, scale) for scale in (0.0, 0.3)], []
    for n, batch in pieces:
        first, taken = next(iter(tensors_in(batch)), None), taker(batch, n)
        if taken is not None and first is not None and len(first) == n:
            places += [Place(functools.partial(_called, run, moved, taken), n) for moved in at]
    return places


def is_nearly_either(places: Sequence[Place]) -> bool:
    """Whether a loss that is neither a mean nor a sum is one that is weighted, or a function of one."""
    return any(place.varies() or place.grows() for place in places[:4])


def _called(run: nn.Module, tensors: dict[str, Tensor], taken: Callable[[Tensor], Any], which: Tensor) -> Tensor:
    value: Tensor = functional_call(run, tensors, (taken(which),))
    return value


def _moved(model: nn.Module, scale: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def noise(p: Tensor) -> Tensor:
        return torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)

    return {
        f"model.{name}": p + scale * (0.1 + p.abs().mean()) * noise(p) if p.is_floating_point() else p
        for name, p in model.named_parameters()
    }
