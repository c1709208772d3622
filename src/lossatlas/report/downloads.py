"""What a reader can save from the page: each figure as a file, and its numbers as CSV and netCDF, each held once."""

from __future__ import annotations

import base64
import gzip
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lossatlas.drawing.style import labels
from lossatlas.report.images import image
from lossatlas.results.exporting import csv_text
from lossatlas.results.files import write

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.blocks import Picture


DIGITS = 9  # of a number in a CSV, which are enough for what was computed in float32; the netCDF has all


def packed(content: bytes) -> str:
    """Compressed, and as text that can stand in a page. The same content gives the same text."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


@dataclass(frozen=True)
class Download:
    """A button: what it says, the name of the file, and the key of its content, or "" for what the page shows."""

    label: str
    file: str
    key: str = ""

    @property
    def format(self) -> str:
        return self.file.rpartition(".")[2]


@dataclass(frozen=True)
class Row:
    """The downloads of one figure or one Dataset, side by side."""

    label: str
    downloads: tuple[Download, ...]


class Assets:
    """Contents of downloads and views by their keys, each packed once for the whole page.

    ``hidden`` are the names of the pictures that are out of sight at first, so that their SVGs are packed too.
    """

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        self.packed: dict[str, str] = {}
        self.hidden = set(hidden)

    def add(self, key: str, content: Callable[[], bytes]) -> str:
        """``key``; its content is made when it is new."""
        if key not in self.packed:
            self.packed[key] = packed(content())
        return key

    def svg(self, picture: Picture) -> str:
        """The key of the picture's SVG."""
        return self.add(f"svg-{picture.name}", lambda: image(picture, "svg"))

    def rows(self, picture: Picture) -> Iterator[Row]:
        """The figure's own downloads, then those of its Datasets."""
        name = picture.name
        pdf = self.add(f"pdf-{name}", lambda: image(picture, "pdf"))
        svg = self.svg(picture) if name in self.hidden or not picture.vector else ""
        formats = (
            Download("PNG", f"{name}.png"),
            Download("SVG", f"{name}.svg", svg),
            Download("PDF", f"{name}.pdf", pdf),
        )
        yield Row("this figure", formats)
        for label, dataset in zip(_labels(picture.datasets), picture.datasets, strict=True):
            yield Row(label, tuple(self._data(dataset)))

    def _data(self, dataset: xr.Dataset) -> Iterator[Download]:
        identity, stem = dataset.attrs["id"], file_stem(dataset)
        yield Download("CSV", f"{stem}.csv", self.add(f"csv-{identity}", lambda: csv_text(dataset, DIGITS).encode()))
        yield Download("netCDF", f"{stem}.nc", self.add(f"nc-{identity}", lambda: _netcdf(dataset)))


def file_stem(dataset: xr.Dataset) -> str:
    """A file name without its suffix, of letters, digits and signs that every system takes."""
    a = dataset.attrs
    name = a.get("name") or "-".join(str(a[key]) for key in ("kind", "network", "path", "split", "id") if key in a)
    return re.sub(r"\W+", "-", str(name), flags=re.ASCII).strip("-")[:80]


def _labels(datasets: tuple[xr.Dataset, ...]) -> list[str]:
    """Of each Dataset: its kind, and what tells it from the others of this kind."""
    found = []
    for dataset in datasets:
        alike = [each for each in datasets if each.attrs["kind"] == dataset.attrs["kind"]]
        place = next(k for k, each in enumerate(alike) if each is dataset)
        found.append(f"{dataset.attrs['kind'].replace('_', ' ')}: {labels(alike)[place]}")
    return found


def _netcdf(dataset: xr.Dataset) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.nc"
        write(dataset, path)
        return path.read_bytes()
