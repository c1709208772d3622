"""Results as files of other programs: tables, ParaView's and Blender's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lossatlas.drawing.grids import axes_of
from lossatlas.drawing.paraview import vtp_text
from lossatlas.drawing.shapes import surface_shape, track_shape
from lossatlas.drawing.tracks import check_on, check_same_data, has_plane, is_track
from lossatlas.drawing.wavefront import obj_text
from lossatlas.errors import InputError
from lossatlas.results.discovery import kind_of
from lossatlas.results.exporting import csv_text
from lossatlas.results.files import replacing

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.shapes import Shape

SHAPES = {".vtp": vtp_text, ".obj": obj_text}


def export(dataset: xr.Dataset, path: str | Path, *, trajectory: xr.Dataset | None = None) -> None:
    """A result as a file of another program, by the suffix of ``path``; it appears there when it is complete.

    ``.csv``: any result, as one table. Columns: dimensions, then variables; a row for each cell; variables over other
    dimensions stand below, with blank cells where a column does not apply.

    ``.vtp`` (VTK's PolyData, for ParaView) and ``.obj`` (Wavefront, for Blender): a loss over two axes as a surface,
    with the paths on it as polylines; or a trajectory as a polyline. The height is the logarithm to base 10 of the loss
    (the loss where some is not positive), stretched so that it rises by 0.6 of the longer side; logarithmic axes are
    drawn so, polar ones as r cos(angle), r sin(angle); cells that are not finite are holes; of several planes the mean
    is written. A ``.vtp`` has the coordinates and every variable at its points, ``log10_loss`` too; its cell data
    ``line`` are 0 on the surface and 1, 2, ... on the lines, which the field ``lines`` names. An ``.obj`` has y
    upwards, as its readers expect, and the colours of the loss at its vertices.

    Parameters
    ----------
    dataset : a result.
    path : ends with ``.csv``, ``.vtp`` or ``.obj``.
    trajectory : a trajectory of the surface's own plane, drawn on it at the loss of its snapshots.

    Raises
    ------
    InputError : another suffix; a ``.vtp`` or ``.obj`` of what has no surface; a trajectory of another plane or data.
    OutputError : the file cannot be written.

    Examples
    --------
    >>> import tempfile, torch, lossatlas as la
    >>> from pathlib import Path
    >>> data = torch.ones(8, 1), torch.zeros(8, 1)
    >>> objective = la.Objective(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, data)
    >>> plane = la.plane(objective.point, torch.tensor([1.0, 0]), torch.tensor([0, 1.0]), steps=3)
    >>> surface = la.surface(objective, plane, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     la.export(surface, f"{folder}/surface.obj")
    ...     lines = Path(folder, "surface.obj").read_text().splitlines()
    >>> sum(line.startswith("v ") for line in lines), sum(line.startswith("f ") for line in lines)
    (9, 4)
    >>> la.export(surface, "surface.stl")
    Traceback (most recent call last):
    lossatlas.errors.InputError: surface.stl: choose a path that ends with .csv, .vtp (ParaView) or .obj (Blender).
    """
    path = Path(path)
    kind_of(dataset)  # refuses what is no result
    text = _text(dataset, path, trajectory)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _text(dataset: xr.Dataset, path: Path, trajectory: xr.Dataset | None) -> str:
    suffix = path.suffix.lower()
    if suffix in SHAPES:
        source = f"lossatlas {dataset.attrs['kind']} {dataset.attrs.get('id', '')}".strip()
        return SHAPES[suffix](_shape(dataset, trajectory), source)
    if suffix != ".csv":
        raise InputError(f"{path}: choose a path that ends with .csv, .vtp (ParaView) or .obj (Blender).")
    if trajectory is not None:
        raise InputError("A .csv holds one result: export the trajectory to a file of its own.")
    return csv_text(dataset)


def _shape(dataset: xr.Dataset, trajectory: xr.Dataset | None) -> Shape:
    if is_track(dataset) and trajectory is None:
        return track_shape(dataset)
    if not has_plane(dataset):
        raise InputError(_without_surface(dataset))
    if trajectory is not None:
        check_on(dataset, trajectory)
        check_same_data(dataset, trajectory)
    return surface_shape(dataset, trajectory)


def _without_surface(dataset: xr.Dataset) -> str:
    axes = axes_of(dataset) if "loss" in dataset else ()
    if len(axes) == 3:
        middle = f"{axes[-1]}={dataset.sizes[axes[-1]] // 2}"
        return f"A volume is no surface: export a slice of it, volume.isel({middle}), or all of it as .csv."
    if len(axes) == 1:
        return "A line is no surface: export it as .csv, or measure a plane, which has two directions."
    return f"A result of kind {dataset.attrs['kind']} has no surface over a plane: export it as .csv."
