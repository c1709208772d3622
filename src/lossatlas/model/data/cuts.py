"""Whether batches may be cut anew, into subsets or batches of another size: only where each row is an example.

A tensor of a batch whose first axis has the batch's length may still not hold one example a row: an adjacency has
nodes on both axes, edges refer to rows, a model may mix the rows. Batches of unequal sizes and else equal shapes, or a
loader that stacks single examples, settle it; otherwise the model is asked, on a batch and on every second of its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from lossatlas.errors import LossAtlasError
from lossatlas.model.data.containers import copied, describe, leading_size, mapped, tensors_in
from lossatlas.model.data.fingerprints import contents, form
from lossatlas.model.data.randomness import has_drawn, preserved_rng

MIXED = "the model's outputs on every second row of a batch are not those among all, so its rows depend on others"
TOLERANCE = 1e-3  # of the largest output: sums of other lengths round differently, mixed rows differ by far more


def reason_of_form(batches: Sequence[Any], sizes: Sequence[float]) -> str | None:
    """Why batches of this form cannot be cut, or None where each of their tensors has a row an example."""
    for batch, size in zip(batches, sizes, strict=True):
        if reason := _reason_of_one(batch, size):
            return reason
    if len({form(batch, of_one=True) for batch in batches}) > 1:
        return "they differ in more than their number of examples"
    return None


def _reason_of_one(batch: Any, size: float) -> str | None:
    if not has_rows(batch, size):
        return f"a batch of {size:g} examples holds {describe(batch)}, which is not one dense row an example"
    if not all(isinstance(part, Tensor) for part in contents(_without_keys(batch))):
        return "a batch holds more than tensors"
    return None


def _without_keys(batch: Any) -> Any:
    if type(batch) is dict:
        return [_without_keys(value) for value in batch.values()]
    if isinstance(batch, tuple | list):
        return [_without_keys(value) for value in batch]
    return batch


def rows_are_examples(batches: Sequence[Any], source: Iterable[Any]) -> bool:
    """Whether it is settled that a row is an example: by unequal sizes, or by a loader that stacks examples."""
    if isinstance(source, DataLoader) and source.batch_size is not None and source.collate_fn is default_collate:
        return True
    return len({leading_size(batch) for batch in batches}) > 1


def has_rows(batch: Any, size: float) -> bool:
    """Whether all tensors of a batch are dense and have ``size`` rows."""
    return not any(
        t.is_nested or t.layout is not torch.strided or t.ndim == 0 or len(t) != size for t in tensors_in(batch)
    )


def every_second(tensor: Tensor) -> Tensor:
    """Every second row, the last among them: more than the first half, which sums over earlier rows do not change."""
    return tensor[(len(tensor) - 1) % 2 :: 2]


def square(batch: Any) -> str | None:
    """Why a batch looks like a graph: a tensor that has the batch's length on two axes."""
    size = leading_size(batch)
    found = [tuple(t.shape) for t in tensors_in(batch) if size > 1 and size in t.shape[1:]]
    if not found:
        return None
    return f"a tensor {found[0]} has the batch's length on two axes, as the adjacency of a graph has"


class Function(Protocol):
    """What is asked of a model and its measure (``FunctionalModel``, which needs batches itself)."""

    @property
    def policy(self) -> str: ...
    @property
    def norms(self) -> Sequence[Any]: ...
    @property
    def point(self) -> Tensor: ...
    def tensors(self, theta: Tensor, /) -> dict[str, Tensor]: ...
    def outputs(self, tensors: dict[str, Tensor], batch: Any, index: int, /) -> Tensor: ...
    def measure(self, tensors: dict[str, Tensor], batch: Any, index: int, /) -> dict[str, Tensor]: ...


class CutCheck:
    """Why some rows of a batch are not that part of the batch's function; None where they are."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def __call__(self, batch: Any) -> str | None:
        """The model decides on every second row; where it yields no row an example, ``square`` does."""
        try:
            mixed = self.mixed(batch)
        except LossAtlasError as error:
            text = " ".join(str(error).split()).rstrip(".")
            return square(batch) or f"every second example of a batch fails alone ({text})"
        return square(batch) if mixed is None else MIXED if mixed else None

    def mixed(self, batch: Any) -> bool | None:
        """Whether rows depend on others; None where that is not asked, or the model yields no row an example."""
        size, own = leading_size(batch), self._function.policy == "batch" and self._function.norms
        if size < 2 or own:  # under that policy each batch's own statistics are asked for, whatever its size
            return None
        with torch.no_grad(), preserved_rng(self._function.point.device):
            whole = self._rows(batch)
            if whole is None or len(whole) != size:
                return None
            alone, among = self._rows(mapped(batch, every_second)), every_second(whole).double()
        if alone is None:
            return None
        return alone.shape != among.shape or not _close(alone.double(), among)

    def _rows(self, batch: Any) -> Tensor | None:
        """What the model or the loss yields for each row, where they do, and draw nothing."""
        function, batch = self._function, copied(batch)
        tensors = function.tensors(function.point)
        try:
            rows = function.outputs(tensors, batch, 0)
        except LossAtlasError:
            rows = function.measure(tensors, copied(batch), 0)["loss"]
        return None if has_drawn(function.point.device) or not rows.ndim or rows.is_complex() else rows


def _close(found: Tensor, expected: Tensor) -> bool:
    finite = expected[expected.isfinite()]
    scale = float(finite.abs().amax()) if finite.numel() else 0.0
    return bool(torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True))
