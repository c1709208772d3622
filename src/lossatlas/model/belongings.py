"""What a model holds besides theta, remembered for the points that were read from models.

A point is a bare vector; the buffers of its model (BatchNorm's statistics, normalisers, vectors of spectral_norm)
belong to it all the same, and a path between two models needs those of both.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor

from lossatlas.model.fingerprints import tensor_bytes

_MOST = 64  # points: the latest
_REMEMBERED: OrderedDict[str, dict[str, Tensor]] = OrderedDict()


def remember(theta: Tensor, rest: Mapping[str, Tensor]) -> None:
    """``rest`` belongs to ``theta``: buffers, and fixed parameters that differ from the objective's, by name."""
    if not rest:
        return
    key = _key(theta)
    _REMEMBERED[key] = {name: tensor.detach().clone() for name, tensor in rest.items()}
    _REMEMBERED.move_to_end(key)
    while len(_REMEMBERED) > _MOST:
        _REMEMBERED.popitem(last=False)


def remembered(theta: Tensor) -> dict[str, Tensor] | None:
    """What belongs to a point that was read from a model; None for any other."""
    return _REMEMBERED.get(_key(theta)) if _REMEMBERED else None


def _key(theta: Tensor) -> str:
    return f"{theta.dtype} {hashlib.sha256(tensor_bytes(theta)).hexdigest()}"
