"""What the axes of a tensor count, by its storage and strides: which axes of which parameter, or parts of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from lossatlas.model.parameters import Entry


@dataclass(frozen=True)
class Digit:
    """In a storage every ``stride`` bytes one of ``size`` indices along a parameter's axis, ``low`` entries apart."""

    stride: int
    size: int
    axis: int
    low: int = 1

    def along(self, size: int, stride: int) -> Digit | None:
        """What of it an axis of a tensor on this storage counts."""
        low, high = max(stride, self.stride), min(stride * size, self.stride * self.size)
        if stride == 0 or low >= high or low % self.stride or high % low:
            return None
        return replace(self, stride=low, size=high // low, low=self.low * low // self.stride)


@dataclass(frozen=True)
class Home:
    """A storage that holds the numbers of a parameter, as they are or as a function keeps their order."""

    name: str
    digits: tuple[Digit, ...]

    def axes(self, tensor: Tensor) -> Iterator[list[Digit]]:
        """What each axis of a tensor on this storage counts, the fastest first."""
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            found = (digit.along(size, stride * tensor.itemsize) for digit in self.digits)
            yield sorted((digit for digit in found if digit), key=lambda digit: digit.stride)

    def inside(self, tensor: Tensor) -> list[Digit]:
        """What lies inside one number: the real and the imaginary part."""
        return [digit for digit in self.digits if digit.stride < tensor.itemsize]


def home_of(entry: Entry, itemsize: int) -> Home:
    steps = [math.prod(entry.shape[axis + 1 :]) * itemsize for axis in range(len(entry.shape))]
    return Home(entry.name, tuple(Digit(*of, axis) for axis, of in enumerate(zip(steps, entry.shape, strict=True))))


def varying(tensor: Tensor) -> int:
    """How many numbers of its own it has: an axis that was expanded has one."""
    return math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)


def place_of(tensor: Tensor) -> int:
    """Where a tensor's numbers are; 0 for one that has none of its own (sparse, nested, empty)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
