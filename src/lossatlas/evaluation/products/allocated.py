"""How many bytes of tensors live at once while something is computed."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Use(NamedTuple):
    """Bytes that a product takes: of what could be kept for the next one, and of all else, at most."""

    kept: int
    beside: int

    @property
    def whole(self) -> int:
        return self.kept + self.beside


class Allocated(TorchDispatchMode):
    """``peak``: the bytes of the tensors made within this context that lived at the same time, at most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}
        self._given: set[int] = set()  # storages from before
        self._bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs))
        self._given |= {key for key, _, _ in map(_storage, filter(_is_tensor, given)) if key not in self._made}
        found = func(*args, **(kwargs or {}))
        for key, reference, size in map(_storage, filter(_is_tensor, tree_leaves(found))):
            known = self._made.get(key)
            if key not in self._given and (known is None or known[0].expired()):
                self._made[key] = (reference, size)
                self._bytes += size
        if self._bytes > self.peak:  # a bound: those that have been freed are looked for only here
            self._made = {key: made for key, made in self._made.items() if not made[0].expired()}
            self._bytes = sum(size for _, size in self._made.values())
            self.peak = max(self.peak, self._bytes)
        return found


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _storage(tensor: Tensor) -> tuple[int, StorageWeakRef, int]:
    storage = tensor.untyped_storage()
    return storage._cdata, StorageWeakRef(storage), storage.nbytes()
