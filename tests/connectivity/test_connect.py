"""A path fitted between two models: closed forms, gradients, seeds and resumption, BatchNorm, what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from oracles import plain
from oracles.members import BATCH, BY_NAME, N
from oracles.quadratic import quadratic, symmetric
from oracles.refusals import refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lossatlas as la
from lossatlas.connectivity import fitting
from lossatlas.connectivity.batch_gradients import batch_gradient
from lossatlas.connectivity.connect import connect
from lossatlas.connectivity.elastic_band import elastic_band
from lossatlas.errors import CheckpointError, DirectionError, InputError, NonFiniteLoss, OutputError
from lossatlas.geometry.curves import Bezier, PolygonalChain, Segment
from lossatlas.model.checkpoints import write_state
from lossatlas.objective import Objective


def two(name: str = "mlp-tanh", dtype: torch.dtype = torch.float32, **options):
    """An objective, and two points of it."""
    member = BY_NAME[name]
    a, b = member.make(dtype, seed=0), member.make(dtype, seed=1)
    o = Objective(a, member.loss, member.data(dtype), **options)
    return o, o.point, o.point_of(b)


def fitted(o, a, b, **options):
    return connect(o, a, b, **{"epochs": 4, "batch_size": BATCH, "profile_steps": 5, "progress": False} | options)


KINDS = [Bezier(), Bezier(2), PolygonalChain(), PolygonalChain(3)]


@pytest.mark.parametrize(
    ("kind", "engine"),
    [(kind, "expected_loss") for kind in KINDS] + [(kind, "elastic_band") for kind in KINDS[2:]],
    ids=lambda value: value if isinstance(value, str) else f"{type(value).__name__}{value.bends}",
)
def test_the_ends_stay_bit_for_bit_and_every_bend_moves(kind, engine):
    o, a, b = two()
    curve = fitted(o, a, b, curve=kind, engine=engine).curve
    assert isinstance(curve, type(kind))
    assert curve.bends == kind.bends
    assert torch.equal(curve.point(0.0), a)
    assert torch.equal(curve.point(1.0), b)
    before = kind.between(a, b).points
    assert all(not torch.equal(p, q) for p, q in zip(curve.points[1:-1], before[1:-1], strict=True))


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{type(k).__name__}{k.bends}")
def test_the_bends_descend_along_the_gradient_through_the_curve(kind):
    member = BY_NAME["mlp-tanh"]
    o, _, _ = two(dtype=torch.float64)
    data = member.data(torch.float64)
    points = torch.randn(
        kind.bends + 2, o.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )
    for t in (0.15, 0.5, 0.9):
        loss, at, found = fitting.expected_loss(o, kind.through(points), data, 0, t)
        variable = points.clone().requires_grad_()
        value = plain.function(member.make(torch.float64), member.loss, data)(kind.weights(t) @ variable)
        (expected,) = torch.autograd.grad(value, variable)
        assert (loss, at) == (pytest.approx(value.item(), rel=1e-12), t)
        torch.testing.assert_close(found, expected[1:-1], rtol=1e-10, atol=1e-12)


def test_the_mini_batches_hold_every_example_once_and_their_mean_gradient_is_the_gradient():
    member = BY_NAME["mlp-tanh"]
    whole = member.data(torch.float64)
    ragged = list(zip(whole[0].split([3, 13, 7]), whole[1].split([3, 13, 7]), strict=True))
    single = DataLoader(TensorDataset(*whole), batch_size=5)
    for data in (whole, ragged, single):
        o = Objective(member.make(torch.float64), member.loss, data)
        weights, batches = o.batches.shuffled(4, seed=1)
        batches = list(batches)
        assert sum(weights) == pytest.approx(len(batches), rel=1e-12)
        rows = torch.cat([batch[0] for batch in batches])
        assert sorted(rows.tolist()) == sorted(whole[0].tolist())
        assert not torch.equal(rows, whole[0])
        gradients = [batch_gradient(o, o.point, x, 0)[1] for x in batches]
        mean = sum(w * g for w, g in zip(weights, gradients, strict=True)) / len(gradients)
        torch.testing.assert_close(mean, o.gradient(), rtol=1e-10, atol=1e-13)


def test_mini_batches_are_nearly_equal_and_no_larger_than_asked():
    o, _, _ = two()
    for size in (1, 4, 9, 22, 23, 100):
        lengths = [len(batch[1]) for batch in o.batches.shuffled(size, seed=0)[1]]
        assert sum(lengths) == N
        assert max(lengths) <= size
        assert len(lengths) == -(-N // size)


def bezier_bends(a, b, center):
    """int c_1 (theta - c) dt = 0 for one bend p: 2/15 p + (a + b) / 10 = c / 3."""
    return (2.5 * center - 0.75 * (a + b))[None]


def chain_bends(a, b, center):
    """The same for two bends: hat functions of width 1/3, with the masses 2/3 and 1/6 to the constant's 1."""
    mass = torch.tensor([[2 / 3, 1 / 6], [1 / 6, 2 / 3]], dtype=torch.float64)
    return torch.linalg.solve(mass, center - torch.stack([a, b]) / 6)


@pytest.mark.parametrize(("kind", "closed_form"), [(Bezier(), bezier_bends), (PolygonalChain(2), chain_bends)])
def test_over_a_bowl_the_bends_go_where_the_closed_form_puts_them(kind, closed_form):
    matrix, _ = symmetric([0.5, 1.0, 3.0])
    center = torch.tensor([0.4, -1.0, 0.7], dtype=torch.float64)
    a, b = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    o = quadratic(matrix, center.expand(64, 3), a)
    best = closed_form(a, b, center)
    batch = next(iter(o.batches.shuffled(64, 0)[1]))
    curve = kind.through(torch.stack([a, *best, b]))
    # There the mean gradient over t is zero: by Gauss's rule on each piece of a chain, exact for these polynomials.
    nodes, shares = np.polynomial.legendre.leggauss(4)
    pieces = [((k + (1 + x) / 2) / 3, w / 6) for k in range(3) for x, w in zip(nodes, shares, strict=True)]
    mean = sum(w * fitting.expected_loss(o, curve, batch, 0, t)[2] for t, w in pieces)
    assert float(mean.abs().max()) < 1e-12
    found = fitted(o, a, b, curve=kind, epochs=80, batch_size=8, learning_rate=0.05).curve.points[1:-1]
    moved = (best - kind.between(a, b).points[1:-1]).norm()
    # What is left is the noise of t, under a learning rate that ends at zero.
    assert float((found - best).norm()) < 0.1 * float(moved)


class Place(nn.Module):
    """Two parameters (x, y), and nothing else."""

    def __init__(self, w: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x):
        return self.w + 0 * x


def ring() -> Objective:
    """L(w) = (|w| - 1)^2, a valley along the unit circle, with a hill of height 1 inside."""
    data = (torch.zeros(4, 2, dtype=torch.float64), torch.zeros(4))
    return Objective(Place([1.0, 0.1]), lambda w, _: (w.norm(dim=1) - 1) ** 2, data, metrics=None)


@pytest.mark.parametrize(
    ("curve", "engine"), [(Bezier(2), "expected_loss"), (PolygonalChain(5), "elastic_band")], ids=["bezier", "band"]
)
def test_the_path_goes_round_the_hill(curve, engine):
    o = ring()
    a, b = torch.tensor([-1.0, 0.0], dtype=torch.float64), o.point
    found = fitted(o, a, b, curve=curve, engine=engine, epochs=150, learning_rate=0.05)
    profile = found.profiles[0]
    assert float(la.barrier(o, Segment(a, b), progress=False)["highest_loss"]) > 0.9
    assert float(profile["highest_loss"]) < 0.02
    assert 1.3 < found.curve.length / Segment(a, b).length < 1.8  # half a circle: pi / 2
    assert found.training["epoch_loss"][-1] < 0.1 * found.training["epoch_loss"][0]


def test_a_band_feels_the_loss_across_the_chain_alone_and_keeps_its_distances():
    o = ring()
    points = torch.tensor([[-1.0, 0.0], [-0.7, 0.5], [0.0, 0.6], [0.2, 0.8], [1.0, 0.0]], dtype=torch.float64)
    chain = PolygonalChain().through(points)
    loss, t, found = elastic_band(o, chain, next(iter(o.batches.shuffled(4, 0)[1])), 0, 0.5)
    moved = chain.points
    # Each bend stands on the chain that was given, at an equal share of its length.
    for k, p in enumerate(moved[1:-1], start=1):
        original = torch.tensor([[-1.0, 0.0], [-0.7, 0.5], [0.0, 0.6], [0.2, 0.8], [1.0, 0.0]], dtype=torch.float64)
        pieces = original.diff(dim=0)
        along, lengths = 0.0, pieces.norm(dim=1)
        for q, piece, length in zip(original, pieces, lengths, strict=False):
            share = float((p - q) @ piece / length**2)
            if 0 <= share <= 1 and float((q + share * piece - p).norm()) < 1e-12:
                along += share * float(length)
                break
            along += float(length)
        assert along == pytest.approx(k / 4 * float(lengths.sum()), abs=1e-12)
    losses = (moved.norm(dim=1) - 1) ** 2
    gradients = 2 * (moved.norm(dim=1) - 1)[:, None] * moved / moved.norm(dim=1)[:, None]
    top = int(losses[1:-1].argmax()) + 1
    assert (loss, t) == (pytest.approx(float(losses[top])), top / 4)
    for k in (1, 2, 3):
        neighbours = [float(losses[j]) if 0 < j < 4 else -np.inf for j in (k - 1, k + 1)]
        step = moved[k + 1] - moved[k] if neighbours[1] > neighbours[0] else moved[k] - moved[k - 1]
        assert float(found[k - 1] @ step) == pytest.approx(0, abs=1e-12)
        rest = gradients[k] - found[k - 1]
        assert abs(float(rest[0] * step[1] - rest[1] * step[0])) < 1e-12  # what was taken away lies along the chain


def test_the_expected_loss_falls_and_the_training_says_how():
    o, a, b = two()
    found = fitted(o, a, b, epochs=60, learning_rate=0.02)
    t = np.linspace(0, 1, 41)
    along = [np.trapezoid([o.value(c.point(float(x))) for x in t], t) for c in (Segment(a, b), found.curve)]
    assert along[1] < 0.9 * along[0]
    training = found.training
    steps = -(-N // BATCH) * 60
    assert training.sizes == {"step": steps, "epoch": 60}
    assert bool(((training["t_drawn"] >= 0) & (training["t_drawn"] <= 1)).all())
    np.testing.assert_allclose(training["epoch_loss"], training["loss"].values.reshape(60, -1).mean(1), rtol=1e-12)
    share = np.arange(steps) / steps
    np.testing.assert_allclose(training["learning_rate"], 0.01 * (1 + np.cos(np.pi * share)), atol=1e-12)
    assert training.attrs["kind"] == "connection"
    expected = {"curve": "Bezier", "bends": 1, "epochs": 60, "batch_size": BATCH, "learning_rate": 0.02, "seed": 0}
    assert expected.items() <= training.attrs.items()
    assert training.attrs["path"] == found.profiles[0].attrs["path"]


def same(first, second) -> bool:
    """Points, losses and places bit for bit; times may differ."""
    return torch.equal(first.curve.points, second.curve.points) and xr.Dataset.equals(first.training, second.training)


def test_one_seed_gives_the_same_bits_and_another_another_path():
    o, a, b = two()
    assert same(fitted(o, a, b, seed=3), fitted(o, a, b, seed=3))
    assert not same(fitted(o, a, b, seed=3), fitted(o, a, b, seed=4))


@pytest.mark.parametrize("engine", ["expected_loss", "elastic_band"])
def test_a_killed_run_goes_on_to_the_same_bits(engine, tmp_path):
    member, calls = BY_NAME["mlp-tanh"], []

    def loss(outputs, targets):
        calls.append(len(calls))
        if len(calls) == dying[0]:
            raise KeyboardInterrupt
        return F.cross_entropy(outputs, targets, reduction="none")

    dying = [-1]
    o = Objective(member.make(), loss, member.data())
    a, b = o.point, o.point_of(member.make(seed=1))
    options = {"curve": PolygonalChain(2), "engine": engine, "epochs": 5}
    whole = fitted(o, a, b, **options)
    dying[0] = len(calls) + (8 if engine == "expected_loss" else 16)  # in the third epoch of three steps
    with pytest.raises(KeyboardInterrupt):
        fitted(o, a, b, folder=tmp_path, **options)
    before = len(calls)
    resumed = fitted(o, a, b, folder=tmp_path, **options)
    assert same(resumed, whole)
    steps = 3 * 3 * (2 if engine == "elastic_band" else 1)
    in_profile = resumed.profiles[0].sizes["t"]
    assert len(calls) - before == steps + in_profile  # three epochs were left, of three steps each
    finished = len(calls)
    assert same(fitted(o, a, b, folder=tmp_path, **options), whole)
    assert len(calls) - finished == in_profile  # and none now


def test_a_folder_of_another_fit_or_a_damaged_file_is_refused(tmp_path):
    o, a, b = two()
    fitted(o, a, b, folder=tmp_path)
    for objective, end, options, words in (
        (o, b, {"seed": 1}, "seed is 0 there, 1 here"),
        (o, b, {"epochs": 5}, "epochs is 4"),
        (o, b, {"curve": Bezier(2)}, "bends is 1"),
        (o, b + 1, {}, "start"),
        (o.examples(torch.arange(12)), b, {}, "data_fingerprint"),
    ):
        with refused(OutputError, match=words):
            fitted(objective, a, end, folder=tmp_path, **options)
    (tmp_path / fitting.FILE).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="damaged"):
        fitted(o, a, b, folder=tmp_path)


def test_the_profiles_are_those_of_the_curve_on_each_data_set():
    member = BY_NAME["mlp-tanh"]
    o, a, b = two()
    inputs, targets = member.data(n=40)
    test = Objective(member.make(), member.loss, (inputs[N:], targets[N:]), name="test")
    found = fitted(o, a, b, test=test, definition="draxler")
    assert [p.attrs["data"] for p in found.profiles] == ["data", "test"]
    for objective, profile in zip((o, test), found.profiles, strict=True):
        assert profile.attrs["kind"] == "barrier"
        assert profile.attrs["definition"] == "draxler"
        assert profile.attrs["curve"] == "Bezier"
        for t, loss in zip(profile["t"].values, profile["loss"].values, strict=True):
            assert loss == objective.value(found.curve.point(float(t)))
        assert float(profile["length_ratio"]) == pytest.approx(found.curve.length / Segment(a, b).length)
    assert set(found.profiles[0]["t"].values) <= set(found.profiles[1]["t"].values)


def test_batch_norm_trains_on_each_batch_and_is_recomputed_along_the_path():
    member = BY_NAME["batch-norm"]
    o, a, b = two("batch-norm")
    before = o.state_dict()
    found = fitted(o, a, b)
    again = o.with_batch_norm("recompute")
    assert found.training.attrs["batch_norm"] == "batch"
    profile = found.profiles[0]
    assert profile.attrs["batch_norm"] == "recompute"
    for end, index in ((a, 0), (b, -1)):
        assert float(profile["loss"][index]) == again.value(end)
    # The first loss is the network's own in training mode, on the first batch at the first t.
    rng = np.random.default_rng([0, 0])
    batch = next(iter(o.batches.shuffled(BATCH, int(rng.integers(2**62)))[1]))
    model = plain.at(member.make(), Segment(a, b).point(float(rng.random())))
    assert float(found.training["loss"][0]) == pytest.approx(
        float(member.loss(model.train()(batch[0]), batch[1]).detach()), rel=1e-5
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in o.state_dict().items())


def test_ends_are_points_modules_state_dicts_or_files(tmp_path):
    o, a, b = two()
    other = BY_NAME["mlp-tanh"].make(seed=1)
    write_state(other.state_dict(), tmp_path / "b.safetensors")
    expected = fitted(o, a, b)
    for source in (other, other.state_dict(), tmp_path / "b.safetensors", str(tmp_path / "b.safetensors")):
        assert same(fitted(o, a, source), expected)


def test_a_fitted_curve_is_trained_further():
    o, a, b = two()
    first = fitted(o, a, b).curve
    points = first.points.clone()
    second = fitted(o, a, b, curve=first, learning_rate=1e-12).curve
    assert torch.equal(first.points, points)  # and is itself left alone
    torch.testing.assert_close(second.points, points, rtol=0, atol=1e-9)
    with pytest.raises(InputError, match="other points than a and b"):
        fitted(o, a, b + 1, curve=first)


def test_a_step_of_any_kind_is_connected_too():
    member = BY_NAME["mlp-tanh"]
    batches = [{"x": x, "y": y} for x, y in member.batches()]
    o = Objective.from_step(member.make(), lambda m, d: F.cross_entropy(m(d["x"]), d["y"]), batches)
    found = fitted(o, o.point, o.point_of(member.make(seed=1)), epochs=60, learning_rate=0.02)
    assert found.training["epoch_loss"][-1] < found.training["epoch_loss"][0]
    assert found.training.sizes["step"] == 60 * len(batches)


def test_a_bar_shows_the_epoch_and_its_loss(capsys):
    o, a, b = two()
    fitted(o, a, b, progress=True)
    shown = capsys.readouterr().err
    assert "connecting: 100%" in shown
    assert "epoch 4/4: loss" in shown


def test_batches_that_are_not_kept_in_memory_come_in_their_own_order(monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.batches.KEEP_BYTES", 0)
    member = BY_NAME["mlp-tanh"]
    o = Objective(member.make(), member.loss, DataLoader(TensorDataset(*member.data()), batch_size=BATCH))
    assert torch.equal(torch.cat([x for x, _ in o.batches.shuffled(4, 0)[1]]), member.data()[0])
    assert fitted(o, o.point, o.point_of(member.make(seed=1))).training.sizes["step"] == 12


def test_by_default_there_are_three_thousand_steps(monkeypatch):
    monkeypatch.setattr(sys.modules[connect.__module__], "STEPS", 31)
    o, a, b = two()
    assert fitted(o, a, b, epochs=None).training.sizes == {"step": 33, "epoch": 11}


def test_a_loss_that_is_not_finite_is_told_and_what_was_before_is_kept(tmp_path):
    matrix, _ = symmetric([1.0, 2.0])
    o = quadratic(matrix, torch.zeros(8, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    with refused(NonFiniteLoss, match="smaller learning_rate") as caught:
        fitted(o, o.point, -o.point, epochs=3, learning_rate=1e200, folder=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert (tmp_path / fitting.FILE).is_file()


REFUSED = {
    "equal ends": (lambda o, a, b: fitted(o, a, a.clone()), DirectionError, "same point"),
    "an end of nan": (lambda o, a, b: fitted(o, a, b * torch.nan), DirectionError, "NaN"),
    "another size": (lambda o, a, b: fitted(o, a, b[:-1]), DirectionError, "73 parameters"),
    "another network": (lambda o, a, b: fitted(o, a, nn.Linear(2, 2)), CheckpointError, "another network"),
    "no epochs": (lambda o, a, b: fitted(o, a, b, epochs=0), InputError, "epochs=0"),
    "no batch": (lambda o, a, b: fitted(o, a, b, batch_size=0), InputError, "batch_size=0"),
    "no rate": (lambda o, a, b: fitted(o, a, b, learning_rate=0.0), InputError, "learning_rate=0.0"),
    "a rate of nan": (lambda o, a, b: fitted(o, a, b, learning_rate=float("nan")), InputError, "positive"),
    "a negative seed": (lambda o, a, b: fitted(o, a, b, seed=-1), InputError, "seed=-1"),
    "a segment": (lambda o, a, b: fitted(o, a, b, curve=Segment(a, b)), InputError, r"give Bezier\(bends\)"),
    "an unknown engine": (lambda o, a, b: fitted(o, a, b, engine="rope"), InputError, "elastic_band"),
    "a band that is no chain": (lambda o, a, b: fitted(o, a, b, engine="elastic_band"), InputError, "PolygonalChain"),
    "an unknown height": (lambda o, a, b: fitted(o, a, b, definition="highest"), InputError, "entezari, frankle"),
    "a profile of its ends": (lambda o, a, b: fitted(o, a, b, profile_steps=2), InputError, "at least 3"),
    "a test of another model": (
        lambda o, a, b: fitted(o, a, b, test=two("regression")[0]),
        InputError,
        "from one model",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_questions_are_refused(name):
    ask, error, words = REFUSED[name]
    with refused(error, match=words):
        ask(*two())


def test_two_networks_on_the_digits_are_connected_by_a_curve_that_is_hardly_longer():
    data = la.zoo.load("digits").train
    networks = [la.zoo.mlp(64, (64, 64), seed=seed) for seed in (1, 2)]
    for seed, network in enumerate(networks):
        la.zoo.fit(network, data, epochs=12, seed=seed, learning_rate=0.1, batch_size=64, progress=False)
    o = Objective(networks[0], F.cross_entropy, data)
    line = la.barrier(o, Segment(o.point, o.point_of(networks[1])), progress=False)
    found = connect(o, o.point, networks[1], epochs=50, learning_rate=3e-3, progress=False)
    assert float(found.profiles[0]["barrier"]) < 0.1 * float(line["barrier"])
    assert 1.05 < float(found.profiles[0]["length_ratio"]) < 1.25
