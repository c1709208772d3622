"""The training of a path: best paths by quadrature, kills at every step, data of every kind, folders of other fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from oracles import plain
from oracles.members import BATCH, BY_NAME, N
from oracles.quadratic import Point, quadratic, symmetric
from oracles.refusals import refused
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lossatlas as la
from lossatlas.connectivity import fitting
from lossatlas.connectivity.connect import connect
from lossatlas.errors import BufferWarning, CheckpointError, DirectionError, InputError, NonFiniteLoss, OutputError
from lossatlas.geometry.curves import Bezier, PolygonalChain, Segment
from lossatlas.objective import Objective


def two(name: str = "mlp-tanh", data=None, dtype: torch.dtype = torch.float32, **options):
    """An objective, and two points of it."""
    member = BY_NAME[name]
    a, b = member.make(dtype, seed=0), member.make(dtype, seed=1)
    o = Objective(a, member.loss, member.data(dtype) if data is None else data, **options)
    return o, o.point, o.point_of(b)


def fitted(o, a, b, **options):
    return connect(o, a, b, **{"epochs": 4, "batch_size": BATCH, "profile_steps": 5, "progress": False} | options)


def same(first, second) -> bool:
    return torch.equal(first.curve.points, second.curve.points) and xr.Dataset.equals(first.training, second.training)


# Best paths


class Bowl:
    """L(w) = (w - c)' A (w - c) / 2, and of a kind of curve the bends with the least mean loss over t."""

    def __init__(self) -> None:
        self.matrix, _ = symmetric([0.5, 1.0, 3.0, 8.0])
        self.center = torch.tensor([0.4, -1.0, 0.7, 2.0], dtype=torch.float64)
        self.a, self.b = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2
        self.objective = quadratic(self.matrix, self.center.expand(64, 4), self.a)

    def mean_loss(self, curve) -> float:
        return sum(w * self.objective.value(curve.point(t)) for t, w in self.nodes(curve.bends))

    def best(self, kind):
        """The normal equations in the weights c_k(t): the same for every coordinate, whatever A is."""
        nodes = self.nodes(kind.bends)
        c = np.array([kind.weights(t).numpy() for t, _ in nodes])
        share = np.array([w for _, w in nodes])[:, None]
        gram = c.T @ (share * c)
        ends = np.stack([self.a, self.b])
        right = (share * c).sum(0)[1:-1, None] * self.center.numpy() - gram[1:-1][:, [0, -1]] @ ends
        bends = np.linalg.solve(gram[1:-1, 1:-1], right)
        return kind.through(torch.from_numpy(np.concatenate([ends[:1], bends, ends[1:]])))

    @staticmethod
    def nodes(bends: int) -> list[tuple[float, float]]:
        """Gauss's rule on each of bends + 1 pieces: exact for both kinds of curve."""
        x, w = np.polynomial.legendre.leggauss(8)
        m = bends + 1
        return [
            ((k + (1 + u) / 2) / m, v / 2 / m) for k in range(m) for u, v in zip(x.tolist(), w.tolist(), strict=True)
        ]


@pytest.mark.parametrize("kind", [Bezier, PolygonalChain])
def test_more_bends_are_never_worse_and_each_fit_is_nearly_the_best_of_its_kind(kind):
    bowl, before = Bowl(), np.inf
    straight = bowl.mean_loss(kind().between(bowl.a, bowl.b))
    # Bezier curves of each degree hold those of the one below; chains hold those with half as many pieces.
    for bends in (1, 2, 3) if kind is Bezier else (1, 3):
        best = bowl.mean_loss(bowl.best(kind(bends)))
        found = fitted(bowl.objective, bowl.a, bowl.b, curve=kind(bends), epochs=100, batch_size=8, learning_rate=0.05)
        reached = bowl.mean_loss(found.curve)
        assert best <= reached <= best + 0.05 * (straight - best)
        assert reached < before
        before = reached


def test_the_best_path_stays_where_it_is():
    bowl = Bowl()
    best = bowl.best(Bezier())
    found = fitted(bowl.objective, bowl.a, bowl.b, curve=best, epochs=50, batch_size=8, learning_rate=1e-3)
    assert float((found.curve.points - best.points).norm()) < 0.02 * float(best.points[1].norm())


def test_the_engines_agree_that_a_valley_is_lower_than_the_hill():
    # a canyon |y - sin(pi x)| between (0, 0) and (1, 0)
    data = (torch.zeros(8, 2, dtype=torch.float64), torch.zeros(8))
    o = Objective(
        Point(torch.tensor([0.0, 0.0], dtype=torch.float64)),
        lambda w, _: 4 * (w[:, 1] - torch.sin(torch.pi * w[:, 0])) ** 2,
        data,
        metrics=None,
    )
    b = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for engine in ("expected_loss", "elastic_band"):
        found = fitted(o, o.point, b, curve=PolygonalChain(7), engine=engine, epochs=400, learning_rate=0.03)
        assert float(found.profiles[0]["highest_loss"]) < 0.2  # 4 on the straight line
        assert found.training.attrs["engine"] == engine
        for x, y in found.curve.points[1:-1].tolist():
            assert y == pytest.approx(np.sin(np.pi * x), abs=0.15)


# The ends


@pytest.mark.parametrize("engine", ["expected_loss", "elastic_band"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_keep_their_bits_signs_of_zeros_too(engine, dtype):
    o, a, b = two(dtype=dtype)
    a, b = a.clone(), b.clone()
    a[0] = b[1] = -0.0
    before = (a.numpy().tobytes(), b.numpy().tobytes())
    curve = fitted(o, a, b, curve=PolygonalChain(2), engine=engine).curve
    assert curve.point(0.0).numpy().tobytes() == curve.points[0].numpy().tobytes() == before[0]
    assert curve.point(1.0).numpy().tobytes() == curve.points[-1].numpy().tobytes() == before[1]
    assert (a.numpy().tobytes(), b.numpy().tobytes()) == before
    assert not curve.points.requires_grad


def test_the_models_that_are_given_are_not_touched():
    member = BY_NAME["batch-norm"]
    a, b = member.make(seed=0), member.make(seed=1)
    before = plain.state_of(a), plain.state_of(b)
    generator = torch.get_rng_state()
    fitted(Objective(a, member.loss, member.data()), a, b)
    for model, state in zip((a, b), before, strict=True):
        assert plain.differences(state, plain.state_of(model)) == []
    assert torch.equal(torch.get_rng_state(), generator)


def test_only_the_chosen_parameters_move():
    member = BY_NAME["mlp-tanh"]
    a, b = member.make(seed=0), member.make(seed=1)
    o = Objective(a, member.loss, member.data(), parameters="2.*")
    with pytest.warns(BufferWarning, match="select them too"):
        found = fitted(o, a, b, epochs=40, learning_rate=0.02)
    assert found.curve.points.shape == (3, 7 * 3 + 3)
    assert torch.equal(found.curve.point(1.0), torch.cat([b[2].weight.flatten(), b[2].bias]).detach())
    assert found.training["epoch_loss"][-1] < found.training["epoch_loss"][0]


# Killed


@pytest.mark.parametrize(
    ("name", "engine"),
    [("mlp-tanh", "expected_loss"), ("mlp-tanh", "elastic_band"), ("batch-norm", "expected_loss")],
)
def test_killed_at_any_step_and_then_again_a_run_ends_in_the_same_bits(name, engine, tmp_path):
    member, calls, dying = BY_NAME[name], [0], [-1]

    def loss(outputs, targets):
        calls[0] += 1
        if calls[0] == dying[0]:
            raise KeyboardInterrupt
        return F.cross_entropy(outputs, targets, reduction="none")

    o = Objective(member.make(), loss, member.data())
    a, b = o.point, o.point_of(member.make(seed=1))
    options = {"curve": PolygonalChain(2), "engine": engine, "epochs": 4, "learning_rate": 0.02}
    calls[0] = 0
    whole = fitted(o, a, b, **options)
    calls_a_step = 2 if engine == "elastic_band" else 1
    steps = 4 * 3 * calls_a_step
    for kill in range(1, steps + 3, calls_a_step):  # the last two in the profile, when all is trained
        folder = tmp_path / str(kill)
        for further in (kill, steps // 3 + 1):  # the second run is killed too, if it comes so far
            calls[0], dying[0] = 0, further
            try:
                fitted(o, a, b, folder=folder, **options)
            except KeyboardInterrupt:
                continue
        dying[0] = -1
        assert same(fitted(o, a, b, folder=folder, **options), whole), f"killed at call {kill}"
    assert list(tmp_path.glob("*/*")) == [path for path in tmp_path.glob("*/*") if path.name == fitting.FILE]


def test_a_finished_fit_is_profiled_again_with_other_questions(tmp_path):
    o, a, b = two()
    first = fitted(o, a, b, folder=tmp_path)
    before = (tmp_path / fitting.FILE).read_bytes()
    again = fitted(o, a, b, folder=tmp_path, test=o, definition="frankle", profile_steps=9)
    assert same(first, again)
    assert again.training.attrs["seconds"] == first.training.attrs["seconds"]
    assert (tmp_path / fitting.FILE).read_bytes() == before
    assert again.profiles[0].attrs["definition"] == "frankle"
    assert len(again.profiles) == 2


# Folders that do not fit


def truncated(folder, share):
    path = folder / fitting.FILE
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_told(share, tmp_path):
    o, a, b = two()
    fitted(o, a, b, folder=tmp_path)
    truncated(tmp_path, share)
    with refused(CheckpointError, match="damaged or no state of a connection"):
        fitted(o, a, b, folder=tmp_path)


@pytest.mark.parametrize("header", [None, {"connection": "{}"}, {"connection": "no json"}])
def test_a_file_of_another_kind_is_told(header, tmp_path):
    o, a, b = two()
    save_file({"weight": torch.ones(3)}, tmp_path / fitting.FILE, header)
    with pytest.raises(CheckpointError, match="damaged or no state of a connection"):
        fitted(o, a, b, folder=tmp_path)


def test_a_folder_of_another_network_engine_type_or_batch_norm_is_refused(tmp_path):
    o, a, b = two()
    fitted(o, a, b, folder=tmp_path, curve=PolygonalChain(2))
    other, _, _ = two()
    member = BY_NAME["mlp-tanh"]
    elsewhere = Objective(member.make(seed=5), member.loss, member.data())
    doubled, x, y = two(dtype=torch.float64)
    for objective, ends, options, words in (
        (other, (a, b), {"engine": "elastic_band"}, "engine is 'expected_loss' there, 'elastic_band' here"),
        (elsewhere, (a, b), {}, "model_fingerprint"),
        (other, (b, a), {}, "start"),
        (doubled, (x, y), {}, "fingerprint|dtype"),
        (other, (a, b), {"curve": PolygonalChain(3)}, "bends is 2 there, 3 here"),
        (other, (a, b), {"curve": Bezier(2)}, "curve is 'PolygonalChain' there, 'Bezier' here"),
        (other, (a, b), {"batch_size": 5}, "batch_size is 9 there, 5 here"),
        (other, (a, b), {"learning_rate": 0.5}, "learning_rate is 0.001 there, 0.5 here"),
    ):
        with refused(OutputError, match=words) as caught:
            fitted(objective, *ends, folder=tmp_path, **{"curve": PolygonalChain(2)} | options)
        assert str(tmp_path) in str(caught.value)
    # and the fit itself is still there
    assert same(fitted(other, a, b, folder=tmp_path, curve=PolygonalChain(2)), fitted(o, a, b, curve=PolygonalChain(2)))


def test_a_folder_that_is_a_file_is_told_before_anything_is_trained(tmp_path):
    asked = []

    def loss(outputs, targets):
        asked.append(1)
        return F.cross_entropy(outputs, targets, reduction="none")

    member = BY_NAME["mlp-tanh"]
    o = Objective(member.make(), loss, member.data())
    (tmp_path / "file").write_text("")
    asked.clear()
    with refused(OutputError, match="file"):
        fitted(o, o.point, o.point + 1, folder=tmp_path / "file")
    assert asked == []


# Data of every kind


def test_a_loader_a_list_of_batches_and_tensors_fit_the_same_path():
    x, y = BY_NAME["mlp-tanh"].data()
    kinds = (
        (x, y),
        list(zip(x.split(4), y.split(4), strict=True)),
        DataLoader(TensorDataset(x, y), batch_size=7),
    )
    first, *others = (fitted(*two(data=data), epochs=3) for data in kinds)
    for other in others:
        torch.testing.assert_close(other.curve.points, first.curve.points, rtol=1e-5, atol=1e-6)
        assert other.training.sizes == first.training.sizes


@pytest.mark.parametrize("engine", ["expected_loss", "elastic_band"])
def test_one_batch_of_all_the_data_and_batches_of_one_example(engine):
    for size, steps in ((N, 1), (10 * N, 1), (1, N)):
        o, a, b = two()
        found = fitted(o, a, b, batch_size=size, epochs=2, engine=engine, curve=PolygonalChain())
        assert found.training.sizes == {"step": 2 * steps, "epoch": 2}
        assert bool(np.isfinite(found.training["loss"]).all())


def test_one_step_is_one_step_of_adam():
    o, a, b = two(dtype=torch.float64)
    found = fitted(o, a, b, epochs=1, batch_size=N, learning_rate=0.01)
    (t,) = found.training["t_drawn"].values
    bend = Segment(a, b).point(0.5)
    member = BY_NAME["mlp-tanh"]
    place = Segment(a, b).point(float(t)).requires_grad_()
    value = plain.function(member.make(torch.float64), member.loss, member.data(torch.float64))(place)
    (gradient,) = torch.autograd.grad(value, place)
    # Adam's first step is the learning rate along the gradient's sign, up to its epsilon of 1e-8.
    share = gradient * 2 * t * (1 - t)
    expected = bend - 0.01 * share / (share.abs() + 1e-8)
    torch.testing.assert_close(found.curve.points[1], expected, rtol=1e-9, atol=1e-9)
    assert float(found.training["loss"][0]) == pytest.approx(value.item(), rel=1e-10)


def test_batch_norm_cannot_take_its_statistics_from_one_example():
    # Over 6 x 6 pixels there are statistics of one image, but the last norm sees one number a channel.
    o, a, b = two("batch-norm")
    with refused(InputError, match="use larger batches"):
        fitted(o, a, b, batch_size=1)


def test_batch_norm_falls_along_the_path_and_what_was_frozen_stays_so():
    o, a, b = two("batch-norm")
    found = fitted(o, a, b, epochs=60, learning_rate=0.02)
    line = la.barrier(o, Segment(a, b), steps=5, progress=False)
    assert float(found.profiles[0]["loss"].mean()) < float(line["loss"].mean())
    assert found.training["epoch_loss"][-1] < found.training["epoch_loss"][0]
    assert o.function.policy == "frozen"
    assert o.with_batch_norm("frozen").value() == o.value()


@pytest.mark.parametrize("engine", ["expected_loss", "elastic_band"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_learning_rate_that_is_too_high_is_told_with_the_remedy(engine, kept, tmp_path):
    matrix, _ = symmetric([1.0, 2.0])
    o = quadratic(matrix, torch.zeros(8, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    b = torch.tensor([-1.0, 0.5], dtype=torch.float64)
    with refused(NonFiniteLoss, match="try a smaller learning_rate") as caught:
        fitted(
            o, o.point, b, epochs=3, learning_rate=1e200, engine=engine, curve=PolygonalChain(2),
            folder=tmp_path if kept else None,
        )  # fmt: skip
    assert (str(tmp_path) in str(caught.value)) == kept


def test_a_loss_that_is_nan_on_the_path_is_told_with_its_t():
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[:, 0].sqrt()

    a, b = (torch.tensor([w], dtype=torch.float64) for w in (1.0, -1.0))
    data = (torch.zeros(8, 1, dtype=torch.float64), torch.zeros(8))
    o = Objective(Point(a), loss, data, metrics=None)
    with pytest.raises(NonFiniteLoss, match=r"t = 0\.\d+ is nan"):
        fitted(o, a, b)


# Bad input


REFUSED = {
    "no bends": (lambda o, a, b: fitted(o, a, b, curve=Bezier(0)), DirectionError, "bends=0"),
    "the kind without brackets": (lambda o, a, b: fitted(o, a, b, curve=Bezier), InputError, r"give Bezier\(bends\)"),
    "a word": (lambda o, a, b: fitted(o, a, b, curve="bezier"), InputError, r"give Bezier\(bends\)"),
    "an infinite end": (lambda o, a, b: fitted(o, a, b + torch.inf), DirectionError, "infinite"),
    "a matrix": (lambda o, a, b: fitted(o, a, b[None]), DirectionError, "parameters"),
    "a file that is not there": (lambda o, a, b: fitted(o, a, "none.safetensors"), CheckpointError, "none.safetensors"),
    "a rate below zero": (lambda o, a, b: fitted(o, a, b, learning_rate=-1.0), InputError, "learning_rate=-1.0"),
    "an infinite rate": (lambda o, a, b: fitted(o, a, b, learning_rate=float("inf")), InputError, "learning_rate=inf"),
    "epochs below zero": (lambda o, a, b: fitted(o, a, b, epochs=-3), InputError, "epochs=-3"),
    "one network twice": (lambda o, a, b: fitted(o, BY_NAME["mlp-tanh"].make(), a), DirectionError, "same point"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_questions_are_refused(name):
    ask, error, words = REFUSED[name]
    with refused(error, match=words):
        ask(*two())


def test_an_untouched_module_is_an_end_and_a_trained_module_too():
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    a, b = Doubled(), Doubled()
    o = Objective(a, F.cross_entropy, BY_NAME["mlp-tanh"].data())
    wrapped = nn.DataParallel(b)
    assert same(fitted(o, a, b), fitted(o, o.point, {f"module.{k}": v for k, v in b.state_dict().items()}))
    assert same(fitted(o, a, b), fitted(o, a, wrapped))
