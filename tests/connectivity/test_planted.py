"""A permutation that was planted by hand is found back, and the line between the networks crosses nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossatlas as la
from lossatlas.connectivity.symmetry.states import network_outputs, network_state

State = dict[str, Tensor]


class GroupNormNet(nn.Module):
    """Two convolutions, each before a GroupNorm of four groups, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.conv2, self.norm2 = nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.head(F.relu(self.norm2(self.conv2(x))).mean((2, 3)))


class Encoder(nn.Module):
    """PyTorch's own transformer encoder, two layers of four heads, on rows of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(x.squeeze(1))).mean(1))


def turned(state: State, names: dict[str, int], order: Tensor) -> None:
    """The axis of each tensor put into another order."""
    for name, axis in names.items():
        state[name] = state[name].index_select(axis, order)


def mlp(state: State, order: Tensor) -> None:
    turned(state, {"fc1.weight": 0, "fc1.bias": 0, "fc2.weight": 1}, order)


def lenet5(state: State, order: Tensor) -> None:
    turned(state, {"conv1.weight": 0, "conv1.bias": 0, "conv2.weight": 1}, order[order < 6])
    blocks = state["fc1.weight"].reshape(120, 16, -1)  # a channel of conv2 is a block of pixels after flattening
    turned(state, {"conv2.weight": 0, "conv2.bias": 0}, order[order < 16])
    state["fc1.weight"] = blocks[:, order[order < 16]].reshape(120, -1)


def resnet20(state: State, order: Tensor) -> None:
    stream = order[order < 16]  # the first stage's residual stream, and the first channels of all that follow
    turned(state, {"conv.weight": 0}, stream)
    for norm in ("bn", *(f"stage1.{i}.bn2" for i in range(3))):
        turned(state, {f"{norm}.{own}": 0 for own in ("weight", "bias", "running_mean", "running_var")}, stream)
    for block in range(3):
        turned(state, {f"stage1.{block}.conv1.weight": 1, f"stage1.{block}.conv2.weight": 0}, stream)
    for stage, width in (("stage2", 32), ("stage3", 64)):
        longer = torch.cat([stream, torch.arange(16, width)])
        if stage == "stage2":
            turned(state, {"stage2.0.conv1.weight": 1}, stream)
        else:
            turned(state, {"stage3.0.conv1.weight": 1}, torch.cat([stream, torch.arange(16, 32)]))
        for block in range(3):
            turned(state, {f"{stage}.{block}.conv2.weight": 0}, longer)
            bn2 = f"{stage}.{block}.bn2"
            turned(state, {f"{bn2}.{own}": 0 for own in ("weight", "bias", "running_mean", "running_var")}, longer)
            if block:
                turned(state, {f"{stage}.{block}.conv1.weight": 1}, longer)
    turned(state, {"fc.weight": 1}, torch.cat([stream, torch.arange(16, 64)]))


def group_norm(state: State, order: Tensor) -> None:
    groups = order[order < 4]
    inside = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(i)) for i in range(4)])
    units = (groups[:, None] * 4 + inside).flatten()  # groups change places, and units inside of each
    turned(state, {"conv1.weight": 0, "conv1.bias": 0, "norm1.weight": 0, "norm1.bias": 0, "conv2.weight": 1}, units)


def encoder(state: State, order: Tensor) -> None:
    heads = order[order < 4]
    inside = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(i)) for i in range(4)])
    same = (heads[:, None] * 4 + torch.arange(4)).flatten()
    dims = (heads[:, None] * 4 + inside).flatten()  # of the values; queries and keys keep theirs inside of a head
    packed = torch.cat([same, 16 + same, 32 + dims])
    own = "layers.layers.0.self_attn"
    turned(state, {f"{own}.in_proj_weight": 0, f"{own}.in_proj_bias": 0}, packed)
    turned(state, {f"{own}.out_proj.weight": 1}, dims)


PLANTED = {
    "mlp": (lambda: la.zoo.mlp(64, (64, 32)), mlp, 8),
    "lenet5": (la.zoo.lenet5, lenet5, 28),
    "resnet20": (lambda: la.zoo.network("resnet20", shape=(1, 8, 8)), resnet20, 8),
    "GroupNorm": (GroupNormNet, group_norm, 8),
    "transformer encoder": (Encoder, encoder, 8),
}


@pytest.mark.filterwarnings("ignore::lossatlas.errors.BufferWarning")  # statistics that no training left
@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("method", ["weights", "activations"])
def test_a_permutation_written_by_hand_is_found_back_and_leaves_no_barrier(name: str, method: str) -> None:
    make, plant, side = PLANTED[name]
    torch.manual_seed(0)
    model = make()
    for module in model.modules():  # statistics and scales as after training, unlike from unit to unit
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias)
    data = (torch.randn(120, 1, side, side), torch.randint(0, 10, (120,)))
    objective = la.Objective(model, F.cross_entropy, data, batch_size=60)
    b = network_state(objective)
    plant(b, torch.randperm(64))
    assert not torch.equal(objective.point_of(b), objective.point)
    before = torch.cat(list(network_outputs(objective, network_state(objective))))
    torch.testing.assert_close(torch.cat(list(network_outputs(objective, b))), before, rtol=0, atol=1e-5)

    aligned = la.align(objective, model, b, method=method)
    assert all(torch.equal(aligned.state_dict[key], tensor) for key, tensor in model.state_dict().items())
    assert float(aligned.summary["deviation"]) < 1e-5
    with pytest.warns(UserWarning, match="same point"):
        line = la.barrier(objective, la.Segment(objective.point, aligned.point), steps=5, progress=False)
    assert float(line["barrier"]) < 1e-6
