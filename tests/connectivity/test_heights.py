"""Heights by the three definitions and their bootstrap, against drawing the examples by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from lossatlas.connectivity.heights import Profile, heights, interval, relative_heights, summit
from lossatlas.model.loss.samples import Sample

T = np.linspace(0, 1, 5)


def made(weights: np.ndarray, over: str = "examples") -> tuple[Profile, np.ndarray]:
    values = np.random.default_rng(0).gamma(2.0, size=(len(T), len(weights))) + 1 - (T[:, None] - 0.5) ** 2
    samples = [Sample(torch.tensor(row), torch.tensor(weights), over) for row in values]
    return Profile(T, samples), values


@pytest.mark.parametrize("weights", [np.ones(30), np.array([128.0] * 11 + [5.0])], ids=["examples", "batches"])
def test_replicates_draw_the_same_examples_at_every_t(weights):
    profile, values = made(weights)
    found = profile.replicates(100, seed=7)
    rng, m = np.random.default_rng(7), len(weights)
    for k in range(100):
        drawn = rng.integers(m, size=m)
        expected = (values[:, drawn] * weights[drawn]).sum(1) / weights[drawn].sum()
        np.testing.assert_allclose(found[k], expected, rtol=1e-12)


def test_replicates_are_the_same_when_memory_forces_them_into_parts(monkeypatch):
    profile, _ = made(np.ones(30))
    whole = profile.replicates(100, seed=7)
    monkeypatch.setattr(sys.modules[Profile.__module__], "COUNTS_AT_ONCE", 7 * 30)
    np.testing.assert_allclose(profile.replicates(100, seed=7), whole, rtol=1e-13)


@pytest.mark.parametrize("definition", ["entezari", "frankle", "draxler"])
def test_heights_of_many_rows_are_those_of_each_by_its_definition(definition):
    rows = np.random.default_rng(1).normal(size=(20, len(T)))
    base = {
        "entezari": lambda row, t: row[0] + t * (row[-1] - row[0]),
        "frankle": lambda row, t: (row[0] + row[-1]) / 2,
        "draxler": lambda row, t: max(row[0], row[-1]),
    }[definition]
    for row, found in zip(rows, heights(rows, T, definition), strict=True):
        np.testing.assert_allclose(found, [x - base(row, t) for x, t in zip(row, T, strict=True)], atol=1e-14)


def test_a_relative_height_is_frankles_as_a_share_of_the_mean_of_the_ends():
    values = np.array([2.0, 9.0, 4.0])
    np.testing.assert_allclose(relative_heights(values), [-1 / 3, 2, 1 / 3], atol=1e-15)


def test_a_value_that_is_no_number_is_the_summit():
    assert summit(np.array([1.0, 3.0, 2.0])) == 1
    assert summit(np.array([1.0, 3.0, np.nan])) == 2
    assert summit(np.array([1.0, -np.inf, 2.0])) == 1


def test_the_paired_error_is_that_of_the_differences():
    profile, values = made(np.ones(30))
    worse = values[0] if values[0].mean() >= values[-1].mean() else values[-1]
    by_hand = {
        "entezari": values[1] - 0.75 * values[0] - 0.25 * values[-1],
        "frankle": values[1] - (values[0] + values[-1]) / 2,
        "draxler": values[1] - worse,
    }
    for definition, differences in by_hand.items():
        assert profile.paired_stderr(1, definition) == pytest.approx(differences.std(ddof=1) / np.sqrt(30), rel=1e-12)


def test_an_interval_of_one_place_is_students():
    # One height with normal errors of standard deviation s: max_t and the maximum's bias play no part.
    m, s = 12, 0.3
    errors = np.random.default_rng(3).normal(scale=s * np.sqrt((m - 1) / m), size=(200_000, 1))
    found = np.array([0.0, 5.0, 0.0])
    low, high, first, last = interval(np.linspace(0, 1, 3), found, found + errors * [0, 1, 0], m)
    assert low == pytest.approx(5 - 2.201 * s, rel=0.01)  # 2.201: the 0.975 quantile of Student's t with 11 degrees
    assert high == pytest.approx(5 + 2.201 * s, rel=0.01)
    assert (first, last) == (0.5, 0.5)


def test_the_maximum_of_a_flat_noisy_profile_is_no_barrier():
    # 40 independent heights of 0: their maximum is 2.2 standard errors high, and yet the interval begins at 0
    rng = np.random.default_rng(0)
    lows = []
    for _ in range(100):
        found = np.concatenate([[0], rng.normal(size=40), [0]])
        errors = rng.normal(size=(300, 42)) * np.array([0.0, *np.ones(40), 0.0])
        lows.append(interval(np.linspace(0, 1, 42), found, found + errors, 1000).low)
    assert sum(low > 0 for low in lows) <= 7  # 2.5 expected


def test_the_place_of_a_maximum_that_moves_has_the_width_of_its_moves():
    t = np.linspace(0, 1, 101)
    shift = np.random.default_rng(0).normal(scale=0.05, size=2000)
    found = 1 - (t - 0.5) ** 2
    low, high = interval(t, found, 1 - (t - 0.5 - shift[:, None]) ** 2, 1000)[2:]
    assert (low, high) == (pytest.approx(0.5 - 1.96 * 0.05, abs=0.015), pytest.approx(0.5 + 1.96 * 0.05, abs=0.015))


# Laws


def drawn(seed: int, n: int = 40, k: int = 7) -> tuple[np.ndarray, Profile]:
    t = np.linspace(0, 1, k) ** 1.3  # not equally spaced
    values = np.random.default_rng(seed).gamma(1.5, size=(k, n)) + np.sin(np.pi * t)[:, None]
    return t, Profile(t, [Sample(torch.tensor(row), torch.ones(n).double(), "examples") for row in values])


def bounds(profile: Profile, definition) -> np.ndarray:
    found, replicates = profile.heights(definition), profile.replicates(300, 5)
    return np.array(interval(profile.t, found, heights(replicates, profile.t, definition), profile.units))


@pytest.mark.parametrize("definition", ["entezari", "frankle", "draxler"])
@pytest.mark.parametrize("seed", range(4))
def test_losses_in_another_unit_with_another_zero_have_the_same_interval_in_it(definition, seed):
    t, profile = drawn(seed)
    other = Profile(t, [Sample(7 * s.values - 3, s.weights, s.over) for s in profile.samples])
    np.testing.assert_allclose(bounds(other, definition), bounds(profile, definition) * [7, 7, 1, 1], atol=1e-11)


@pytest.mark.parametrize("definition", ["entezari", "frankle", "draxler"])
@pytest.mark.parametrize("seed", range(4))
def test_the_reversed_path_has_the_same_interval_at_the_mirrored_places(definition, seed):
    t, profile = drawn(seed)
    low, high, first, last = bounds(profile, definition)
    back = Profile(1 - t[::-1], list(profile.samples)[::-1])
    np.testing.assert_allclose(bounds(back, definition), [low, high, 1 - last, 1 - first], atol=1e-11)


@pytest.mark.parametrize("definition", ["entezari", "frankle", "draxler"])
def test_what_examples_have_in_common_all_along_the_path_leaves_no_doubt(definition):
    t, profile = drawn(2)
    hard = torch.tensor(np.random.default_rng(9).exponential(50.0, size=profile.units))
    hard -= hard.mean()  # so that no replicate's worse end changes by rounding alone
    other = Profile(t, [Sample(s.values + hard, s.weights, s.over) for s in profile.samples])
    np.testing.assert_allclose(bounds(other, definition), bounds(profile, definition), rtol=1e-9, atol=1e-9)
    for index in range(len(t)):
        assert other.paired_stderr(index, definition) == pytest.approx(
            profile.paired_stderr(index, definition), abs=1e-12
        )
    assert other.stderrs.min() > 3 * profile.stderrs.max()


@pytest.mark.parametrize("definition", ["entezari", "frankle", "draxler"])
@pytest.mark.parametrize("seed", range(6))
def test_an_interval_holds_the_height_that_was_found_and_begins_at_zero_or_above(definition, seed):
    _, profile = drawn(seed, n=5)
    low, high, first, last = bounds(profile, definition)
    found = profile.heights(definition)
    assert 0 <= low <= found.max() <= high
    assert first <= profile.t[summit(found)] <= last


def test_two_peaks_of_one_height_are_both_held_by_the_interval_of_the_place():
    t = np.linspace(0, 1, 11)
    found = np.where(np.isin(np.arange(11), [2, 8]), 1.0, 0.0)
    errors = np.random.default_rng(0).normal(scale=0.01, size=(500, 11)) * (found > 0)
    assert interval(t, found, found + errors, 100)[2:] == (pytest.approx(0.2), pytest.approx(0.8))


def test_too_few_units_and_values_that_are_not_finite_have_no_replicates():
    t, profile = drawn(0)
    assert profile.replicates(0, 1) is None
    for n, known in ((2, False), (3, True)):
        few = Profile(t, [Sample(s.values[:n], s.weights[:n], "batches") for s in profile.samples])
        assert (few.replicates(10, 1) is not None) == known
    samples = list(profile.samples)
    samples[3] = Sample(
        samples[3].values.clone().index_fill_(0, torch.tensor(4), torch.inf), samples[3].weights, "examples"
    )
    assert Profile(t, samples).replicates(10, 1) is None
