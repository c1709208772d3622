"""Data as a fixed sequence of batches: the same at every pass, or refused."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from lossatlas.errors import DataError

KEEP_BYTES = 2**31  # batches are prepared once and kept when all of them together are no larger than this

_FIXED = (
    "pass a DataLoader with shuffle=False and without random augmentation, a list of batches, "
    "or the tensors (inputs, targets)"
)


class Batches:
    """Batches b_1 .. b_m with weights w_1 .. w_m, so that a mean over the data is sum_j w_j mean(b_j) / sum_j w_j.

    Parameters
    ----------
    data : a pair of tensors ``(inputs, targets)``, a list of batches, a ``DataLoader``, or anything else that can
        be iterated twice and yields batches.
    batch_size : into how many examples a batch a pair of tensors is cut; the other kinds keep their own batches.
    device, dtype : where batches live, and what their floating-point tensors are cast to.
    weight : the weight of a batch; by default its number of examples, the length of its first tensor. A mean
        over tokens, for example, needs ``lambda batch: (batch["labels"] != -100).sum().item()``.

    Raises
    ------
    DataError : no data; an iterator, which can be read only once; a loader that gives other data at its second
        pass (it shuffles, augments or draws); a loader that fails; a ``Dataset`` of single examples.
    """

    def __init__(
        self,
        data: Any,
        *,
        batch_size: int = 128,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        weight: Callable[[Any], float] | None = None,
    ) -> None:
        self._place: Callable[[Any], Any] = lambda batch: _map(batch, lambda t: _cast(t, device, dtype))
        self._source = _source(data, batch_size)
        with preserved_rng(torch.device(device)):
            self.weights, self.fingerprint = self._first_pass(weight or leading_size)
            if not isinstance(self._source, list):
                self._second_pass()

    def __iter__(self) -> Iterator[Any]:
        if self._kept is not None:  # copies, since a model may change its inputs in place
            yield from map(copied, self._kept)
            return
        source = _read(self._source)
        while True:
            with preserved_rng():  # around each step and never across a yield, where the caller may draw
                try:
                    batch = next(source)
                except StopIteration:
                    return
            yield self._place(batch)

    def __len__(self) -> int:
        return len(self.weights)

    def kept(self) -> list[Any] | None:
        """The batches themselves where they are kept, to be read and never written to."""
        return self._kept

    def labels(self) -> Tensor | None:
        """``(N,)``: the classes of all examples, where batches are kept pairs (inputs, one whole number an example)."""
        if self._kept is None or any(not _has_labels(batch) for batch in self._kept):
            return None
        return torch.cat([batch[1] for batch in self._kept]).cpu()

    def take(self, indices: Tensor, size: int) -> list[Any] | None:
        """The examples with these indices, in batches of ``size``; None where batches cannot be cut anew."""
        whole = self.recut(int(self.total))
        if whole is None:
            return None
        n = leading_size(whole[0])
        listed = isinstance(indices, Tensor) and indices.ndim == 1 and not indices.is_floating_point()
        if not listed or not len(indices) or not bool(((indices >= 0) & (indices < n)).all()):
            raise DataError(f"Indices of examples are whole numbers from 0 to {n - 1}, in a tensor (m,) with m >= 1.")
        chosen = [tensor[indices.to(tensor.device)].split(size) for tensor in tensors_in(whole[0])]
        return [refill(whole[0], iter(tensors)) for tensors in zip(*chosen, strict=True)]

    def shuffled(self, size: int, seed: int) -> tuple[list[float], Iterable[Any]]:
        """All examples in an order drawn from ``seed``, in batches of at most ``size`` with weights of mean 1.

        Batches that cannot be cut anew come as they are: in random order where they are kept, else in their own.
        """
        generator, n = torch.Generator().manual_seed(seed), max(int(self.total), 1)
        even = math.ceil(n / math.ceil(n / size))  # nearly equal ones rather than full ones and a rest
        cut = self.take(torch.randperm(n, generator=generator), even)
        if cut is not None:
            return [leading_size(batch) * len(cut) / n for batch in cut], cut
        relative = [weight * len(self) / self.total for weight in self.weights]
        if (kept := self.kept()) is None:
            return relative, self
        order = torch.randperm(len(kept), generator=generator).tolist()
        return [relative[i] for i in order], (copied(kept[i]) for i in order)

    def recut(self, size: int, count: int | None = None) -> list[Any] | None:
        """The first ``count`` examples (None: all) in batches of ``size``; None where batches cannot be cut anew.

        They can where they are kept, each counts by its number of examples, and they differ in nothing but that.
        """
        if self._kept is None or any(
            t.ndim == 0 or t.shape[0] != weight
            for batch, weight in zip(self._kept, self.weights, strict=True)
            for t in tensors_in(batch)
        ):
            return None
        if len({form(batch, of_one=True) for batch in self._kept}) > 1:
            return None
        needed = len(self._kept) if count is None else 1 + int(np.searchsorted(np.cumsum(self.weights), count))
        columns = list(zip(*(tensors_in(batch) for batch in self._kept[:needed]), strict=True))
        pieces = [torch.cat(column)[:count].split(size) for column in columns]
        return [refill(self._kept[0], iter(tensors)) for tensors in zip(*pieces, strict=True)]

    @property
    def total(self) -> float:
        return float(sum(self.weights))

    def _first_pass(self, weight: Callable[[Any], float]) -> tuple[list[float], str]:
        weights: list[float] = []
        self._digests: list[str] = []
        self._kept: list[Any] | None = []
        kept_bytes = 0
        for batch in _read(self._source):
            if next(tensors_in(batch), None) is None:
                raise DataError(f"A batch is {describe(batch)}: give batches of torch tensors.")
            weights.append(_checked(float(weight(batch)), batch, len(weights)))
            self._digests.append(digest(batch))
            kept_bytes += sum(t.nbytes for t in tensors_in(batch))
            if kept_bytes > KEEP_BYTES:
                self._kept = None
            if self._kept is not None:
                self._kept.append(self._place(batch))
        if not sum(weights) > 0:
            raise DataError("The data set is empty: give at least one batch with at least one example.")
        return weights, hashlib.sha256("".join(self._digests).encode()).hexdigest()[:16]

    def _second_pass(self) -> None:
        again = [digest(batch) for batch in _read(self._source)]
        if again == self._digests:
            return
        differing = sum(a != b for a, b in zip(self._digests, again, strict=False))
        raise DataError(
            f"The loader gives other data at its second pass ({differing} of {len(self._digests)} batches differ, "
            f"{len(again)} batches the second time), so the loss would be another function each time: {_FIXED}."
        )


@contextmanager
def preserved_rng(device: torch.device | None = None) -> Iterator[None]:
    """Whatever runs inside, the generators of torch, numpy and random come back as they were.

    Iterating a ``DataLoader`` draws from torch's global generator even when it does not shuffle.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - a user's loader may draw from it
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def seed_generators(seed: int, device: torch.device) -> None:
    """Start torch's generators (of the CPU and of ``device``, no other device's) and those of numpy and random."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - a user's model may draw from it
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def form(batch: Any, *, of_one: bool = False) -> Any:
    """What batches of one form share: all but the numbers in their tensors; ``of_one``: and all but their length."""
    if isinstance(batch, Tensor):
        return batch.dtype, tuple(batch.shape[1:] if of_one else batch.shape)
    if isinstance(batch, Mapping):
        return type(batch), tuple((key, form(value, of_one=of_one)) for key, value in batch.items())
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        return type(batch), tuple(form(value, of_one=of_one) for value in batch)
    return type(batch), repr(batch)


def copied(batch: Any) -> Any:
    """The same batch with tensors of its own."""
    return _map(batch, torch.clone)


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """The tensors of a nested batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_in(value)
    elif isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        for value in batch:
            yield from tensors_in(value)


def leading_size(batch: Any) -> int:
    """The number of examples in a batch: the length of its first tensor that has one."""
    for tensor in tensors_in(batch):
        if tensor.ndim:
            return tensor.shape[0]
    raise DataError(
        f"A batch of type {type(batch).__name__} holds no tensor with a batch axis, so its size is unknown: "
        "give batches of torch tensors, or state weight=."
    )


def digest(batch: Any) -> str:
    """SHA-256 over the shapes, types and bytes of a batch's tensors."""
    sha = hashlib.sha256()
    for tensor in tensors_in(batch):
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor_bytes(tensor))
    return sha.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The tensor's contents, whatever its type."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def describe(batch: Any) -> str:
    """``float32 (128, 1, 28, 28), int64 (128)``: a batch in an error message."""
    shapes = [f"{str(t.dtype).removeprefix('torch.')} ({', '.join(map(str, t.shape))})" for t in tensors_in(batch)]
    return ", ".join(shapes) or f"a {type(batch).__name__} without tensors"


def _source(data: Any, batch_size: int) -> Iterable[Any]:
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, tuple) and data and all(isinstance(t, Tensor) for t in data):
        return _cut(data, batch_size)
    if isinstance(data, Dataset):
        raise DataError("A Dataset gives single examples: wrap it as DataLoader(dataset, batch_size=512).")
    if isinstance(data, Tensor | Mapping | str) or not isinstance(data, Iterable):
        raise DataError(f"The data are a {type(data).__name__}: {_FIXED}.")
    if isinstance(data, Iterator):
        raise DataError(f"The data are an iterator ({type(data).__name__}), which can be read only once: {_FIXED}.")
    if isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler):
        raise DataError(f"The loader shuffles, so the loss would be another function at each pass: {_FIXED}.")
    return list(data) if isinstance(data, Sequence) else data


def _checked(weight: float, batch: Any, index: int) -> float:
    if not 0 <= weight < math.inf:
        raise DataError(f"Batch {index + 1} has the weight {weight}: give a finite one that is not negative.")
    if next((t.shape[0] for t in tensors_in(batch) if t.ndim), 1) == 0:
        raise DataError(f"Batch {index + 1} ({describe(batch)}) is empty: leave it out.")
    return weight


def _cut(tensors: tuple[Tensor, ...], batch_size: int) -> list[tuple[Tensor, ...]]:
    lengths = {t.shape[0] if t.ndim else 0 for t in tensors}
    if len(lengths) != 1:
        raise DataError(f"The tensors have {sorted(lengths)} examples: inputs and targets need one length.")
    if lengths == {0}:
        raise DataError("The data set is empty: give at least one example.")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}: give a whole number of at least 1.")
    return list(zip(*(t.split(batch_size) for t in tensors), strict=True))


def _read(source: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from source
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"The loader failed: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _map(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: _map(value, function) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        mapped = tuple(_map(value, function) for value in batch)
        return type(batch)(*mapped) if hasattr(batch, "_fields") else mapped  # a namedtuple stays one
    return batch


def _has_labels(batch: Any) -> bool:
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not isinstance(batch[1], Tensor) or batch[1].ndim != 1:
        return False
    return not batch[1].is_floating_point() and len(batch[1]) == leading_size(batch)


def refill(batch: Any, tensors: Iterator[Tensor]) -> Any:
    """A batch of the same form that holds other tensors."""
    return _map(batch, lambda _: next(tensors))


def _cast(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
    # A copy, so that L stays what it is when the user's tensor or the loader's buffer is written to later.
    return tensor.detach().to(device=device, dtype=dtype if tensor.is_floating_point() else None, copy=True)
