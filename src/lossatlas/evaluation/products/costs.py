"""When a trace is repaid: estimates by counting, so that a machine's load decides nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

EXPECTED = 20  # products, at least: a search for two eigenpairs makes so many; later, as many as there have been
SHARE = 0.1  # of the time of the products expected, at most, is for the preparation
# Seconds, measured on one core of a server's CPU; on an accelerator memory is faster, and what Python does is not.
_A_BYTE = {"cpu": 3e-9}
_A_BYTE_ELSEWHERE = 1e-10
_A_TENSOR = 3e-5  # of a product, for each tensor that the graphs keep
_TRACED_TENSOR, _TRACED = 0.015, 1.0  # of a trace; the second once, for imports too
_COMPARED = 5  # products of one batch, to compare the routes
OPERATIONS = 1_000, 60  # that are traced at most: some, and so many for each tensor that the graphs keep
UNKNOWN = 2**40  # the bytes of a graph that cannot be counted: it is not kept


@dataclass(frozen=True)
class Work:
    """What autograd's graphs of one batch keep: ``size`` bytes in ``tensors`` tensors; theta takes ``theta`` bytes.

    ``largest``: the bytes of the largest tensor with a row for each of the ``rows`` examples.
    """

    size: int
    tensors: int
    theta: int
    device: str
    rows: int = 0
    largest: int = 0

    @property
    def product(self) -> float:
        """About the seconds of a product of this batch."""
        a_byte = _A_BYTE.get(self.device, _A_BYTE_ELSEWHERE)
        return a_byte * (self.size + 2 * self.theta) + _A_TENSOR * self.tensors

    @property
    def operations(self) -> int:
        """More than that are not traced."""
        return OPERATIONS[0] + OPERATIONS[1] * self.tensors


def repaid_after(work: Work | None, batches: float) -> float:
    """The products after which a trace is begun, for so many batches as this one; never before the first."""
    if work is None:
        return 1
    if work.size == UNKNOWN:
        return math.inf
    preparation = _TRACED + _TRACED_TENSOR * work.tensors + _COMPARED * work.product
    needed = preparation / (SHARE * batches * work.product)
    return 1 if needed <= EXPECTED else math.ceil(needed)
