"""The barrier between two models: closed forms, three definitions, paired errors, paths of any kind, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BY_NAME, MEMBERS
from oracles.profiles import UNIT, Path, hill, measured, numbered
from oracles.quadratic import quadratic, symmetric
from oracles.refusals import refused
from torch import Tensor

import lossatlas as la
from lossatlas.errors import BufferWarning, DirectionError, InputError, NonFiniteLoss
from lossatlas.geometry.curves import Bezier, PolygonalChain
from lossatlas.objective import Objective


def test_a_parabola_has_the_closed_form():
    matrix, _ = symmetric([-4.0, 1.0, 2.0])
    centers = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    o = quadratic(matrix, centers, torch.zeros(3, dtype=torch.float64), batch_size=4)
    a, b = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    curvature = float((b - a) @ matrix @ (b - a))
    found = measured(o, la.Segment(a, b), steps=11)
    # L(t) - (1 - t) L(0) - t L(1) = -t (1 - t) curvature / 2
    height = np.max([-t * (1 - t) * curvature / 2 for t in np.linspace(0, 1, 11)])
    assert float(found["barrier"]) == pytest.approx(height, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(
    ("definition", "base"),
    [("entezari", lambda t: 1 + 3 * t), ("frankle", lambda t: 2.5), ("draxler", lambda t: 4.0)],
)
def test_the_three_definitions_on_an_asymmetric_profile(definition, base):
    found = measured(numbered(hill), definition=definition, steps=5, tol=None)
    heights = [1 + 3 * t + 8 * t**2 * (1 - t) - base(t) for t in (0, 0.25, 0.5, 0.75, 1)]
    # by hand: entezari 9/8 at 3/4; frankle 15/8 at 3/4; draxler 3/8 at 3/4
    assert max(heights) == {"entezari": 9 / 8, "frankle": 15 / 8, "draxler": 3 / 8}[definition]
    assert float(found["barrier"]) == pytest.approx(max(heights))
    assert float(found["t_max"]) == 0.75
    assert found.attrs["definition"] == definition


def test_draxlers_base_is_the_worse_end_on_either_side():
    turned = la.Segment(UNIT.b, UNIT.a)
    assert float(measured(numbered(hill), turned, definition="draxler", steps=5, tol=None)["barrier"]) == pytest.approx(
        3 / 8
    )


def test_without_a_hill_the_barrier_is_zero_at_an_end():
    found = measured(numbered(lambda w, x: 1 + w**2 + x), steps=5)
    assert float(found["barrier"]) == 0
    assert float(found["barrier_stderr"]) == 0
    assert float(found["t_max"]) in (0.0, 1.0)


def test_the_error_of_the_height_is_paired_example_by_example():
    found = measured(numbered(lambda w, x: 5 * x + 4 * w * (1 - w) * (1 + 0.1 * x), n=10), steps=3)
    heights = 1 + 0.1 * np.arange(10.0)  # the large spread 5 x is common to all points and drops out
    assert float(found["barrier"]) == pytest.approx(heights.mean())
    assert float(found["barrier_stderr"]) == pytest.approx(heights.std(ddof=1) / np.sqrt(10), rel=1e-9)
    assert float(found["loss_stderr"][0]) > 4


@pytest.mark.parametrize("member", [m for m in MEMBERS if m.name != "batch-norm"], ids=lambda m: m.name)
def test_the_ends_are_the_two_models_own_losses(member):
    a, b, data = member.make(seed=0), member.make(seed=1), member.data()
    for name, parameter in a.named_parameters():
        if not parameter.requires_grad:
            b.get_parameter(name).data = parameter.data.clone()
    o = Objective(a, member.loss, data)
    found = measured(o, la.Segment(o.point_of(a), o.point_of(b)), steps=3, tol=None)
    assert float(found["loss"][0]) == o.value()
    assert float(found["loss"][0]) == pytest.approx(plain.loss_of(a, member.loss, data), rel=1e-6)
    assert float(found["loss"][-1]) == Objective(b, member.loss, data).value()
    assert float(found["loss"][1]) == pytest.approx(
        plain.loss_at(a, member.loss, data, (plain.flat(a) + plain.flat(b)) / 2), rel=1e-5
    )


def test_the_barrier_of_the_error_is_that_of_one_minus_the_accuracy():
    member = BY_NAME["mlp-relu"]
    a, b, data = member.make(seed=0), member.make(seed=1), member.data()
    o = Objective(a, member.loss, data)
    found = measured(o, la.Segment(o.point, o.point_of(b)), steps=7)
    t = found["t"].values
    wrong = []
    for x in t:
        model = plain.at(a, torch.lerp(plain.flat(a), plain.flat(b), float(x)))
        with torch.no_grad():
            wrong.append((model(data[0]).argmax(1) != data[1]).double().numpy())
    errors = np.array([w.mean() for w in wrong])
    np.testing.assert_allclose(found["error"], errors, atol=1e-7)
    heights = errors - (1 - t) * errors[0] - t * errors[-1]
    top = int(heights.argmax())
    assert float(found["barrier_error"]) == pytest.approx(heights[top], abs=1e-7)
    assert float(found["t_max_error"]) == t[top]
    paired = wrong[top] - (1 - t[top]) * wrong[0] - t[top] * wrong[-1]
    assert float(found["barrier_error_stderr"]) == pytest.approx(paired.std(ddof=1) / np.sqrt(len(paired)), abs=1e-7)


def test_statistics_are_recomputed_along_a_path_unless_told_otherwise():
    member = BY_NAME["batch-norm"]
    a, b, data = member.make(), member.make(seed=1), member.data()
    o = Objective(a, member.loss, data)
    segment = la.Segment(o.point, o.point_of(b))
    found = measured(o, segment, steps=3, tol=None)
    again = o.with_batch_norm("recompute")
    assert found.attrs["batch_norm"] == "recompute"
    assert found["loss"].values.tolist() == [again.value(segment.point(t)) for t in (0.0, 0.5, 1.0)]
    with pytest.warns(BufferWarning, match="use batch_norm='recompute'"):
        frozen = measured(o, segment, steps=3, tol=None, batch_norm="frozen")
    assert frozen.attrs["batch_norm"] == "frozen"
    assert float(frozen["loss"][0]) == o.value()
    assert float(frozen["loss"][1]) != float(found["loss"][1])


def test_the_objectives_own_data_for_the_statistics_are_kept():
    member = BY_NAME["batch-norm"]
    data = member.data()
    o = Objective(member.make(), member.loss, data, batch_norm="recompute", batch_norm_data=(3 * data[0], data[1]))
    segment = la.Segment(o.point, o.point + 0.1)
    assert float(measured(o, segment, steps=3)["loss"][0]) == o.value()
    with pytest.raises(InputError, match="at least 1"):
        o.with_batch_norm("recompute", batches=0)
    batch = o.with_batch_norm("batch")
    assert float(measured(batch, segment, steps=3)["loss"][0]) == batch.value()


def test_an_end_that_is_not_finite_is_refused_and_a_middle_is_the_summit():
    with refused(NonFiniteLoss, match="t = 1"):
        measured(numbered(lambda w, x: (0.5 - w).sqrt() + x), steps=3)
    found = measured(numbered(lambda w, x: ((w - 0.4) * (w - 0.6)).sqrt() + x), steps=5)
    assert np.isnan(float(found["barrier"]))
    assert float(found["t_max"]) == 0.5
    assert np.isfinite(found["loss"].values[[0, 1, 3, 4]]).all()
    assert (found.attrs["refined"], found.attrs["refinement_note"]) == (0, "the loss is not finite on the path")
    assert np.isnan([float(found[name]) for name in ("barrier_low", "barrier_high", "t_max_low")]).all()
    assert found.attrs["bootstrap"] == "none for the loss, which is not finite on the path"


def test_between_a_point_and_itself_the_barrier_is_zero_with_a_warning_that_says_why():
    o = Objective(BY_NAME["mlp-relu"].make(), F.cross_entropy, BY_NAME["mlp-relu"].batches())
    with pytest.warns(UserWarning, match="same point"):
        found = measured(o, la.Segment(o.point, o.point.clone()))
    assert abs(float(found["barrier"])) < 1e-12
    assert abs(float(found["barrier_high"])) < 1e-12
    assert float(found["length_ratio"]) == 1
    assert found.attrs["refined"] == 1


@pytest.mark.filterwarnings("ignore::lossatlas.errors.ReductionWarning")  # it is one that depends on its batch
def test_a_loss_for_each_batch_gives_errors_over_batches():
    member = BY_NAME["mlp-relu"]

    def loss(outputs, targets):
        return (
            F.cross_entropy(outputs, targets) + 100 * outputs.var(0, correction=0).sum()
        )  # with a value for the batch alone

    o = Objective(member.make(), loss, member.batches())
    found = measured(o, la.Segment(o.point, o.point_of(member.make(seed=1))), steps=3)
    assert found.attrs["stderr_over"] == "batches"
    assert float(found["barrier_stderr"]) >= 0


# Paths


def test_a_path_is_told_by_its_name_and_its_length():
    line, path = measured(numbered(hill)), measured(numbered(hill), Path(), path="detour")
    assert (line.attrs["curve"], line.attrs["path"], float(line["length_ratio"])) == ("Segment", "line", 1.0)
    assert (path.attrs["curve"], path.attrs["path"], float(path["length_ratio"])) == ("Path", "detour", 1.5)
    assert float(path["barrier"]) == float(line["barrier"])
    bent = Bezier().through(torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64))
    assert measured(numbered(hill), bent).attrs["path"] == "Bezier curve"


class Detour:
    """A polygon through one point, known by its two methods alone."""

    def __init__(self, a: Tensor, via: Tensor, b: Tensor) -> None:
        self.corners = (a, via, b)

    def point(self, t: float) -> Tensor:
        a, via, b = self.corners
        return torch.lerp(a, via, 2 * t) if t <= 0.5 else torch.lerp(via, b, 2 * t - 1)

    @property
    def length(self) -> float:
        a, via, b = self.corners
        return float((via - a).norm() + (b - via).norm())


def test_a_curve_of_another_kind_is_measured_as_ours_are():
    member = BY_NAME["mlp-tanh"]
    a, via, b = (member.make(torch.float64, seed=seed) for seed in range(3))
    o = Objective(a, member.loss, member.data(torch.float64))
    points = [o.point_of(each) for each in (a, via, b)]
    chain, detour = PolygonalChain().through(torch.stack(points)), Detour(*points)
    ours, theirs = measured(o, chain), measured(o, detour)
    np.testing.assert_allclose(theirs["t"], ours["t"], atol=1e-12)
    np.testing.assert_allclose(theirs["loss"], ours["loss"], rtol=1e-12)
    for name in ["barrier", "barrier_stderr", "barrier_low", "barrier_high", "barrier_error", "length_ratio"]:
        assert float(theirs[name]) == pytest.approx(float(ours[name]), rel=1e-9)
    assert (theirs.attrs["curve"], theirs.attrs["path"]) == ("Detour", "Detour")
    # A path told in float32 is followed in the objective's own type.
    coarse = Detour(*(point.float() for point in points))
    np.testing.assert_allclose(measured(o, coarse, steps=5, tol=None)["loss"][0], ours["loss"][0], rtol=1e-5)


@pytest.mark.parametrize("each", [True, False])
def test_a_step_of_any_kind_has_a_barrier_too(each):
    member = BY_NAME["mlp-tanh"]
    batches = [{"x": x, "y": y} for x, y in member.batches()]

    def step(model, batch):
        return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none" if each else "mean")

    a, b = member.make(), member.make(seed=1)
    o = Objective.from_step(a, step, batches)
    plain = Objective(a, member.loss, member.data())
    segment = la.Segment(o.point, o.point_of(b))
    found, expected = measured(o, segment, steps=5, tol=None), measured(plain, segment, steps=5, tol=None)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    assert found.attrs["stderr_over"] == ("examples" if each else "batches")
    assert "error" not in found
    assert np.isfinite(float(found["barrier_high"]))
    if each:
        assert float(found["barrier_high"]) == pytest.approx(float(expected["barrier_high"]), rel=1e-4)
    weighted = Objective.from_step(a, step, batches, weight=lambda batch: float((batch["y"] == 0).sum()) + 0.5)
    share = np.array([float((batch["y"] == 0).sum()) + 0.5 for batch in batches])
    with torch.no_grad():
        means = [[float(step(m, batch).mean()) for batch in batches] for m in (a.eval(), b.eval())]
    again = measured(weighted, segment, steps=3, tol=None)
    np.testing.assert_allclose(again["loss"][[0, -1]], np.array(means) @ share / share.sum(), rtol=1e-5)


# Bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"definition": "highest"}, "entezari"),
        ({"seed": -1}, "seed=-1"),
        ({"tol": -1}, "tol=-1"),
        ({"t_tol": 0}, "t_tol=0"),
        ({"steps": 2}, "at least 3"),
        ({"steps": [0.0, 0.5, 0.9]}, "increasing t"),
        ({"steps": [0.0, float("nan"), 1.0]}, "increasing t"),
        ({"tol": float("nan")}, "tol=nan"),
        ({"tol": float("inf")}, "tol=inf"),
        ({"t_tol": float("nan")}, "t_tol=nan"),
        ({"t_tol": 2}, "t_tol=2"),
        ({"draws": -5}, "draws=-5"),
        ({"draws": 99}, "draws=99"),
        ({"steps": [[0, 1], [0, 1]]}, "increasing t"),
        ({"steps": []}, "increasing t"),
        ({"steps": [0, 0.5, 0.5, 1]}, "increasing t"),
        ({"steps": [0, 0.5, 1.5]}, "increasing t"),
    ],
    ids=str,
)
def test_impossible_questions_are_refused(options, words):
    with refused(InputError, match=words):
        measured(numbered(hill), **options)


def test_a_path_of_another_network_is_refused():
    with pytest.raises(DirectionError, match="1 parameters"):
        measured(numbered(hill), la.Segment(torch.zeros(2), torch.ones(2)))


def test_steps_may_be_a_number_of_numpys():
    assert measured(numbered(hill), steps=np.int64(9), tol=None).sizes["t"] == 9
