"""The intervals of a barrier: the bootstrap, what claims are made from, and the laws that they obey."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.members import BY_NAME
from oracles.profiles import DEFINITIONS, UNIT, Number, Path, errors, hill, measured, numbered, profile
from torch import Tensor

import lossatlas as la
from lossatlas.objective import Objective

# The bootstrap


def noisy(seed: int, n: int, height: float) -> Objective:
    """A mean profile of ``height`` sin^2(pi t) with errors, smooth in t, that the examples draw anew."""
    draw = torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    k = torch.arange(1.0, 7.0, dtype=torch.float64)

    def loss(outputs: Tensor, _: Tensor) -> Tensor:
        w, x = outputs[:, :1], outputs[:, 1:]
        return (x * torch.sin(torch.pi * k * w) / k).sum(1) + height * torch.sin(torch.pi * w[:, 0]) ** 2

    return Objective(Number(), loss, (draw, torch.zeros(n)), metrics=None)


@pytest.mark.parametrize("height", [0.0, pytest.param(0.05, marks=pytest.mark.slow), 1.0])
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
    found = measured(numbered(hill), draws=0)
    assert found.attrs["bootstrap"] == "none: not asked for"
    assert np.isnan(found["height_high"]).all()
    assert np.isnan(float(found["relative_height_high"]))
    assert float(found["relative_height"]) > 0
    assert float(found["barrier"]) > 1


@pytest.mark.filterwarnings("ignore:The loss of a batch is not the mean")  # which is true of it
@pytest.mark.parametrize(("batch_size", "known"), [(6, False), (4, True)])
def test_batches_are_drawn_where_the_loss_has_no_value_for_an_example_and_two_are_too_few(batch_size, known):
    member = BY_NAME["mlp-relu"]
    inputs, targets = member.data()

    def loss(outputs, labels):
        return (
            F.cross_entropy(outputs, labels) + 100 * outputs.var(0, correction=0).sum()
        )  # with a value for the batch alone

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
        # an error that is the same at every t tells nothing: then there is the loss barrier too
        assert ("relative_height" in found) == (share == 0)


@pytest.mark.parametrize("rise", [0.01, 0.1])
def test_without_an_accuracy_there_is_the_loss_barrier_as_a_share_of_the_ends(rise):
    # 10 + x at the ends with mean 11; half-way higher by the share ``rise`` of that, for every example
    found = measured(numbered(lambda w, x: 10 + x + 4 * w * (1 - w) * 11 * rise))
    low, value, high = (float(found[f"relative_height{end}"]) for end in ("_low", "", "_high"))
    assert value == pytest.approx(rise)
    assert low < value < high < 2 * value
    assert "height_error" not in found


def test_a_share_of_a_loss_that_is_not_positive_is_not_defined():
    found = measured(numbered(lambda w, x: x - 1))
    assert np.isnan([float(found[f"relative_height{end}"]) for end in ("", "_low", "_high")]).all()


@pytest.mark.parametrize("with_accuracy", [True, False])
def test_a_barrier_holds_intervals_and_judges_nothing(with_accuracy):
    found = measured(bump(0.01) if with_accuracy else numbered(hill))
    assert not {"verdict", "verdict_statistic", "threshold"} & set(found.attrs)


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


@pytest.mark.filterwarnings("ignore:The loss of a batch is not the mean")  # which is true of it
def test_ragged_batches_weigh_by_their_examples():
    sizes, member = (9, 9, 5), BY_NAME["mlp-tanh"]

    a, b = member.make(torch.float64, seed=0), member.make(torch.float64, seed=1)
    x, y = member.data(torch.float64)

    def loss(outputs, targets):  # with a value for the batch alone
        return F.cross_entropy(outputs, targets) + 100 * outputs.var(0, correction=0).sum()

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
