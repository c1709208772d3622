"""Barriers of difficult profiles: kinks, plateaus, ties, infinite losses, ragged batches; laws of all profiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.members import BY_NAME
from oracles.quadratic import quadratic, symmetric
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import InputError, NonFiniteLoss
from lossatlas.geometry.curves import PolygonalChain
from lossatlas.objective import Objective

DEFINITIONS = ["entezari", "frankle", "draxler"]


class Number(nn.Module):
    """One parameter w; its output for x is (w, x)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.w.expand(len(x), 1), x], dim=1)


UNIT = la.Segment(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))


def profile(function, x: Tensor | None = None, **options) -> Objective:
    """L(w) is the mean of ``function(w, x_i)``; without x there are four examples, all of them 0."""
    x = torch.zeros(4, dtype=torch.float64) if x is None else x
    options = {"metrics": None} | options
    return Objective(
        Number(),
        lambda outputs, _: function(outputs[:, 0], outputs[:, 1]),
        (x[:, None], torch.zeros(len(x))),
        **options,
    )


def measured(o: Objective, curve=UNIT, **options):
    return la.barrier(o, curve, progress=False, **options)


# Closed forms


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize(("tol", "t_tol"), [(0.01, 0.02), (1e-6, 1e-3)])
@pytest.mark.parametrize("seed", range(3))
def test_a_quadratic_loss_between_unequal_ends(definition, tol, t_tol, seed):
    matrix, _ = symmetric([-5.0, -2.0, 1.0], seed)
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    a, b = torch.randn(2, 3, dtype=torch.float64, generator=generator) * 2
    o = quadratic(matrix, centers, a, batch_size=4)
    shift = 40.0  # the loss is positive, so that a share of it is a tolerance
    o = Objective(*_shifted(matrix, centers, a, shift), batch_size=4, metrics=None)
    # L(t) = p t^2 + q t + r by calculus; where p > 0 the highest point is an end.
    p = float((b - a) @ matrix @ (b - a)) / 2
    center = centers.mean(0)
    q, r = float((a - center) @ matrix @ (b - a)), o.value(a)
    base = {"entezari": (r, r + p + q), "frankle": (r + (p + q) / 2,) * 2, "draxler": (max(r, r + p + q),) * 2}
    first, last = base[definition]
    slope = q - (last - first)
    places = [0.0, 1.0] + ([-slope / (2 * p)] if p < 0 and 0 < -slope / (2 * p) < 1 else [])
    height, place = max((p * t * t + slope * t + r - first, t) for t in places)
    found = measured(o, la.Segment(a, b), definition=definition, steps=5, tol=tol, t_tol=t_tol)
    top = float(found["highest_loss"])
    assert found.attrs["refined"] == 1
    assert -1e-9 <= height - float(found["barrier"]) <= tol * top
    if height > tol * top:
        assert abs(float(found["t_max"]) - place) <= t_tol


def _shifted(matrix: Tensor, centers: Tensor, w: Tensor, shift: float):
    def loss(outputs: Tensor, _: Tensor) -> Tensor:
        return shift + 0.5 * ((outputs @ matrix) * outputs).sum(1)

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(w.clone())

        def forward(self, c: Tensor) -> Tensor:
            return self.w - c

    return Point(), loss, (centers, torch.zeros(len(centers)))


@pytest.mark.parametrize("place", [0.031, 0.25, 0.4999, 0.6, 1 / 3, 0.977])
@pytest.mark.parametrize(("tol", "t_tol"), [(0.01, 0.02), (1e-4, 1e-3)])
def test_a_tent_is_climbed_to_its_top(place, tol, t_tol):
    def tent(w, x):  # 1 at the ends, 3 at the place
        return 1 + 2 * torch.minimum(w / place, (1 - w) / (1 - place)) + x

    found = measured(profile(tent), tol=tol, t_tol=t_tol)
    assert found.attrs["refined"] == 1
    assert 0 <= 2 - float(found["barrier"]) <= tol * 3
    assert abs(float(found["t_max"]) - place) <= t_tol
    assert float(found["t_max_low"]) <= place <= float(found["t_max_high"])


def test_two_peaks_of_one_height_are_both_found_and_one_is_named():
    def two(w, x):
        return 1 + torch.exp(-(((w - 0.29) / 0.1) ** 2)) + torch.exp(-(((w - 0.71) / 0.1) ** 2)) + x

    noise = 0.3 * torch.randn(60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise -= noise.mean()
    even = measured(profile(two), steps=12, tol=1e-3)
    assert float(even["barrier"]) == pytest.approx(1, abs=3e-3)
    assert min(abs(float(even["t_max"]) - place) for place in (0.29, 0.71)) <= 0.02
    # Examples that lean to either side leave it open which is higher.
    doubtful = measured(
        profile(lambda w, x: two(w, 0 * x) + x * (w - 0.5) * torch.sin(torch.pi * w), noise), steps=12, tol=1e-3
    )
    assert float(doubtful["t_max_low"]) == pytest.approx(0.29, abs=0.05)
    assert float(doubtful["t_max_high"]) == pytest.approx(0.71, abs=0.05)


def test_a_plateau_has_its_height_whether_its_edges_are_slopes_or_steps():
    slopes = measured(profile(lambda w, x: 1 + (4 * torch.minimum(w, 1 - w)).clamp(max=1) + x), definition="draxler")
    assert slopes.attrs["refined"] == 1
    assert slopes.attrs["t_resolution"] <= 0.02
    steps = measured(profile(lambda w, x: 1 + ((w > 0.3) & (w < 0.7)).double() + x), definition="draxler")
    for found, edge in ((slopes, 0.25), (steps, 0.3)):
        assert (found["height"] == 1).all()
        assert edge <= float(found["t_max"]) <= 1 - edge


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_path_that_only_rises_has_its_top_at_its_end(definition):
    found = measured(profile(lambda w, x: 1 + w**2 + x), definition=definition)
    assert float(found["barrier"]) == {"entezari": 0, "frankle": 0.5, "draxler": 0}[definition]
    assert float(found["barrier_low"]) == pytest.approx(float(found["barrier"]))  # all examples agree
    assert float(found["barrier_high"]) == pytest.approx(float(found["barrier"]))
    assert found.attrs["t_resolution"] == 0
    assert found.sizes["t"] == 25


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_narrow_peak_next_to_an_end_is_refined_up_to_the_end(definition):
    # between t = 0 and the first point, where the loss is already as high as at the end
    found = measured(profile(lambda w, x: 2 - 200 * (w - 0.02) ** 2 + 150 * w**2 + x), definition=definition, tol=1e-4)
    t = np.linspace(0, 1, 200_001)
    exact = 2 - 200 * (t - 0.02) ** 2 + 150 * t**2
    base = {
        "entezari": (1 - t) * exact[0] + t * exact[-1],
        "frankle": exact[[0, -1]].mean(),
        "draxler": max(exact[[0, -1]]),
    }
    height = (exact - base[definition]).max()
    assert float(found["barrier"]) == pytest.approx(height, abs=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("seed", range(25))
def test_no_smooth_profile_is_underrated_by_more_than_the_tolerance(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 4)) / np.arange(1, 5) ** 0.5
    slope = rng.normal()

    def wave(w):
        k = np.pi * np.arange(1, 5)
        w = np.asarray(w)[..., None]
        return 9 + slope * w[..., 0] + (a * np.sin(k * w) + b * np.cos(k * w)).sum(-1)

    found = measured(profile(lambda w, x: torch.tensor(wave(w.numpy())) + x), tol=1e-4, t_tol=0.005)
    t = np.linspace(0, 1, 100_001)
    exact, level = wave(t), float(found["highest_loss"])
    assert found.attrs["refined"] == 1
    bases = {
        "entezari": (1 - t) * exact[0] + t * exact[-1],
        "frankle": exact[[0, -1]].mean(),
        "draxler": max(exact[[0, -1]]),
    }
    for name, base in bases.items():
        assert -1e-9 <= (exact - base).max() - float(found["height"].sel(definition=name)) <= 2e-4 * level
    assert abs(float(found["t_max"]) - t[(exact - bases["entezari"]).argmax()]) <= 0.005


# Losses that are not finite


def test_an_infinite_loss_in_the_middle_is_an_infinite_barrier_and_the_error_has_its_interval():
    def loss(w, x):
        return torch.where((w > 0.4) & (w < 0.6), torch.inf, 1 + 0 * w) + x

    metrics = {"accuracy": lambda outputs, _: (1 - 0.1 * torch.sin(torch.pi * outputs[:, 0])).double()}
    found = measured(profile(loss, metrics=metrics), definition="frankle", tol=1e-4)
    assert float(found["barrier"]) == np.inf
    assert 0.4 < float(found["t_max"]) < 0.6
    assert (found["height"] == np.inf).all()
    assert np.isnan(float(found["barrier_high"]))
    assert (found.attrs["refined"], found.attrs["refinement_note"]) == (0, "the loss is not finite on the path")
    assert float(found["barrier_error"]) == pytest.approx(0.1, abs=1e-5)
    assert float(found["barrier_error_high"]) == pytest.approx(0.1, abs=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("end", [0, 1])
def test_an_end_that_is_not_finite_is_told_before_the_rest_is_computed(bad, end):
    asked = []

    def loss(w, x):
        asked.append(float(w[0]))
        return torch.where(w == end, bad, 1.0) + x

    o = profile(loss)
    asked.clear()
    with pytest.raises(NonFiniteLoss, match=f"t = {end}") as caught:
        measured(o)
    assert "\n" not in str(caught.value)
    assert set(asked) <= {0.0, 1.0}


# Laws


def bumpy(w, x):
    return 2 + w + 1.5 * torch.sin(torch.pi * w) ** 2 + 0.4 * x * torch.sin(3 * w + x)


DRAWN = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(11))
NUMBERS = ["barrier", "barrier_stderr", "barrier_low", "barrier_high"]


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_the_reversed_path_has_the_same_barrier_at_the_mirrored_place(definition):
    o = profile(bumpy, DRAWN)
    there, back = (measured(o, curve, definition=definition) for curve in (UNIT, la.Segment(UNIT.b, UNIT.a)))
    np.testing.assert_allclose(back["t"], 1 - there["t"].values[::-1], atol=1e-12)
    for name in NUMBERS:
        assert float(back[name]) == pytest.approx(float(there[name]), rel=1e-9)
    assert float(back["t_max"]) == pytest.approx(1 - float(there["t_max"]), abs=1e-12)
    assert float(back["t_max_low"]) == pytest.approx(1 - float(there["t_max_high"]), abs=1e-12)
    for name in ("height", "height_low", "height_high"):
        np.testing.assert_allclose(back[name], there[name], rtol=1e-9)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_examples_that_are_hard_everywhere_do_not_widen_the_interval(definition):
    hard = torch.where(torch.arange(50) % 7 == 0, 30.0, 0.0).double()
    position = torch.arange(50.0, dtype=torch.float64)

    def harder(w, x):
        i = x.round().long()
        return bumpy(w, DRAWN[i]) + hard[i]

    plain = measured(profile(bumpy, DRAWN), definition=definition, tol=None)
    found = measured(profile(harder, position), definition=definition, tol=None)
    for name in [*NUMBERS, "t_max_low", "t_max_high"]:
        assert float(found[name]) == pytest.approx(float(plain[name]), rel=1e-9)
    assert float(found["loss_stderr"][3]) > 10 * float(found["barrier_stderr"])


def test_the_order_of_the_examples_and_how_they_are_cut_changes_no_height():
    shuffled = DRAWN[torch.randperm(50, generator=torch.Generator().manual_seed(1))]
    one = measured(profile(bumpy, DRAWN))
    for other in (measured(profile(bumpy, shuffled)), measured(profile(bumpy, DRAWN, batch_size=7))):
        assert other["t"].values.tolist() == one["t"].values.tolist()
        for name in ("barrier", "barrier_stderr"):
            assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-12)
    # The same examples in the same order draw the same replicates, whatever the batches.
    assert float(measured(profile(bumpy, DRAWN, batch_size=7))["barrier_high"]) == pytest.approx(
        float(one["barrier_high"]), rel=1e-12
    )


def test_everything_is_the_same_at_the_second_call_and_no_generator_is_touched():
    o = profile(bumpy, DRAWN)
    state = torch.get_rng_state()
    one, other = measured(o), measured(o)
    assert one.equals(other)
    assert {k: v for k, v in one.attrs.items() if k != "seconds"}.items() <= other.attrs.items()
    assert torch.equal(torch.get_rng_state(), state)


def test_of_more_draws_the_interval_is_nearly_that_of_fewer():
    o = profile(bumpy, DRAWN)
    few, many = (measured(o, draws=draws) for draws in (500, 20_000))
    width = float(many["barrier_high"] - many["barrier_low"])
    for name in ("barrier_low", "barrier_high"):
        assert abs(float(few[name] - many[name])) < 0.15 * width


# Errors


@pytest.mark.parametrize("edge", [0.4583, 0.5, 0.61])
def test_a_step_of_the_error_is_found_to_the_place_and_its_height_is_exact(edge):
    # from ``edge`` to 0.8 a quarter of the examples is wrong
    metrics = {"accuracy": lambda out, _: 1 - ((out[:, 1] < 0.25) & (out[:, 0] > edge) & (out[:, 0] < 0.8)).double()}
    x = torch.arange(400, dtype=torch.float64) / 400
    o = Objective(Number(), lambda out, _: 1 + 0 * out[:, 0], (x[:, None], torch.zeros(400)), metrics=metrics)
    found = measured(o)
    assert float(found["barrier_error"]) == pytest.approx(0.25, abs=1e-12)
    assert edge < float(found["t_max_error"]) < 0.8
    assert float(found["barrier_error_stderr"]) == pytest.approx(np.sqrt(0.25 * 0.75 / 399), rel=1e-9)
    assert float(found["barrier_error_low"]) < 0.25 < float(found["barrier_error_high"])


@pytest.mark.parametrize("share", [0.0199, 0.0201])
def test_where_every_example_agrees_the_interval_of_the_error_ends_at_its_height(share):
    metrics = {"accuracy": lambda out, _: 1 - 4 * share * out[:, 0] * (1 - out[:, 0])}
    found = measured(profile(lambda w, x: 1 + 0 * w + x, metrics=metrics), steps=25)
    assert float(found["height_error_high"].sel(definition="frankle")) == pytest.approx(share, abs=1e-12)


def test_frankles_height_is_there_whatever_definition_was_asked_for():
    # the error rises from 0 to 0.1: no height above the line, none above the worse end, 0.05 above the mean
    metrics = {"accuracy": lambda out, _: 1 - 0.1 * out[:, 0]}
    for definition in DEFINITIONS:
        found = measured(profile(lambda w, x: 1 + 0 * w + x, metrics=metrics), definition=definition)
        assert float(found["height_error"].sel(definition="frankle")) == pytest.approx(0.05)


def test_other_metrics_go_along_and_are_no_error():
    metrics = {"margin": lambda out, _: 5 - out[:, 0] * out[:, 1], "square": lambda out, _: (out[:, 1] ** 2).mean()}
    found = measured(profile(bumpy, DRAWN, metrics=metrics), steps=5, tol=None)
    np.testing.assert_allclose(found["margin"], 5 - found["t"] * float(DRAWN.mean()), rtol=1e-12)
    np.testing.assert_allclose(
        found["margin_stderr"], found["t"] * float(DRAWN.std()) / np.sqrt(50), rtol=1e-9, atol=1e-15
    )
    np.testing.assert_allclose(found["square"], float((DRAWN**2).mean()), rtol=1e-12)
    assert not {"error", "barrier_error", "height_error"} & set(found)
    assert float(found["relative_height"]) > 0


# Batches


def test_ragged_batches_weigh_by_their_examples():
    sizes, member = (9, 9, 5), BY_NAME["mlp-tanh"]

    a, b = member.make(torch.float64, seed=0), member.make(torch.float64, seed=1)
    x, y = member.data(torch.float64)
    weights = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)

    def loss(outputs, targets):  # with a value for the batch alone
        return F.cross_entropy(outputs, targets, weight=weights)

    o = Objective(a, loss, list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True)), metrics=None)
    segment = la.Segment(o.point, o.point_of(b))
    found = measured(o, segment, steps=5, tol=None, definition="frankle", draws=400, seed=3)
    assert found.attrs["stderr_over"] == "batches"
    losses = np.array([o.samples(segment.point(t))["loss"].values.numpy() for t in found["t"].values])
    w = np.array(sizes) / 23
    np.testing.assert_allclose(found["loss"], losses @ w, rtol=1e-12)
    top = int(np.argmax(found["loss"].values))
    differences = losses[top] - (losses[0] + losses[-1]) / 2
    spread = np.sqrt(3 / 2 * (w**2 @ (differences - w @ differences) ** 2))
    assert float(found["barrier_stderr"]) == pytest.approx(spread, rel=1e-9)
    # Every replicate is the weighted mean of three batches drawn anew.
    rng = np.random.default_rng(3)
    drawn = [rng.integers(3, size=3) for _ in range(400)]
    replicates = np.array([losses[:, i] @ w[i] / w[i].sum() for i in drawn])
    heights = replicates - replicates[:, [0, -1]].mean(1, keepdims=True)
    own = found["loss"].values - found["loss"].values[[0, -1]].mean()
    student = 4.302653 / 1.959964 * np.sqrt(3 / 2)  # t with two degrees of freedom, as wide as three units need
    down, up = np.quantile(student * (heights - own), [0.025, 0.975], axis=0)
    assert float(found["barrier_high"]) == pytest.approx((own + np.maximum(up, -down)).max(), rel=1e-5)


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


# Paths that are not ours


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
    for name in [*NUMBERS, "barrier_error", "length_ratio"]:
        assert float(theirs[name]) == pytest.approx(float(ours[name]), rel=1e-9)
    assert (theirs.attrs["curve"], theirs.attrs["path"]) == ("Detour", "Detour")
    # A path told in float32 is followed in the objective's own type.
    coarse = Detour(*(point.float() for point in points))
    np.testing.assert_allclose(measured(o, coarse, steps=5, tol=None)["loss"][0], ours["loss"][0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed=-1"),
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
    with pytest.raises(InputError, match=words) as caught:
        measured(profile(bumpy, DRAWN), **options)
    assert "\n" not in str(caught.value)


def test_steps_may_be_a_number_of_numpys():
    assert measured(profile(bumpy, DRAWN), steps=np.int64(9), tol=None).sizes["t"] == 9
