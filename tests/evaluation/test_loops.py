"""Law: a prepared loop, whatever is rewritten in it, gives what the model itself gives at every point."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BATCH, BY_NAME, DTYPES, MEMBERS, Member, N
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.overrides import TorchFunctionMode

from lossatlas.evaluation.points.loops import REWRITES, Loop, PlainLoop, PreparedLoop
from lossatlas.evaluation.points.tracing import Untraceable
from lossatlas.model.data.batches import Batches
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.loss.measures import Supervised
from lossatlas.model.loss.samples import samples_of
from lossatlas.model.loss.steps import StepLoss
from lossatlas.model.points import Points

AGREE = {torch.float32: 1e-6, torch.float64: 1e-12}
ALL = tuple(name for name in REWRITES if name != "oneDNN linear" or torch.backends.mkldnn.is_available())
WEIGHTS = [(0.0, 0.0), (0.5, -1.0), (-0.3, 0.2)]

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
EACH_AND_ALL = ((), *((name,) for name in ALL), ALL)


def known(names: Sequence[str], dtype: torch.dtype) -> tuple[str, ...]:
    """The rewrites that there are in this type: oneDNN has no float64."""
    return tuple(name for name in names if dtype == torch.float32 or name != "oneDNN linear")


@dataclass
class Problem:
    """A model on data in ragged batches, and directions of which only the tensors with these names move."""

    model: nn.Module
    data: Any
    measure: Any = field(default_factory=lambda: Supervised(F.cross_entropy, "auto"))
    moving: Callable[[str], bool] = lambda name: True
    directions: int = 2
    policy: Any = "frozen"
    scale: float = 0.3

    def __post_init__(self) -> None:
        self.function = FunctionalModel(self.model, self.measure, None, None, None)
        self.batches = Batches(self.data, batch_size=BATCH)
        self.function.set_batch_norm(self.policy, None, self.batches)
        self.function.probe(self.batches)
        center = self.function.point
        draw = torch.Generator().manual_seed(11)
        rows = torch.randn(self.directions, len(center), generator=draw, dtype=torch.float64).to(center)
        for entry in self.function.space:
            rows[:, entry.start : entry.stop] *= self.scale if self.moving(entry.name) else 0
        self.points = Points(center, rows)

    def plain(self) -> PlainLoop:
        return PlainLoop(self.function, self.batches, self.points)

    def prepared(self, *names: str) -> PreparedLoop:
        kept = self.batches.kept()
        assert kept is not None
        return PreparedLoop(self.function, kept, self.points, names)

    def means(self, loop: Loop, weights: Sequence[float]) -> dict[str, float]:
        return {name: sample.mean for name, sample in samples_of(loop(weights), self.batches.weights).items()}

    def agree(self, *loops: PreparedLoop, weights: Sequence[Sequence[float]] = WEIGHTS) -> None:
        """Each of the loops gives the plain loop's means at these points."""
        reference, dtype = self.plain(), self.function.point.dtype
        for at in weights:
            expected = pytest.approx(self.means(reference, at), rel=AGREE[dtype], abs=0, nan_ok=True)
            for loop in loops:
                assert self.means(loop, at) == expected, (at, loop.changed)


def problem_of(member: Member, dtype: torch.dtype, **options: Any) -> Problem:
    return Problem(member.make(dtype), member.data(dtype), Supervised(member.loss, "auto"), **options)


def tensors(problem: Problem) -> list[Tensor]:
    return [tensor for batch in problem.batches.kept() for tensor in batch]


class Counting(TorchFunctionMode):
    """How often each of PyTorch's functions is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = collections.Counter[str]()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls[getattr(function, "__name__", "")] += 1
        return function(*args, **kwargs or {})


def counted(loop: Loop, weights: Sequence[float]) -> collections.Counter[str]:
    with Counting() as counting:
        loop(weights)
    return counting.calls


# Every member of the family


@every_dtype
@every_member
def test_the_plain_loop_is_the_model_itself(member, dtype):
    problem = problem_of(member, dtype)
    for at in WEIGHTS:
        theta = problem.points.center + sum(w * d for w, d in zip(at, problem.points.directions, strict=True))
        expected = plain.loss_at(member.make(dtype), member.loss, member.data(dtype), theta)
        assert problem.means(problem.plain(), at)["loss"] == pytest.approx(expected, rel=AGREE[dtype])


@every_dtype
@every_member
def test_a_prepared_loop_agrees_with_the_plain_one(member, dtype):
    # All members can be traced, the LSTM too: it is one function of its inputs and weights.
    problem = problem_of(member, dtype)
    problem.agree(*(problem.prepared(*names) for names in dict.fromkeys(known(names, dtype) for names in EACH_AND_ALL)))


@every_member
def test_the_values_of_the_examples_come_in_their_order(member):
    problem = problem_of(member, torch.float64)
    one, other = problem.plain()((0.4, 0.1)), problem.prepared(*known(ALL, torch.float64))((0.4, 0.1))
    assert [len(batch["loss"]) for batch in other] == [BATCH, BATCH, N - 2 * BATCH]
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(b[name].clone(), a[name], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("directions", [1, 3, 5])
@pytest.mark.parametrize("name", ["mlp-relu", "cnn", "batch-norm"])
def test_any_number_of_directions_may_span_the_region(name, directions):
    problem = problem_of(BY_NAME[name], torch.float64, directions=directions)
    weights = [tuple(0.1 * (i + 1) * (-1) ** (i + k) for i in range(directions)) for k in range(2)]
    problem.agree(problem.prepared(*known(ALL, torch.float64)), weights=weights)


@every_member
def test_a_point_that_was_visited_before_gives_the_same_again(member):
    problem = problem_of(member, torch.float32)
    loop = problem.prepared(*ALL)
    first = problem.means(loop, (0.5, -1.0))
    problem.means(loop, (0.1, 0.1))
    assert problem.means(loop, (0.5, -1.0)) == first


@every_member
def test_neither_preparation_nor_evaluation_changes_anything(member):
    model = member.make().train()
    before, seeds = plain.state_of(model), (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    problem = Problem(model, member.data(), Supervised(member.loss, "auto"))
    own, point = plain.state_of(problem.function.module), problem.points.center.clone()
    batches = [tensor.clone() for tensor in tensors(problem)]
    for names in ((), ALL):
        loop = problem.prepared(*names)
        loop((0.5, -1.0))
        loop((0.0, 0.0))
    assert plain.differences(before, plain.state_of(model)) == []
    assert plain.differences(own, plain.state_of(problem.function.module)) == []
    assert torch.equal(problem.points.center, point)
    assert all(map(torch.equal, batches, tensors(problem)))
    assert torch.equal(torch.get_rng_state(), seeds[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == seeds[1:]  # noqa: NPY002
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


# Nets on which each rewrite finds something, and nets that it must leave alone


class Net(nn.Module):
    """Some layers by name, a function of them and x, and a linear head on whatever that gives."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor], features: int, **layers: nn.Module) -> None:
        super().__init__()
        self.body = body
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.head = nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self, x).flatten(1))


def twice(net: Any, x: Tensor) -> Tensor:
    h = F.relu(net.conv(x))
    return torch.cat([F.max_pool2d(h, 2).flatten(1), h.mean((2, 3))], 1)


def window_of_one(net: Any, x: Tensor) -> Tensor:
    h = net.conv(x)
    return F.relu(F.max_pool2d(h, 1)) + h


def added(net: Any, x: Tensor) -> Tensor:
    out = net.conv(x)
    out += x
    h = F.relu(out, inplace=True)
    return F.relu(net.norm(net.second(h)) + h)


def seen_twice(net: Any, x: Tensor) -> Tensor:
    h = net.conv(x)
    return net.norm(h) + h


def positions(net: Any, x: Tensor) -> Tensor:
    value, index = F.max_pool2d(net.conv(x), 2, return_indices=True)
    return value + 0.01 * index


def pooled(*options: Any, relu: str = "before", **more: Any) -> Callable[[Any, Tensor], Tensor]:
    def body(net: Any, x: Tensor) -> Tensor:
        h = net.conv(x)
        h = F.relu(h) if relu == "before" else h
        h = F.max_pool2d(h, *options, **more)
        return F.relu(h) if relu == "after" else h

    return body


def normed(net: Any, x: Tensor) -> Tensor:
    return torch.tanh(net.norm(net.conv(x)))


conv = nn.Conv2d
IMAGE = (1, 7, 9)  # a convolution of width 3 leaves 5 x 7, which windows of 2 do not fill

# name -> (net, shape of an input, rewrites that must find something, rewrites that must leave it alone)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], set[str], set[str]]] = {
    "pool after relu": (lambda: Net(pooled(2), 24, conv=conv(1, 4, 3)), IMAGE, {"max pooling", "in place"}, set()),
    "pool before relu": (lambda: Net(pooled(2, relu="after"), 24, conv=conv(1, 4, 3)), IMAGE, {"max pooling"}, set()),
    "pool without relu": (lambda: Net(pooled(2, relu=""), 24, conv=conv(1, 4, 3)), IMAGE, {"max pooling"}, set()),
    "pool (2, 3)": (lambda: Net(pooled((2, 3)), 16, conv=conv(1, 4, 3)), IMAGE, {"max pooling"}, set()),
    "pool stride given": (lambda: Net(pooled(3, 3, 0), 8, conv=conv(1, 4, 3)), IMAGE, {"max pooling"}, set()),
    "pool of a relu that is used again": (lambda: Net(twice, 28, conv=conv(1, 4, 3)), IMAGE, {"max pooling"}, set()),
    "pool of windows of one": (lambda: Net(window_of_one, 140, conv=conv(1, 4, 3)), IMAGE, set(), set()),
    "pool overlapping": (lambda: Net(pooled(3, 2), 24, conv=conv(1, 4, 3)), IMAGE, set(), {"max pooling"}),
    "pool with gaps": (lambda: Net(pooled(2, 3), 16, conv=conv(1, 4, 3)), IMAGE, set(), {"max pooling"}),
    "pool with a rest": (
        lambda: Net(pooled(2, ceil_mode=True), 48, conv=conv(1, 4, 3)), IMAGE, set(), {"max pooling"}
    ),
    "pool padded": (lambda: Net(pooled(2, padding=1), 48, conv=conv(1, 4, 3)), IMAGE, set(), {"max pooling"}),
    "pool dilated": (lambda: Net(pooled(2, dilation=2), 24, conv=conv(1, 4, 3)), IMAGE, set(), {"max pooling"}),
    "pool with positions": (lambda: Net(positions, 24, conv=conv(1, 4, 3)), IMAGE, set(), {"max pooling"}),
    "conv without bias, norm": (
        lambda: Net(normed, 140, conv=conv(1, 4, 3, bias=False), norm=nn.BatchNorm2d(4)), IMAGE, {"batch norm"}, set()
    ),
    "conv with bias, norm": (
        lambda: Net(normed, 140, conv=conv(1, 4, 3), norm=nn.BatchNorm2d(4, eps=0.1)), IMAGE, {"batch norm"}, set()
    ),
    "norm without a scale": (
        lambda: Net(normed, 140, conv=conv(1, 4, 3), norm=nn.BatchNorm2d(4, affine=False)), IMAGE, {"batch norm"}, set()
    ),
    "grouped conv, norm": (
        lambda: Net(normed, 60, conv=conv(2, 4, 3, groups=2, stride=(1, 2), padding=(0, 1)), norm=nn.BatchNorm2d(4)),
        (2, 7, 6), {"batch norm", "channels last"}, set(),
    ),
    "linear, norm": (
        lambda: Net(normed, 5, conv=nn.Linear(6, 5), norm=nn.BatchNorm1d(5)), (6,), {"batch norm"}, set()
    ),
    "one-dimensional conv, norm": (
        lambda: Net(normed, 20, conv=nn.Conv1d(2, 5, 3), norm=nn.BatchNorm1d(5)), (2, 6), {"batch norm"},
        {"channels last"},
    ),
    "three-dimensional conv, norm": (
        lambda: Net(normed, 36, conv=nn.Conv3d(1, 3, 2), norm=nn.BatchNorm3d(3)), (1, 3, 3, 4), {"batch norm"},
        {"channels last"},
    ),
    "linear over positions, norm over positions": (
        lambda: Net(normed, 20, conv=nn.Linear(4, 5), norm=nn.BatchNorm1d(4)), (4, 4), set(), set()
    ),
    "linear over positions, as many features": (
        lambda: Net(normed, 25, conv=nn.Linear(4, 5), norm=nn.BatchNorm1d(5)), (5, 4), set(), set()
    ),
    "norm of what is used again": (
        lambda: Net(seen_twice, 140, conv=conv(1, 4, 3), norm=nn.BatchNorm2d(4)), IMAGE, set(), {"batch norm"}
    ),
    "norm by the batch itself": (
        lambda: Net(normed, 140, conv=conv(1, 4, 3), norm=nn.BatchNorm2d(4, track_running_stats=False)), IMAGE, set(),
        {"batch norm"},
    ),
    "two norms in a row": (
        lambda: Net(lambda n, x: n.second(n.norm(n.conv(x))), 140, conv=conv(1, 4, 3), norm=nn.BatchNorm2d(4),
                    second=nn.BatchNorm2d(4, affine=False)),
        IMAGE, {"batch norm"}, set(),
    ),
    "norm of another kind": (
        lambda: Net(normed, 140, conv=conv(1, 4, 3), norm=nn.GroupNorm(2, 4)), IMAGE, set(), {"batch norm"}
    ),
    "residual": (
        lambda: Net(added, 252, conv=conv(1, 4, 3, padding=1), second=conv(4, 4, 3, padding="same", bias=False),
                    norm=nn.BatchNorm2d(4)),
        IMAGE, {"batch norm", "channels last", "in place"}, {"max pooling"},
    ),
    "view of a conv": (
        lambda: Net(lambda n, x: n.conv(x).view(len(x), -1), 140, conv=conv(1, 4, 3)), IMAGE, {"channels last"}, set()
    ),
    "view into positions": (
        lambda: Net(lambda n, x: n.conv(x).view(len(x), 4, -1).softmax(2), 140, conv=conv(1, 4, 3)), IMAGE,
        {"channels last"}, set(),
    ),
    "strided, dilated, circular convs": (
        lambda: Net(lambda n, x: n.last(n.second(n.conv(x))), 60, conv=conv(2, 4, 3, stride=2, padding=1),
                    second=conv(4, 6, 2, dilation=2, groups=2),
                    last=conv(6, 10, 3, padding=1, padding_mode="circular")),
        (2, 7, 9), {"channels last", "shared layer"}, set(),
    ),
    "linear over positions": (
        lambda: Net(lambda n, x: F.relu(n.second(torch.tanh(n.conv(x)))), 15, conv=nn.Linear(4, 6),
                    second=nn.Linear(6, 3, bias=False)),
        (5, 4), {"shared layer", "oneDNN linear"}, {"batch norm"},
    ),
    "a weight that is a function": (
        lambda: Net(lambda n, x: torch.tanh(n.conv(x)), 5, conv=weight_norm(nn.Linear(6, 5))), (6,), {"oneDNN linear"},
        {"shared layer"},
    ),
    "a first layer that is used twice": (
        lambda: Net(lambda n, x: n.conv(torch.tanh(n.conv(x))), 6, conv=nn.Linear(6, 6)), (6,), {"shared layer"}, set()
    ),
    "the transformer's layer": (
        lambda: Net(lambda n, x: n.conv(x), 20, conv=nn.TransformerEncoderLayer(4, 2, 8, 0.3, batch_first=True)),
        (5, 4), {"oneDNN linear"}, {"shared layer"},
    ),
}  # fmt: skip


def made(name: str, dtype: torch.dtype) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The net with running statistics of its own, as a training loop would leave it, and data for it."""
    build, shape, _, _ = NETS[name]
    draw = torch.Generator().manual_seed(2)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build().to(dtype)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        for _ in range(4):
            model(1.5 * torch.randn(16, *shape, dtype=dtype) + 0.3)
    inputs = torch.randn(N, *shape, generator=draw, dtype=torch.float64).to(dtype)
    return model, (inputs, torch.randint(3, (N,), generator=draw))


@pytest.mark.parametrize("net", NETS)
def test_a_rewritten_loop_agrees_with_the_plain_one(net):
    problem = Problem(*made(net, torch.float64))
    each = known(ALL, torch.float64)
    problem.agree(*(problem.prepared(name) for name in each), problem.prepared(*each))


@pytest.mark.parametrize("net", NETS)
def test_a_rewrite_changes_what_it_is_for_and_nothing_else_and_agrees_in_float32_too(net):
    _, _, finds, leaves = NETS[net]
    problem = Problem(*made(net, torch.float32))
    loops = [problem.prepared(name) for name in ALL]
    changed = {name for name, loop in zip(ALL, loops, strict=True) if loop.changed}
    assert changed >= finds & set(ALL)
    assert not changed & leaves
    problem.agree(*(loop for name, loop in zip(ALL, loops, strict=True) if name == "oneDNN linear"))
    problem.agree(problem.prepared(*ALL))


@pytest.mark.parametrize("policy", ["frozen", "batch"])
def test_a_norm_in_train_mode_is_not_folded_and_its_statistics_do_not_wander(policy):
    problem = Problem(*made("conv with bias, norm", torch.float64), policy=policy)
    before = plain.state_of(problem.function.module)
    loop = problem.prepared("batch norm")
    assert loop.changed == ({"batch norm"} if policy == "frozen" else set())
    first = problem.means(loop, (0.5, -1.0))
    problem.agree(loop)
    assert problem.means(loop, (0.5, -1.0)) == first
    assert plain.differences(before, plain.state_of(problem.function.module)) == []


PARTS = {
    "the first layer's bias": lambda name: name == "conv.bias",
    "the first layer's weight": lambda name: name == "conv.weight",
    "the head": lambda name: name.startswith("head"),
    "the head's bias": lambda name: name == "head.bias",
    "all but the first layer": lambda name: not name.startswith("conv"),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("net", ["residual", "linear over positions", "pool after relu", "linear, norm"])
def test_directions_that_move_some_tensors_only_agree_too(net, part):
    problem = Problem(*made(net, torch.float32), moving=PARTS[part])
    problem.agree(*(problem.prepared(*names) for names in EACH_AND_ALL))


# What is computed how often: the data have three batches of two shapes


def test_what_does_not_move_is_computed_once():
    problem = Problem(*made("residual", torch.float32), moving=PARTS["the head"])
    assert counted(problem.plain(), (0.5, 0.1))["conv2d"] == 6
    calls = counted(problem.prepared(), (0.5, 0.1))
    assert (calls["conv2d"], calls["batch_norm"], calls["relu"], calls["linear"]) == (0, 0, 0, 3)


def test_a_shared_first_layer_is_computed_once_though_it_moves():
    problem = Problem(*made("linear, norm", torch.float32))
    assert counted(problem.prepared(), (0.5, 0.1))["linear"] == 6
    loop = problem.prepared("shared layer")
    assert counted(loop, (0.5, 0.1))["linear"] == 3, "the head's"
    problem.agree(loop)


def test_a_folded_norm_costs_a_few_numbers_a_point_and_nothing_a_batch():
    problem = Problem(*made("conv with bias, norm", torch.float32))
    calls = counted(problem.prepared("batch norm"), (0.5, 0.1))
    assert calls["batch_norm"] == 0
    assert calls["rsqrt"] <= 2, "once for each shape of batch"


# NaN


def with_a_nan(net: str) -> Problem:
    """One number of one example, or of the first layer, is NaN."""
    model, (inputs, targets) = made(net, torch.float32)
    inputs.view(N, -1)[3, 2] = float("nan")
    return Problem(model, (inputs, targets))


def losses(problem: Problem, loop: Loop) -> Tensor:
    return samples_of(loop((0.2, -0.1)), problem.batches.weights)["loss"].values


@pytest.mark.parametrize("net", ["pool after relu", "residual", "linear over positions", "conv without bias, norm"])
def test_nan_in_one_example_is_nan_in_its_loss_and_in_no_other(net):
    problem = with_a_nan(net)
    expected = losses(problem, problem.plain())
    assert expected.isnan().nonzero().flatten().tolist() == [3]
    for names in EACH_AND_ALL:
        found = losses(problem, problem.prepared(*names))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", ["mlp-relu", "cnn"])
def test_a_direction_that_leads_to_nan_leads_to_nan(name):
    problem = problem_of(BY_NAME[name], torch.float32)
    problem.points.directions[0, 0] = float("nan")
    assert np.isnan(problem.means(problem.plain(), (0.5, 0.1))["loss"])
    for names in EACH_AND_ALL:
        assert np.isnan(problem.means(problem.prepared(*names), (0.5, 0.1))["loss"]), names


# Other models and data


class Forward(nn.Module):
    """Two linear layers and a function that uses them."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **attributes: Any) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(6, 7), nn.Linear(7, 3), function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self, x))


def forward(function: Callable[[Any, Tensor], Tensor], **attributes: Any) -> Problem:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return Problem(Forward(function, **attributes), BY_NAME["mlp-relu"].data())


def first_column_zero(m, x):
    x[:, 0] = 0
    return m.first(x)


REFUSED = {
    "__bool__": lambda m, x: m.first(x * 2 if x.sum() > 0 else x),
    "item": lambda m, x: m.first(x) * m.first.weight.sum().item(),
    "numpy": lambda m, x: m.first(x) + torch.from_numpy(np.tanh(m.first(x).detach().numpy())),
    "__setitem__": first_column_zero,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_traced_is_refused_and_its_data_are_left_alone(name):
    problem = forward(REFUSED[name])
    before = [tensor.clone() for tensor in tensors(problem)]
    with pytest.raises(Untraceable, match=f"\\({name}\\)"):
        problem.prepared()
    assert all(map(torch.equal, before, tensors(problem)))


@pytest.mark.parametrize(
    "function",
    [lambda m, x: m.first(x.mul_(2)), lambda m, x: m.first(F.relu(x, inplace=True))],
    ids=["mul_", "relu in place"],
)
def test_a_model_that_writes_into_its_inputs_changes_neither_the_data_nor_the_answer(function):
    problem = forward(function)
    reference = [problem.means(problem.plain(), at) for at in WEIGHTS]
    before = [tensor.clone() for tensor in tensors(problem)]
    loop = problem.prepared()
    for at, expected in zip(WEIGHTS, reference, strict=True):
        assert problem.means(loop, at) == pytest.approx(expected, rel=1e-6)
        assert problem.means(problem.plain(), at) == pytest.approx(expected, rel=1e-6)
    assert all(map(torch.equal, before, tensors(problem)))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.first(x) * m.table,
        lambda m, x: m.first(x) / np.sqrt(7.0),
        lambda m, x: m.first(x) * m.tables["a"],
        lambda m, x: torch.relu(input=m.first(x)),
    ],
    ids=["a tensor attribute", "a number of NumPy's", "a tensor in a dictionary", "a keyword"],
)
@pytest.mark.parametrize("names", [(), ALL], ids=["as it is", "rewritten"])
def test_a_model_of_an_unusual_make_agrees(function, names):
    table = torch.linspace(-1, 2, 7)
    problem = forward(function, table=table, tables={"a": table})
    problem.agree(problem.prepared(*names))


def test_dictionaries_through_a_step_agree():
    member = BY_NAME["mlp-tanh"]
    batches = [{"x": x, "y": y, "name": "some text"} for x, y in member.batches()]
    step = StepLoss(lambda model, batch: member.loss(model(batch["x"]), batch["y"]))
    problem = Problem(member.make(), batches, step)
    problem.agree(problem.prepared(*ALL))


@pytest.mark.parametrize(
    "batches",
    [
        lambda x, y: [{"x": x, "y": y, "factor": 1.0}, {"x": x, "y": y, "factor": 3.0}],
        lambda x, y: [{"x": x, "y": y, "z": x}, {"x": x + 1, "y": y, "also": x}],
    ],
    ids=["numbers", "keys"],
)
def test_batches_that_differ_in_more_than_numbers_are_not_taken_for_alike(batches):
    member = BY_NAME["mlp-tanh"]

    def step(model, batch):
        factor = batch.get("factor", 2.0 if "also" in batch else 1.0)
        return factor * member.loss(model(batch["x"]), batch["y"])

    problem = Problem(member.make(), batches(*member.batches()[0]), StepLoss(step))
    problem.agree(problem.prepared())


def test_what_batches_share_may_not_outgrow_the_memory(monkeypatch):
    monkeypatch.setattr("lossatlas.evaluation.points.loops.KEEP_BYTES", 100)
    with pytest.raises(Untraceable, match="GiB"):
        problem_of(BY_NAME["cnn"], torch.float32).prepared()


def test_the_center_is_taken_bit_for_bit_where_all_weights_are_zero():
    points = Points(torch.tensor([0.1, -0.0]), torch.full((1, 2), float("inf")))
    assert points.at((0.0,)) is points.center
    assert points.at((1.0,)).tolist() == [float("inf")] * 2
