"""The geodesic ball against closed forms of its geodesics, and under a change of basis of heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from oracles.plain import normal
from torch import Tensor, nn

import lossatlas as la
from lossatlas.sharpness.geodesics import GeodesicBall, Metric


def metric_of(*matrices: Tensor) -> Metric:
    """Of these matrices one after the other, and 3 more weights."""
    point = torch.cat([*(m.flatten() for m in matrices), torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)])
    starts = torch.tensor([0, *(m.numel() for m in matrices)]).cumsum(0)[:-1].tolist()
    return Metric(
        point, tuple((s + torch.arange(m.numel())).view(1, *m.shape) for s, m in zip(starts, matrices, strict=True))
    )


def test_a_row_that_moves_along_itself_moves_as_an_exponential_and_other_weights_on_lines() -> None:
    row, rate = normal(1, 4), 0.7
    metric = metric_of(row)
    other = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    found = metric.exponential(torch.cat([rate * row.flatten(), other]))
    torch.testing.assert_close(found[:4], (torch.tensor(rate).exp() - 1) * row.flatten(), rtol=1e-5, atol=0)
    assert torch.equal(found[4:], other)


def test_geodesics_keep_their_speed() -> None:
    g, v = normal(3, 5), 0.3 * normal(3, 5, seed=2)
    whole = metric_of(g).exponential(torch.cat([v.flatten(), torch.zeros(3)]))[:15].view(3, 5)
    near = metric_of(g).exponential(torch.cat([0.999 * v.flatten(), torch.zeros(3)]))[:15].view(3, 5)
    speed, arrived = (whole - near) / 0.001, g + whole

    def squared(at: Tensor, by: Tensor) -> Tensor:
        return torch.trace(by.T @ torch.linalg.inv(at @ at.T) @ by)

    torch.testing.assert_close(squared(arrived, speed), squared(g, v), rtol=2e-3, atol=0)
    assert abs(squared(arrived, v) / squared(g, v) - 1) > 0.05  # on a straight line it would not


def test_a_change_of_basis_takes_the_ball_along() -> None:
    g, h, a = normal(3, 5), normal(3, 4, seed=2), normal(3, 3, seed=3)
    inverse = torch.linalg.inv(a).T
    one, other = GeodesicBall(0.4, metric_of(g, h)), GeodesicBall(0.4, metric_of(a @ g, inverse @ h))
    slope = normal(30, seed=4)
    moved = torch.cat(
        [(inverse @ slope[:15].view(3, 5)).flatten(), (a @ slope[15:27].view(3, 4)).flatten(), slope[27:]]
    )
    found, carried = (ball.metric.exponential(ball.farthest(s)) for ball, s in ((one, slope), (other, moved)))
    torch.testing.assert_close(a @ found[:15].view(3, 5), carried[:15].view(3, 5))
    torch.testing.assert_close(inverse @ found[15:27].view(3, 4), carried[15:27].view(3, 4))
    assert float(one.farthest(slope) @ slope) == pytest.approx(float(other.farthest(moved) @ moved))


class Heads(nn.Module):
    """Attention over the rows of an image, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.attention(x, x, x)[0]).mean(1))


def test_no_change_of_basis_of_heads_moves_it_while_elementwise_it_moves() -> None:
    inputs, targets = la.zoo.load("digits").test
    torch.manual_seed(0)
    model = Heads().double()
    nn.init.normal_(model.attention.in_proj_bias, std=0.1)
    objective = la.Objective(model, F.cross_entropy, (inputs[:60].double().reshape(-1, 8, 8), targets[:60]))
    measures = ["geodesic_worst", "adaptive_worst"]
    found = la.invariance(objective, measures, reparametrisations="change of basis", rho=0.2, progress=False)
    ratios = found["ratio"].squeeze().values
    assert ratios[0] == pytest.approx(1, abs=1e-3)
    assert abs(ratios[1] - 1) > 0.01
    assert float(found["before"][0]) > 0


def test_without_heads_there_is_no_such_ball() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    objective = la.Objective(model, F.cross_entropy, (torch.ones(4, 3), torch.zeros(4, dtype=torch.long)))
    with pytest.raises(la.errors.InputError, match="no attention head"):
        la.sharpness(objective, "geodesic_worst", progress=False)
