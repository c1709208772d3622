"""align: planted orders found back, the function of b kept, and a clear no to what cannot be aligned."""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.architectures import ARCHITECTURES, BY_NAME, Architecture, Written, drawn, objective_of, parameter, squares
from oracles.refusals import refused
from safetensors.torch import save_file
from torch import Tensor, nn

import lossatlas as la
from lossatlas.connectivity.symmetry.states import network_outputs, network_state
from lossatlas.connectivity.symmetry.symmetries import Symmetries
from lossatlas.errors import CheckpointError, DirectionError, InputError, LossAtlasError

ALIGNED = [one for one in ARCHITECTURES if one.groups.strip()]
# Correlations cannot tell units apart that differ by a constant, or that are multiples of one number.
ALIKE = {"axes-of-length-1", "width-1"}
# Two free groups along two axes of one output: each is compared while the other is in another order.
CROSSED = {"attention-by-einsum"}

architectures = pytest.mark.parametrize("architecture", ALIGNED, ids=lambda one: one.name)


def planted(
    objective: la.Objective, seed: int, of: Symmetries | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    of, a = la.symmetries(objective) if of is None else of, network_state(objective)
    return a, of.permuted(a, of.random(seed))


def outputs(objective: la.Objective, state: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([one.flatten(1) for one in network_outputs(objective, state)])


@architectures
def test_a_planted_order_is_found_back_exactly_by_weights(architecture: Architecture) -> None:
    objective, of = architecture.objective(), architecture.symmetries()
    for seed, given in ((0, None), (1, of)):
        a, b = planted(objective, seed, of)
        found = la.align(objective, a, b, symmetries=given)
        assert all(torch.equal(found.state_dict[name], a[name]) for name in a if name in found.state_dict)
        assert torch.equal(found.point, objective.point)
        assert float(found.summary.similarity_after) == pytest.approx(1.0, abs=1e-12)
        assert float(found.summary.distance_after) == 0.0


@pytest.mark.parametrize(
    "architecture", [one for one in ALIGNED if one.name not in ALIKE | CROSSED], ids=lambda one: one.name
)
def test_a_planted_order_is_found_back_exactly_by_activations(architecture: Architecture) -> None:
    objective = architecture.objective()
    a, b = planted(objective, 3, architecture.symmetries())
    found = la.align(objective, a, b, method="activations")
    assert torch.equal(found.point, objective.point)
    assert found.summary.attrs["start"] == "activations"


@architectures
@pytest.mark.parametrize("method", ["weights", "activations"])
def test_another_network_keeps_its_function_and_by_weights_agrees_no_less_than_before(
    architecture: Architecture, method: Any
) -> None:
    objective = architecture.objective()
    a, b = network_state(objective), network_state(architecture.objective(seed=1))
    found = la.align(objective, a, b, method=method)
    aligned = b | found.state_dict
    expected, got = outputs(objective, b), outputs(objective, aligned)
    assert float((expected - got).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))
    assert torch.equal(found.point, objective.space.flatten(aligned))
    for name, tensor in b.items():
        assert torch.equal(aligned[name].flatten().sort().values, tensor.flatten().sort().values)
    permuted = found.symmetries.permuted(b, found.permutations)
    assert all(torch.equal(permuted[name], aligned[name]) for name in b)
    if method == "weights":
        summary = found.summary
        assert float(summary.similarity_after) >= float(summary.similarity_before)
        assert float(summary.distance_after) <= float(summary.distance_before) * (1 + 1e-12)


def test_similarity_and_distance_are_those_of_the_tensors() -> None:
    objective = BY_NAME["mlp"].objective()
    a, b = network_state(objective), network_state(BY_NAME["mlp"].objective(seed=1))
    found = la.align(objective, a, b)
    moved = [name for name in a if name != "fc3.bias"]
    for when, state in (("before", b), ("after", found.state_dict)):
        x, y = (np.concatenate([s[name].numpy().ravel() for name in moved]) for s in (a, state))
        cosine = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
        assert float(found.summary[f"similarity_{when}"]) == pytest.approx(cosine, rel=1e-12)
        point = objective.space.flatten(state)
        distance = float((objective.point - point).square().sum().sqrt())
        assert float(found.summary[f"distance_{when}"]) == pytest.approx(distance, rel=1e-12)


def test_the_best_of_all_orders_is_found_for_a_tiny_network() -> None:
    """24 * 6 permutations of an MLP with hidden layers of 4 and 3, enumerated by indexing."""
    objective = objective_of(la.zoo.mlp(2, (4, 3), 2), 2)
    for seed in range(1, 5):
        a, b = network_state(objective), network_state(objective_of(la.zoo.mlp(2, (4, 3), 2), 2, seed=seed))
        best = max(
            float(
                (a["fc1.weight"] * b["fc1.weight"][p]).sum()
                + (a["fc1.bias"] * b["fc1.bias"][p]).sum()
                + (a["fc2.weight"] * b["fc2.weight"][q][:, p]).sum()
                + (a["fc2.bias"] * b["fc2.bias"][q]).sum()
                + (a["fc3.weight"] * b["fc3.weight"][:, q]).sum()
            )
            for p in map(list, itertools.permutations(range(4)))
            for q in map(list, itertools.permutations(range(3)))
        )
        state = la.align(objective, a, b, restarts=20).state_dict
        moved = [name for name in a if name != "fc3.bias"]
        reached = sum(float((a[name] * state[name]).sum()) for name in moved)
        assert reached == pytest.approx(best, rel=1e-12)


def test_the_loss_at_the_aligned_point_is_the_loss_at_b() -> None:
    objective = BY_NAME["simple_cnn"].objective()
    b = BY_NAME["simple_cnn"].objective(seed=1).point
    found = la.align(objective, objective.point, b)
    assert objective.value(found.point) == pytest.approx(objective.value(b), rel=1e-13)
    assert objective.value(found.point) != pytest.approx(objective.value(), rel=1e-3)


def test_the_planted_order_is_the_inverse_of_the_one_that_is_found() -> None:
    objective = BY_NAME["mlp"].objective()
    of, a = la.symmetries(objective), network_state(objective)
    p = of.random(5)
    found = la.align(objective, a, of.permuted(a, p)).permutations
    for name, order in p.items():
        assert torch.equal(order[found[name]], torch.arange(len(order)))


def test_a_network_and_itself_give_the_identity() -> None:
    objective = BY_NAME["vit"].objective()
    found = la.align(objective, objective.point, objective.point)
    identity = found.symmetries.identity()
    assert all(torch.equal(p, identity[name]) for name, p in found.permutations.items())
    assert float(found.summary.deviation) == 0.0
    assert float(found.summary.moved.max()) == 0.0
    assert found.summary.cosine_after.values == pytest.approx(1.0)


def test_points_modules_state_dicts_and_files_are_the_same_to_it(tmp_path: Path) -> None:
    one = BY_NAME["mlp"]
    objective, other = one.objective(), drawn(one.build(), seed=1)
    save_file(other.state_dict(), tmp_path / "b.safetensors")
    torch.save(other.state_dict(), tmp_path / "b.pt")
    point = objective.point_of(other)
    expected = la.align(objective, objective.point, point).point
    for b in (other, other.state_dict(), tmp_path / "b.safetensors", str(tmp_path / "b.pt")):
        assert torch.equal(la.align(objective, objective.point, b).point, expected)
    assert torch.equal(la.align(objective, network_state(objective), point).point, expected)


def test_neither_the_networks_nor_the_generator_are_changed() -> None:
    one = BY_NAME["batch-norm-1d"]
    objective, a, b = one.objective(), drawn(one.build(), seed=1).train(), drawn(one.build(), seed=2)
    before = [{name: t.clone() for name, t in m.state_dict().items()} for m in (a, b)]
    generator = torch.get_rng_state()
    la.align(objective, a, b)
    assert a.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), generator)
    for module, then in zip((a, b), before, strict=True):
        assert all(torch.equal(t, then[name]) for name, t in module.state_dict().items())


def test_the_same_seed_gives_the_same_answer() -> None:
    objective, b = BY_NAME["residual-mlp"].objective(), BY_NAME["residual-mlp"].objective(seed=3).point
    first, again = (la.align(objective, objective.point, b, seed=4, restarts=3) for _ in range(2))
    assert torch.equal(first.point, again.point)
    assert first.summary.attrs["starts"] == again.summary.attrs["starts"]


def test_more_starts_never_end_lower_than_by_what_is_left_to_the_loss() -> None:
    objective, b = BY_NAME["resnet20-A"].objective(), BY_NAME["resnet20-A"].objective(seed=3)
    few, more = (la.align(objective, network_state(objective), network_state(b), restarts=n).summary for n in (0, 2))
    assert float(more.similarity_after) >= 0.99 * float(few.similarity_after)
    assert "random 2" in more.attrs["starts"]
    assert "random" not in few.attrs["starts"]


def test_of_starts_that_agree_alike_the_lowest_loss_half_way_decides() -> None:
    data = la.zoo.load("digits")
    networks = [la.zoo.mlp(64, (32, 32), seed=seed) for seed in (1, 2)]
    for seed, network in enumerate(networks):
        la.zoo.fit(network, data.train, epochs=3, seed=seed, learning_rate=0.05, progress=False)
    objective = la.Objective(networks[0], F.cross_entropy, data.train, dtype=torch.float64)
    found = la.align(objective, networks[0], networks[1], restarts=4)
    losses, agreements = (
        {name: float(number) for name, number in (entry.split(": ") for entry in found.summary.attrs[key].split(", "))}
        for key in ("half_way", "starts")
    )
    kept = found.summary.attrs["start"]
    assert len(losses) > 1
    assert losses[kept] == min(losses.values())
    assert objective.value((objective.point + found.point) / 2) == pytest.approx(losses[kept], rel=1e-5)
    assert set(losses) == {name for name, one in agreements.items() if one >= 0.99 * max(agreements.values())}


@pytest.mark.parametrize("name", ["batch-norm-1d", "resnet20-B", "tied-embedding", "weight-norm"])
def test_the_state_dict_loads_into_a_fresh_model_that_computes_what_b_does(name: str) -> None:
    one = BY_NAME[name]
    objective, b = one.objective(), drawn(one.build(), seed=1).eval()
    found = la.align(objective, network_state(objective), b)
    fresh = one.build().double().eval()
    fresh.load_state_dict(found.state_dict)
    inputs = torch.randn(4, *one.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    if one.numbers is not None:
        inputs = torch.randint(one.numbers, (4, *one.shape), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected, got = b(inputs), fresh(inputs)
    assert float((expected - got).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))


class Tied(nn.Module):
    """One matrix under two names, a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.back = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.back.weight = self.table.weight
        self.register_buffer("kept", torch.tensor(2.0))
        self.register_buffer("passing", torch.tensor(3.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(torch.tanh(self.inner(self.table(x)))).mean(1) * self.kept + self.passing


def test_the_state_dict_has_the_keys_of_the_model_tied_ones_and_all() -> None:
    objective = objective_of(Tied(), 3, numbers=7)
    found = la.align(objective, objective.point, drawn(Tied(), seed=1))
    assert found.state_dict.keys() == Tied().state_dict().keys()
    Tied().double().load_state_dict(found.state_dict)
    assert torch.equal(found.state_dict["back.weight"], found.state_dict["table.weight"])


def test_a_point_brings_no_statistics_so_they_are_estimated_on_the_data() -> None:
    one = BY_NAME["batch-norm-1d"]
    objective = one.objective()
    a, b = planted(objective, 1)
    found = la.align(objective, a, objective.space.flatten(b))
    assert torch.equal(found.point, objective.point)


@pytest.mark.parametrize("policy", ["recompute", "batch"])
def test_other_policies_of_batch_norm_change_nothing(policy: Any) -> None:
    one = BY_NAME["batch-norm-1d"]
    objective = one.objective()
    a, b = planted(objective, 1)
    assert torch.equal(la.align(objective.with_batch_norm(policy), a, b).point, objective.point)


def test_of_a_step_and_of_selected_parameters_too() -> None:
    x, targets = torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    model = drawn(la.zoo.mlp(6, (5, 4), 3))
    step = la.Objective.from_step(model, lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]), [(x, targets)])
    selected = la.Objective(model, F.cross_entropy, (x, targets), parameters="fc[23].*")
    for objective in (step, selected):
        a, b = planted(objective, 1)
        assert torch.equal(la.align(objective, a, objective.space.flatten(b)).point, objective.point)


def test_in_single_precision_the_function_is_kept_to_1e_5() -> None:
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    objective = la.Objective(la.zoo.mlp(6, (64, 64), 3, seed=0), squares, (x, torch.zeros(20)), metrics=None)
    found = la.align(objective, objective.point, la.zoo.mlp(6, (64, 64), 3, seed=1))
    assert 0 < float(found.summary.deviation) < 1e-5
    with refused(LossAtlasError, match="float64"):
        la.align(objective, objective.point, la.zoo.mlp(6, (64, 64), 3, seed=1), tol=1e-12)


def test_the_summary_says_how_each_group_moved() -> None:
    objective = BY_NAME["simple_cnn"].objective()
    of, a = la.symmetries(objective), network_state(objective)
    p = of.identity() | {"conv2": of.random(3)["conv2"]}
    summary = la.align(objective, a, of.permuted(a, p)).summary
    assert summary.attrs["kind"] == "alignment"
    assert summary.group.values.tolist() == ["conv1", "conv2", "fc1"]
    assert summary["size"].values.tolist() == [16, 32, 128]
    unmoved = float((p["conv2"] == torch.arange(32)).double().mean())
    assert summary.moved.values == pytest.approx([0, 1 - unmoved, 0])
    assert summary.cosine_after.values == pytest.approx([1, 1, 1])
    assert summary.cosine_before.values[1] < 0.5
    assert summary.attrs["assignments"] >= 3
    assert 0 <= summary.attrs["seconds_assignment"] <= summary.attrs["seconds"]
    assert summary.attrs["pinned"] == ""
    assert summary.attrs["method"] == "weights"


def test_the_cosine_of_a_group_is_that_of_its_units_incoming_and_outgoing_weights() -> None:
    objective, other = BY_NAME["mlp"].objective(), BY_NAME["mlp"].objective(seed=1)
    a, b = network_state(objective), network_state(other)
    found = la.align(objective, a, b)

    def units(state: Mapping[str, Tensor]) -> np.ndarray:
        return np.hstack([state["fc1.weight"], state["fc1.bias"][:, None], state["fc2.weight"].T])

    for when, state in (("before", b), ("after", found.state_dict)):
        x, y = units(a), units(state)
        cosines = (x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
        assert float(found.summary[f"cosine_{when}"][0]) == pytest.approx(cosines.mean(), rel=1e-12)


def test_the_reasons_why_units_stay_are_in_the_summary() -> None:
    def objective(seed: int) -> la.Objective:
        model = Written(
            lambda m, x: m.fc3(torch.tanh(m.fc2(torch.tanh(m.fc1(x)).roll(1, 1)))),
            fc1=nn.Linear(6, 4), fc2=nn.Linear(4, 5), fc3=nn.Linear(5, 2),
        )  # fmt: skip
        return objective_of(model, 6, seed=seed)

    summary = la.align(objective(0), objective(0).point, objective(1).point).summary
    assert summary.attrs["pinned"] == "fc1 (4 units): their order matters to roll outside of its modules"


# Groups written by hand.

BY_HAND = {"fc1.weight": ("a", None), "fc1.bias": ("a",), "fc2.weight": (None, "a")}


def test_groups_by_hand_are_the_only_ones_that_move() -> None:
    objective, b = BY_NAME["mlp"].objective(), BY_NAME["mlp"].objective(seed=1).point
    found = la.align(objective, objective.point, b, symmetries=BY_HAND)
    assert list(found.permutations) == ["a"]
    assert torch.equal(found.state_dict["fc3.weight"], objective.space.unflatten(b)["fc3.weight"])


def test_symmetries_that_were_found_can_be_given_back() -> None:
    for name in ("mlp", "vit", "grouped-convolution"):
        objective, b = BY_NAME[name].objective(), BY_NAME[name].objective(seed=1).point
        found = la.symmetries(objective)
        for given in (found, found.spec):
            aligned = la.align(objective, objective.point, b, symmetries=given, restarts=0)
            assert aligned.symmetries.groups == found.groups
            assert aligned.symmetries.spec == found.spec
            assert aligned.summary.attrs["start"] == "identity"
            assert float(aligned.summary.similarity_after) > float(aligned.summary.similarity_before)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) if float(x.sum()) < math.inf else x


def untraceable() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.Sequential(nn.Tanh(), Deciding()), nn.Linear(4, 2))


def test_a_model_that_cannot_be_traced_is_aligned_by_groups_by_hand() -> None:
    objective = objective_of(untraceable(), 6)
    spec = {"0.weight": ("a", None), "0.bias": ("a",), "2.weight": (None, "a")}
    of = Symmetries.parse(spec, {name: t.shape for name, t in network_state(objective).items()})
    b = of.permuted(network_state(objective), of.random(1))
    assert torch.equal(la.align(objective, objective.point, b, symmetries=spec).point, objective.point)


def test_a_model_that_cannot_be_traced_is_refused_without_them_and_the_module_named() -> None:
    objective = objective_of(untraceable(), 6)
    with refused(InputError, match=r"'1\.1' \(Deciding\).*symmetries=") as caught:
        la.align(objective, objective.point, objective.point)
    spec = ast.literal_eval(str(caught.value).partition("takes in the units of 0.weight, symmetries=")[2].rstrip("."))
    assert la.align(objective, objective.point, objective.point, symmetries=spec).symmetries.spec == {
        "0.weight": ("layer0", None), "0.bias": ("layer0",), "2.weight": (None, "layer0"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (BY_HAND | {"fc2.weight": (None, None)}, "'a' .*fc1.weight"),  # the layer that reads the units is forgotten
        (BY_HAND | {"fc1.bias": (None,)}, "'a' .*fc1.weight"),
        ({"fc1.weight": (None, "inputs")}, "'inputs' .*fc1.weight"),
        ({"fc3.weight": ("classes", None), "fc3.bias": ("classes",)}, "'classes' .*fc3.weight"),
    ],
)
def test_groups_by_hand_that_change_the_function_are_refused_and_named(spec: dict[str, Any], named: str) -> None:
    objective = BY_NAME["mlp"].objective()
    state = network_state(objective)
    of = Symmetries.parse(spec, {name: tensor.shape for name, tensor in state.items()})
    wrong = of.permuted(state, of.random(1))
    with refused(InputError, match=named):
        la.align(objective, state, wrong, symmetries=spec)


def test_groups_by_hand_of_parameters_that_do_not_vary_are_refused() -> None:
    model = la.zoo.mlp(6, (5, 4), 3)
    model.fc1.requires_grad_(False)
    objective = objective_of(model, 6)
    with pytest.raises(InputError, match=r"'fc1\.(weight|bias)'"):
        la.align(objective, objective.point, objective.point, symmetries=BY_HAND)


# Bad input.


def align_is_refused(kind: type[LossAtlasError], match: str | None, *given: Any, **options: Any) -> None:
    with refused(kind, match=match):
        la.align(*given, **options)


def test_two_architectures_are_refused() -> None:
    objective = BY_NAME["mlp"].objective()
    align_is_refused(CheckpointError, r"fc2\.weight", objective, objective.point, la.zoo.mlp(6, (5, 5), 3))
    align_is_refused(CheckpointError, r"fc3\.weight", objective, la.zoo.mlp(6, (5,), 3), objective.point)
    align_is_refused(DirectionError, "74 parameters", objective, objective.point, objective.point[:-1])


def test_weights_that_are_not_numbers_are_refused_and_the_tensor_named() -> None:
    objective = BY_NAME["mlp"].objective()
    for number in (math.nan, math.inf):
        bad = network_state(objective)
        bad["fc2.weight"][0, 1] = number
        align_is_refused(DirectionError, r"fc2\.weight", objective, objective.point, bad)
        align_is_refused(DirectionError, r"fc2\.weight", objective, bad, objective.point)
        align_is_refused(DirectionError, r"fc2\.weight", objective, objective.point, objective.space.flatten(bad))


def test_statistics_that_are_not_numbers_are_refused_and_the_tensor_named() -> None:
    objective = BY_NAME["batch-norm-1d"].objective()
    bad = network_state(objective)
    bad["1.running_var"][0] = math.nan
    align_is_refused(LossAtlasError, r"1\.running_var", objective, network_state(objective), bad)


def test_weights_so_large_that_the_outputs_overflow_are_refused() -> None:
    model, x = la.zoo.mlp(6, (5, 4), 3, seed=0), torch.ones(3, 6)
    objective = la.Objective(model, squares, (x, torch.zeros(3)), metrics=None)
    huge = 1e30 * torch.randn(objective.n_parameters, generator=torch.Generator().manual_seed(0))
    align_is_refused(LossAtlasError, None, objective, objective.point, huge)


def test_a_network_of_zeros_has_no_similarity_and_no_crash() -> None:
    objective = BY_NAME["mlp"].objective()
    zeros = torch.zeros_like(objective.point)
    for pair in ((objective.point, zeros), (zeros, objective.point)):
        found = la.align(objective, *pair)
        assert float(found.summary.similarity_after) in (0.0, pytest.approx(math.nan, nan_ok=True))
        assert float(found.summary.distance_after) == pytest.approx(float(objective.point.norm()))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "wights"}, "method='wights'"),
        ({"restarts": -1}, "restarts=-1"),
        ({"examples": 0}, "examples=0"),
        ({"tol": 0.0}, "tol=0.0"),
        ({"tol": math.nan}, "tol=nan"),
        ({"symmetries": {"fc9.weight": ("a",)}}, r"fc9\.weight"),
        ({"symmetries": {}}, "hidden"),
        ({"symmetries": BY_HAND, "method": "activations"}, "symmetries="),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], match: str) -> None:
    objective = BY_NAME["mlp"].objective()
    align_is_refused(InputError, match, objective, objective.point, objective.point, **options)


def test_symmetries_of_another_network_are_refused() -> None:
    objective = BY_NAME["mlp"].objective()
    deeper = la.symmetries(objective_of(la.zoo.mlp(6, (5, 4, 3), 3), 6))
    align_is_refused(InputError, r"fc4\.weight", objective, objective.point, objective.point, symmetries=deeper)
    vit, other = BY_NAME["vit"].objective(), la.zoo.vit(1, 4, 3, patch=2, width=6, depth=1, heads=3)
    heads = la.symmetries(objective_of(other, 1, 4, 4))  # three heads of 2 in place of two of 3
    align_is_refused(
        InputError, r"attention\.qkv", vit, vit.point, BY_NAME["vit"].objective(seed=1).point, symmetries=heads
    )


def test_a_model_without_hidden_units_is_refused() -> None:
    objective = objective_of(nn.Linear(4, 2), 4)
    align_is_refused(InputError, "hidden", objective, objective.point, objective.point)
    rolled = Written(lambda m, x: m.fc2(m.fc1(x).roll(1, 1) * m.scale), fc1=nn.Linear(4, 4), fc2=nn.Linear(4, 2))
    rolled.scale = parameter(4)
    ordered = objective_of(rolled, 4)
    if not la.symmetries(ordered).groups:
        align_is_refused(InputError, "roll", ordered, ordered.point, ordered.point)
