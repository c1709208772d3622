"""What a model holds besides theta, kept for the points that were read from models.

A point is a bare vector; the buffers of its model (BatchNorm's statistics, normalisers, vectors of spectral_norm) and
its parameters outside the selection belong to it all the same, and a path between two models needs those of both.
Every objective and every ``point_of(model)`` leaves them here, under the SHA-256 of the point's bits and of the names
and shapes of model and selection: a point may be copied, stacked, moved to a device, or saved and read again.

Nothing is forgotten silently: of a point that is not found here a path says that its buffers are not known, and
``point_of(model)`` makes them known. Where several models share a point and differ in the rest, the latest counts,
and a path says so. What is kept takes at most ``MOST`` bytes, the latest first; a model that is
theta alone is neither kept nor hashed, and for others the hash takes about 1 ms for each 400 000 parameters. A lock
guards it all: threads may share it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lossatlas.model.data.fingerprints import bytes_of, equal, tensor_bytes

MOST = 2**28  # bytes


@dataclass(frozen=True)
class Belongings:
    """The tensors besides theta of the model that a point was read from; ``several``: of the latest of such models."""

    tensors: dict[str, Tensor]
    several: bool = False


_KEPT: OrderedDict[str, Belongings] = OrderedDict()
_LOCK = threading.Lock()


def key_of(architecture: Any, theta: Tensor) -> str:
    """The name under which what belongs to ``theta`` is kept."""
    sha = hashlib.sha256(f"{architecture!r} {theta.dtype}".encode())
    sha.update(tensor_bytes(theta))
    return sha.hexdigest()


def remember(key: str, tensors: Mapping[str, Tensor]) -> None:
    """The latest model's tensors, if they are no more than ``MOST`` bytes; the earliest of all others make room."""
    fits = sum(map(bytes_of, tensors.values())) <= MOST
    own = {name: tensor.detach().clone() for name, tensor in tensors.items()} if fits else None
    with _LOCK:
        before = _KEPT.pop(key, Belongings({}))
        if own is not None:
            alike = _same(before.tensors, own)  # then a state dict does not take away what only the module told
            _KEPT[key] = Belongings(before.tensors | own if alike else own, before.several or not alike)
        while sum(bytes_of(t) for one in _KEPT.values() for t in one.tensors.values()) > MOST:
            _KEPT.popitem(last=False)


def remembered(key: str) -> Belongings | None:
    """What was kept last under this key; None where nothing is known."""
    with _LOCK:
        return _KEPT.get(key)


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are equal that both have, in the type and on the device of the second."""
    return all(equal(one[name].to(other[name]), other[name]) for name in one.keys() & other.keys())
