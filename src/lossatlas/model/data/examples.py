"""How many examples a batch has, by its tensors alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lossatlas.errors import DataError
from lossatlas.model.data.containers import describe, leading_size


def examples_in(batch: Any) -> int:
    """The number of examples of a batch by the rule of ``model/loss/reduction.py``, without its loss.

    >>> examples_in((torch.zeros(5, 3, 2), torch.zeros(3)))  # (time, examples, features) and a target an example
    3
    """
    if is_pair(batch):
        return examples_of_targets(batch[0], len(batch[1]))
    if isinstance(first := _first(batch), PackedSequence):
        return int(first.batch_sizes[0])
    if isinstance(first, list) and len(first) > 1 and all(isinstance(t, Tensor) and t.ndim > 1 for t in first):
        raise DataError(
            f"A batch starts with a list of {len(first)} tensors ({describe(first[:2])}, ...), and it is open whether "
            "each is an example: state examples=lambda batch: ..."
        )
    return leading_size(batch)


def is_pair(batch: Any) -> bool:
    """Whether a batch is inputs and dense targets."""
    pair = isinstance(batch, tuple | list) and len(batch) == 2 and not hasattr(batch, "_fields")
    return pair and isinstance(batch[1], Tensor) and batch[1].ndim > 0 and batch[1].layout is torch.strided


def examples_of_targets(inputs: Any, m: int) -> int:
    """The number of examples that m targets belong to."""
    try:
        each = isinstance(inputs, list | PackedSequence) or (isinstance(inputs, tuple) and len(inputs) == m)
        n = m if each else leading_size(inputs)
    except DataError:
        return m
    flattened = 0 < n < m and m % n == 0 and not is_time_first(inputs, m)
    return n if flattened else m


def is_time_first(inputs: Any, m: int) -> bool:
    """Whether inputs may be ``(time, examples, ...)`` with m examples."""
    dense = isinstance(inputs, Tensor) and not inputs.is_nested  # a nested one tells nothing but its length
    return dense and inputs.ndim > 1 and inputs.shape[1] == m


def _first(batch: Any) -> Any:
    """The batch's first entry, whatever it is."""
    if isinstance(batch, Mapping) and batch:
        return next(iter(batch.values()))
    return batch[0] if isinstance(batch, tuple | list) and batch and not hasattr(batch, "_fields") else batch
