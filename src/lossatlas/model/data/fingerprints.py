"""What a batch holds, as bytes: all that a fingerprint, or a comparison of two passes, rests on."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas.errors import DataError
from lossatlas.model.data.containers import NAMED, OF_TORCH, PLAIN, is_array, is_named_tuple, reduced

_VALUES = (b"<array ", b"<int ", b"<float ", b"<complex ", b"<str ", b"<bytes ", b"<bool ")


def digest(batch: Any) -> str:
    """SHA-256 over the shapes, types and bytes of a batch's tensors, and over all else that it holds.

    Sparse and nested tensors count by their indices and values, arrays by their bytes, numbers and texts by value,
    objects by their class and by what ``pickle`` would save of them. Lists and tuples of tensors are their tensors.
    """
    sha = hashlib.sha256()
    for part in contents(batch):
        sha.update(part) if isinstance(part, bytes) else _add(sha, part)
    return sha.hexdigest()


def holds_values(batch: Any) -> bool:
    """Whether a batch holds a tensor, an array, a number or a text: anything by which it differs from another."""
    return any(isinstance(part, Tensor) or part.startswith(_VALUES) for part in contents(batch))


def _add(sha: Any, tensor: Tensor) -> None:
    plain = components(tensor)
    if plain[0] is not tensor:
        sha.update(f"{tensor.layout}{_shape(tensor)}".encode())
    for part in plain:
        sha.update(f"{part.dtype}{tuple(part.shape)}".encode())
        sha.update(tensor_bytes(part))


def contents(batch: Any) -> Iterator[Tensor | bytes]:
    """The tensors of a batch and, as bytes, all else that it holds, in a fixed order."""
    try:
        yield from _contents(batch, ())
    except RecursionError as error:
        raise DataError("A batch holds a list or a dict that holds itself: hand over its tensors in a dict.") from error


def _contents(node: Any, above: tuple[Any, ...]) -> Iterator[Tensor | bytes]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, tuple | list) and (type(node) in (tuple, list) or is_named_tuple(node)):
        for value in node:
            yield from _contents(value, above)
    elif type(node) is dict:
        for key, value in node.items():
            yield from _contents(key, above)
            yield from _contents(value, above)
    elif isinstance(node, set | frozenset):
        yield repr((_name(type(node)), sorted(map(digest, node)))).encode()  # their order is not theirs to keep
    elif (value := _value(node)) is not None:
        yield value
    else:
        yield from _of_object(node, above)


def _of_object(node: Any, above: tuple[Any, ...]) -> Iterator[Tensor | bytes]:
    if any(node is other for other in above):  # a part that refers to what it is a part of
        yield b"<back>"
        return
    parts = reduced(node)
    yield f"<{_name(type(node))} {len(parts.args)} {len(parts.items)} {len(parts.pairs)}>".encode()
    for part in parts.parts:
        yield from _contents(part, (*above, node))


def _value(node: Any) -> bytes | None:
    """The bytes of a node that holds no others; None for one that does."""
    if isinstance(node, np.generic) or is_array(node):
        return f"<array {node.dtype.str}{node.shape}>".encode() + np.ascontiguousarray(node).tobytes()
    if isinstance(node, torch.Generator):
        return bytes(tensor_bytes(node.get_state()))
    if isinstance(node, (*PLAIN, *OF_TORCH)):
        return f"<{type(node).__name__} {node!r}>".encode()
    return f"<{_name(node)}>".encode() if isinstance(node, NAMED) else _of_reference(node)


def _of_reference(node: Any) -> bytes | None:

    return b"<reference>" if isinstance(node, weakref.ref) else None


def _name(node: Any) -> str:
    name = getattr(node, "__qualname__", getattr(node, "__name__", ""))
    if "<lambda>" in name or getattr(node, "__closure__", None):
        raise DataError(
            "A batch holds a lambda or a function with variables of its own, whose contents cannot be compared: "
            "leave it out of the batch, or use a function of a module."
        )
    return f"{getattr(node, '__module__', '')}.{name}"


def components(tensor: Tensor) -> list[Tensor]:
    """The dense tensors that a tensor is stored as: itself, or the indices and values of a sparse or nested one."""
    if tensor.is_nested:
        nested: Any = tensor
        jagged = [nested.values(), nested.offsets(), nested.lengths()] if tensor.layout is torch.jagged else None
        return [t for t in jagged if t is not None] if jagged else list(tensor.unbind())
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.layout is torch.strided and not tensor.is_quantized and tensor.device.type != "meta":
        return [tensor]
    raise DataError(
        f"A batch holds a tensor that cannot be read ({tensor.layout}, {tensor.dtype}, {tensor.device}): "
        "give dense, sparse (COO, CSR, CSC) or nested tensors that are not quantized."
    )


def equal(one: Tensor, other: Tensor) -> bool:
    """``torch.equal`` of tensors of one layout, whatever it is."""
    parts, others = components(one), components(other)
    return len(parts) == len(others) and all(map(torch.equal, parts, others))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.size(0),) if tensor.is_nested else tuple(tensor.shape)


def bytes_of(batch_tensor: Tensor) -> int:
    """The size of a tensor's storage: of a sparse or nested one, that of its indices and values."""
    return sum(part.nbytes for part in components(batch_tensor))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The tensor's contents, whatever its type."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    return plain.contiguous().reshape(-1).view(torch.uint8).numpy().data


def form(batch: Any, *, of_one: bool = False) -> Any:
    """What batches of one form share: all but the numbers in their tensors; ``of_one``: and all but their length."""
    if isinstance(batch, Tensor):
        parts = components(batch)
        if parts[0] is not batch:
            return batch.layout, _shape(batch), tuple((t.dtype, tuple(t.shape)) for t in parts)
        return batch.dtype, tuple(batch.shape[1:] if of_one else batch.shape)
    if type(batch) is dict:
        return dict, tuple((key, form(value, of_one=of_one)) for key, value in batch.items())
    if type(batch) in (tuple, list) or is_named_tuple(batch):
        return type(batch), tuple(form(value, of_one=of_one) for value in batch)
    return type(batch), tuple(
        part if isinstance(part, bytes) else form(part, of_one=of_one) for part in contents(batch)
    )
