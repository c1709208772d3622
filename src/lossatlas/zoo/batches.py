"""Training data as pairs of inputs and targets on one device, from tensors or from a loader."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import Tensor

from lossatlas.errors import DataError

Pair: TypeAlias = tuple[Tensor, Tensor]
"""Inputs (N, ...) and targets (N, ...)."""
Data: TypeAlias = Pair | Iterable[Any]


@dataclass(frozen=True, eq=False)
class TensorBatches:
    """Slices of ``size`` examples, in order or shuffled anew at each pass by the global random stream."""

    inputs: Tensor
    targets: Tensor
    size: int
    shuffle: bool = False

    def __len__(self) -> int:
        return math.ceil(self.n_examples / self.size)

    def __iter__(self) -> Iterator[Pair]:
        if not self.shuffle:
            yield from zip(self.inputs.split(self.size), self.targets.split(self.size), strict=True)
            return
        yield from self._taken(torch.randperm(self.n_examples))

    def forked(self, batch: int, restart: Callable[[], None]) -> Iterator[Pair]:
        """A shuffled pass; before ``batch`` it calls ``restart()`` and shuffles the examples left once more."""
        order = torch.randperm(self.n_examples)
        yield from self._taken(order[: batch * self.size])
        restart()
        left = order[batch * self.size :]
        yield from self._taken(left[torch.randperm(len(left))])

    def _taken(self, order: Tensor) -> Iterator[Pair]:
        for start in range(0, len(order), self.size):
            index = order[start : start + self.size].to(self.targets.device)
            yield self.inputs[index], self.targets[index]

    @property
    def n_examples(self) -> int:
        return len(self.targets)

    def in_order(self, size: int) -> TensorBatches:
        return TensorBatches(self.inputs, self.targets, size)


@dataclass(frozen=True, eq=False)
class LoaderBatches:
    """What a ``DataLoader`` or another iterable yields, moved to ``device``."""

    loader: Iterable[Any]
    device: torch.device

    def __len__(self) -> int:
        if isinstance(self.loader, Sized):
            return len(self.loader)
        raise TypeError(f"{type(self.loader).__name__} has no length")

    def __iter__(self) -> Iterator[Pair]:
        for batch in self.loader:
            inputs, targets = _checked_pair(batch)
            yield inputs.to(self.device), targets.to(self.device)

    @property
    def size(self) -> int | None:
        return getattr(self.loader, "batch_size", None)

    def in_order(self, _size: int) -> LoaderBatches:
        return self


Batches: TypeAlias = TensorBatches | LoaderBatches


def make_batches(data: Data, size: int, device: torch.device, *, shuffle: bool = False) -> Batches:
    """``data`` in batches on ``device``; ``size`` and ``shuffle`` are for tensors, a loader has its own.

    Raises
    ------
    DataError : no examples; unequal numbers of inputs and targets; neither tensors nor batches that can be read
        more than once.
    """
    if _is_pair(data):
        inputs, targets = data
        if not 0 < len(inputs) == len(targets):
            raise DataError(
                f"There are {len(inputs):,} inputs and {len(targets):,} targets: give as many targets as inputs,"
                " and at least one."
            )
        return TensorBatches(inputs.to(device), targets.to(device), size, shuffle)
    if not isinstance(data, Iterable) or isinstance(data, Iterator):
        raise DataError(
            f"The data are a {type(data).__name__}: give a pair of tensors (inputs, targets), such as"
            " load(...).train, or a DataLoader or list of such batches, which can be read more than once."
        )
    batches = LoaderBatches(data, device)
    if count(batches) == 0:
        raise DataError("The data are empty: give at least one batch.")
    return batches


def count(batches: Batches) -> int | None:
    """The number of batches of a pass, where it is known beforehand."""
    try:
        return len(batches)
    except TypeError:  # an iterable without a length, or a DataLoader over a data set without one
        return None


def _checked_pair(batch: Any) -> Pair:
    if _is_pair(batch):
        return batch
    raise DataError(f"A batch is a {type(batch).__name__}: give pairs of tensors (inputs, targets).")


def _is_pair(data: Any) -> TypeGuard[Pair]:
    return isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
