"""REPAIR: statistics of units against forward hooks in float64, exact cases, real networks, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.refusals import refused
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import lossatlas as la
from lossatlas import zoo
from lossatlas.connectivity.repair import repair
from lossatlas.connectivity.symmetry.states import network_state
from lossatlas.errors import CheckpointError, DirectionError, InputError
from lossatlas.model.checkpoints import write_state
from lossatlas.objective import Objective

N = 60  # examples, all in one batch unless a test says otherwise


class Tokens(nn.Module):
    """A feed-forward block on each token, with a residual sum and a norm, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(3, 6), nn.LayerNorm(6)
        self.fc1, self.fc2, self.head = nn.Linear(6, 9), nn.Linear(9, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x)
        z = z + self.fc2(F.gelu(self.fc1(self.norm(z))))
        return self.head(z.mean(1))


class Mixer(nn.Module):
    """A layer over the positions of each channel: its output holds the channels' units before its own."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 5), nn.Linear(5, 3)
        self.mix1, self.mix2 = nn.Linear(4, hidden), nn.Linear(hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x)
        z = z + self.mix2(torch.relu(self.mix1(z.transpose(1, 2)))).transpose(1, 2)
        return self.head(z.mean(1))


class Shared(nn.Module):
    """One layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.first(x))
        z = z + torch.relu(self.twice(z))
        return self.head(z + torch.tanh(self.twice(z)))


class InOrder(nn.Module):
    """The cumulative sum ties the second layer's units to their order."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.ordered, self.head = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cumsum(self.ordered(torch.relu(self.free(x))), 1))


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.second(z.relu() if float(z.sum()) > 0 else z)


def sequential(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(copy.deepcopy(layer) for layer in layers))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)
    )


def convolutional() -> nn.Module:
    head = [nn.Flatten(), nn.Linear(4 * 16, 5), nn.ReLU(), nn.Linear(5, 3)]
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1, groups=2), nn.ReLU(), nn.AvgPool2d(2), *head
    )


def upward() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(2, 5, 2, stride=2),
        nn.ReLU(),
        nn.ConvTranspose2d(5, 4, 3),
        nn.Tanh(),
        nn.Conv2d(4, 3, 10, stride=10),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def sequence() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 5, 3), nn.GELU(), nn.GroupNorm(1, 5), nn.Conv1d(5, 3, 2), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    )


@dataclass(frozen=True)
class Family:
    build: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    layers: dict[str, int]  # the layers that are corrected, and which axis of what they give out holds the units


FAMILIES = {
    "mlp": Family(mlp, (6,), {"0": 1, "2": 1, "4": 1}),
    "convolutions": Family(convolutional, (2, 10, 10), {"0": 1, "2": 1, "6": 1}),
    "transposed convolutions": Family(upward, (2, 4, 4), {"0": 1, "2": 1}),
    "a convolution over time": Family(sequence, (2, 9), {"0": 1}),
    "the feed-forward part of a transformer": Family(Tokens, (4, 3), {"embed": 2, "fc1": 2, "fc2": 2}),
    "a layer over positions": Family(lambda: Mixer(6), (4, 3), {"embed": 2, "mix1": 2}),
    "a layer over positions, as wide as there are channels": Family(lambda: Mixer(5), (4, 3), {"embed": 2, "mix1": 2}),
}


def data(inputs: tuple[int, ...], n: int = N) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, *inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=generator)


def networks(build: Callable[[], nn.Module], count: int = 2) -> list[nn.Module]:
    """Networks in float64 with other weights each, larger than at their start so that units differ."""
    made = []
    for seed in range(count):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build().double()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(0.3 * torch.randn_like(parameter))
        made.append(network.eval())
    return made


def statistics(
    network: nn.Module, state: dict[str, Tensor] | None, layers: dict[str, int], x: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard deviation of each unit of each layer over examples and positions, by forward hooks."""
    own, seen = copy.deepcopy(network).eval(), {}
    if state is not None:
        own.load_state_dict(state)
    for name, dim in layers.items():

        def keep(_module, _inputs, output, name=name, dim=dim):
            units = output.detach().movedim(dim, 0).flatten(1)
            seen[name] = units.mean(1), units.std(1, correction=0)

        own.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        own(x)
    return seen


def whole(family: Family, n: int = N) -> tuple[Tensor, Tensor, Callable[[nn.Module], Objective]]:
    x, y = data(family.inputs, n)
    return x, y, lambda network: Objective(network, F.cross_entropy, (x, y), batch_size=n)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("weights", [None, (0.3, 0.7), (0.2, 0.5, 0.3), (1.2, -0.2)], ids=str)
def test_every_corrected_unit_has_the_weighted_mean_and_deviation_of_the_networks_units(name, weights):
    family = FAMILIES[name]
    x, _, objective = whole(family)
    ends = networks(family.build, 2 if weights is None else len(weights))
    found = repair(objective(ends[0]), ends, weights)
    assert found.statistics["layer"].values.tolist() == list(family.layers)
    assert found.statistics.attrs["kind"] == "repair"
    share = weights or (0.5, 0.5)
    given = [statistics(end, None, family.layers, x) for end in ends]
    repaired = statistics(ends[0], found.state_dict, family.layers, x)
    for layer in family.layers:
        mean, deviation = (sum(w * one[layer][k] for w, one in zip(share, given, strict=True)) for k in (0, 1))
        torch.testing.assert_close(repaired[layer][0], mean, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(repaired[layer][1], deviation.clamp_min(0), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.statistics["sd_ratio_after"], 1, rtol=1e-8)


def test_the_ratio_before_is_that_of_each_layer_behind_the_corrected_ones():
    family = FAMILIES["mlp"]
    x, _, objective = whole(family)
    ends = networks(family.build)
    found = repair(objective(ends[0]), ends)
    given = [statistics(end, None, family.layers, x) for end in ends]
    states = [end.state_dict() for end in ends]
    averaged = {name: (states[0][name] + states[1][name]) / 2 for name in states[0]}
    for layer in family.layers:
        # What stands before this layer is repaired; the layer itself is still the mean.
        own = statistics(ends[0], averaged, {layer: 1}, x)[layer]
        target = [(given[0][layer][k] + given[1][layer][k]) / 2 for k in (0, 1)]
        ratio = float((own[1] / target[1]).mean())
        assert float(found.statistics["sd_ratio_before"].sel(layer=layer)) == pytest.approx(ratio, rel=1e-9)
        assert ratio < 0.9  # the variance collapse of networks that have nothing in common
        factor = target[1] / own[1]
        averaged[f"{layer}.weight"] = averaged[f"{layer}.weight"] * factor[:, None]
        averaged[f"{layer}.bias"] = target[0] + factor * (averaged[f"{layer}.bias"] - own[0])
    for name, tensor in averaged.items():
        torch.testing.assert_close(found.state_dict[name], tensor, rtol=1e-9, atol=1e-9)


def test_what_is_given_out_is_left_as_it_is():
    ends = networks(mlp)
    x, _, objective = whole(FAMILIES["mlp"])
    found = repair(objective(ends[0]), ends)
    last = (ends[0].get_parameter("6.weight") + ends[1].get_parameter("6.weight")) / 2
    torch.testing.assert_close(found.state_dict["6.weight"], last.detach(), rtol=1e-14, atol=1e-14)
    assert torch.equal(objective(ends[0]).space.flatten(found.state_dict), found.point)
    copied = copy.deepcopy(ends[0])
    copied.load_state_dict(found.state_dict)
    torch.testing.assert_close(copied(x), plain.at(ends[0], found.point)(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_the_weight_on_one_network_gives_that_network_back(name):
    family = FAMILIES[name]
    x, _, objective = whole(family)
    ends = networks(family.build)
    for index, weights in enumerate([(1.0, 0.0), (0.0, 1.0)]):
        found = repair(objective(ends[0]), ends, weights)
        own = copy.deepcopy(ends[0])
        own.load_state_dict(found.state_dict)
        torch.testing.assert_close(own(x), ends[index](x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_identical_networks_are_left_as_they_are(name):
    family = FAMILIES[name]
    _, _, objective = whole(family)
    (end,) = networks(family.build, 1)
    found = repair(objective(end), [end, end, end], (0.5, 0.2, 0.3))
    torch.testing.assert_close(found.point, plain.flat(end), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.statistics["sd_ratio_before"], 1, rtol=1e-9)


def test_networks_are_points_modules_state_dicts_or_files_and_are_not_touched(tmp_path):
    ends = networks(mlp)
    _, _, objective = whole(FAMILIES["mlp"])
    o = objective(ends[0])
    before = [plain.state_of(end) for end in ends]
    expected = repair(o, ends).point
    write_state(ends[1].state_dict(), tmp_path / "b.safetensors")
    for source in (o.point_of(ends[1]), ends[1].state_dict(), tmp_path / "b.safetensors"):
        assert torch.equal(repair(o, [o.point, source]).point, expected)
    assert torch.equal(repair(o, torch.stack([o.point, o.point_of(ends[1])])).point, expected)
    for end, state in zip(ends, before, strict=True):
        assert plain.differences(state, plain.state_of(end)) == []


def test_the_statistics_are_over_the_first_examples_that_are_asked_for():
    x, y = data((6,), 90)
    ends = networks(mlp)
    few = repair(Objective(ends[0], F.cross_entropy, (x, y), batch_size=30), ends, examples=30)
    first = repair(Objective(ends[0], F.cross_entropy, (x[:30], y[:30]), batch_size=30), ends)
    all_of_them = repair(Objective(ends[0], F.cross_entropy, (x, y), batch_size=30), ends)
    assert torch.equal(few.point, first.point)
    assert not torch.allclose(few.point, all_of_them.point, rtol=1e-3)


def test_batches_are_joined_before_the_moments_are_taken():
    ends, (x, y) = networks(mlp), data((6,))
    one, many = (repair(Objective(ends[0], F.cross_entropy, (x, y), batch_size=size), ends).point for size in (60, 12))
    torch.testing.assert_close(many, one, rtol=1e-9, atol=1e-9)


# Units that do not vary


def three_units(second: Tensor, bias: float) -> nn.Module:
    """x -> three units, of which the middle one has the weights ``second`` and this bias -> three outputs."""
    network = nn.Sequential(nn.Linear(2, 3), nn.Identity(), nn.Linear(3, 3)).double()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]]))
        network[0].weight[1] = second
        network[0].bias.copy_(torch.tensor([0.0, bias, 1.0]))
        network[2].weight.copy_(torch.eye(3))
        network[2].bias.zero_()
    return network


def on_a_square(network: nn.Module) -> Objective:
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    return Objective(network, F.cross_entropy, (x, torch.zeros(4, dtype=torch.long)))


def test_a_unit_that_never_varies_anywhere_has_the_mean_of_its_constants():
    zero = torch.zeros(2)
    ends = [three_units(zero, 3.0), three_units(zero, 5.0)]
    found = repair(on_a_square(ends[0]), ends)
    assert found.state_dict["0.weight"][1].tolist() == [0, 0]
    assert float(found.state_dict["0.bias"][1]) == pytest.approx(4, abs=1e-12)
    np.testing.assert_allclose(found.statistics["sd_ratio_after"], 1)  # of the two units that vary


def test_a_unit_whose_networks_cancel_is_moved_and_not_divided_by_zero():
    ends = [three_units(torch.tensor([1.0, 1.0]), 3.0), three_units(torch.tensor([-1.0, -1.0]), 5.0)]
    found = repair(on_a_square(ends[0]), ends)
    assert bool(torch.isfinite(found.point).all())
    assert found.state_dict["0.weight"][1].tolist() == [0, 0]
    assert float(found.state_dict["0.bias"][1]) == pytest.approx(4, abs=1e-12)
    assert found.statistics["sd_ratio_after"].item() == pytest.approx(2 / 3, abs=1e-12)  # one of three stays collapsed


def test_dead_relus_stay_dead_and_finite():
    ends = networks(mlp)
    for end in ends:
        with torch.no_grad():
            end[0].weight[2:5] = 0
            end[0].bias[2:5] = -1.0
    found = repair(whole(FAMILIES["mlp"])[2](ends[0]), ends)
    assert bool(torch.isfinite(found.point).all())
    assert found.state_dict["0.weight"][2:5].abs().max() == 0
    torch.testing.assert_close(found.state_dict["0.bias"][2:5], torch.full((3,), -1.0, dtype=torch.float64))


# What is not corrected is named


@pytest.mark.parametrize(
    ("build", "inputs", "corrected", "words"),
    [
        (
            sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)),
            (6,),
            ["2"],
            "0 has no bias of its own",
        ),
        (Shared, (6,), ["first"], "twice is used more than once"),
        (
            sequential(
                nn.Conv2d(2, 4, 3),
                nn.ReLU(),
                nn.ConvTranspose2d(4, 4, 2, groups=2),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(36, 3),
            ),
            (2, 4, 4),
            ["0"],
            "2 is a grouped transposed convolution",
        ),
        (InOrder, (6,), ["free"], "ordered"),
        (lambda: Mixer(6), (4, 3), ["embed", "mix1"], "mix2"),
    ],
    ids=["no bias", "used twice", "grouped and transposed", "in order", "positions"],
)
def test_layers_that_are_not_corrected_are_named(build, inputs, corrected, words):
    ends = networks(build)
    x, y = data(inputs)
    found = repair(Objective(ends[0], F.cross_entropy, (x, y), batch_size=N), ends)
    assert found.statistics["layer"].values.tolist() == corrected
    assert words in found.statistics.attrs["skipped"]
    assert "\n" not in found.statistics.attrs["skipped"]


def test_parameters_that_do_not_vary_are_not_corrected():
    ends = networks(mlp)
    for end in ends:
        end[0].requires_grad_(False)
    ends[1].load_state_dict(ends[1].state_dict() | {k: v for k, v in ends[0].state_dict().items() if k[0] == "0"})
    x, y = data((6,))
    found = repair(Objective(ends[0], F.cross_entropy, (x, y), batch_size=N), ends)
    assert found.statistics["layer"].values.tolist() == ["2", "4"]
    assert torch.equal(found.state_dict["0.weight"], ends[0].get_parameter("0.weight"))


# BatchNorm


def batch_normed() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 6), nn.Linear(6, 3)
    )


def settled(build: Callable[[], nn.Module], x: Tensor) -> list[nn.Module]:
    """Networks whose running statistics are those of x, and whose gains and shifts differ."""
    ends = networks(build)
    for end in ends:
        for norm in (m for m in end.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            with torch.no_grad():
                norm.weight.abs_().add_(0.3)
        update_bn([x], end)
        end.eval()
    return ends


def test_statistics_behind_a_batch_norm_hold_with_the_statistics_that_are_handed_out():
    x, y = data((6,))
    ends = settled(batch_normed, x)
    o = Objective(ends[0], F.cross_entropy, (x, y), batch_size=N)
    found = repair(o, ends)
    layers = {"0": 1, "3": 1, "5": 1}
    given = [statistics(end, None, layers, x) for end in ends]
    repaired = statistics(ends[0], found.state_dict, layers, x)
    for layer in layers:
        for k in (0, 1):
            mean = (given[0][layer][k] + given[1][layer][k]) / 2
            torch.testing.assert_close(repaired[layer][k], mean, rtol=1e-8, atol=1e-8)
    anew = plain.at(ends[0], found.point)
    update_bn([x], anew)
    for name in ("1.running_mean", "1.running_var"):
        torch.testing.assert_close(found.state_dict[name], anew.state_dict()[name], rtol=1e-10, atol=1e-10)


def test_statistics_estimated_anew_are_all_that_a_batch_norm_needs():
    # Jordan et al. 2023, section 3.2 (RESET): behind each BatchNorm units have its shift and gain, the networks' means.
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3, bias=False),
            nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3),
        )  # fmt: skip

    x, y = data((2, 8, 8))
    ends = settled(build, x)
    o = Objective(ends[0], F.cross_entropy, (x, y), batch_size=N)
    with pytest.raises(InputError, match=r"with_batch_norm\('recompute'\)"):
        repair(o, ends)
    half = (o.point + o.point_of(ends[1])) / 2
    layers = {"1": 1, "4": 1}
    given = [statistics(end, None, layers, x) for end in ends]
    reset = statistics(ends[0], network_state(o, half), layers, x)
    for layer in layers:
        for k in (0, 1):
            mean = (given[0][layer][k] + given[1][layer][k]) / 2
            # BatchNorm adds 1e-5 to each variance, and the variances here are above 0.1
            torch.testing.assert_close(reset[layer][k], mean, rtol=1e-3, atol=1e-3)


def test_a_layer_in_front_of_a_batch_norm_changes_nothing():
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, eps=1e-12), nn.ReLU(), nn.Linear(8, 3))

    x, y = data((6,))
    ends = settled(build, x)
    o = Objective(ends[0], F.cross_entropy, (x, y), batch_size=N)
    found = repair(o, ends)
    half = plain.at(ends[0], (plain.flat(ends[0]) + plain.flat(ends[1])) / 2)
    update_bn([x], half)
    own = copy.deepcopy(ends[0])
    own.load_state_dict(found.state_dict)
    torch.testing.assert_close(own.eval()(x), half.eval()(x), rtol=1e-8, atol=1e-8)


# Networks that were trained


@pytest.fixture(scope="module")
def pair():
    train = zoo.load("digits").train
    train = (train[0][:600], train[1][:600])
    ends = [zoo.mlp(64, (24, 24, 24), seed=seed) for seed in (1, 2)]
    for seed, end in enumerate(ends):
        zoo.fit(end, train, epochs=8, seed=seed, learning_rate=0.1, batch_size=32, progress=False)
    return Objective(ends[0], F.cross_entropy, train), *ends


def test_half_way_between_trained_networks_the_loss_falls(pair):
    o, a, b = pair
    aligned = la.align(o, a, b)
    found = repair(o, [o.point, aligned.point])
    ends = (o.value() + o.value(aligned.point)) / 2
    before = o.value((o.point + aligned.point) / 2)
    assert before > ends
    assert o.value(found.point) < 0.9 * before
    assert bool((found.statistics["sd_ratio_before"] < 0.95).all())
    np.testing.assert_allclose(found.statistics["sd_ratio_after"], 1, rtol=1e-4)  # float32
    # Without alignment there is more to put right, and less is gained.
    assert o.value(found.point) < o.value(repair(o, [o.point, b]).point)


def test_repair_of_a_permuted_copy_is_the_mean_itself(pair):
    o, a, _ = pair
    of = la.symmetries(o)
    twin = of.permuted(network_state(o, a), of.random(3))
    back = la.align(o, a, twin).point
    torch.testing.assert_close(repair(o, [o.point, back]).point, o.point, rtol=1e-4, atol=1e-5)


# Bad input


def ask(name: str) -> None:
    ends = networks(mlp)
    o = whole(FAMILIES["mlp"])[2](ends[0])
    broken = {k: v.clone() for k, v in ends[1].state_dict().items()}
    broken["2.bias"][1] = torch.nan
    untraceable = networks(Untraceable)
    questions = {
        "no network": lambda: repair(o, []),
        "one network": lambda: repair(o, ends[:1]),
        "weights that sum to 2": lambda: repair(o, ends, (1.0, 1.0)),
        "three weights": lambda: repair(o, ends, (0.5, 0.2, 0.3)),
        "weights of nan": lambda: repair(o, ends, (float("nan"), 0.5)),
        "no examples": lambda: repair(o, ends, examples=0),
        "another network": lambda: repair(o, [ends[0], nn.Linear(6, 3)]),
        "a weight of nan": lambda: repair(o, [ends[0], broken]),
        "no hidden layer": lambda: repair(
            Objective(networks(lambda: nn.Linear(6, 3))[0], F.cross_entropy, data((6,))),
            networks(lambda: nn.Linear(6, 3)),
        ),
        "an untraceable model": lambda: repair(
            Objective(untraceable[0], F.cross_entropy, data((6,))), untraceable
        ),
    }  # fmt: skip
    questions[name]()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("no network", InputError, "0 networks .*: give two or more"),
        ("one network", InputError, "1 networks .*: give two or more"),
        ("weights that sum to 2", InputError, r"weights \[1.0, 1.0\]: .*the sum 1"),
        ("three weights", InputError, "as many weights"),
        ("weights of nan", InputError, r"weights \[nan, 0.5\]"),
        ("no examples", InputError, "examples=0"),
        ("another network", CheckpointError, "another network"),
        ("a weight of nan", DirectionError, "NaN"),
        ("no hidden layer", InputError, "No hidden layer"),
        ("an untraceable model", InputError, "cannot be traced"),
    ],
)
def test_impossible_questions_are_refused(name, error, words):
    with refused(error, match=words):
        ask(name)
