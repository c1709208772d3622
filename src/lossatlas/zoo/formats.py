"""Readers of the formats in which the image sets are published: IDX files and CIFAR-10's pickled batches."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lossatlas.errors import DataError

Images: TypeAlias = NDArray[np.uint8]
Part: TypeAlias = tuple[Images, Images]
"""Images (N, C, H, W) and labels (N,), both in bytes."""

CIFAR_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")

_UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)


def read_idx_parts(paths: Sequence[Path]) -> tuple[Part, Part]:
    """The training and the test part of four IDX files: training images, labels, test images, labels."""
    train_images, train_labels, test_images, test_labels = paths
    return _idx_part(train_images, train_labels), _idx_part(test_images, test_labels)


def _idx_part(images_path: Path, labels_path: Path) -> Part:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"{images_path} holds {len(images):,} images and {labels_path} {len(labels):,} labels:"
            " expected as many labels as images, and at least one; fetch both files again."
        )
    return images[:, None], labels


def read_idx(path: Path, dimensions: int) -> Images:
    """The array of an IDX file of unsigned bytes, plain or gzipped: two zero bytes, the type 8, the number of
    dimensions, one big-endian 32-bit size a dimension, then the values in row-major order.

    Raises
    ------
    DataError : the file cannot be read, has another magic number, or is not as long as its header says.
    """
    content = _contents(path)
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < start:
        raise DataError(
            f"{path} is no IDX file of bytes in {dimensions} dimension(s):"
            f" it begins with {content[:4].hex() or 'nothing'}: fetch it again."
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path} is truncated or damaged: its header promises {math.prod(shape):,} bytes of shape {shape}"
            f" and {len(content) - start:,} are there: fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _contents(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again.") from error


def read_cifar_parts(paths: Sequence[Path]) -> tuple[Part, Part]:
    """The training and the test part of CIFAR-10: from its six batch files, or from the archive of them."""
    archive = len(paths) == 1
    contents = _archived(paths[0]) if archive else {path.name: _contents(path) for path in paths}
    source = paths[0] if archive else paths[0].parent
    batches = [_cifar_batch(contents, name, source) for name in CIFAR_BATCHES]
    train = tuple(np.concatenate(arrays) for arrays in zip(*batches[:-1], strict=True))
    return (train[0], train[1]), batches[-1]


def _archived(archive: Path) -> dict[str, bytes]:
    """The batches inside the tar file, read in one pass and never unpacked to disk."""
    contents = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                file = tar.extractfile(member) if name in CIFAR_BATCHES else None
                if file is not None:
                    contents[name] = file.read()
    except _UNREADABLE as error:
        raise DataError(f"{archive} cannot be read ({error}): fetch it again.") from error
    return contents


def _cifar_batch(contents: Mapping[str, bytes], name: str, source: Path) -> Part:
    if name not in contents:
        raise DataError(f"{source} has no {name}: fetch it again.")
    try:
        batch = _ArraysOnly(io.BytesIO(contents[name]), encoding="bytes").load()
        images = np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(batch[b"labels"], dtype=np.uint8)
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{source / name} is no batch of CIFAR-10 ({error}): fetch it again.") from error
    if labels.shape != (len(images),) or not len(images):
        raise DataError(f"{source / name} has {len(images):,} images and {labels.size:,} labels: fetch it again.")
    return images, labels


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that rebuilds NumPy arrays of plain values and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        # NumPy moved these from numpy.core to numpy._core; the published files name the old place.
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _RECONSTRUCT
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a batch of images does not need")


_RECONSTRUCT = np.empty(0).__reduce__()[0]
