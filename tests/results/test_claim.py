"""A verdict follows from the interval and the threshold, and from nothing else."""

from __future__ import annotations

import math
from typing import Literal

import pytest

from lossatlas.errors import InputError
from lossatlas.results.claim import Claim, Interval


def judged(bounds: Interval, threshold: float, direction: Literal["above", "below"], value: float = 0.0) -> str:
    return Claim("It is so", "it", value, bounds, threshold, direction).verdict


@pytest.mark.parametrize(
    ("bounds", "above", "below"),
    [
        ((0.2, 0.4), "supported", "contradicted"),
        ((-0.4, -0.2), "contradicted", "supported"),
        ((-0.1, 0.3), "undecided", "undecided"),
        ((0.0, 0.3), "undecided", "undecided"),
        ((-0.3, 0.0), "undecided", "undecided"),
        ((0.0, 0.0), "contradicted", "contradicted"),
        ((math.nan, math.nan), "undecided", "undecided"),
        ((math.nan, 1.0), "undecided", "undecided"),
        ((0.5, math.nan), "undecided", "undecided"),
        ((0.5, math.inf), "supported", "contradicted"),
    ],
)
def test_a_verdict_follows_from_the_interval_and_the_threshold_alone(bounds: Interval, above: str, below: str):
    assert judged(bounds, 0.0, "above") == above
    assert judged(bounds, 0.0, "below") == below
    assert judged((bounds[0] + 7.0, bounds[1] + 7.0), 7.0, "above") == above


def test_a_value_that_is_not_known_is_undecided_whatever_the_interval():
    assert judged((0.2, 0.4), 0.0, "above", math.nan) == "undecided"


def test_the_sentence_of_a_claim_carries_verdict_value_and_interval():
    claim = Claim("The minimum is flat", "slope", 0.25, (0.1, 0.4))
    assert claim.sentence == "Supported: the minimum is flat (slope: 0.25, normal 95 % interval [0.100, 0.400])."


def test_an_interval_from_right_to_left_and_an_unknown_direction_are_refused():
    with pytest.raises(InputError, match="low <= high"):
        Claim("It is so", "it", 0.0, (1.0, -1.0))
    with pytest.raises(InputError, match="'above' or 'below'"):
        Claim("It is so", "it", 0.0, (0.0, 1.0), direction="beyond")  # type: ignore[arg-type]
