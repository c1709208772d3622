"""The networks: their sizes against the published counts, their values against the formulas in plain functions."""

from __future__ import annotations

import pytest
import torch
from oracles.refusals import refused
from torch import nn
from torch.nn import functional as F

from lossatlas import zoo
from lossatlas.errors import ConfigError, InputError


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "shape", "published"),
    [
        (lambda: zoo.simple_cnn(), (1, 28, 28), 809_034),
        (lambda: zoo.simple_cnn_wide(), (1, 28, 28), 6_442_762),
        (lambda: zoo.mlp(64, widths=(12,)), (1, 8, 8), 64 * 12 + 12 + 12 * 10 + 10),
        (lambda: zoo.lenet5(), (1, 28, 28), 61_706),
        (lambda: zoo.lenet5(size=32), (1, 32, 32), 61_706),
        (lambda: zoo.resnet20(), (3, 32, 32), 269_722),
        (lambda: zoo.resnet20(shortcut="B"), (3, 32, 32), 272_474),
        (lambda: zoo.vit(), (1, 28, 28), 17 * 64 + 49 * 64 + 4 * (8 * 64**2 + 11 * 64) + 2 * 64 + 65 * 10),
    ],
)
def test_each_network_has_its_published_number_of_parameters_and_ten_outputs(network, shape, published):
    model = network()
    assert n_parameters(model) == published
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


def test_simple_cnn_is_the_second_seeds_formula():
    model = zoo.simple_cnn(in_channels=2, size=6, classes=3, seed=0)
    (k1, b1), (k2, b2), (w1, c1), (w2, c2) = zip(*[iter(model.parameters())] * 2, strict=True)
    x = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    hidden = F.relu(F.conv2d(F.relu(F.conv2d(x, k1, b1, padding=1)), k2, b2, padding=1))
    expected = F.linear(F.relu(F.linear(F.max_pool2d(hidden, 2).flatten(1), w1, c1)), w2, c2)
    torch.testing.assert_close(model(x), expected)


def test_simple_cnn_wide_is_the_first_seeds_formula_without_pooling():
    model = zoo.simple_cnn_wide(size=6, seed=0)
    (k1, b1), (k2, b2), (w1, c1), (w2, c2) = zip(*[iter(model.parameters())] * 2, strict=True)
    x = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    hidden = F.relu(F.conv2d(F.relu(F.conv2d(x, k1, b1, padding=1)), k2, b2, padding=1))
    torch.testing.assert_close(model(x), F.linear(F.relu(F.linear(hidden.flatten(1), w1, c1)), w2, c2))


def test_an_mlp_alternates_linear_layers_and_the_activation():
    model = zoo.mlp(4, widths=(5, 6), classes=3, activation="tanh", seed=0)
    (w1, b1), (w2, b2), (w3, b3) = zip(*[iter(model.parameters())] * 2, strict=True)
    x = torch.randn(7, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    expected = torch.tanh(torch.tanh(x.flatten(1) @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    torch.testing.assert_close(model(x), expected)


def test_an_mlp_without_widths_is_softmax_regression():
    assert n_parameters(zoo.mlp(64, widths=())) == 64 * 10 + 10


def test_shortcut_a_takes_every_second_pixel_and_pads_with_zero_channels():
    model = zoo.resnet20(seed=0).eval()
    block = model.stage2[0]
    nn.init.zeros_(block.bn2.weight)  # the residual branch gives zero: the shortcut is left alone
    x = torch.rand(2, 16, 6, 6, generator=torch.Generator().manual_seed(1))
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert out.shape == (2, 32, 3, 3)
    assert not out[:, 16:].any()


def test_resnet20_has_twenty_layers_with_weights_of_two_dimensions_or_more():
    assert sum(parameter.ndim > 1 for parameter in zoo.resnet20().parameters()) == 20


def test_vit_is_its_formula_with_the_attention_written_out():
    model = zoo.vit(in_channels=2, size=6, classes=3, patch=3, width=4, depth=1, heads=2, seed=0)
    with torch.no_grad():  # norms that do something
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    weights = dict(model.named_parameters())
    x = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(1))

    def linear(t, name):
        return t @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(t, name):
        centered = t - t.mean(-1, keepdim=True)
        scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    corners = [(0, 0), (0, 3), (3, 0), (3, 3)]  # of the patches, row by row
    pieces = torch.stack([x[:, :, i : i + 3, j : j + 3].flatten(1) for i, j in corners], dim=1)
    tokens = pieces @ weights["patches.weight"].flatten(1).T + weights["patches.bias"] + weights["positions"]
    query, key, value = linear(norm(tokens, "blocks.0.norm1"), "blocks.0.attention.qkv").split(4, dim=-1)
    heads = []
    for part in (slice(0, 2), slice(2, 4)):
        shares = torch.softmax(query[..., part] @ key[..., part].mT / 2**0.5, dim=-1)
        heads.append(shares @ value[..., part])
    tokens = tokens + linear(torch.cat(heads, dim=-1), "blocks.0.attention.out")
    hidden = linear(norm(tokens, "blocks.0.norm2"), "blocks.0.fc1")
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    tokens = tokens + linear(hidden, "blocks.0.fc2")
    torch.testing.assert_close(model(x), linear(norm(tokens, "norm").mean(1), "head"))


@pytest.mark.parametrize("make", [zoo.simple_cnn, zoo.simple_cnn_wide, zoo.mlp, zoo.lenet5, zoo.resnet20, zoo.vit])
def test_a_seed_fixes_the_weights_and_leaves_the_global_stream_alone(make):
    before = torch.get_rng_state()
    first, again, other = make(seed=3), make(seed=3), make(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_without_a_seed_the_weights_come_from_the_global_stream():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = zoo.mlp()
        torch.manual_seed(5)
        again, next_one = zoo.mlp(), zoo.mlp()
    assert torch.equal(first.fc1.weight, again.fc1.weight)
    assert not torch.equal(first.fc1.weight, next_one.fc1.weight)


@pytest.mark.parametrize("name", ["simple_cnn", "simple_cnn_wide", "mlp", "lenet5", "resnet20", "vit"])
def test_a_network_by_name_fits_the_shape_of_an_input(name):
    model = zoo.network(name, shape=(2, 16, 16), classes=7, seed=0)
    assert model(torch.zeros(3, 2, 16, 16)).shape == (3, 7)


def test_options_reach_the_network_of_that_name():
    assert n_parameters(zoo.network("mlp", in_features=5, widths=(4,), classes=2)) == 5 * 4 + 4 + 4 * 2 + 2


def test_an_unknown_network_is_refused_with_the_nearest_name_and_the_list():
    with pytest.raises(ConfigError, match=r"did you mean 'simple_cnn'.*lenet5, resnet20, vit"):
        zoo.network("simplecnn")


def test_an_unknown_option_is_refused_with_the_list():
    with pytest.raises(ConfigError, match=r"no option 'width'.*widths"):
        zoo.network("mlp", width=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zoo.mlp(activation="rleu"), "no activation 'rleu'"),
        (lambda: zoo.resnet20(shortcut="C"), "no shortcut 'C'"),  # type: ignore[arg-type]
        (lambda: zoo.lenet5(size=8), "Nothing is left of an input of 8 x 8"),
        (lambda: zoo.vit(size=30), "30 x 30 is not cut by patches of 4 x 4"),
        (lambda: zoo.vit(heads=5), "width of 64 is not shared by 5 heads"),
        (lambda: zoo.simple_cnn(size=1), "Nothing is left of an input of 1 x 1"),
    ],
)
def test_impossible_networks_are_refused_in_one_line(make, message):
    with refused(InputError, match=message):
        make()
