"""Surfaces and trajectories as files of ParaView and Blender, read back by readers of the tests' own."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any, NamedTuple
from xml.dom import minidom

import measured
import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import RegularGridInterpolator

import lossatlas as la
from lossatlas.drawing.scales import scale_of

RESULTS = measured.results()


class Vtp(NamedTuple):
    points: Any
    data: dict[str, Any]
    lines: list[list[int]]
    faces: list[list[int]]
    line: Any
    names: list[str]


def arrays(piece: Any, tag: str) -> dict[str, Any]:
    """The arrays below an element, from base64: 8 bytes of length, then the numbers."""
    (parent,) = piece.getElementsByTagName(tag)
    found = {}
    for element in parent.getElementsByTagName("DataArray"):
        raw = base64.b64decode(element.firstChild.data.strip(), validate=True)
        (length,) = struct.unpack("<Q", raw[:8])
        assert length == len(raw) - 8
        code = {"Float64": "d", "Int64": "q"}[element.getAttribute("type")]
        numbers = np.array(struct.unpack(f"<{length // 8}{code}", raw[8:]))
        n = int(element.getAttribute("NumberOfComponents") or 1)
        found[element.getAttribute("Name")] = numbers.reshape(-1, n) if n > 1 else numbers
    return found


def cells(piece: Any, tag: str) -> list[list[int]]:
    each = arrays(piece, tag)
    assert len(each["offsets"]) == int(piece.getAttribute(f"NumberOf{tag}"))
    return (
        [part.tolist() for part in np.split(each["connectivity"], each["offsets"][:-1])] if each["offsets"].size else []
    )


def read_vtp(path: Path) -> Vtp:
    document = minidom.parse(str(path))
    (piece,) = document.getElementsByTagName("Piece")
    points = arrays(piece, "Points")["Points"]
    assert len(points) == int(piece.getAttribute("NumberOfPoints"))
    (codes,) = document.getElementsByTagName("Array")
    text = bytes(map(int, codes.firstChild.data.split())).decode() if codes.firstChild else ""
    data = arrays(piece, "PointData")
    assert all(len(each) == len(points) for each in data.values())
    line = arrays(piece, "CellData")["line"]
    return Vtp(points, data, cells(piece, "Lines"), cells(piece, "Polys"), line, text.split("\0")[:-1])


def exported(dataset: xr.Dataset, folder: Path, suffix: str = ".vtp", **options: Any) -> Any:
    path = folder / f"result{suffix}"
    la.export(dataset, path, **options)
    return read_vtp(path) if suffix == ".vtp" else path.read_text(encoding="utf-8").splitlines()


def areas(points: Any, faces: list[list[int]]) -> list[float]:
    """Of each face seen from above, positive where its corners run counter-clockwise."""
    corners = [points[face] for face in faces]
    return [0.5 * float(np.sum(c[:, 0] * np.roll(c[:, 1], -1) - c[:, 1] * np.roll(c[:, 0], -1))) for c in corners]


@pytest.mark.parametrize("name", ["plane", "interpolated plane", "Hessian axes", "connectivity_plane"])
def test_the_vertices_of_a_plane_are_its_cells_and_carry_every_variable(name, tmp_path):
    dataset = RESULTS[name]
    vtp = exported(dataset, tmp_path)
    n = dataset["loss"].size
    for k in range(n):
        cell = dataset.sel(alpha=vtp.data["alpha"][k], beta=vtp.data["beta"][k])
        assert vtp.points[k, :2].tolist() == [float(cell["alpha"]), float(cell["beta"])]
        for variable in ("loss", "loss_stderr", "accuracy", "evaluated"):
            assert vtp.data[variable][k] == float(cell[variable])
    np.testing.assert_allclose(vtp.data["log10_loss"][:n], np.log10(vtp.data["loss"][:n]), rtol=1e-12)
    slope, offset = np.polyfit(vtp.data["log10_loss"][:n], vtp.points[:n, 2], 1)
    np.testing.assert_allclose(vtp.points[:n, 2], slope * vtp.data["log10_loss"][:n] + offset, atol=1e-9 * slope)
    assert np.ptp(vtp.points[:n, 2]) == pytest.approx(0.6 * np.ptp(vtp.points[:n, :2], axis=0).max())
    width, height = (float(np.ptp(dataset[axis].to_numpy())) for axis in ("alpha", "beta"))
    assert len(vtp.faces) == (dataset.sizes["alpha"] - 1) * (dataset.sizes["beta"] - 1)
    assert min(areas(vtp.points, vtp.faces)) > 0
    assert sum(areas(vtp.points, vtp.faces)) == pytest.approx(width * height)


def test_a_polar_surface_closes_around_its_center(tmp_path):
    dataset = RESULTS["polar"]
    vtp = exported(dataset, tmp_path)
    radius, angle = vtp.data["radius"], vtp.data["angle"]
    np.testing.assert_allclose(vtp.points[:, 0], radius * np.cos(angle), atol=1e-12)
    np.testing.assert_allclose(vtp.points[:, 1], radius * np.sin(angle), atol=1e-12)
    around = len(np.unique(np.round(dataset["angle"].to_numpy() % (2 * np.pi), 9)))
    assert len(vtp.points) == 1 + (dataset.sizes["radius"] - 1) * around
    assert sorted({len(face) for face in vtp.faces}) == [3, 4]
    assert min(areas(vtp.points, vtp.faces)) > 0
    edges = [frozenset(edge) for face in vtp.faces for edge in zip(face, [*face[1:], face[0]], strict=True)]
    assert sum(edges.count(edge) == 1 for edge in set(edges)) == around  # the rim only


def log_plane() -> xr.Dataset:
    objective = measured.trained("A").test
    directions = la.random_directions(objective, 2, seed=0)
    region = la.plane(objective.point, *directions, steps=7, spacing="log")
    return la.surface(objective, region, progress=False)


def test_logarithmic_axes_are_drawn_so_and_hold_the_coordinates_themselves(tmp_path):
    dataset = log_plane()
    alpha = dataset["alpha"].to_numpy()
    assert scale_of(alpha).kind != "linear"
    vtp = exported(dataset, tmp_path)
    np.testing.assert_allclose(vtp.points[:, 0], scale_of(alpha).positions(vtp.data["alpha"]))
    np.testing.assert_allclose(np.diff(np.unique(vtp.points[:, 0])).min(), np.diff(np.unique(vtp.points[:, 1])).min())


def test_a_cell_that_is_not_finite_is_a_hole(tmp_path):
    dataset = RESULTS["plane"].copy(deep=True)
    dataset["loss"][1, 2] = np.inf
    vtp = exported(dataset, tmp_path)
    assert np.isfinite(vtp.points).all()
    assert not any((vtp.points[:, :2] == [0, dataset["beta"][2]]).all(axis=1))
    assert len(vtp.faces) == 2 * 4 - 4
    vertices = [line for line in exported(dataset, tmp_path, ".obj") if line.startswith("v ")]
    assert len(vertices) == len(vtp.points)


@pytest.mark.parametrize("suffix", [".vtp", ".obj"])
def test_nothing_finite_is_refused(suffix, tmp_path):
    dataset = RESULTS["plane"]
    dataset = dataset.assign(loss=np.nan * dataset["loss"])
    with pytest.raises(la.LossAtlasError, match=r"export it as \.csv"):
        la.export(dataset, tmp_path / f"none{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_the_paths_between_networks_lie_on_the_surface(tmp_path):
    dataset = RESULTS["connectivity_plane"]
    vtp = exported(dataset, tmp_path)
    assert vtp.names == [str(name) for name in dataset["path"].to_numpy()]
    assert vtp.line.tolist() == [*range(1, len(vtp.names) + 1), *[0] * len(vtp.faces)]
    for name, line in zip(vtp.names, vtp.lines, strict=True):
        path = dataset.sel(path=name)
        known = np.isfinite(path["path_alpha"].to_numpy())
        np.testing.assert_array_equal(vtp.points[line, 0], path["path_alpha"].to_numpy()[known])
        np.testing.assert_array_equal(vtp.points[line, 1], path["path_beta"].to_numpy()[known])
        assert np.isnan(vtp.data["loss"][line]).all()  # not measured there
    n = dataset["loss"].size
    logarithm = np.log10(dataset["loss"].transpose("alpha", "beta"))
    between = RegularGridInterpolator((dataset["alpha"], dataset["beta"]), logarithm.to_numpy())
    slope, offset = np.polyfit(vtp.data["log10_loss"][:n], vtp.points[:n, 2], 1)
    on_paths = vtp.points[[k for line in vtp.lines for k in line]]
    np.testing.assert_allclose(on_paths[:, 2], slope * between(on_paths[:, :2]) + offset, atol=1e-8 * slope)


def test_a_trajectory_lies_at_the_loss_of_its_snapshots_on_the_scale_of_the_surface(tmp_path):
    plane, trajectory = RESULTS["trajectory_plane"], RESULTS["trajectory"]
    vtp = exported(plane, tmp_path, trajectory=trajectory)
    (line,) = vtp.lines
    n = plane["loss"].size
    slope, offset = np.polyfit(vtp.data["log10_loss"][:n], vtp.points[:n, 2], 1)
    height = slope * np.log10(trajectory["loss"].to_numpy()) + offset
    expected = np.stack([trajectory["alpha"], trajectory["beta"], height], axis=-1)
    np.testing.assert_allclose(vtp.points[line], expected, atol=1e-8 * slope)
    assert vtp.data["step"][line].tolist() == trajectory["step"].to_numpy().tolist()
    alone = exported(trajectory, tmp_path)
    np.testing.assert_array_equal(alone.points[:, :2], expected[:, :2])
    assert (len(alone.lines), len(alone.faces)) == (1, 0)


def test_an_obj_is_the_same_shape_with_y_upwards(tmp_path):
    plane, trajectory = RESULTS["trajectory_plane"], RESULTS["trajectory"]
    vtp = exported(plane, tmp_path, trajectory=trajectory)
    rows = [line.split() for line in exported(plane, tmp_path, ".obj", trajectory=trajectory)]
    vertices = np.array([[float(x) for x in row[1:4]] for row in rows if row[0] == "v"])
    np.testing.assert_allclose(vertices, vtp.points[:, [0, 2, 1]] * [1, 1, -1], rtol=1e-8, atol=1e-12)
    assert [[int(k) - 1 for k in row[1:]] for row in rows if row[0] == "f"] == vtp.faces
    assert [[int(k) - 1 for k in row[1:]] for row in rows if row[0] == "l"] == vtp.lines
    assert [row[1] for row in rows if row[0] == "o"] == ["loss", "training"]


@pytest.mark.parametrize(
    ("name", "suffix", "remedy"),
    [
        ("line", ".obj", r"measure a plane"),
        ("volume", ".obj", r"volume\.isel\(gamma=1\)"),
        ("volume", ".vtp", r"volume\.isel\(gamma=1\)"),
        ("spectrum A", ".vtp", r"export it as \.csv"),
        ("plane", ".stl", r"\.csv, \.vtp \(ParaView\) or \.obj \(Blender\)"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_remedy(name, suffix, remedy, tmp_path):
    with pytest.raises(la.LossAtlasError, match=remedy):
        la.export(RESULTS[name], tmp_path / f"result{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_the_slice_that_a_volumes_refusal_names_can_be_exported(tmp_path):
    vtp = exported(RESULTS["volume"].isel(gamma=1), tmp_path)
    assert len(vtp.faces) == 4


def test_a_trajectory_of_another_plane_is_refused(tmp_path):
    with pytest.raises(la.LossAtlasError, match=r"trajectory\.plane\(\)"):
        la.export(RESULTS["plane"], tmp_path / "plane.obj", trajectory=RESULTS["trajectory"])
    without = RESULTS["trajectory"].drop_vars("loss")
    with pytest.raises(la.LossAtlasError, match="same objective"):
        la.export(RESULTS["trajectory_plane"], tmp_path / "plane.obj", trajectory=without)
