"""Finding the files of a data set on disk, or downloading them from a list of mirrors, checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lossatlas.errors import DataError, OutputError
from lossatlas.zoo.formats import Part

SYSTEM_FOLDER = Path("/usr/share/datasets")
TIMEOUT = (5.0, 30.0)
"""Seconds to wait for a mirror's connection, and for its next bytes."""
_PACKAGES = {"fashion-mnist": ", or install Debian's package dataset-fashion-mnist"}


@dataclass(frozen=True)
class Source:
    """Where the files of a data set lie below a data folder, who serves them, how they are read and scaled.

    Each of ``layouts`` is a complete set of files, any of which may be gzipped; ``checksums`` are the SHA-256
    of the files that mirrors serve.
    """

    name: str
    layouts: tuple[tuple[str, ...], ...]
    checksums: dict[str, str]
    mirrors: tuple[str, ...]
    read: Callable[[Sequence[Path]], tuple[Part, Part]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


def locate(source: Source, root: str | Path | None, mirrors: Sequence[str] | None, progress: bool) -> list[Path]:
    """The set's files: from the first folder that has them all, else downloaded to the user's cache."""
    found = find(source, root)
    if found:
        return found
    folders = _folders(root)
    bases = [base.replace("{name}", source.name).rstrip("/") for base in _mirrors(source, mirrors)]
    return [_fetch(source, file, bases, folders, progress) for file in source.checksums]


def find(source: Source, root: str | Path | None) -> list[Path] | None:
    """The set's files in the first folder that has them all, or None."""
    for folder in _folders(root):
        for layout in source.layouts:
            paths = [path for file in layout if (path := _present(folder / file))]
            if len(paths) == len(layout):
                return paths
    return None


def _folders(root: str | Path | None) -> list[Path]:
    given = [root, os.environ.get("LOSSATLAS_DATA"), "data", SYSTEM_FOLDER]
    return [*(Path(folder).expanduser().absolute() for folder in given if folder), cache()]


def cache() -> Path:
    """The folder of this user that downloads go to."""
    import pooch  # type: ignore[import-untyped]

    return Path(pooch.os_cache("lossatlas"))


def _present(path: Path) -> Path | None:
    """The file, or its gzipped form, or None."""
    candidates = (path, path.with_name(path.name + ".gz"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _mirrors(source: Source, mirrors: Sequence[str] | None) -> Sequence[str]:
    if mirrors is not None:
        return mirrors
    listed = os.environ.get("LOSSATLAS_MIRRORS", "").split(",")
    return [mirror.strip() for mirror in listed if mirror.strip()] or source.mirrors


def _fetch(source: Source, file: str, bases: Sequence[str], folders: Sequence[Path], progress: bool) -> Path:
    """One file, from the first mirror that gives it with the right checksum."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # its lines say what the progress bar says
    get = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)
    folder = _writable(cache() / source.name)
    checksum = f"sha256:{source.checksums[file]}"
    failures = []
    for base in bases:
        try:
            return Path(pooch.retrieve(f"{base}/{file}", checksum, file, folder, downloader=get))
        except (OSError, ValueError) as error:  # requests raises OSErrors, a wrong checksum is a ValueError
            failures.append(f"{base}: {_reason(error)}")
    raise DataError(
        f"{source.name} is in none of {', '.join(map(str, folders))}, and no mirror gave {file}"
        f" ({'; '.join(failures) or 'none was named'}): connect to the network, set LOSSATLAS_DATA to a"
        f" folder that holds {source.layouts[0][0]} or LOSSATLAS_MIRRORS to an address that serves {file}"
        f"{_PACKAGES.get(source.name, '')}."
    )


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The cache {folder} cannot be made ({error.strerror}), so nothing can be downloaded: set"
            " XDG_CACHE_HOME to a folder that can be written, or LOSSATLAS_DATA to one that holds the data."
        ) from error
    return folder


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    return "wrong checksum" if "hash" in str(error) else type(error).__name__
