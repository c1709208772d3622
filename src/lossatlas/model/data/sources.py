"""Where batches come from: what can be iterated twice, gives the same each time, and ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from lossatlas.errors import DataError
from lossatlas.model.data.containers import describe, tensors_in
from lossatlas.model.data.fingerprints import holds_values

MAX_BATCHES = 10_000  # that a source without a length may give: small batches of an endless one come to it in seconds
MAX_BYTES = 2**36  # and so many bytes, which large ones come to in minutes

FIXED = (
    "pass a DataLoader with shuffle=False and without random augmentation, a list of batches, "
    "or the tensors (inputs, targets)"
)


class Limit:
    """How many batches a source may give before it is taken for endless."""

    def __init__(self, source: Iterable[Any], given: int | None) -> None:
        if given is not None and given < 1:
            raise DataError(f"max_batches is {given}: give a whole number of at least 1, or None.")
        own = length_of(source)
        given = None if isinstance(source, list) else given  # which ends
        self._batches = given if given is not None else MAX_BATCHES if own is None else own
        self._bytes = MAX_BYTES if own is None and given is None else math.inf
        self._origin = (
            "as max_batches= allows"
            if given is not None
            else "which is taken for endless, since it has no length"
            if own is None
            else "which is its length"
        )

    def check(self, batches: int, read_bytes: int) -> None:
        """Raises ``DataError`` for more."""
        if batches <= self._batches and read_bytes <= self._bytes:
            return
        amount = f"{self._batches} batches" if batches > self._batches else f"{MAX_BYTES / 2**30:.0f} GiB"
        raise DataError(
            f"The data go on after {amount}, {self._origin}: give data that end, e.g. list(itertools.islice(loader, "
            "100)), or allow as many batches as they have by max_batches=."
        )


def length_of(source: Any) -> int | None:
    """How many batches a source says that it has, if it does."""
    try:
        return len(source)
    except (TypeError, NotImplementedError):  # no length, or a loader of data without one
        return None


def source_of(data: Any, batch_size: int) -> Iterable[Any]:
    """What gives the batches at each pass; ``DataError`` where it cannot be iterated twice, or shuffles."""
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, tuple) and data and all(isinstance(t, Tensor) for t in data):
        return _cut(data, batch_size)
    if isinstance(data, Dataset):
        raise DataError("A Dataset gives single examples: wrap it as DataLoader(dataset, batch_size=512).")
    if isinstance(data, Tensor | Mapping | str) or not isinstance(data, Iterable):
        raise DataError(f"The data are a {type(data).__name__}: {FIXED}.")
    if isinstance(data, Iterator):
        raise DataError(f"The data are an iterator ({type(data).__name__}), which can be read only once: {FIXED}.")
    if isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler):
        raise DataError(f"The loader shuffles, so the loss would be another function at each pass: {FIXED}.")
    return list(data) if isinstance(data, Sequence) else data


def require_values(batch: Any, weight: Callable[[Any], float] | None) -> None:
    """Raises ``DataError`` for a batch without tensors, unless it holds values and has a weight."""
    if next(tensors_in(batch), None) is None and (weight is None or not holds_values(batch)):
        raise DataError(
            f"A batch is {describe(batch)}: give batches of torch tensors, or of numbers, texts and numpy arrays "
            "with weight=, the number of examples in a batch."
        )


def checked_weight(weight: float, batch: Any, index: int) -> float:
    """The weight of a batch that is not empty; ``DataError`` where it is none."""
    if not 0 <= weight < math.inf:
        raise DataError(f"Batch {index + 1} has the weight {weight}: give a finite one that is not negative.")
    if next((t.size(0) for t in tensors_in(batch) if t.ndim), 1) == 0:
        raise DataError(f"Batch {index + 1} ({describe(batch)}) is empty: leave it out.")
    return weight


def _cut(tensors: tuple[Tensor, ...], batch_size: int) -> list[tuple[Tensor, ...]]:
    if any(t.is_nested or t.layout is not torch.strided for t in tensors):
        raise DataError(
            f"The tensors are {describe(tensors)}, and only dense ones are cut into batches: "
            "give a list of batches, [(inputs, targets)]."
        )
    lengths = {t.shape[0] if t.ndim else 0 for t in tensors}
    if len(lengths) != 1:
        raise DataError(f"The tensors have {sorted(lengths)} examples: inputs and targets need one length.")
    if lengths == {0}:
        raise DataError("The data set is empty: give at least one example.")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}: give a whole number of at least 1.")
    return list(zip(*(t.split(batch_size) for t in tensors), strict=True))


def batches_of(source: Iterable[Any]) -> Iterator[Any]:
    """The source's batches, its failures as a ``DataError``."""
    try:
        yield from source
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"The loader failed: {type(error).__name__}: {' '.join(str(error).split())}") from error
