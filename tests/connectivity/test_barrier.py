"""The barrier between two models: closed forms, three definitions, paired errors, intervals."""

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
from lossatlas.geometry.curves import Bezier
from lossatlas.objective import Objective


class Path:
    """The straight line from 0 to 1, told to be 1.5 long; it keeps account of the t at which it was asked."""

    length = 1.5

    def __init__(self) -> None:
        self.asked: list[float] = []

    def point(self, t: float) -> Tensor:
        self.asked.append(t)
        return torch.tensor([t], dtype=torch.float64)


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


def errors(wrong, n: int) -> Objective:
    """A classifier whose example i of n is wrong where ``wrong(w, i / n)``; its loss is flat."""
    data = (torch.arange(float(n), dtype=torch.float64)[:, None] / n, torch.zeros(n))
    metrics = {"accuracy": lambda outputs, _: 1 - wrong(outputs[:, 0], outputs[:, 1]).double()}
    return Objective(Number(), lambda outputs, _: 1 + 0 * outputs[:, 0], data, metrics=metrics)


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
    found = measured(profile(hill), definition=definition, steps=5, tol=None)
    heights = [1 + 3 * t + 8 * t**2 * (1 - t) - base(t) for t in (0, 0.25, 0.5, 0.75, 1)]
    # by hand: entezari 9/8 at 3/4; frankle 15/8 at 3/4; draxler 3/8 at 3/4
    assert max(heights) == {"entezari": 9 / 8, "frankle": 15 / 8, "draxler": 3 / 8}[definition]
    assert float(found["barrier"]) == pytest.approx(max(heights))
    assert float(found["t_max"]) == 0.75
    assert found.attrs["definition"] == definition


def test_draxlers_base_is_the_worse_end_on_either_side():
    turned = la.Segment(UNIT.b, UNIT.a)
    assert float(measured(profile(hill), turned, definition="draxler", steps=5, tol=None)["barrier"]) == pytest.approx(
        3 / 8
    )


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
    with pytest.raises(NonFiniteLoss, match="t = 1") as caught:
        measured(profile(lambda w, x: (0.5 - w).sqrt() + x), steps=3)
    assert "\n" not in str(caught.value)
    found = measured(profile(lambda w, x: ((w - 0.4) * (w - 0.6)).sqrt() + x), steps=5)
    assert np.isnan(float(found["barrier"]))
    assert float(found["t_max"]) == 0.5
    assert np.isfinite(found["loss"].values[[0, 1, 3, 4]]).all()
    assert (found.attrs["refined"], found.attrs["refinement_note"]) == (0, "the loss is not finite on the path")
    assert np.isnan([float(found[name]) for name in ("barrier_low", "barrier_high", "t_max_low")]).all()
    assert found.attrs["bootstrap"] == "none for the loss, which is not finite on the path"


def test_impossible_questions_are_refused():
    o = profile(hill)
    with pytest.raises(InputError, match="entezari"):
        measured(o, definition="highest")
    with pytest.raises(InputError, match="at least 3"):
        measured(o, steps=2)
    for places in ([0.0, 1.0], [0.0, 0.5, 0.9], [0.0, 0.6, 0.5, 1.0], [0.0, float("nan"), 1.0]):
        with pytest.raises(InputError, match="increasing t"):
            measured(o, steps=places)
    with pytest.raises(InputError, match="tol=-1"):
        measured(o, tol=-1)
    with pytest.raises(InputError, match="t_tol=0"):
        measured(o, t_tol=0)
    with pytest.raises(InputError, match="draws=10"):
        measured(o, draws=10)
    with pytest.raises(DirectionError, match="1 parameters"):
        measured(o, la.Segment(torch.zeros(2), torch.ones(2)))


def test_between_a_point_and_itself_the_barrier_is_zero_with_a_warning_that_says_why():
    o = Objective(BY_NAME["mlp-relu"].make(), F.cross_entropy, BY_NAME["mlp-relu"].batches())
    with pytest.warns(UserWarning, match="same point"):
        found = measured(o, la.Segment(o.point, o.point.clone()))
    assert abs(float(found["barrier"])) < 1e-12
    assert abs(float(found["barrier_high"])) < 1e-12
    assert float(found["length_ratio"]) == 1
    assert found.attrs["refined"] == 1


def test_a_loss_for_each_batch_gives_errors_over_batches():
    member = BY_NAME["mlp-relu"]

    def loss(outputs, targets):
        return F.cross_entropy(outputs, targets, weight=torch.tensor([1.0, 3.0, 9.0]))

    o = Objective(member.make(), loss, member.batches())
    found = measured(o, la.Segment(o.point, o.point_of(member.make(seed=1))), steps=3)
    assert found.attrs["stderr_over"] == "batches"
    assert float(found["barrier_stderr"]) >= 0


# Refinement. By calculus, hill is highest where its slope 3 + 16 w - 24 w^2 is that of the base: 3, or 0.
SUMMIT = (16 + np.sqrt(16**2 + 4 * 24 * 3)) / 48
TOP = 1 + 3 * SUMMIT + 8 * SUMMIT**2 * (1 - SUMMIT)


@pytest.mark.parametrize(
    ("definition", "height", "place"),
    [("entezari", 32 / 27, 2 / 3), ("frankle", TOP - 2.5, SUMMIT), ("draxler", TOP - 4, SUMMIT)],
)
@pytest.mark.parametrize(("tol", "t_tol"), [(0.01, 0.02), (1e-5, 1e-3)])
def test_height_and_place_are_within_the_tolerances_of_the_true_maximum(definition, height, place, tol, t_tol):
    found = measured(profile(hill), definition=definition, steps=5, tol=tol, t_tol=t_tol)
    assert found.attrs["refined"] == 1
    assert found.attrs["height_resolution"] <= tol * TOP
    assert found.attrs["t_resolution"] <= t_tol
    assert 0 <= height - float(found["barrier"]) <= tol * TOP
    assert abs(float(found["t_max"]) - place) <= t_tol
    assert float(found["height"].sel(definition=definition)) == float(found["barrier"])
    assert float(found["highest_loss"]) == pytest.approx(TOP, abs=tol * TOP)
    assert (np.diff(found["t"]) > 0).all()


def test_no_t_is_evaluated_twice_and_the_ends_are_first():
    path = Path()
    found = measured(profile(hill), path, steps=9, tol=1e-6)
    asked = path.asked[2:]  # the first two are the ends, asked for their distance
    assert asked[:2] == [0.0, 1.0]
    assert sorted(asked) == found["t"].values.tolist()
    assert len(set(asked)) == len(asked) > 9


@pytest.mark.parametrize("function", [lambda w, x: 1 + 0 * w + x, lambda w, x: 3 - 2 * w + x, lambda w, x: w**2 + x])
def test_a_flat_profile_and_a_maximum_at_an_end_need_no_further_point(function):
    found = measured(profile(function), steps=7)
    assert found.sizes["t"] == 7
    assert found.attrs["refined"] == 1
    assert float(found["barrier"]) == pytest.approx(0, abs=1e-15)


def test_a_second_peak_that_may_be_the_higher_one_is_looked_at():
    def two(w, x):  # 1.0 at t = 0.75, a point of the first grid; 1.1 at t = 0.3125, between two of them
        return torch.exp(-(((w - 0.75) / 0.16) ** 2)) + 1.1 * torch.exp(-(((w - 0.3125) / 0.16) ** 2)) + x

    found = measured(profile(two), steps=9, tol=1e-3)
    first = measured(profile(two), steps=9, tol=None)
    assert float(first["t_max"]) == 0.75
    assert float(found["t_max"]) == pytest.approx(0.3125, abs=0.02)


def test_a_cusp_that_no_parabola_fits_ends_and_says_so():
    found = measured(profile(lambda w, x: 2 - (w - 0.3).abs() ** 0.25 + x), steps=9, tol=1e-4, t_tol=1e-9)
    assert (found.attrs["refined"], found.attrs["refinement_note"]) == (0, "40 further points do not suffice")
    assert found.sizes["t"] == 49
    assert found.attrs["height_resolution"] > 1e-4 * 2


def test_an_error_is_not_refined_below_the_share_of_one_example():
    # one example of 100 is wrong, between t = 0.45 and 0.61: a plateau one step high
    found = measured(errors(lambda w, x: (x < 0.005) & (w > 0.45) & (w < 0.61), 100), steps=11, tol=1e-6, t_tol=1e-4)
    assert float(found["barrier_error"]) == pytest.approx(0.01)
    assert found.attrs["refined"] == 1
    assert found.sizes["t"] == 11


def test_the_place_of_the_error_is_found_as_that_of_the_loss_is():
    found = measured(errors(lambda w, x: x < 1 - (4 * (w - 0.37)).abs(), 1000), steps=11)
    assert float(found["t_max_error"]) == pytest.approx(0.37, abs=0.02)
    assert float(found["barrier_error"]) == pytest.approx(1, abs=0.01)


def test_the_t_of_another_profile_can_be_asked_for():
    first = measured(profile(hill), steps=9)
    again = measured(profile(hill, n=7), steps=first["t"].values, tol=None)
    assert again["t"].values.tolist() == first["t"].values.tolist()
    assert (again.attrs["refined"], again.attrs["refinement_note"]) == (0, "not asked for")


# The bootstrap


def noisy(seed: int, n: int, height: float) -> Objective:
    """A mean profile of ``height`` sin^2(pi t) with errors, smooth in t, that the examples draw anew."""
    draw = torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    k = torch.arange(1.0, 7.0, dtype=torch.float64)

    def loss(outputs: Tensor, _: Tensor) -> Tensor:
        w, x = outputs[:, :1], outputs[:, 1:]
        return (x * torch.sin(torch.pi * k * w) / k).sum(1) + height * torch.sin(torch.pi * w[:, 0]) ** 2

    return Objective(Number(), loss, (draw, torch.zeros(n)), metrics=None)


@pytest.mark.parametrize("height", [0.0, 0.05, 1.0])
def test_the_interval_covers_the_true_barrier_whether_there_is_one_or_not(height):
    covered = 0
    for seed in range(60):
        found = measured(noisy(seed, 100, height), definition="frankle", steps=9, tol=None, draws=200, seed=seed)
        covered += float(found["barrier_low"]) <= height <= float(found["barrier_high"])
    assert covered >= 54  # of 60; 57 are expected of an interval that covers in 95 % of the cases


def test_the_interval_holds_the_height_and_narrows_with_the_examples():
    few, many = (measured(noisy(1, n, 1.0), steps=9) for n in (50, 5000))
    for found in (few, many):
        for name in ("entezari", "frankle", "draxler"):
            own = found.sel(definition=name)
            assert 0 <= float(own["height_low"]) < float(own["height"]) < float(own["height_high"])
        assert float(found["t_max_low"]) <= float(found["t_max"]) <= float(found["t_max_high"])
    widths = [float(found["barrier_high"] - found["barrier_low"]) for found in (few, many)]
    # about 2 x 1.96 standard errors, a little more for the maximum
    assert 0.9 < widths[0] / (2 * 1.96 * float(few["barrier_stderr"])) < 2
    assert 0.9 < widths[1] / (2 * 1.96 * float(many["barrier_stderr"])) < 2
    assert widths[1] < widths[0] / 5


def test_a_seed_draws_the_same_intervals_and_another_seed_others():
    first, again, other = (measured(noisy(1, 50, 1.0), steps=5, seed=seed, draws=200) for seed in (3, 3, 4))
    assert float(first["barrier_high"]) == float(again["barrier_high"]) != float(other["barrier_high"])
    assert float(first["barrier"]) == float(other["barrier"])


def test_without_draws_there_are_no_intervals():
    found = measured(profile(hill), draws=0)
    assert found.attrs["bootstrap"] == "none: not asked for"
    assert np.isnan(found["height_high"]).all()
    assert np.isnan(float(found["relative_height_high"]))
    assert float(found["relative_height"]) > 0
    assert float(found["barrier"]) > 1


@pytest.mark.parametrize(("batch_size", "known"), [(6, False), (4, True)])
def test_batches_are_drawn_where_the_loss_has_no_value_for_an_example_and_two_are_too_few(batch_size, known):
    member = BY_NAME["mlp-relu"]
    inputs, targets = member.data()

    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels, weight=torch.tensor([1.0, 3.0, 9.0]))

    o = Objective(member.make(), loss, (inputs[:12], targets[:12]), batch_size=batch_size, metrics=None)
    found = measured(o, la.Segment(o.point, o.point_of(member.make(seed=1))), steps=3)
    assert np.isfinite(float(found["barrier_high"])) == known
    assert found.attrs["bootstrap"] == ("paired over batches" if known else "none: 2 batches are too few")


# What claims on connectivity are made from


def bump(share: float, n: int = 2000) -> Objective:
    """Half-way a ``share`` of the n examples is wrong, at the ends none."""
    return errors(lambda w, x: x < 4 * share * w * (1 - w), n)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.019, 0.3])
def test_the_upper_end_of_frankles_error_barrier_is_that_of_a_binomial_share(share):
    for curve in (UNIT, Path()):
        found = measured(bump(share), curve, definition="entezari").sel(definition="frankle")
        high = float(found["height_error_high"])
        assert float(found["height_error"]) == pytest.approx(share)
        if share == 0:  # none of 2,000 shows an error: (1 - p)^2000 = 0.025 at this p
            assert high == pytest.approx(1 - 0.025 ** (1 / 2000), rel=1e-2)
        else:  # a binomial share: its own normal interval, wider by the maximum
            assert share + 1.5 * np.sqrt(share * (1 - share) / 2000) <= high <= share + 4 * np.sqrt(share / 2000)
        assert "relative_height" not in found


@pytest.mark.parametrize("rise", [0.01, 0.1])
def test_without_an_accuracy_there_is_the_loss_barrier_as_a_share_of_the_ends(rise):
    # 10 + x at the ends with mean 11; half-way higher by the share ``rise`` of that, for every example
    found = measured(profile(lambda w, x: 10 + x + 4 * w * (1 - w) * 11 * rise))
    low, value, high = (float(found[f"relative_height{end}"]) for end in ("_low", "", "_high"))
    assert value == pytest.approx(rise)
    assert low < value < high < 2 * value
    assert "height_error" not in found


def test_a_share_of_a_loss_that_is_not_positive_is_not_defined():
    found = measured(profile(lambda w, x: x - 1))
    assert np.isnan([float(found[f"relative_height{end}"]) for end in ("", "_low", "_high")]).all()


@pytest.mark.parametrize("with_accuracy", [True, False])
def test_a_barrier_holds_intervals_and_judges_nothing(with_accuracy):
    found = measured(bump(0.01) if with_accuracy else profile(hill))
    assert not {"verdict", "verdict_statistic", "threshold"} & set(found.attrs)


def test_a_path_is_told_by_its_name_and_its_length():
    line, path = measured(profile(hill)), measured(profile(hill), Path(), path="detour")
    assert (line.attrs["curve"], line.attrs["path"], float(line["length_ratio"])) == ("Segment", "line", 1.0)
    assert (path.attrs["curve"], path.attrs["path"], float(path["length_ratio"])) == ("Path", "detour", 1.5)
    assert float(path["barrier"]) == float(line["barrier"])
    bent = Bezier().through(torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64))
    assert measured(profile(hill), bent).attrs["path"] == "Bezier curve"
