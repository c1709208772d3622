"""The size at which a score falls: closed forms for random noise and for the worst direction, cost, refusals."""

from __future__ import annotations

import math
from typing import Any

import measured
import numpy as np
import pytest
import torch
from oracles.quadratic import Point, symmetric
from oracles.refusals import assert_refused
from torch import Tensor

import lossatlas as la
from lossatlas.errors import InputError
from lossatlas.objective import Objective

N = 30
MATRIX, _ = symmetric(torch.linspace(0.1, 1, N) ** 4 * 8)  # its largest eigenvalue is 8


class Counted:
    """(w - c)' A (w - c) / 2 and how often it was asked for, with the loss as an "accuracy" that falls."""

    def __init__(self, w: Tensor) -> None:
        self.calls = 0
        self.objective = Objective(
            Point(w),
            self.loss,
            (torch.zeros(40, N).double(), torch.zeros(40)),
            metrics={"accuracy": lambda out, _: 1 - self.values(out)},
            check=False,
        )

    def values(self, out: Tensor) -> Tensor:
        return 0.5 * ((out @ MATRIX) * out).sum(1)

    def loss(self, out: Tensor, _: Tensor) -> Tensor:
        self.calls += 1
        return self.values(out)


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_a_quadratic_falls_where_its_trace_and_its_largest_eigenvalue_say(metric: str):
    """At random s^2 tr(A) / 2 = fall; along u with |u|^2 = n at worst s^2 n lambda_max / 2 = fall."""
    counted = Counted(1e-3 * torch.ones(N, dtype=torch.float64))
    before = counted.calls
    found = la.basin(counted.objective, metric=metric, fall=0.25, steps=20, limit=80, progress=False)
    calls = counted.calls - before
    random, worst = (found.sel(direction=name) for name in ("random", "worst"))
    at_random = math.sqrt(2 * 0.25 / float(MATRIX.trace()))
    at_worst = math.sqrt(2 * 0.25 / (N * 8))
    assert float(random["low"]) < at_random < float(random["high"])
    assert float(random["size"]) == pytest.approx(at_random, rel=0.2)
    assert at_worst * 0.98 < float(worst["size"]) < at_worst * 1.03
    assert calls == int(found["evaluations"].sum()) - 1  # both start from the same clean network
    assert int(worst["gradients"]) == 21
    assert found["outcome"].values.tolist() == ["crossed", "crossed"]


def test_sixty_evaluations_are_enough_by_default_and_the_worst_direction_is_nearer():
    found = measured.results()["basin"]
    assert found["evaluations"].max() <= 60
    assert float(found["size"].sel(direction="worst")) < float(found["size"].sel(direction="random"))


def test_relative_sizes_are_in_units_of_the_weights():
    w = torch.linspace(1, 2, N).double()
    data = torch.zeros(9, N).double(), torch.zeros(9)
    o = Objective(Point(w), lambda out, _: (out - w).square().sum(1) / 2, data, metrics=None)
    for relative, scale in (("none", float(N)), ("weight", float(w @ w)), ("filter", float(w @ w))):
        found = la.basin(o, metric="loss", fall=1.0, relative=relative, direction="random", progress=False)
        assert found["low"].item() < math.sqrt(2 / scale) < found["high"].item()  # E rise = s^2 |scale|^2 / 2


def test_a_score_that_never_falls_has_no_size():
    o = Objective(
        Point(torch.ones(3)),
        lambda out, _: 0.01 * out.square().sum(1).clamp(max=1),
        (torch.zeros(5, 3), torch.zeros(5)),
        metrics=None,
    )
    found = la.basin(o, metric="loss", fall=1.0, progress=False)
    assert found["outcome"].values.tolist() == ["not reached"] * 2
    assert np.isnan(found["size"].values).all()
    assert np.isinf(found["high"].values).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "acuracy"}, ["did you mean 'accuracy'", "'loss'"]),
        ({"fall": 0.0}, ["fall=0.0", "above 0"]),
        ({"fall": math.nan}, ["above 0"]),
        ({"direction": "wurst"}, ["did you mean 'worst'"]),
        ({"relative": "filters"}, ["did you mean 'filter'"]),
        ({"filters": {"*": 0}}, ["relative='filter'"]),
        ({"limit": 30}, ["at least 44 evaluations"]),
        ({"steps": 0}, ["one step"]),
        ({"seed": -1}, ["not negative"]),
    ],
)
def test_an_impossible_basin_is_refused(options: dict[str, Any], words: list[str]):
    counted = Counted(torch.ones(N, dtype=torch.float64))
    assert_refused(InputError, lambda: la.basin(counted.objective, progress=False, **options), *words)
