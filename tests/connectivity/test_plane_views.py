"""The view of the planes: markers where the paths are, in step with the profiles, and what the choices change."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from measured import connectivity as measured

from lossatlas.drawing.grids import grid
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.discovery import kind_of
from lossatlas.results.views import View

PLANES = ("connectivity_plane", "connectivity_plane_aligned")


def planes() -> list[xr.Dataset]:
    return [measured.results()[name].copy(deep=True) for name in PLANES]


def view(*datasets: xr.Dataset) -> View:
    catalogue, kind = Catalogue(datasets), kind_of(datasets[0])
    (group,) = kind.figures(catalogue.of(kind), catalogue)
    assert group.pictures[0].view is not None
    return group.pictures[0].view()


def position(found: View, label: str) -> int:
    assert found.slider is not None
    return found.slider.labels.index(label)


def test_the_positions_are_the_t_that_were_evaluated_and_the_markers_have_the_losses_measured_there():
    found, line = view(*planes(), *measured.barriers()), measured.barrier("line", "train")
    assert found.slider is not None
    assert {f"t = {t:.4g}" for t in line["t"].values} <= set(found.slider.labels)
    loss = next(move for move in found.slider.moves if move.panel == 1)
    for t, value in zip(line["t"].values, line["loss"].values, strict=True):
        k = position(found, f"t = {t:.4g}")
        assert loss.values["x"][k][0] == pytest.approx(t)
        assert loss.values["y"][k][0] == pytest.approx(value, rel=1e-6)
        assert loss.values["text"][k][0].endswith("evaluated")
        assert "≈" not in found.slider.readouts[k].split(",")[0]
    assert found.slider.labels[found.slider.start] == f"t = {float(line['t_max']):.4g}"


def test_a_path_that_was_not_evaluated_at_a_t_is_told_as_interpolated():
    line, curve = measured.barrier("line", "train"), measured.barrier("Bezier curve", "train")
    found = view(*planes(), line, curve.isel(t=[0, -1]))
    assert found.slider is not None
    k = position(found, "t = 0.5")
    loss = next(move for move in found.slider.moves if move.panel == 1)
    between = np.sqrt(np.prod(curve["loss"].values[[0, -1]]))  # on a logarithmic axis half-way along the drawn line
    assert loss.values["y"][k][1] == pytest.approx(between, rel=1e-5)
    assert "interpolated" in loss.values["text"][k][1]
    assert "Bezier curve ≈ " in found.slider.readouts[k]


def test_the_markers_on_the_surface_are_where_the_paths_are_and_hidden_where_they_leave_the_plane():
    plane, _ = planes()
    plane["path_off_plane"][1, 40:] = 3.0
    found = view(plane, *measured.barriers("train"))
    assert found.slider is not None
    move = found.slider.moves[0]
    assert found.panels[0].data[move.trace].name == "point at t"
    for label, t in (("t = 0", 0), ("t = 0.5", 30)):
        k = position(found, label)
        np.testing.assert_allclose(move.values["x"][k], plane["path_alpha"][:, t], atol=1e-5)
        np.testing.assert_allclose(move.values["y"][k], plane["path_beta"][:, t], atol=1e-5)
    last = position(found, "t = 1")
    assert move.values["x"][last][1] is None
    assert move.values["z"][last][0] is not None


def test_every_combination_of_the_choices_shows_one_plane_and_says_all_that_differs():
    found = view(*planes(), *measured.barriers())
    assert [len(choice.options) for choice in found.choices] == [2, 2]
    assert found.changes is not None
    assert set(found.changes) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    space = found.panels[0]
    surfaces = [trace for trace in space.data if trace.type == "surface"]
    assert len({(trace.cmin, trace.cmax) for trace in surfaces}) == 1
    shown = [trace for trace in space.data if trace.visible]
    for key, changes in found.changes.items():
        visible = {change.trace: change.values["visible"] for change in changes if "visible" in change.values}
        assert set(visible) == set(range(len(space.data)))
        (seen,) = (space.data[k] for k, on in visible.items() if on and space.data[k].type == "surface")
        assert seen is surfaces[key[1]]
        layout = next(change.values for change in changes if change.trace is None)
        assert layout["scene.camera"]["projection"]["type"] == ("orthographic" if key[0] else "perspective")
        assert layout["scene.zaxis.visible"] is (key[0] == 0)
        if key == (0, 0):
            assert [space.data[k] for k, on in visible.items() if on] == shown


def test_a_plane_without_barriers_has_the_height_of_its_surface_and_no_profiles():
    plane, _ = planes()
    found = view(plane)
    assert len(found.panels) == 1
    assert found.slider is not None
    assert len(found.slider.labels) == plane.sizes["t_path"]
    first = float(found.slider.readouts[0].split("≈ ")[1].split(",")[0])
    low, high = (float(grid(plane)[2].min()), float(grid(plane)[2].max()))
    assert low <= first <= high
    assert [choice.name for choice in found.choices] == ["show as"]


def test_the_profiles_are_of_the_same_networks_and_of_the_plane_s_own_data_where_there_are_such():
    plane, _ = planes()
    assert (
        len(view(plane, *(each.assign_attrs(model_fingerprint="another") for each in measured.barriers())).panels) == 1
    )
    assert len(view(plane, *(each.assign_attrs(network="A and B") for each in measured.barriers())).panels) == 1
    of_test = {key: measured.barrier().attrs[key] for key in ("data", "data_fingerprint")}
    on_test = plane.assign_attrs(**of_test, center_loss=float(measured.barrier()["loss"][0]))
    on_others = plane.assign_attrs(data="few", data_fingerprint="few")
    for one, split in ((plane, "train"), (on_test, "test"), (on_others, "train")):
        profile = view(one, *measured.barriers()).panels[1]
        assert profile.layout.xaxis2.title.text == f"t (0: first, 1: second), digits {split}"
        np.testing.assert_allclose(profile.data[0].y, measured.barrier("line", split)["loss"], rtol=1e-6)
