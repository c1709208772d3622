"""The plane through two networks and a third point: where paths and marks are on it, and how far from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.members import BY_NAME
from oracles.quadratic import quadratic, symmetric
from oracles.refusals import refused

import lossatlas as la
from lossatlas.connectivity.plane import connectivity_plane
from lossatlas.errors import DirectionError, InputError
from lossatlas.geometry.curves import Bezier, PolygonalChain, Segment
from lossatlas.objective import Objective

# In three dimensions with the plane through a, b, c that of the first and the third axis, off the origin by 7.
A, B, C = (torch.tensor([x, 7.0, z], dtype=torch.float64) for x, z in ((0.0, 0.0), (4.0, 0.0), (1.0, 2.0)))
OFF = torch.tensor([3.0, 12.0, 1.0], dtype=torch.float64)
MATRIX, _ = symmetric([-4.0, 1.0, 2.0])
ZERO = torch.zeros(3, dtype=torch.float64)


def bowl() -> la.Objective:
    centers = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return quadratic(MATRIX, centers, ZERO, batch_size=4)


def on_bowl(paths, marks, third=C, **options):
    return connectivity_plane(bowl(), paths, marks, third, progress=False, **{"steps": 5} | options)


def test_every_path_and_mark_is_where_the_plane_has_its_point():
    paths = {
        "line": Segment(A, B),
        "Bezier curve": Bezier().through(torch.stack([A, C, B])),
        "polygonal chain": PolygonalChain().through(torch.stack([A, C, B])),
    }
    found = on_bowl(paths, {"first network": A, "second network": B, "bend": C})
    t = found["t_path"].values
    expected = {
        "line": (4 * t, 0 * t),
        "Bezier curve": (2 * t * (1 - t) * 1 + 4 * t**2, 4 * t * (1 - t)),
        "polygonal chain": (np.where(t < 0.5, 2 * t, 6 * t - 2), np.where(t < 0.5, 4 * t, 4 - 4 * t)),
    }
    for name, (alpha, beta) in expected.items():
        one = found.sel(path=name)
        np.testing.assert_allclose(one["path_alpha"], alpha, atol=1e-12)
        np.testing.assert_allclose(one["path_beta"], beta, atol=1e-12)
        np.testing.assert_allclose(one["path_off_plane"], 0, atol=1e-12)
    np.testing.assert_allclose(found["mark_alpha"], [0, 4, 1], atol=1e-12)
    np.testing.assert_allclose(found["mark_beta"], [0, 0, 2], atol=1e-12)
    np.testing.assert_allclose(found["mark_off_plane"], 0, atol=1e-12)
    assert found["mark"].values.tolist() == ["first network", "second network", "bend"]
    assert found.attrs["directions"] == "through three points"
    assert found.attrs["kind"] == "connectivity_plane"


def test_what_is_off_the_plane_is_drawn_where_it_is_nearest_with_its_distance():
    found = on_bowl({"line": Segment(A, B), "line after alignment": Segment(A, OFF)}, {"aligned": OFF})
    one = found.sel(path="line after alignment")
    t = found["t_path"].values
    np.testing.assert_allclose(one["path_alpha"], 3 * t, atol=1e-12)
    np.testing.assert_allclose(one["path_beta"], t, atol=1e-12)
    np.testing.assert_allclose(one["path_off_plane"], 5 * t, atol=1e-12)
    assert float(found.sel(mark="aligned")["mark_off_plane"]) == pytest.approx(5, abs=1e-12)


def test_a_pixel_is_the_loss_at_its_point():
    found = on_bowl({"line": Segment(A, B)}, {}, steps=(4, 5))
    o = bowl()
    assert found["loss"].shape == (4, 5)
    for alpha in found["alpha"].values:
        for beta in found["beta"].values:
            point = torch.tensor([alpha, 7.0, beta], dtype=torch.float64)
            assert float(found["loss"].sel(alpha=alpha, beta=beta)) == pytest.approx(o.value(point), rel=1e-9, abs=1e-9)


def test_the_axes_hold_everything_that_is_drawn_and_a_fifth_more():
    far = torch.tensor([8.0, 7.0, -2.0], dtype=torch.float64)
    found = on_bowl({"line": Segment(A, B)}, {"far": far})
    # alpha: from 0 to 8, beta: from -2 to 2
    np.testing.assert_allclose(found["alpha"][[0, -1]], [-1.6, 9.6], atol=1e-12)
    np.testing.assert_allclose(found["beta"][[0, -1]], [-2.8, 2.8], atol=1e-12)


def test_without_marks_and_without_a_path():
    assert on_bowl({"line": Segment(A, B)}, {}).sizes["mark"] == 0
    with pytest.raises(InputError, match="give at least one, such as"):
        on_bowl({}, {})


def test_a_third_point_on_the_line_is_refused():
    with pytest.raises(DirectionError, match="one line"):
        on_bowl({"line": Segment(A, B)}, {}, third=(A + B) / 2)


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


# Real networks


def networks(name: str = "mlp-tanh", dtype: torch.dtype = torch.float32):
    """An objective and three points of it."""
    member = BY_NAME[name]
    o = Objective(member.make(dtype), member.loss, member.data(dtype))
    return o, [o.point_of(member.make(dtype, seed=seed)) for seed in range(3)]


def drawn(o, paths, marks, third, **options):
    return connectivity_plane(o, paths, marks, third, progress=False, **{"steps": 4} | options)


def frame(a, b, c):
    """Two orthonormal axes from a, towards b and then towards c, in float64."""
    q = torch.linalg.qr(torch.stack([b - a, c - a]).double().T).Q
    return q * torch.sign(torch.stack([b - a, c - a]).double() @ q).diagonal()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_paths_and_marks_are_projected_as_by_hand(dtype, tolerance):
    o, (a, b, c) = networks(dtype=dtype)
    stray = BY_NAME["mlp-tanh"].make(dtype, seed=9)
    d = o.point_of(stray)
    paths = {"line": Segment(a, b), "curve": Bezier().through(torch.stack([a, c, b])), "astray": Segment(a, d)}
    found = drawn(o, paths, {"first": a, "second": b, "bend": c, "stray": d}, c)
    axes = frame(a, b, c)
    for name, path in paths.items():
        for t, one in zip(
            found["t_path"].values, found.sel(path=name).transpose("t_path", ...)["path_alpha"], strict=True
        ):
            place = (path.point(float(t)) - a).double() @ axes
            assert float(one) == pytest.approx(float(place[0]), abs=tolerance)
    for name, point in {"first": a, "second": b, "bend": c, "stray": d}.items():
        step = (point - a).double()
        place = step @ axes
        own = found.sel(mark=name)
        assert float(own["mark_alpha"]) == pytest.approx(float(place[0]), abs=tolerance)
        assert float(own["mark_beta"]) == pytest.approx(float(place[1]), abs=tolerance)
        assert float(own["mark_off_plane"]) == pytest.approx(float((step - axes @ place).norm()), abs=tolerance)
    # In 73 dimensions the stray network is far away, and what goes through the third point is not.
    assert float(found.sel(mark="stray")["mark_off_plane"]) > 1
    assert float(found.sel(path="curve")["path_off_plane"].max()) < tolerance


def test_a_bezier_curve_with_one_bend_is_where_its_weights_put_it():
    o, (a, b, c) = networks(dtype=torch.float64)
    curve = Bezier().through(torch.stack([a, c, b]))
    found = drawn(o, {"curve": curve}, {"first": a, "second": b, "bend": c}, c)
    corners = np.column_stack([found["mark_alpha"], found["mark_beta"]])[[0, 2, 1]]
    for i, t in enumerate(found["t_path"].values):
        expected = curve.weights(float(t)).numpy() @ corners
        place = [float(found[f"path_{axis}"][0, i]) for axis in ("alpha", "beta")]
        np.testing.assert_allclose(place, expected, atol=1e-10)


def test_the_corners_of_a_chain_are_among_its_places():
    o, (a, b, c) = networks(dtype=torch.float64)
    for bends in (1, 2, 3, 4, 5):
        points = torch.stack([a, *(a + (k + 1) / 7 * (c - a) for k in range(bends)), b])
        found = drawn(o, {"chain": PolygonalChain().through(points)}, {}, c)
        places = np.column_stack([found["path_alpha"][0], found["path_beta"][0]])
        for corner in (points[1:-1] - a).double() @ frame(a, b, c):
            assert np.abs(places - corner.numpy()).sum(1).min() < 1e-9


def test_a_pixel_is_the_loss_at_its_place_and_the_ends_losses_are_on_it():
    o, (a, b, c) = networks(dtype=torch.float64)
    found = drawn(o, {"line": Segment(a, b)}, {"first": a}, c, steps=5)
    axes = frame(a, b, c)
    for alpha in found["alpha"].values[::2]:
        for beta in found["beta"].values[::2]:
            point = a + axes @ torch.tensor([alpha, beta], dtype=torch.float64)
            assert float(found["loss"].sel(alpha=alpha, beta=beta)) == pytest.approx(o.value(point), rel=1e-8)


def test_everything_that_is_drawn_is_inside_of_the_axes():
    o, (a, b, c) = networks()
    far = a + 3 * (b - a) - 2 * (c - a)
    found = drawn(o, {"line": Segment(a, b), "far": Segment(far, c)}, {"far": far, "bend": c}, c)
    for axis in ("alpha", "beta"):
        low, high = found[axis].values[[0, -1]]
        shown = np.concatenate([found[f"path_{axis}"].values.ravel(), found[f"mark_{axis}"].values])
        assert low < shown.min()
        assert shown.max() < high
        assert 1.3 * np.ptp(shown) < high - low < 1.5 * np.ptp(shown)


def test_a_path_of_another_kind_can_be_drawn():
    class Arc:
        length = 1.0

        def __init__(self, a, b, c):
            self.a, self.b, self.c = a, b, c

        def point(self, t):
            return self.a + t * (self.b - self.a) + np.sin(np.pi * t) * (self.c - self.a)

    o, (a, b, c) = networks(dtype=torch.float64)
    found = drawn(o, {"arc": Arc(a, b, c)}, {}, c)
    place = ((c - a) + 0.5 * (b - a)) @ frame(a, b, c)
    assert float(found.sel(path="arc", t_path=0.5)["path_beta"]) == pytest.approx(float(place[1]), abs=1e-9)


def test_the_model_and_the_points_are_left_alone():
    o, points = networks("batch-norm")
    before = [point.clone() for point in points], o.state_dict()
    a, b, c = points
    found = drawn(o, {"line": Segment(a, b)}, {"bend": c}, c, steps=3)
    assert all(torch.equal(p, q) for p, q in zip(points, before[0], strict=True))
    assert all(torch.equal(tensor, before[1][name]) for name, tensor in o.state_dict().items())
    assert o.function.policy == "frozen"
    assert found.attrs["batch_norm"] == "recompute"


@pytest.mark.parametrize("name", ["an end", "nan", "another size", "a mark of another size", "a mark of nan"])
def test_points_that_span_no_plane_or_are_none_are_refused(name):
    o, (a, b, c) = networks()
    line = {"line": Segment(a, b)}
    ask = {
        "an end": lambda: drawn(o, line, {}, b.clone()),
        "nan": lambda: drawn(o, line, {}, c * torch.nan),
        "another size": lambda: drawn(o, line, {}, c[:-1]),
        "a mark of another size": lambda: drawn(o, line, {"bend": c[:-1]}, c),
        "a mark of nan": lambda: drawn(o, line, {"bend": c * torch.nan}, c),
    }
    with refused((DirectionError, InputError)):
        ask[name]()
