"""One piece of memory for the vectors of a measurement."""

from __future__ import annotations

import torch
from torch import Tensor


class Workspace:
    """The memory of the vectors of a measurement: some that are held, and free ones, which whoever comes next takes.

    One measurement is made after the other: a new space overwrites the free vectors of an earlier one.
    """

    def __init__(self, count: int, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self._numbers = torch.empty(count * n, dtype=dtype, device=device)
        self._held = self._touched = 0

    def free(self, n: int) -> Tensor:
        """The free memory as vectors ``(m, n)``."""
        left = self._numbers[self._held :]
        return left[: len(left) // n * n].view(-1, n)

    def hold(self, count: int, n: int) -> None:
        """The first so many vectors are not free from now on, all others are."""
        self._held = count * n

    def touch(self, rows: Tensor) -> None:
        """These have been written."""
        self._touched = max(self._touched, int(rows.storage_offset()) + rows.numel())

    @property
    def bytes(self) -> int:
        """Of the vectors that have been written."""
        return self._touched * self._numbers.itemsize
