"""Where on a path a barrier is evaluated: kinks, plateaus, ties, ends, losses that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.profiles import DEFINITIONS, Path, errors, hill, measured, numbered, profile
from oracles.quadratic import quadratic, symmetric
from oracles.refusals import refused
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import NonFiniteLoss
from lossatlas.objective import Objective

# Refinement. By calculus, hill is highest where its slope 3 + 16 w - 24 w^2 is that of the base: 3, or 0.
SUMMIT = (16 + np.sqrt(16**2 + 4 * 24 * 3)) / 48
TOP = 1 + 3 * SUMMIT + 8 * SUMMIT**2 * (1 - SUMMIT)


@pytest.mark.parametrize(
    ("definition", "height", "place"),
    [("entezari", 32 / 27, 2 / 3), ("frankle", TOP - 2.5, SUMMIT), ("draxler", TOP - 4, SUMMIT)],
)
@pytest.mark.parametrize(("tol", "t_tol"), [(0.01, 0.02), (1e-5, 1e-3)])
def test_height_and_place_are_within_the_tolerances_of_the_true_maximum(definition, height, place, tol, t_tol):
    found = measured(numbered(hill), definition=definition, steps=5, tol=tol, t_tol=t_tol)
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
    found = measured(numbered(hill), path, steps=9, tol=1e-6)
    asked = path.asked[2:]  # the first two are the ends, asked for their distance
    assert asked[:2] == [0.0, 1.0]
    assert sorted(asked) == found["t"].values.tolist()
    assert len(set(asked)) == len(asked) > 9


@pytest.mark.parametrize("function", [lambda w, x: 1 + 0 * w + x, lambda w, x: 3 - 2 * w + x, lambda w, x: w**2 + x])
def test_a_flat_profile_and_a_maximum_at_an_end_need_no_further_point(function):
    found = measured(numbered(function), steps=7)
    assert found.sizes["t"] == 7
    assert found.attrs["refined"] == 1
    assert float(found["barrier"]) == pytest.approx(0, abs=1e-15)


def test_a_second_peak_that_may_be_the_higher_one_is_looked_at():
    def two(w, x):  # 1.0 at t = 0.75, a point of the first grid; 1.1 at t = 0.3125, between two of them
        return torch.exp(-(((w - 0.75) / 0.16) ** 2)) + 1.1 * torch.exp(-(((w - 0.3125) / 0.16) ** 2)) + x

    found = measured(numbered(two), steps=9, tol=1e-3)
    first = measured(numbered(two), steps=9, tol=None)
    assert float(first["t_max"]) == 0.75
    assert float(found["t_max"]) == pytest.approx(0.3125, abs=0.02)


def test_a_cusp_that_no_parabola_fits_ends_and_says_so():
    found = measured(numbered(lambda w, x: 2 - (w - 0.3).abs() ** 0.25 + x), steps=9, tol=1e-4, t_tol=1e-9)
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
    first = measured(numbered(hill), steps=9)
    again = measured(numbered(hill, n=7), steps=first["t"].values, tol=None)
    assert again["t"].values.tolist() == first["t"].values.tolist()
    assert (again.attrs["refined"], again.attrs["refinement_note"]) == (0, "not asked for")


# Profiles of known shape


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
    with refused(NonFiniteLoss, match=f"t = {end}"):
        measured(o)
    assert set(asked) <= {0.0, 1.0}
