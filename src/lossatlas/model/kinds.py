"""Whether a batch's loss is a mean or a sum over its examples, from its values on parts of it and on copies of it.

f(S) is the loss of the examples S, and f(S S) that of each of them twice. A mean is the mean of its parts by their
numbers and stays at f(S S) = f(S); a sum is the sum of its parts and doubles; a mean plus a sum grows by the same
amount with every copy. What does none of these depends on the batch.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossatlas.model.containers import refill, tensors_in
from lossatlas.model.criteria import Watch

Kind = Literal["mean", "sum", "both", "neither"]
Kinds = set[str] | None
_CHUNK = 16  # examples that are evaluated one by one
_FEW = 8  # examples that are repeated


@dataclass(frozen=True)
class Place:
    """The loss of any of the n examples of a batch, by their indices, at some outputs or some parameters."""

    loss: Callable[[Tensor], Tensor]
    n: int

    def kinds(self) -> Kinds:
        """What the loss can be by its values here; empty where it is none of them, None where they decide nothing."""
        if not self._defined():
            return None
        if self.n < 2:
            return self._of_copies()
        found = self._of_parts()
        return {"both"} & (self._of_copies() or set()) if found == set() else found

    def lies_between(self) -> bool:
        """Whether the loss of some examples lies between the least and the largest of theirs alone.

        Class weights and ignored targets do that to a mean; a contrast between examples is the same for each alone.
        """
        some = torch.arange(min(self.n, _CHUNK))
        try:
            together = self._value(some)[0]
            alone = torch.stack([self._value(one)[0] for one in some.split(1)])
        except Exception:  # whatever a user's loss raises on one example
            return False
        known = alone[~alone.isnan()]
        return len(known) > 1 and bool(known.min() < together) and bool(together < known.max())

    def _defined(self) -> bool:
        """Whether the loss has a value here, at outputs that the model may never give."""
        try:
            return bool(torch.isfinite(self._value(torch.arange(self.n))[0]))
        except Exception:  # whatever a user's loss raises outside of its domain
            return False

    def _of_parts(self) -> Kinds:
        """By the whole and two parts of unlike size, each with what its criterion divides by, or its size."""
        sizes = [cut := (self.n + 2) // 3, self.n - cut]
        try:
            whole, *parts = [self._value(which) for which in (torch.arange(self.n), *torch.arange(self.n).split(sizes))]
        except Exception:  # whatever a user's loss raises on few examples
            return set()
        each = torch.stack([value for value, _ in parts])
        weights = [float(size) if weight is None else weight for size, (_, weight) in zip(sizes, parts, strict=True)]
        if not all(weights):  # a part whose targets are all ignored
            return None
        shares = torch.tensor(weights).to(each) / sum(weights)
        return decided(kinds_of(each, whole[0], torch.stack([shares @ each, each.sum()])))

    def _of_copies(self) -> Kinds:
        """By some examples once, twice and three times."""
        some = torch.arange(min(self.n, _FEW))
        try:
            one, two, three = (self._value(some.repeat(k))[0] for k in (1, 2, 3))
        except Exception:  # whatever a user's loss raises on examples that come again
            return set()
        found = decided(kinds_of(torch.stack([one, one]), two, torch.stack([one, 2 * one])))
        if found != set():
            return found
        even = (three - 2 * two + one).abs() <= 1e-2 * (two - one).abs() + 1e-6 * one.abs()
        return {"both"} if bool(even) else set()

    def _value(self, which: Tensor) -> tuple[Tensor, float | None]:
        with quietly(), Watch() as watch:
            value = self.loss(which)
        seen = watch.mean(value)
        return value.detach().double().mean(), None if seen is None else float(seen.weights().sum())


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
    close = torch.isclose(means, value.expand(2), rtol=1e-4, atol=1e-7).tolist()
    return {name for name, holds in zip(("mean", "sum"), close, strict=True) if holds} or None


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


def places_at_parameters(model: nn.Module, step: Callable[[nn.Module, Any], Tensor], batch: Any, n: int) -> list[Place]:
    """A step on parts of a batch, at the model's parameters and at moved ones; none where it cannot be cut."""
    first = next(iter(tensors_in(batch)), None)
    taken = taker(batch, n)
    if taken is None or first is None or len(first) != n:
        return []
    run = _Step(model, step)

    def at(scale: float) -> Place:
        moved = _moved(model, scale)
        return Place(lambda which: functional_call(run, moved, (taken(which),)), n)

    return [at(0.0), at(0.3)]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What is only tried does not warn: vmap of what is slow there, statistics of one example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Step(nn.Module):
    """A step as a module, whose parameters ``functional_call`` can replace."""

    def __init__(self, model: nn.Module, step: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._step = step

    def forward(self, batch: Any) -> Tensor:
        return self._step(self.model, batch)


def _moved(model: nn.Module, scale: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def noise(p: Tensor) -> Tensor:
        return torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)

    return {
        f"model.{name}": p + scale * (0.1 + p.abs().mean()) * noise(p) if p.is_floating_point() else p
        for name, p in model.named_parameters()
    }
