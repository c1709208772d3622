"""The data sets: generated files in each layout and format, mirrors on this machine, and every kind of damage."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import io
import pickle
import shutil
import socket
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from oracles.refusals import refused
from sklearn.datasets import load_digits

from lossatlas import zoo
from lossatlas.errors import DataError, OutputError
from lossatlas.zoo import datasets

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def made_idx(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    arrays = (random.integers(256, size=(12, 4, 3)), np.arange(12) % 10)
    arrays += (random.integers(256, size=(5, 4, 3)), np.arange(5)[::-1])
    return {name: array.astype(np.uint8) for name, array in zip(FILES, arrays, strict=True)}


def write_idx(folder: Path, seed: int = 0, *, zipped: bool = True) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    made = made_idx(seed)
    for name, array in made.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, an empty cache, no data sets of the machine, no proxies, nothing in the environment."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path / "cache")
    monkeypatch.setattr("lossatlas.zoo.fetch.SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("LOSSATLAS_DATA", "LOSSATLAS_MIRRORS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


# Digits


def test_the_digits_are_scikit_learns_images_each_once_split_by_class():
    data = zoo.load("digits")
    assert data.train[0].shape == (1257, 1, 8, 8)
    assert data.test[0].shape == (540, 1, 8, 8)
    assert data.shape == (1, 8, 8)
    assert data.train[0].dtype == torch.float32
    assert data.train[1].dtype == torch.int64
    images = torch.cat([data.train[0], data.test[0]]).mul(0.5).add(0.5).mul(16).reshape(-1, 64)
    labels = torch.cat([data.train[1], data.test[1]])
    ours = sorted(zip(images.round().int().tolist(), labels.tolist(), strict=True))
    bunch = load_digits()
    assert ours == sorted(zip(bunch.data.astype(int).tolist(), bunch.target.tolist(), strict=True))
    share = data.test[1].bincount() / labels.bincount()
    torch.testing.assert_close(share, torch.full((10,), 540 / 1797), atol=0.005, rtol=0)


def test_the_split_of_the_digits_is_always_the_same():
    first, again = zoo.load("digits"), zoo.load("digits")
    assert torch.equal(first.train[0], again.train[0])
    assert torch.equal(first.test[1], again.test[1])


# Files on disk


@pytest.mark.parametrize(
    ("name", "folder", "zipped"),
    [
        ("fashion-mnist", "FashionMNIST/raw", False),
        ("fashion-mnist", "FashionMNIST/raw", True),
        ("fashion-mnist", "fashion-mnist", True),
        ("mnist", "MNIST/raw", False),
        ("mnist", "mnist", True),
        ("mnist", "mnist", False),
    ],
)
def test_idx_files_are_found_in_the_torchvision_and_the_debian_layout(tmp_path, name, folder, zipped):
    made = write_idx(tmp_path / "root" / folder, zipped=zipped)
    data = zoo.load(name, root=tmp_path / "root")
    for (inputs, targets), (images, labels) in [
        (data.train, (made[FILES[0]], made[FILES[1]])),
        (data.test, (made[FILES[2]], made[FILES[3]])),
    ]:
        expected = (images[:, None] / 255 - 0.5) / 0.5
        np.testing.assert_allclose(inputs.numpy(), expected, atol=1e-6)
        assert inputs.dtype == torch.float32
        assert targets.tolist() == labels.tolist()
    assert len(data.classes) == 10


def test_without_normalisation_inputs_are_the_pixels_over_255(tmp_path):
    made = write_idx(tmp_path / "root/mnist")
    data = zoo.load("mnist", root=tmp_path / "root", normalise=False)
    np.testing.assert_allclose(data.test[0].numpy()[:, 0], made[FILES[2]] / 255, atol=1e-7)


def test_folders_are_searched_from_the_argument_to_the_cache(tmp_path, cache, monkeypatch):
    folders = [tmp_path / "root", tmp_path / "env", Path.cwd() / "data", tmp_path / "system", cache]
    made = [write_idx(folder / "mnist", seed)[FILES[0]] for seed, folder in enumerate(folders)]
    monkeypatch.setenv("LOSSATLAS_DATA", str(folders[1]))
    for folder, images in zip(folders, made, strict=True):
        inputs, _ = zoo.load("mnist", root=folders[0], normalise=False).train
        np.testing.assert_allclose(inputs.numpy()[:, 0], images / 255, atol=1e-7)
        shutil.rmtree(folder)


def test_a_folder_that_lacks_a_file_is_passed_over(tmp_path):
    write_idx(tmp_path / "root/mnist", seed=0)
    (tmp_path / "root/mnist" / f"{FILES[3]}.gz").unlink()
    made = write_idx(tmp_path / "work/data/mnist", seed=1)
    inputs, _ = zoo.load("mnist", root=tmp_path / "root", normalise=False).train
    np.testing.assert_allclose(inputs.numpy()[:, 0], made[FILES[0]] / 255, atol=1e-7)


@pytest.mark.needs("fashion-mnist")
def test_debians_fashion_mnist_is_the_published_set(monkeypatch):
    monkeypatch.setattr("lossatlas.zoo.fetch.SYSTEM_FOLDER", Path("/usr/share/datasets"))
    data = zoo.load("fashion-mnist", normalise=False)
    assert data.train[0].shape == (60_000, 1, 28, 28)
    assert data.train[1].bincount().tolist() == [6_000] * 10
    assert data.test[1].bincount().tolist() == [1_000] * 10
    assert data.train[0].double().mean().item() == pytest.approx(0.2860, abs=1e-4)  # published, as is the next
    assert data.train[0].double().std().item() == pytest.approx(0.3530, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (FILES[0], lambda good: b"\0\0\x09\x03" + good[4:], "no IDX file"),
        (FILES[0], lambda good: b"\0\0\x08\x01" + good[4:], "no IDX file"),
        (FILES[0], lambda good: good[:9], "no IDX file"),
        (FILES[1], lambda _: b"", "begins with nothing"),
        (FILES[0], lambda good: good[:-1], "truncated or damaged.*144 bytes.*143 are there"),
        (FILES[2], lambda good: good + b"\0", "truncated or damaged"),
        (FILES[3], lambda _: idx(np.zeros(4, np.uint8)), "5 images and .* 4 labels"),
        (FILES[3], lambda _: idx(np.full(5, 10, np.uint8)), "A label is 10 where 10 classes"),
    ],
)
def test_a_damaged_idx_file_is_refused_by_name(tmp_path, name, content, message):
    folder = tmp_path / "root/mnist"
    write_idx(folder, zipped=False)
    (folder / name).write_bytes(content((folder / name).read_bytes()))
    with refused(DataError, match=message) as caught:
        zoo.load("mnist", root=tmp_path / "root")
    assert name in str(caught.value) or "label is 10" in str(caught.value)


@pytest.mark.parametrize("content", [lambda good: good[:-9], lambda good: b"no gzip" + good])
def test_a_damaged_gzip_file_is_refused_by_name(tmp_path, content):
    folder = tmp_path / "root/mnist"
    write_idx(folder)
    path = folder / f"{FILES[0]}.gz"
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
        zoo.load("mnist", root=tmp_path / "root")


def test_files_without_images_are_refused(tmp_path):
    folder = tmp_path / "root/mnist"
    write_idx(folder, zipped=False)
    (folder / FILES[2]).write_bytes(idx(np.zeros((0, 4, 3), np.uint8)))
    (folder / FILES[3]).write_bytes(idx(np.zeros(0, np.uint8)))
    with pytest.raises(DataError, match="0 images"):
        zoo.load("mnist", root=tmp_path / "root")


def test_find_names_the_folder_or_archive_that_load_would_read(tmp_path, cache):
    assert zoo.find("mnist") is None
    assert zoo.find("digits") is None
    write_idx(cache / "mnist")
    assert zoo.find("mnist") == cache / "mnist"
    write_idx(tmp_path / "root/MNIST/raw", zipped=False)
    assert zoo.find("mnist", root=tmp_path / "root") == tmp_path / "root/MNIST/raw"
    (tmp_path / "root/cifar-10-python.tar.gz").touch()
    assert zoo.find("cifar10", root=tmp_path / "root") == tmp_path / "root/cifar-10-python.tar.gz"
    with pytest.raises(DataError, match="did you mean 'cifar10'"):
        zoo.find("cifar")


# CIFAR-10


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes bytes as Python 2 wrote its strings, which is how the published batches were made."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)

    dispatch[bytes] = save_string


def cifar_batch(number: int, pickler: type = Python2Pickler) -> bytes:
    random = np.random.default_rng(number)
    data = random.integers(256, size=(3, 3072)).astype(np.uint8)
    stream = io.BytesIO()
    pickler(stream, protocol=2 if pickler is Python2Pickler else 3).dump(
        {b"data": data, b"labels": [number, 0, 9], b"batch_label": b"made"}
    )
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_cifar(root: Path, pickler: type = Python2Pickler) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate(BATCHES):
        (folder / name).write_bytes(cifar_batch(number, pickler))
    return folder


@pytest.mark.parametrize("pickler", [Python2Pickler, pickle.Pickler])
def test_cifar_batches_become_normalised_channels_first_images(tmp_path, pickler):
    write_cifar(tmp_path / "root", pickler)
    data = zoo.load("cifar10", root=tmp_path / "root")
    assert data.train[0].shape == (15, 3, 32, 32)
    assert data.train[1].tolist() == [0, 0, 9, 1, 0, 9, 2, 0, 9, 3, 0, 9, 4, 0, 9]
    raw = np.random.default_rng(5).integers(256, size=(3, 3072))  # the test batch: red, then green, then blue rows
    green = (raw[1, 1024 + 32 * 7 + 4] / 255 - 0.4822) / 0.2435
    assert data.test[0][1, 1, 7, 4].item() == pytest.approx(green, abs=1e-5)


def test_the_cifar_archive_is_read_as_it_is_and_never_unpacked(tmp_path):
    folder = write_cifar(tmp_path / "unpacked")
    (tmp_path / "root").mkdir()
    with tarfile.open(tmp_path / "root/cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    from_archive = zoo.load("cifar10", root=tmp_path / "root")
    from_folder = zoo.load("cifar10", root=tmp_path / "unpacked")
    assert torch.equal(from_archive.train[0], from_folder.train[0])
    assert torch.equal(from_archive.test[1], from_folder.test[1])
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["cifar-10-python.tar.gz"]


def test_an_archive_without_a_batch_or_cut_short_is_refused(tmp_path):
    folder = write_cifar(tmp_path / "unpacked")
    (folder / "data_batch_4").unlink()
    (tmp_path / "root").mkdir()
    archive = tmp_path / "root/cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz has no data_batch_4"):
        zoo.load("cifar10", root=tmp_path / "root")
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz cannot be read"):
        zoo.load("cifar10", root=tmp_path / "root")


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    folder = write_cifar(tmp_path / "root")
    (folder / "data_batch_2").write_bytes(pickle.dumps({b"data": Touch(tmp_path / "ran")}))
    with pytest.raises(DataError, match=r"data_batch_2 is no batch of CIFAR-10 \(it asks for "):
        zoo.load("cifar10", root=tmp_path / "root")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": [1], b"labels": [0]}),
        pickle.dumps({b"data": [0] * 3072, b"labels": [0, 1]}),
        pickle.dumps({b"data": [0] * 3072, b"labels": [-1]}),
    ],
)
def test_a_damaged_batch_is_refused_by_name(tmp_path, content):
    folder = write_cifar(tmp_path / "root")
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match="test_batch"):
        zoo.load("cifar10", root=tmp_path / "root")


# Downloads, from servers on this machine


class Server(http.server.ThreadingHTTPServer):
    requests: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serves ``tmp_path/served`` and keeps the paths that it was asked for."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *_: Any) -> None:
            running.requests.append(self.path)

    with Server(("127.0.0.1", 0), Handler) as running:
        running.requests = []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Small files in ``tmp_path/served/mnist``, with their checksums as those of MNIST."""
    made = write_idx(tmp_path / "served/mnist")
    files = sorted((tmp_path / "served/mnist").iterdir(), key=lambda path: FILES.index(path.stem))
    checksums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    source = dataclasses.replace(datasets._SOURCES["mnist"], checksums=checksums)
    monkeypatch.setitem(datasets._SOURCES, "mnist", source)
    return made


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_download_is_checked_kept_in_the_cache_and_not_repeated(server, served, cache):
    first = zoo.load("mnist", mirrors=[f"{server.url}/mnist/"], normalise=False, progress=False)
    np.testing.assert_allclose(first.train[0].numpy()[:, 0], served[FILES[0]] / 255, atol=1e-7)
    assert sorted(server.requests) == sorted(f"/mnist/{name}.gz" for name in FILES)
    again = zoo.load("mnist", mirrors=[])
    assert torch.equal(first.train[1], again.train[1])
    assert len(server.requests) == 4
    assert sorted(path.name for path in (cache / "mnist").iterdir()) == sorted(f"{name}.gz" for name in FILES)


def test_a_mirror_that_fails_hands_over_to_the_next(server, served):
    mirrors = [closed_port(), f"{server.url}/nowhere", f"{server.url}/mnist"]
    data = zoo.load("mnist", mirrors=mirrors, progress=False)
    assert data.test[1].tolist() == served[FILES[3]].tolist()


def test_mirrors_come_from_the_environment_with_the_name_filled_in(server, served, monkeypatch):
    monkeypatch.setenv("LOSSATLAS_MIRRORS", f"{closed_port()}, {server.url}/{{name}}")
    assert zoo.load("mnist", progress=False).test[1].tolist() == served[FILES[3]].tolist()


def test_a_bar_is_shown_unless_it_is_turned_off(server, served, cache, capsys):
    zoo.load("mnist", mirrors=[f"{server.url}/mnist"], progress=False)
    assert capsys.readouterr().err == ""
    shutil.rmtree(cache)
    zoo.load("mnist", mirrors=[f"{server.url}/mnist"])
    assert "100%" in capsys.readouterr().err


def test_a_file_with_another_checksum_is_refused_and_not_kept(server, served, tmp_path, cache):
    (tmp_path / "served/mnist" / f"{FILES[0]}.gz").write_bytes(gzip.compress(idx(np.zeros((12, 4, 3), np.uint8))))
    with pytest.raises(DataError, match=r"/mnist: wrong checksum"):
        zoo.load("mnist", mirrors=[f"{server.url}/mnist"], progress=False)
    assert not list((cache / "mnist").iterdir())


def test_without_network_one_line_says_where_it_looked_and_what_to_do(tmp_path, cache, server):
    mirrors = [closed_port(), f"{server.url}/none", "gopher://x"]
    with pytest.raises(DataError) as caught:
        zoo.load("fashion-mnist", root=tmp_path / "root", mirrors=mirrors, progress=False)
    message = str(caught.value)
    assert "\n" not in message
    places = [tmp_path / "root", Path.cwd() / "data", tmp_path / "system", cache]
    expected = [*map(str, places), f"{mirrors[0]}: ConnectionError", f"{mirrors[1]}: HTTP 404", "gopher://x: "]
    remedies = ["LOSSATLAS_DATA", "LOSSATLAS_MIRRORS", "dataset-fashion-mnist", "FashionMNIST/raw/train-images"]
    assert [part for part in [*expected, *remedies] if part not in message] == []


def test_a_cache_that_cannot_be_made_is_an_output_error(cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="XDG_CACHE_HOME"):
        zoo.load("mnist", mirrors=[closed_port()], progress=False)


@pytest.mark.parametrize("name", list(datasets._SOURCES))
def test_every_built_in_mirror_is_an_address_and_every_checksum_a_sha256(name):
    source = datasets._SOURCES[name]
    assert source.mirrors
    assert all(mirror.startswith(("https://", "http://")) for mirror in source.mirrors)
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in source.checksums.values())
    assert len(source.mean) == len(source.std)


def test_an_unknown_name_is_refused_with_the_nearest_and_the_list():
    with pytest.raises(DataError, match=r"'FashionMNIST' \(did you mean 'fashion-mnist'\?\).*digits, mnist,"):
        zoo.load("FashionMNIST")


# Subsets


def made_pair() -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[
        torch.randperm(100, generator=torch.Generator().manual_seed(0))
    ]
    return torch.arange(100.0), targets


@pytest.mark.parametrize(("n", "counts"), [(10, [6, 3, 1]), (50, [30, 15, 5]), (100, [60, 30, 10]), (7, [4, 2, 1])])
def test_a_subset_has_each_class_in_its_share(n, counts):
    inputs, targets = zoo.subset(made_pair(), n)
    assert targets.bincount().tolist() == counts
    assert len(inputs.unique()) == n


def test_a_subset_keeps_inputs_with_their_targets_and_the_order():
    inputs, targets = made_pair()
    chosen, labels = zoo.subset((inputs, targets), 40, seed=1)
    assert torch.equal(targets[chosen.long()], labels)
    assert torch.equal(chosen, chosen.sort().values)


def test_a_subset_depends_on_its_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (zoo.subset(made_pair(), 40, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n", [0, 101])
def test_a_subset_larger_than_the_data_or_empty_is_refused(n):
    with pytest.raises(DataError, match=f"{n} examples was asked of 100"):
        zoo.subset(made_pair(), n)
