"""The plane through two networks and a third point: where ways and marks are on it, and how far from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.members import BY_NAME
from oracles.quadratic import quadratic, symmetric

import lossatlas as la
from lossatlas.connectivity.plane import connectivity_plane
from lossatlas.errors import DirectionError, InputError
from lossatlas.geometry.curves import Bezier, PolygonalChain, Segment

# In three dimensions with the plane through a, b, c that of the first and the third axis, off the origin by 7.
A, B, C = (torch.tensor([x, 7.0, z], dtype=torch.float64) for x, z in ((0.0, 0.0), (4.0, 0.0), (1.0, 2.0)))
OFF = torch.tensor([3.0, 12.0, 1.0], dtype=torch.float64)
MATRIX, _ = symmetric([-4.0, 1.0, 2.0])
ZERO = torch.zeros(3, dtype=torch.float64)


def bowl() -> la.Objective:
    centers = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return quadratic(MATRIX, centers, ZERO, batch_size=4)


def drawn(ways, marks, third=C, **options):
    return connectivity_plane(bowl(), ways, marks, third, progress=False, **{"steps": 5} | options)


def test_every_way_and_mark_is_where_the_plane_has_its_point():
    ways = {
        "line": Segment(A, B),
        "Bezier curve": Bezier().through(torch.stack([A, C, B])),
        "polygonal chain": PolygonalChain().through(torch.stack([A, C, B])),
    }
    found = drawn(ways, {"first network": A, "second network": B, "bend": C})
    t = found["t_way"].values
    expected = {
        "line": (4 * t, 0 * t),
        "Bezier curve": (2 * t * (1 - t) * 1 + 4 * t**2, 4 * t * (1 - t)),
        "polygonal chain": (np.where(t < 0.5, 2 * t, 6 * t - 2), np.where(t < 0.5, 4 * t, 4 - 4 * t)),
    }
    for name, (alpha, beta) in expected.items():
        one = found.sel(way=name)
        np.testing.assert_allclose(one["way_alpha"], alpha, atol=1e-12)
        np.testing.assert_allclose(one["way_beta"], beta, atol=1e-12)
        np.testing.assert_allclose(one["way_off_plane"], 0, atol=1e-12)
    np.testing.assert_allclose(found["mark_alpha"], [0, 4, 1], atol=1e-12)
    np.testing.assert_allclose(found["mark_beta"], [0, 0, 2], atol=1e-12)
    np.testing.assert_allclose(found["mark_off_plane"], 0, atol=1e-12)
    assert found["mark"].values.tolist() == ["first network", "second network", "bend"]
    assert found.attrs["directions"] == "through three points"
    assert found.attrs["kind"] == "surface"


def test_what_is_off_the_plane_is_drawn_where_it_is_nearest_with_its_distance():
    found = drawn({"line": Segment(A, B), "line after alignment": Segment(A, OFF)}, {"aligned": OFF})
    one = found.sel(way="line after alignment")
    t = found["t_way"].values
    np.testing.assert_allclose(one["way_alpha"], 3 * t, atol=1e-12)
    np.testing.assert_allclose(one["way_beta"], t, atol=1e-12)
    np.testing.assert_allclose(one["way_off_plane"], 5 * t, atol=1e-12)
    assert float(found.sel(mark="aligned")["mark_off_plane"]) == pytest.approx(5, abs=1e-12)


def test_a_pixel_is_the_loss_at_its_point():
    found = drawn({"line": Segment(A, B)}, {}, steps=(4, 5))
    o = bowl()
    assert found["loss"].shape == (4, 5)
    for alpha in found["alpha"].values:
        for beta in found["beta"].values:
            point = torch.tensor([alpha, 7.0, beta], dtype=torch.float64)
            assert float(found["loss"].sel(alpha=alpha, beta=beta)) == pytest.approx(o.value(point), rel=1e-9, abs=1e-9)


def test_the_axes_hold_everything_that_is_drawn_and_a_fifth_more():
    far = torch.tensor([8.0, 7.0, -2.0], dtype=torch.float64)
    found = drawn({"line": Segment(A, B)}, {"far": far})
    # alpha: from 0 to 8, beta: from -2 to 2
    np.testing.assert_allclose(found["alpha"][[0, -1]], [-1.6, 9.6], atol=1e-12)
    np.testing.assert_allclose(found["beta"][[0, -1]], [-2.8, 2.8], atol=1e-12)


def test_without_marks_and_without_a_way():
    assert drawn({"line": Segment(A, B)}, {}).sizes["mark"] == 0
    with pytest.raises(InputError, match="give at least one, such as"):
        drawn({}, {})


def test_a_third_point_on_the_line_is_refused():
    with pytest.raises(DirectionError, match="one line"):
        drawn({"line": Segment(A, B)}, {}, third=(A + B) / 2)


def test_statistics_are_recomputed_on_the_plane():
    member = BY_NAME["batch-norm"]
    a, b, c = (member.make(seed=seed) for seed in range(3))
    o = la.Objective(a, F.cross_entropy, member.data())
    segment = Segment(o.point, o.point_of(b))
    found = connectivity_plane(o, {"line": segment}, {}, o.point_of(c), steps=3, progress=False)
    assert found.attrs["batch_norm"] == "recompute"
    region = la.plane_through(o.point, o.point_of(b), o.point_of(c))
    theta = region.at(float(found["alpha"][1]), float(found["beta"][2]))
    assert float(found["loss"][1, 2]) == pytest.approx(o.with_batch_norm("recompute").value(theta), rel=1e-4)
