"""The mean of many networks: planted permutations found back, the same functions, ascent, what is refused."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.refusals import refused
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import lossatlas as la
from lossatlas import zoo
from lossatlas.connectivity.merging import merge_many
from lossatlas.connectivity.symmetry.states import network_state
from lossatlas.errors import CheckpointError, DirectionError, InputError
from lossatlas.model.checkpoints import write_state
from lossatlas.objective import Objective


class Residual(nn.Module):
    """Two residual blocks with BatchNorm, and a head behind the mean over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.one, self.two = (nn.Conv2d(6, 6, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.norm(self.stem(x)))
        z = torch.relu(z + self.norm2(self.two(torch.relu(self.norm1(self.one(z))))))
        return self.head(z.mean((2, 3)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.GroupNorm(5, 5), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


def transformer() -> nn.Module:
    return zoo.vit(in_channels=2, size=6, classes=3, patch=3, width=8, depth=1, heads=2)


FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (5,)),
    "convolutions": (convolutional, (2, 6, 6)),
    "residual, with BatchNorm": (Residual, (2, 6, 6)),
    "transformer": (transformer, (2, 6, 6)),
}


def network(build: Callable[[], nn.Module], seed: int, inputs: tuple[int, ...]) -> nn.Module:
    """In float64, with gains and shifts that differ from unit to unit and statistics of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = build().double()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        update_bn([torch.randn(40, *inputs, dtype=torch.float64)], made)
    return made.eval()


def data(inputs: tuple[int, ...], n: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, *inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=generator)


def outputs(network: nn.Module, point: Tensor, x: Tensor) -> Tensor:
    with torch.no_grad():
        return plain.at(network, point)(x)


@pytest.mark.parametrize("name", FAMILIES)
def test_permuted_copies_of_one_network_merge_to_that_network(name):
    build, inputs = FAMILIES[name]
    a, (x, y) = network(build, 0, inputs), data(inputs)
    o = Objective(a, F.cross_entropy, (x, y))
    of = la.symmetries(o)
    copies = [of.permuted(network_state(o, a), of.random(seed)) for seed in range(1, 4)]
    assert all(not torch.equal(o.point_of(twin), o.point) for twin in copies)
    merged = merge_many(o, [a, *copies])
    torch.testing.assert_close(merged.point, o.point, rtol=0, atol=1e-6)
    torch.testing.assert_close(merged.points, o.point.expand(4, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs(a, merged.point, x), a(x).detach(), rtol=0, atol=1e-6)
    # Another one first: the same network, in that one's order of units.
    other = merge_many(o, [copies[0], a, *copies[1:]])
    torch.testing.assert_close(other.point, o.point_of(copies[0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "convolutions", "transformer"])
def test_every_network_keeps_its_function_and_its_numbers(name):
    build, inputs = FAMILIES[name]
    sources, (x, y) = [network(build, seed, inputs) for seed in range(3)], data(inputs)
    o = Objective(sources[0], F.cross_entropy, (x, y))
    merged = merge_many(o, sources)
    assert merged.points.shape == (3, o.n_parameters)
    for source, point in zip(sources, merged.points, strict=True):
        torch.testing.assert_close(outputs(sources[0], point, x), source(x).detach(), rtol=1e-10, atol=1e-11)
        assert torch.equal(point.sort().values, plain.flat(source).sort().values)
    torch.testing.assert_close(merged.point, merged.points.mean(0), rtol=1e-14, atol=1e-14)
    assert torch.equal(o.space.flatten(merged.state_dict), merged.point)


def test_with_batch_norm_the_networks_are_the_same_under_statistics_estimated_anew():
    build, inputs = FAMILIES["residual, with BatchNorm"]
    sources, (x, y) = [network(build, seed, inputs) for seed in range(3)], data(inputs)
    o = Objective(sources[0], F.cross_entropy, (x, y))
    merged, anew = merge_many(o, sources), o.with_batch_norm("recompute")
    for source, point in zip(sources, merged.points, strict=True):
        assert anew.value(point) == pytest.approx(anew.value(o.point_of(source)), rel=1e-10)
    mean = plain.at(sources[0], merged.point)
    update_bn([x], mean)
    for name, tensor in mean.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(merged.state_dict[name], tensor, rtol=1e-10, atol=1e-12)


def spread(points: Tensor) -> float:
    """The sum of the squared distances between all pairs."""
    return sum(float((p - q).square().sum()) for p, q in itertools.combinations(points, 2))


@pytest.mark.parametrize("seed", range(3))
def test_going_round_brings_networks_nearer_than_aligning_each_with_the_first(seed):
    sources, (x, y) = [network(mlp, 10 * seed + i, (5,)) for i in range(4)], data((5,))
    o = Objective(sources[0], F.cross_entropy, (x, y))
    apart = torch.stack([o.point_of(source) for source in sources])
    aligned = torch.stack([o.point, *(la.align(o, sources[0], source).point for source in sources[1:])])
    merged = merge_many(o, sources)
    assert spread(merged.points) < spread(apart)
    # Each step can only bring a network nearer to the others; align's starts for the later ones may differ.
    assert spread(merged.points) < 1.02 * spread(aligned)


def test_two_networks_are_as_near_as_align_brings_them():
    a, b = (network(mlp, seed, (5,)) for seed in (1, 2))
    o = Objective(a, F.cross_entropy, data((5,)))
    merged = merge_many(o, [a, b])
    distance = float((merged.points[0] - merged.points[1]).norm())
    assert distance <= float(la.align(o, a, b).summary["distance_after"]) * (1 + 1e-9)


def test_at_the_end_no_network_gains_by_another_order_of_its_units():
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))

    sources = [network(build, seed, (5,)) for seed in range(4)]
    o = Objective(sources[0], F.cross_entropy, data((5,)))
    merged = merge_many(o, sources)
    assert merged.rounds < 20
    units = []
    for point in merged.points.numpy():  # one group: each unit is its weights and its bias, and its column behind
        first, bias, second = point[:60].reshape(12, 5), point[60:72], point[72:108].reshape(3, 12)
        units.append(np.column_stack([first, bias, second.T]))
    for index, own in enumerate(units):
        others = np.mean([each for i, each in enumerate(units) if i != index], axis=0)
        agreement = others @ own.T
        rows, columns = linear_sum_assignment(agreement, maximize=True)
        assert np.trace(agreement) == pytest.approx(agreement[rows, columns].sum(), rel=1e-9)


def test_one_seed_gives_the_same_bits_and_nothing_that_was_given_changes():
    sources = [network(mlp, seed, (5,)) for seed in range(3)]
    o = Objective(sources[0], F.cross_entropy, data((5,)))
    before = [plain.state_of(source) for source in sources]
    generator = torch.get_rng_state()
    first, again = (merge_many(o, sources, seed=4) for _ in range(2))
    assert torch.equal(first.points, again.points)
    assert (first.rounds, first.points.dtype) == (again.rounds, torch.float64)
    assert torch.equal(generator, torch.get_rng_state())
    assert torch.is_grad_enabled()
    for source, state in zip(sources, before, strict=True):
        assert plain.differences(state, plain.state_of(source)) == []


@pytest.mark.parametrize("examples", [5, 20, 1000])
@pytest.mark.parametrize("batch_size", [10, 40])
def test_gradients_are_taken_as_before(batch_size, examples):
    sources = [network(mlp, seed, (5,)) for seed in range(3)]
    o = Objective(sources[0], F.cross_entropy, data((5,)), batch_size=batch_size)
    try:
        merge_many(o, sources, examples=examples)
        assert torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


def test_networks_are_points_modules_state_dicts_or_files(tmp_path):
    a, b, c = (network(mlp, seed, (5,)) for seed in range(3))
    o = Objective(a, F.cross_entropy, data((5,)))
    expected = merge_many(o, [a, b, c])
    write_state(c.state_dict(), tmp_path / "c.safetensors")
    for sources in ([o.point, o.point_of(b), o.point_of(c)], [a.state_dict(), b, tmp_path / "c.safetensors"]):
        assert torch.equal(merge_many(o, sources).points, expected.points)


def test_one_network_several_times_is_that_network():
    a = network(mlp, 0, (5,))
    o = Objective(a, F.cross_entropy, data((5,)))
    torch.testing.assert_close(merge_many(o, [a, a, copy.deepcopy(a)]).point, o.point, rtol=1e-14, atol=1e-15)


def test_groups_written_by_hand_are_all_that_moves():
    sources = [network(mlp, seed, (5,)) for seed in range(3)]
    o = Objective(sources[0], F.cross_entropy, data((5,)))
    by_hand = {"0.weight": ("first", None), "0.bias": ("first",), "2.weight": (None, "first")}
    merged = merge_many(o, sources, symmetries=by_hand)
    for source, point in zip(sources, merged.points, strict=True):
        state = o.state_dict(point)
        assert torch.equal(state["2.bias"], source.get_parameter("2.bias"))  # the second layer stays in its order
        assert torch.equal(state["4.weight"], source.get_parameter("4.weight"))
    with pytest.raises(InputError, match=r"4\.bias"):
        merge_many(o, sources, symmetries=by_hand | {"4.bias": ("first", None)})


# Networks that were trained


@pytest.fixture(scope="module")
def trained():
    train = zoo.load("digits").train
    train = (train[0][:600], train[1][:600])
    networks = [zoo.mlp(64, (32,), seed=seed) for seed in range(4)]
    for seed, one in enumerate(networks):
        zoo.fit(one, train, epochs=10, seed=seed, learning_rate=0.1, batch_size=32, progress=False)
    return Objective(networks[0], F.cross_entropy, train), networks


def test_the_mean_of_trained_networks_is_far_better_when_their_units_agree(trained):
    o, networks = trained
    ends = [o.value(o.point_of(one)) for one in networks]
    naive = o.value(torch.stack([o.point_of(one) for one in networks]).mean(0))
    merged = merge_many(o, networks)
    value = o.value(merged.point)
    assert naive > 3 * max(ends)
    assert value - max(ends) < 0.25 * (naive - max(ends))
    repaired = la.repair(o, merged.points)
    assert bool((repaired.statistics["sd_ratio_before"] < 1).all())
    for point, end in zip(merged.points, ends, strict=True):
        assert o.value(point) == pytest.approx(end, rel=1e-5)


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (2, 0, 3, 1), (1, 3, 0, 2)], ids=str)
def test_the_order_of_the_networks_hardly_matters(trained, order):
    o, networks = trained
    naive = o.value(torch.stack([o.point_of(one) for one in networks]).mean(0))
    one, other = (o.value(merge_many(o, each).point) for each in (networks, [networks[i] for i in order]))
    # The optima are local ones: as good as each other by a small part of what was gained.
    assert abs(one - other) < 0.05 * naive


def ask(name: str) -> None:
    sources = [network(mlp, seed, (5,)) for seed in range(3)]
    o = Objective(sources[0], F.cross_entropy, data((5,)))
    broken = {key: tensor.clone() for key, tensor in sources[2].state_dict().items()}
    broken["2.weight"][1, 1] = torch.inf
    single = nn.Linear(5, 3).double()
    questions = {
        "none": lambda: merge_many(o, []),
        "one": lambda: merge_many(o, sources[:1]),
        "no rounds": lambda: merge_many(o, sources, rounds=0),
        "restarts": lambda: merge_many(o, sources, restarts=-1),
        "the third is another network": lambda: merge_many(o, [*sources[:2], nn.Linear(5, 3)]),
        "the third is infinite": lambda: merge_many(o, [*sources[:2], broken]),
        "a point of another size": lambda: merge_many(o, [o.point, o.point[:-1]]),
        "no hidden units": lambda: merge_many(Objective(single, F.cross_entropy, data((5,))), [single, single]),
    }
    questions[name]()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("none", InputError, "0 networks: give at least two"),
        ("one", InputError, "1 networks: give at least two"),
        ("no rounds", InputError, "rounds=0"),
        ("restarts", InputError, "restarts=-1"),
        ("the third is another network", CheckpointError, "another network"),
        ("the third is infinite", DirectionError, "NaN or infinite.*2.weight"),
        ("a point of another size", DirectionError, "148 parameters"),
        ("no hidden units", InputError, "hidden"),
    ],
)
def test_impossible_questions_are_refused(name, error, words):
    with refused(error, match=words):
        ask(name)
