"""Data as a fixed sequence of batches: the same at every pass, or refused."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lossatlas.errors import DataError
from lossatlas.model.data.containers import cast_type, copied, describe, leading_size, mapped, refill, tensors_in
from lossatlas.model.data.cuts import reason_of_form, rows_are_examples, square
from lossatlas.model.data.examples import examples_in
from lossatlas.model.data.fingerprints import bytes_of, digest, form, tensor_bytes
from lossatlas.model.data.passes import Passes
from lossatlas.model.data.randomness import preserved_rng, seed_generators
from lossatlas.model.data.sources import Limit, batches_of, checked_weight, require_values, source_of

__all__ = [  # with what goes with batches everywhere
    "KEEP_BYTES",
    "Batches",
    "copied",
    "describe",
    "digest",
    "form",
    "leading_size",
    "preserved_rng",
    "refill",
    "seed_generators",
    "tensor_bytes",
    "tensors_in",
]

KEEP_BYTES = 2**31  # batches are prepared once and kept when all of them together are no larger than this


class Batches:
    """Batches b_1 .. b_m with weights w_1 .. w_m, so that a mean over the data is sum_j w_j mean(b_j) / sum_j w_j.

    Parameters
    ----------
    data : a pair of tensors ``(inputs, targets)``, a list of batches, a ``DataLoader``, or anything else that can
        be iterated twice and yields batches.
    batch_size : into how many examples a batch a pair of tensors is cut; the other kinds keep their own batches.
    device, dtype : where batches live, and what their floating-point tensors are cast to.
    weight : the weight of a batch; by default its number of examples. A mean over tokens, for example, needs
        ``lambda batch: (batch["labels"] != -100).sum().item()``. With a weight of its own a batch may hold no tensor
        at all, but numbers, texts or numpy arrays.
    examples : the number of examples in a batch; by default the length of its targets, or else of its first tensor.
    max_batches : more batches than this are refused, never left out: what has no length may be endless. By default
        its length for what has one, and ``MAX_BATCHES`` (and ``MAX_BYTES``) for what has none.

    Batches keep their class: tuples, named tuples, dicts and their subclasses, dataclasses, packed sequences, graph
    batches, whatever ``pickle`` can take apart. Dense, sparse (COO, CSR, CSC) and nested tensors are copied and their
    floating-point numbers cast; all that a batch holds is part of the fingerprint. What fits into ``KEEP_BYTES`` is
    kept, and a loader is read twice to see that it repeats itself; larger data are read once, and the next pass is
    compared with the first while it is used.

    Raises
    ------
    DataError : no data; an iterator, which can be read only once; a loader that gives other data at its second
        pass (it shuffles, augments or draws); a loader that fails or does not end; a ``Dataset`` of single examples;
        a batch that holds what cannot be copied (locks, open files, generators).
    """

    def __init__(
        self,
        data: Any,
        *,
        batch_size: int = 128,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        weight: Callable[[Any], float] | None = None,
        examples: Callable[[Any], int] | None = None,
        max_batches: int | None = None,
    ) -> None:
        self._place: Callable[[Any], Any] = lambda batch: _placed(batch, device, dtype)
        self._source = source_of(data, batch_size)
        self._cut = isinstance(data, TensorDataset) or (isinstance(data, tuple) and isinstance(data[0], Tensor))
        self._limit = Limit(self._source, max_batches)
        self.examples_given, self.weight_given = examples is not None, weight is not None
        self.size: Callable[[Any], int] = examples or examples_in
        self.weigh: Callable[[Any], float] = weight or self.size
        self.cut_check: Callable[[Any], str | None] = square
        self._uncut: str | bool | None = False  # not yet known
        with preserved_rng(torch.device(device)):
            self.weights, self.sizes, self.fingerprint = self._first_pass(weight)
            self._passes = Passes(self._source, self._digests)
            if self._kept is not None:
                self._passes.require_second()

    def __iter__(self) -> Iterator[Any]:
        if self._kept is not None:  # copies, since a model may change its inputs in place
            yield from map(copied, self._kept)
            return
        yield from map(self._place, self._passes)

    def __len__(self) -> int:
        return len(self.weights)

    def settle(
        self,
        *,
        size: Callable[[Any], int] | None = None,
        weigh: Callable[[Any], float] | None = None,
        weights: Sequence[float] | None = None,
        values: Sequence[int] | None = None,
        uncut: str | None = None,
    ) -> None:
        """Take over what the loss tells: other sizes, other weights (the fingerprint stays), why batches stay whole.

        What was stated by ``weight`` and ``examples`` goes before. ``weights`` are those of batches that stay whole,
        ``values`` the numbers of values that the loss returns for them: their sizes and weights.
        """
        if size is not None and not self.examples_given:
            counted = not self.weight_given and self.weights == [float(one) for one in self.sizes]
            self.size, self.sizes = size, [size(batch) for batch in self]
            self.weights = [float(one) for one in self.sizes] if counted else self.weights
        if weigh is not None and not self.weight_given:
            self.weigh, self.weights = weigh, [float(weigh(batch)) for batch in self]
        if weights is not None and not self.weight_given:
            self.weights = list(weights)
        if values is not None:
            self.sizes = self.sizes if self.examples_given else list(values)
            self.weights = self.weights if self.weight_given else [float(value) for value in values]
        if not self.total > 0:
            raise DataError("Every target is ignored by the loss: give at least one that is not.")
        self._uncut = uncut or self._uncut

    @property
    def cut_from_tensors(self) -> bool:
        """Whether ``batch_size`` says what a batch is."""
        return self._cut

    @property
    def n_examples(self) -> int:
        """N, the number of examples."""
        return sum(self.sizes)

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
        whole = self.recut(self.n_examples)
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
        generator, n = torch.Generator().manual_seed(seed), max(self.n_examples, 1)
        even = math.ceil(n / math.ceil(n / size))  # nearly equal ones rather than full ones and a rest
        cut = self.take(torch.randperm(n, generator=generator), even)
        if cut is not None:
            weights = [self.weigh(batch) for batch in cut]
            total = sum(weights)
            return [weight * len(cut) / total for weight in weights], cut
        relative = [weight * len(self) / self.total for weight in self.weights]
        if (kept := self.kept()) is None:
            return relative, self
        order = torch.randperm(len(kept), generator=generator).tolist()
        return [relative[i] for i in order], (copied(kept[i]) for i in order)

    def recut(self, size: int, count: int | None = None) -> list[Any] | None:
        """The first ``count`` examples (None: all) in batches of ``size``; None where ``uncut`` gives a reason.

        They can be cut where they are kept, hold tensors with a row an example, and differ in nothing but the number.
        """
        if self._kept is None or self.uncut is not None:
            return None
        needed = len(self._kept) if count is None else 1 + int(np.searchsorted(np.cumsum(self.sizes), count))
        columns = list(zip(*(tensors_in(batch) for batch in self._kept[:needed]), strict=True))
        pieces = [torch.cat(column)[:count].split(size) for column in columns]
        return [refill(self._kept[0], iter(tensors)) for tensors in zip(*pieces, strict=True)]

    @property
    def uncut(self) -> str | None:
        """Why batches cannot be cut anew, or None; ``cut_check`` is asked once where their form does not settle it."""
        if self._kept is None:
            return "they are not held in memory"
        if isinstance(self._uncut, bool):
            self._uncut = self._reason_of_weights() or reason_of_form(self._kept, self.sizes)
            if self._uncut is None and not rows_are_examples(self._kept, self._source):
                self._uncut = self.cut_check(self._kept[0])
        return self._uncut

    def _reason_of_weights(self) -> str | None:
        own = self.weight_given and self.weights != [float(size) for size in self.sizes]
        return "their weights are not their numbers of examples" if own else None

    @property
    def total(self) -> float:
        return float(sum(self.weights))

    def _first_pass(self, weight: Callable[[Any], float] | None) -> tuple[list[float], list[int], str]:
        weights: list[float] = []
        sizes: list[int] = []
        self._digests: list[str] = []
        self._kept: list[Any] | None = []
        read_bytes = 0
        for batch in batches_of(self._source):
            require_values(batch, weight)
            weights.append(checked_weight(float(self.weigh(batch)), batch, len(weights)))
            sizes.append(self._size(batch, weights[-1]))
            self._digests.append(digest(batch))
            read_bytes += sum(map(bytes_of, tensors_in(batch)))
            self._limit.check(len(weights), read_bytes)
            if read_bytes > KEEP_BYTES:
                self._kept = None
            if self._kept is not None:
                self._kept.append(self._place(batch))
        if not sum(weights) > 0:
            raise DataError("The data set is empty: give at least one batch with at least one example.")
        return weights, sizes, hashlib.sha256("".join(self._digests).encode()).hexdigest()[:16]

    def _size(self, batch: Any, weight: float) -> int:
        try:
            return int(self.size(batch))
        except DataError:
            if not self.weight_given or self.examples_given:
                raise
            return round(weight)  # all that is known of a batch without a tensor that has a length


def _has_labels(batch: Any) -> bool:
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not isinstance(batch[1], Tensor) or batch[1].ndim != 1:
        return False
    return not batch[1].is_floating_point() and len(batch[1]) == leading_size(batch)


def _placed(batch: Any, device: torch.device | str, dtype: torch.dtype | None) -> Any:
    with torch.inference_mode(False):  # or no gradient could ever be taken through the copies
        return mapped(batch, lambda tensor: _cast(tensor, device, dtype))


def _cast(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
    # A copy, so that L stays what it is when the user's tensor or the loader's buffer is written to later.
    return tensor.detach().to(device=device, dtype=cast_type(tensor, dtype), copy=True)
