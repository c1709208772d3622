"""Tokenised texts as batches of tensors by name: cut, padded and made pairs (inputs, targets)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.errors import DataError
from lossatlas.model.data.sources import FIXED, source_of

IGNORED = -100  # PyTorch's own index of targets that do not count
_LABELS = ("labels", "label", "label_ids")  # the first one that is there
Named = dict[str, Tensor]


class Texts:
    """Batches ``{name: tensor}`` with the names that a model takes, and ``labels`` where there are some.

    ``data`` are such batches (a list, a ``DataLoader``); columns by name (``tokenizer(texts)``), cut into batches of
    ``batch_size``; or rows by name (a list, a ``datasets.Dataset``), padded on the right to the longest of their batch:
    ids with 0, the attention mask (of ones where there is none) with 0, labels with -100. ``left_out``: other names.
    """

    def __init__(self, data: Any, batch_size: int, names: Iterable[str]) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}: give a whole number of at least 1.")
        self._names, self.left_out = set(names), set[str]()
        masks, rows = "attention_mask" in self._names, _rows_of(data)
        single = rows is not None
        self._source: Any = _Padded(rows, batch_size, self._named, masks) if single else source_of(data, batch_size)

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Named]:
        for batch in self._source:
            if not isinstance(batch, Mapping):
                raise DataError(f"A batch is a {type(batch).__name__}: give tensors by name, as the model takes them.")
            yield self._named(batch)

    def _named(self, given: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: given[name] for name in given if name in self._names and name not in _LABELS}
        labels = next((name for name in _LABELS if name in given), None)
        self.left_out |= given.keys() - kept.keys() - {labels}
        return kept if labels is None else kept | {"labels": given[labels]}


class Pairs:
    """The same batches as ``(inputs, targets)``, at each pass."""

    def __init__(self, texts: Texts, pair: Callable[[Named], tuple[Named, Tensor]]) -> None:
        self._texts, self._pair = texts, pair

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[tuple[Named, Tensor]]:
        return map(self._pair, self._texts)


class _Padded:
    def __init__(self, rows: Sequence[Mapping[str, Any]], size: int, named: Callable[..., Named], masks: bool) -> None:
        self._rows, self._size, self._named, self._masks = rows, size, named, masks

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._size)

    def __iter__(self) -> Iterator[Named]:
        for start in range(0, len(self._rows), self._size):
            stop = min(start + self._size, len(self._rows))
            yield self._of_one(padded([self._named(self._rows[index]) for index in range(start, stop)]))

    def _of_one(self, batch: Named) -> Named:
        """Padding shows in the mask alone."""
        if "attention_mask" in batch and not self._masks:
            if not bool(batch["attention_mask"].all()):
                raise DataError(
                    "Texts have other lengths than others of their batch, and the model takes no attention_mask: give "
                    "batch_size=1, or texts of one length."
                )
            del batch["attention_mask"]
        return batch


def padded(rows: Sequence[Mapping[str, Any]]) -> Named:
    """One batch of rows.

    >>> padded([{"input_ids": [5, 6]}, {"input_ids": [7]}])
    {'input_ids': tensor([[5, 6], [7, 0]]), 'attention_mask': tensor([[1, 1], [1, 0]])}
    """
    columns = {name: [torch.as_tensor(row[name]) for row in rows] for name in rows[0]}
    if "input_ids" in columns:
        columns.setdefault("attention_mask", [torch.ones(len(ids), dtype=torch.int64) for ids in columns["input_ids"]])
    return {name: _stacked(column, IGNORED if name == "labels" else 0) for name, column in columns.items()}


def _stacked(column: list[Tensor], fill: int) -> Tensor:
    if any(tensor.ndim != 1 for tensor in column):
        return torch.stack(column)
    longest = max(map(len, column))
    return torch.stack([F.pad(tensor, (0, longest - len(tensor)), value=fill) for tensor in column])


class _Columns(Sequence[Mapping[str, Any]]):
    """Columns by name as rows."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = columns
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise DataError(f"The columns have {sorted(lengths)} rows: they need one length.")
        (self._length,) = lengths

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        return {name: column[index] for name, column in self._columns.items()}


def _rows_of(data: Any) -> Any:
    """Rows by name, of what holds single texts; None for what holds batches."""
    if isinstance(data, Mapping):
        return _Columns(data)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        return None
    if not len(data):
        raise DataError("The data set is empty: give at least one text.")
    first = data[0]
    if not isinstance(first, Mapping):
        raise DataError(f"The data hold a {type(first).__name__}, and what a model takes by name is needed: {FIXED}.")
    ids = first.get("input_ids", next(iter(first.values()), None))
    return data if torch.as_tensor(ids).ndim < 2 else None
