"""The real data of the examples and the study as plain tensors: found on disk, else downloaded and checked."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from lossatlas.errors import DataError
from lossatlas.zoo import fetch
from lossatlas.zoo.fetch import Source
from lossatlas.zoo.formats import CIFAR_BATCHES, Part, read_cifar_parts, read_idx_parts

Pair: TypeAlias = tuple[Tensor, Tensor]
"""Inputs (N, ...) and targets (N,)."""


@dataclass(frozen=True, eq=False)
class LabelledData:
    """A classification data set in memory: ``train`` and ``test`` are each ``(inputs, targets)``.

    Inputs are float32 of shape (N, C, H, W), targets int64 of shape (N,); ``classes`` names the classes.
    """

    name: str
    train: Pair = field(repr=False)
    test: Pair = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one input."""
        channels, height, width = self.train[0].shape[1:]
        return channels, height, width


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_DIGITS = tuple("0123456789")
# fmt: off
_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)
# fmt: on


def _idx_source(
    name: str, folders: Sequence[str], mirrors: Sequence[str], sha256: Sequence[str], classes: Sequence[str]
) -> Source:
    return Source(
        name=name,
        layouts=tuple(tuple(f"{folder}/{file}" for file in _IDX_FILES) for folder in folders),
        checksums={f"{file}.gz": checksum for file, checksum in zip(_IDX_FILES, sha256, strict=True)},
        mirrors=tuple(mirrors),
        read=read_idx_parts,
        mean=(0.5,),
        std=(0.5,),
        classes=tuple(classes),
    )


_MNIST = _idx_source(
    "mnist",
    folders=["MNIST/raw", "mnist"],
    mirrors=[
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ],
    sha256=[
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ],
    classes=_DIGITS,
)
_FASHION = _idx_source(
    "fashion-mnist",
    folders=["FashionMNIST/raw", "fashion-mnist"],
    mirrors=[
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ],
    sha256=[
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ],
    classes=_FASHION_CLASSES,
)
_CIFAR10 = Source(
    name="cifar10",
    layouts=(
        tuple(f"cifar-10-batches-py/{batch}" for batch in CIFAR_BATCHES),
        ("cifar-10-python.tar.gz",),
        ("cifar10/cifar-10-python.tar.gz",),
    ),
    checksums={"cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"},
    mirrors=("https://www.cs.toronto.edu/~kriz",),
    read=read_cifar_parts,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
_SOURCES = {source.name: source for source in (_MNIST, _FASHION, _CIFAR10)}
NAMES = ("digits", *_SOURCES)


def load(
    name: str,
    *,
    root: str | Path | None = None,
    mirrors: Sequence[str] | None = None,
    normalise: bool = True,
    progress: bool = True,
) -> LabelledData:
    """A real data set by name: ``"digits"``, ``"mnist"``, ``"fashion-mnist"`` or ``"cifar10"``.

    | name | train / test | input | mean, std of the scaling |
    |---|---|---|---|
    | digits | 1,257 / 540 | 1 x 8 x 8 | 0.5, 0.5 after division by 16 |
    | mnist, fashion-mnist | 60,000 / 10,000 | 1 x 28 x 28 | 0.5, 0.5 after division by 255 |
    | cifar10 | 50,000 / 10,000 | 3 x 32 x 32 | the training set's, per channel, after division by 255 |

    ``digits`` comes with scikit-learn (a fixed split, stratified by class). The others are looked for in
    ``root``, in the folder that the environment variable ``LOSSATLAS_DATA`` names, in ``./data``, in
    ``/usr/share/datasets`` and in the user's cache, as torchvision (``FashionMNIST/raw``, ``MNIST/raw``,
    ``cifar-10-batches-py``) or Debian (``fashion-mnist``, ``mnist``) lay them out, gzipped or not. What is
    not found is downloaded to the cache, and its SHA-256 is checked.

    Parameters
    ----------
    name
        one of the names in the table.
    root
        a folder that holds data sets.
    mirrors
        addresses of folders that hold the files, tried in turn, in place of the built-in ones; ``{name}`` in one
        stands for the set's name. The environment variable ``LOSSATLAS_MIRRORS`` (with commas) does the same.
    normalise
        shift and scale by the mean and std of the table; otherwise inputs lie in [0, 1].
    progress
        show a bar while downloading.

    Raises
    ------
    DataError : an unknown name; a damaged file; a set that is neither on disk nor on any mirror.
    OutputError : the cache cannot be written.

    Sources: Pedregosa et al. 2011 (digits, from UCI); LeCun et al. 1998; Xiao et al. 2017; Krizhevsky 2009.

    Examples
    --------
    >>> data = load("digits")
    >>> data.train[0].shape, data.test[1].shape, len(data.classes)
    (torch.Size([1257, 1, 8, 8]), torch.Size([540]), 10)
    """
    if name == "digits":
        return _digits(normalise)
    source = _source(name)
    train, test = source.read(fetch.locate(source, root, mirrors, progress))
    return LabelledData(name, _pair(train, source, normalise), _pair(test, source, normalise), source.classes)


def find(name: str, root: str | Path | None = None) -> Path | None:
    """Where `load` would read the set from without a download: its folder, or its archive; None if it has to.

    ``"digits"`` comes with scikit-learn and is in no folder: None.

    Raises
    ------
    DataError : an unknown name.
    """
    paths = None if name == "digits" else fetch.find(_source(name), root)
    if paths is None:
        return None
    return paths[0] if len(paths) == 1 else paths[0].parent


def subset(data: Pair, n: int, seed: int = 0) -> Pair:
    """``n`` of the N examples, drawn without replacement, each class in its share of N to within one example.

    The examples keep their order. Places left over by rounding go to the classes with the largest remainders.

    Raises
    ------
    DataError : ``n`` is not between 1 and N.

    Examples
    --------
    >>> inputs, targets = subset((torch.arange(8.0), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])), 4)
    >>> targets
    tensor([0, 0, 0, 1])
    """
    inputs, targets = data
    if not 1 <= n <= len(targets):
        raise DataError(f"A subset of {n:,} examples was asked of {len(targets):,}: ask for 1 to {len(targets):,}.")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(targets), generator=generator)
    labels = targets[shuffled].cpu()
    chosen = [
        shuffled[labels == label][:quota] for label, quota in zip(torch.unique(labels), _quotas(labels, n), strict=True)
    ]
    index = torch.cat(chosen).sort().values.to(targets.device)
    return inputs[index], targets[index]


def _source(name: str) -> Source:
    if name not in _SOURCES:
        close = difflib.get_close_matches(name.lower(), NAMES, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise DataError(f"There is no data set {name!r}{hint}: choose one of {', '.join(NAMES)}.")
    return _SOURCES[name]


def _quotas(labels: Tensor, n: int) -> list[int]:
    """How many examples each class gives (the method of largest remainders, in exact integers)."""
    counts = torch.unique(labels, return_counts=True)[1] * n
    quotas = counts // len(labels)
    remainders = (counts % len(labels)).sort(descending=True, stable=True).indices
    quotas[remainders[: n - int(quotas.sum())]] += 1
    return [int(quota) for quota in quotas]


def _digits(normalise: bool) -> LabelledData:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = (bunch.images[:, None] / 16).astype(np.float32)
    images = torch.from_numpy((pixels - 0.5) / 0.5 if normalise else pixels)
    targets = torch.from_numpy(bunch.target.astype(np.int64))
    train, test = train_test_split(np.arange(len(targets)), test_size=540, stratify=bunch.target, random_state=0)
    return LabelledData("digits", (images[train], targets[train]), (images[test], targets[test]), _DIGITS)


def _pair(part: Part, source: Source, normalise: bool) -> Pair:
    images, labels = part
    if labels.max() >= len(source.classes):
        raise DataError(
            f"A label is {labels.max()} where {len(source.classes)} classes are known: fetch the files again."
        )
    inputs = torch.from_numpy(images.astype(np.float32)).div_(255)
    if normalise:
        inputs.sub_(torch.tensor(source.mean).view(-1, 1, 1)).div_(torch.tensor(source.std).view(-1, 1, 1))
    return inputs, torch.from_numpy(labels.astype(np.int64))
