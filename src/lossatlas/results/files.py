"""Files: written whole or not at all; results as netCDF."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lossatlas.errors import InputError, OutputError

if TYPE_CHECKING:
    import xarray as xr


def save(dataset: xr.Dataset, path: str | Path) -> None:
    """``dataset`` as a netCDF4 file at ``path``, renamed into place when it is complete.

    Raises ``InputError`` for a Dataset that is no result, ``OutputError`` where the file cannot be written.

    Examples
    --------
    >>> import tempfile, torch, lossatlas as la
    >>> data = torch.ones(8, 1), torch.zeros(8, 1)
    >>> objective = la.Objective(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, data)
    >>> line = la.surface(objective, la.line(objective.point, torch.ones(2), steps=3), progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     la.save(line, f"{folder}/line.nc")
    ...     la.load(f"{folder}/line.nc").equals(line)
    True
    """
    from lossatlas.results.discovery import kind_of

    kind_of(dataset).schema.check(dataset, dataset.attrs["kind"])
    write(dataset, Path(path))


def write(dataset: xr.Dataset, path: Path) -> None:
    """Any ``dataset`` as netCDF4, renamed into place when it is complete."""
    with replacing(path) as temporary:
        dataset.to_netcdf(temporary, engine="netcdf4")


def load(path: str | Path) -> xr.Dataset:
    """The result that ``save``, a command or a study wrote to ``path``, checked against the schema of its kind.

    Raises ``InputError`` where there is no such file, where it is none of ours, or damaged.

    Examples
    --------
    >>> load("no/such/file.nc")
    Traceback (most recent call last):
    lossatlas.errors.InputError: There is no file no/such/file.nc: give a result (.nc) that ... wrote.
    """
    import xarray as xr

    from lossatlas.results.discovery import kind_of

    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}: give a result (.nc) that lossatlas.save or a command wrote.")
    try:
        dataset = xr.load_dataset(path, engine="netcdf4")
    except Exception as error:  # netCDF4 and xarray fail on a damaged file with many errors
        raise InputError(f"{path} cannot be read as netCDF ({' '.join(str(error).split())}): make it anew.") from error
    return kind_of(dataset).schema.check(dataset, str(dataset.attrs["kind"]))


def make_folder(path: Path) -> Path:
    """``path`` as a folder that can be written, or ``OutputError``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}): choose a folder that you may write to."
        ) from None
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to ``path``, renamed to it when the block ends well and removed when it does not."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}): choose a folder that you may write to."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
