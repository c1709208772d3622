"""The ground between two models: closed forms, three definitions, paired errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BY_NAME, MEMBERS
from oracles.quadratic import quadratic, symmetric
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import DirectionError, InputError, NonFiniteLoss
from lossatlas.objective import Objective


class Number(nn.Module):
    """One parameter w; its output for x is (w, x)."""

    def __init__(self, w: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.w.expand(len(x), 1), x], dim=1)


def profile(function, n: int = 3) -> Objective:
    """L(w) is the mean of ``function(w, x_i)`` for x_i = 0 .. n - 1; the segment runs from w = 0 to w = 1."""
    data = (torch.arange(float(n), dtype=torch.float64)[:, None], torch.zeros(n))
    return Objective(Number(), lambda outputs, _: function(outputs[:, 0], outputs[:, 1]), data, metrics=None)


UNIT = la.Segment(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))


def measured(o: Objective, curve=UNIT, **options):
    return la.barrier(o, curve, progress=False, **options)


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


# 1 + 3 w + 8 w^2 (1 - w), and x_i adds 0 on average: ends at 1 and 4.
def hill(w: Tensor, x: Tensor) -> Tensor:
    return 1 + 3 * w + 8 * w**2 * (1 - w) + (x - 1) * w


@pytest.mark.parametrize(
    ("definition", "base"),
    [("entezari", lambda t: 1 + 3 * t), ("frankle", lambda t: 2.5), ("draxler", lambda t: 4.0)],
)
def test_the_three_definitions_on_an_asymmetric_profile(definition, base):
    found = measured(profile(hill), definition=definition, steps=5)
    heights = [1 + 3 * t + 8 * t**2 * (1 - t) - base(t) for t in (0, 0.25, 0.5, 0.75, 1)]
    # by hand: entezari 9/8 at 3/4; frankle 15/8 at 3/4; draxler 3/8 at 3/4
    assert max(heights) == {"entezari": 9 / 8, "frankle": 15 / 8, "draxler": 3 / 8}[definition]
    assert float(found["barrier"]) == pytest.approx(max(heights))
    assert float(found["t_max"]) == 0.75
    assert found.attrs["definition"] == definition


def test_draxlers_base_is_the_worse_end_on_either_side():
    turned = la.Segment(UNIT.b, UNIT.a)
    assert float(measured(profile(hill), turned, definition="draxler", steps=5)["barrier"]) == pytest.approx(3 / 8)


def test_without_a_hill_the_barrier_is_zero_at_an_end():
    found = measured(profile(lambda w, x: 1 + w**2 + x), steps=5)
    assert float(found["barrier"]) == 0
    assert float(found["barrier_stderr"]) == 0
    assert float(found["t_max"]) in (0.0, 1.0)


def test_the_error_of_the_height_is_paired_example_by_example():
    found = measured(profile(lambda w, x: 5 * x + 4 * w * (1 - w) * (1 + 0.1 * x), n=10), steps=3)
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
    found = measured(o, la.Segment(o.point_of(a), o.point_of(b)), steps=3)
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
    found = measured(o, segment, steps=3)
    again = o.with_batch_norm("recompute")
    assert found.attrs["batch_norm"] == "recompute"
    assert found["loss"].values.tolist() == [again.value(segment.point(t)) for t in (0.0, 0.5, 1.0)]
    frozen = measured(o, segment, steps=3, batch_norm="frozen")
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
    with pytest.raises(NonFiniteLoss, match="t = 1") as caught:
        measured(profile(lambda w, x: (0.5 - w).sqrt() + x), steps=3)
    assert "\n" not in str(caught.value)
    found = measured(profile(lambda w, x: ((w - 0.4) * (w - 0.6)).sqrt() + x), steps=5)
    assert np.isnan(float(found["barrier"]))
    assert float(found["t_max"]) == 0.5
    assert np.isfinite(found["loss"].values[[0, 1, 3, 4]]).all()


def test_impossible_questions_are_refused():
    o = profile(hill)
    with pytest.raises(InputError, match="entezari"):
        measured(o, definition="highest")
    with pytest.raises(InputError, match="at least 3"):
        measured(o, steps=2)
    with pytest.raises(DirectionError, match="same point"):
        la.Segment(o.point, o.point.clone())
    with pytest.raises(DirectionError, match="1 parameters"):
        measured(o, la.Segment(torch.zeros(2), torch.ones(2)))


def test_a_loss_for_each_batch_gives_errors_over_batches():
    member = BY_NAME["mlp-relu"]

    def loss(outputs, targets):
        return F.cross_entropy(outputs, targets, weight=torch.tensor([1.0, 3.0, 9.0]))

    o = Objective(member.make(), loss, member.batches())
    found = measured(o, la.Segment(o.point, o.point_of(member.make(seed=1))), steps=3)
    assert found.attrs["stderr_over"] == "batches"
    assert float(found["barrier_stderr"]) >= 0
