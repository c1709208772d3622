"""Perturbations of each family against formulas of their own, changes that are paired, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BY_NAME
from oracles.quadratic import quadratic
from oracles.refusals import assert_refused
from torch import nn
from torch.nn.utils import prune

import lossatlas as la
from lossatlas.errors import InputError
from lossatlas.objective import Objective

MLP = BY_NAME["mlp-relu"]


def noisy(o: Objective, *sigmas: Any, **options: Any) -> Any:
    return la.robustness(o, *sigmas, progress=False, **options)


def mlp(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Objective]:
    model = MLP.make(dtype)
    return model, Objective(model, F.cross_entropy, MLP.data(dtype))


def weights(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


def rounded(weight: np.ndarray, bits: int, axis: int | None) -> np.ndarray:
    """Each row, or the whole, on the levels -m .. m of a step max |w| / m, m = 2^(bits - 1) - 1, by search."""
    m = 2 ** (bits - 1) - 1
    largest = np.abs(weight).max(axis=axis, keepdims=True)
    grid = np.arange(-m, m + 1) / m * largest[..., None]
    nearest = np.abs(weight[..., None] - grid).argmin(-1)
    return np.take_along_axis(np.broadcast_to(grid, (*weight.shape, 2 * m + 1)), nearest[..., None], -1)[..., 0]


@pytest.mark.parametrize(("per", "axis"), [("tensor", None), ("channel", 1)])
def test_quantised_weights_are_the_nearest_levels(per: str, axis: int | None):
    model, o = mlp()
    found = noisy(o, noise="quantise", bits=[6, 2], per=per)
    for k, bits in enumerate((6, 2)):
        other = MLP.make(torch.float64)
        with torch.no_grad():
            for own, weight in zip(weights(other), weights(model), strict=True):
                own.copy_(torch.as_tensor(rounded(weight.detach().numpy(), bits, axis)))
        expected = plain.loss_of(other, F.cross_entropy, MLP.data(torch.float64))
        assert float(found["loss"][k]) == pytest.approx(expected, rel=1e-12)
    assert found["loss_draws"].shape == (2, 1)


def test_equal_weights_and_zeros_are_levels_and_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    nn.init.constant_(model[0].weight, 0.37)
    nn.init.zeros_(model[1].weight)
    o = Objective(model, F.cross_entropy, (torch.randn(9, 3), torch.arange(9) % 2))
    for per in ("tensor", "channel"):
        found = noisy(o, noise="quantise", per=per)
        np.testing.assert_allclose(found["loss_change"], 0, atol=1e-7)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_pruned_weights_are_those_that_torch_prunes(share: float):
    _, o = mlp()
    other = MLP.make(torch.float64)
    layers = [(module, "weight") for module in other if isinstance(module, nn.Linear)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=share)
    for module, name in layers:
        prune.remove(module, name)
    expected = plain.loss_of(other, F.cross_entropy, MLP.data(torch.float64))
    assert float(noisy(o, noise="prune", shares=[share])["loss"][0]) == pytest.approx(expected, rel=1e-12)


def test_uniform_noise_has_the_variance_of_gaussian_noise_and_its_own_kurtosis():
    o = quadratic(torch.eye(2000).double(), torch.zeros(2, 2000).double(), torch.zeros(2000).double())
    lengths = 2 * noisy(o, [1.0], noise="uniform", draws=40)["loss_draws"].values[0]  # E u^4 - 1 = 9 / 5 - 1
    assert lengths.mean() == pytest.approx(2000, abs=4 * math.sqrt(0.8 * 2000 / 40))
    assert lengths.std(ddof=1) == pytest.approx(math.sqrt(0.8 * 2000), rel=0.4)


def test_multiplicative_noise_is_relative_to_each_weight_and_blind_to_rescaled_units():
    factors = torch.tensor([0.1, 3.0, 1.0, 7.0, 0.5], dtype=torch.float64)
    model, o = mlp()
    width = model[0].out_features
    factors = factors.repeat(width)[:width]
    scaled = MLP.make(torch.float64)
    with torch.no_grad():
        scaled[0].weight *= factors[:, None]
        scaled[0].bias *= factors
        scaled[2].weight /= factors
    relative, ours, theirs = (
        noisy(each, [0.0, 0.2], draws=3, **options)["loss_draws"]
        for each, options in (
            (o, {"relative": "weight"}),
            (o, {"noise": "multiplicative"}),
            (Objective(scaled, F.cross_entropy, MLP.data(torch.float64)), {"noise": "multiplicative"}),
        )
    )
    np.testing.assert_array_equal(relative, ours)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    w = torch.linspace(-1, 2, 50, dtype=torch.float64)
    found = noisy(quadratic(torch.eye(50).double(), w.expand(2, 50), w), [0.3], noise="multiplicative", draws=200)
    assert float(found["loss"][0]) == pytest.approx(0.3**2 * float(w.square().sum()) / 2, rel=0.1)


def test_input_noise_raises_a_squared_error_by_sigma_squared_times_the_weights_norm():
    model = nn.Linear(30, 1, bias=False).double()
    inputs = torch.randn(400, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    o = Objective(model, F.mse_loss, (inputs, torch.zeros(400, 1).double()))
    found = noisy(o, [0.0, 0.7], noise="input", draws=30)
    expected = 0.7**2 * float(model.weight.detach().square().sum())
    assert abs(float(found["loss_change"][1]) - expected) < 4 * float(found["loss_change_stderr"][1]) < 0.2 * expected
    assert float(found["loss_change"][0]) == float(found["loss_change_stderr"][0]) == 0
    assert found.attrs["noise"] == "input"


class Weights(nn.Module):
    """Its outputs are its weights."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rows[: len(x)]


def weights_under(values: torch.Tensor, **options: Any) -> np.ndarray:
    """The mean over draws of each row's loss, what each weight has become; they have one number a row and a zero."""
    model = Weights(values[:, None].expand(-1, 2).clone())
    o = Objective(model, lambda out, _: out[:, 0], (torch.zeros(len(values), 1), torch.zeros(len(values))))
    return np.asarray(noisy(o, noise="flip", **options)["loss"])


def test_every_bit_of_int8_flipped_is_its_complement():
    values = torch.linspace(-1, 1, 128)
    levels = torch.round(values * 127)
    found = weights_under(values, representation="int8", rates=[0.0, 1.0], draws=2)
    assert found == pytest.approx([float((levels / 127).mean()), float(((-levels - 1) / 127).mean())], abs=1e-6)


def test_bits_of_float32_are_flipped_at_their_rate_and_more_of_them_at_a_larger_one():
    from lossatlas.model.parameters import ParameterSpace
    from lossatlas.robustness.flips import FloatFlips

    point = torch.linspace(0.5, 2, 20000)
    perturb = FloatFlips(point, seed=3)
    entries = list(ParameterSpace(Weights(point[:, None])))
    few, many = (perturb(rate, 0, entries).view(torch.int32) ^ point.view(torch.int32) for rate in (0.002, 0.01))
    counts = np.array([int((many >> bit & 1).sum()) for bit in range(32)])
    assert abs(counts - 200).max() < 5 * math.sqrt(200)
    assert abs(counts.sum() - 6400) < 4 * math.sqrt(6400)
    assert torch.equal(few & many, few)
    assert torch.equal(perturb(0.0, 0, entries), point)


def test_draws_without_a_finite_loss_are_counted_and_never_averaged_away():
    _, o = mlp(torch.float32)
    found = noisy(o, noise="flip", rates=[0.0, 0.3], draws=5)
    assert found["finite"].values.tolist() == [1.0, np.isfinite(found["loss_draws"].values[1]).mean()]
    assert found["finite"].values[1] < 1
    assert not np.isfinite(found["loss"].values[1])
    assert np.isnan(found["loss_stderr"].values[1])
    assert np.isnan(found["loss_change_stderr"].values[1])


def test_a_change_is_paired_over_the_examples():
    model, o = mlp()
    other = MLP.make(torch.float64)
    with torch.no_grad():
        for own, weight in zip(weights(other), weights(model), strict=True):
            own.copy_(torch.as_tensor(rounded(weight.detach().numpy(), 5, None)))
    inputs, targets = MLP.data(torch.float64)
    before, after = (F.cross_entropy(each(inputs), targets, reduction="none").detach() for each in (model, other))
    found = noisy(o, noise="quantise", bits=[5])
    difference = (after - before).numpy()
    assert float(found["loss_change"][0]) == pytest.approx(difference.mean(), rel=1e-9)
    assert float(found["loss_change_stderr"][0]) == pytest.approx(
        difference.std(ddof=1) / math.sqrt(len(difference)), rel=1e-9
    )
    assert float(found["loss_change_stderr"][0]) < 0.5 * float(found["loss_stderr"][0])
    assert float(found["loss_clean"]) == pytest.approx(float(before.mean()), rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"noise": "quantise", "bits": [3]}, {"noise": "prune", "shares": [0.5]}])
def test_a_layer_alone_is_perturbed_with_the_others_as_trained(options: dict[str, Any]):
    _, o = mlp()
    found = noisy(o, layers=True, draws=3, **options)
    assert found["layer"].values.tolist() == ["0", "2"]
    for name in ("0", "2"):
        alone = noisy(o.restricted(f"{name}.*"), draws=3, **options)
        ours = found.sel(layer=name)
        if options:  # exact, so that no draws differ
            np.testing.assert_allclose(ours["layer_loss"], alone["loss"], rtol=1e-12)
            np.testing.assert_allclose(ours["layer_loss_change_stderr"], alone["loss_change_stderr"], rtol=1e-9)
        else:
            assert np.allclose(ours["layer_loss"], found["loss"]) == (name == "nothing")
            assert float(ours["layer_loss"][0]) == float(found["loss"][0])


def test_noise_in_a_layer_is_that_of_all_layers_at_its_place():
    """A loss of the first layer alone knows its noise and none of the other's."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    o = Objective.from_step(model, lambda m, b: m[0].weight.square().sum() + 0 * m[1].weight.sum(), [torch.zeros(1)])
    found = noisy(o, [0.4], layers=True, draws=4)
    assert float(found["layer_loss"].sel(layer="0")[0]) == pytest.approx(float(found["loss"][0]), rel=1e-12)
    assert float(found["layer_loss_change"].sel(layer="1")[0]) == 0


def integers() -> Objective:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    return Objective(model, F.cross_entropy, (torch.randint(5, (6, 2)), torch.arange(6) % 3))


def dictionary() -> Objective:
    model = nn.Linear(2, 1)
    return Objective.from_step(model, lambda m, b: m(b["x"]).square().mean(), [{"x": torch.ones(3, 2)}])


def one_dimensional() -> Objective:
    return quadratic(torch.eye(3).double(), torch.zeros(2, 3).double(), torch.ones(3).double())


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"sigmas": [-0.1]}, ["sigmas", "not negative"]),
    ({"sigmas": [math.nan]}, ["sigmas", "finite"]),
    ({"noise": "gausian"}, ["did you mean 'gaussian'"]),
    ({"noise": "quantize"}, ["did you mean 'quantise'"]),
    ({"noise": "quantise", "bits": [0]}, ["bits", "from 2 to 16"]),
    ({"noise": "quantise", "bits": [1]}, ["bits", "from 2 to 16"]),
    ({"noise": "quantise", "bits": [3.5]}, ["bits", "whole numbers"]),
    ({"noise": "prune", "shares": [1.2]}, ["shares", "from 0 to 1"]),
    ({"noise": "flip", "rates": [1.5]}, ["rates", "from 0 to 1"]),
    ({"noise": "flip", "rates": ["a"]}, ["rates", "from 0 to 1"]),
    ({"bits": [4]}, ["bits=[4] is for noise='quantise'"]),
    ({"noise": "quantise", "sigmas": [8, 4]}, ["give noise='gaussian' too, or bits="]),
    ({"noise": "quantise", "relative": "filter"}, ["relative", "leave it out"]),
    ({"noise": "multiplicative", "relative": "filter"}, ["relative", "leave it out"]),
    ({"per": "channel"}, ["noise='quantise'"]),
    ({"representation": "int8"}, ["noise='flip'"]),
    ({"noise": "input", "layers": True}, ["one layer at a time"]),
    ({"filters": {"*": 0}}, ["relative='filter'"]),
    ({"o": integers, "noise": "input"}, ["int64", "floating point"]),
    ({"o": dictionary, "noise": "input"}, ["pairs (inputs, targets)"]),
    ({"o": one_dimensional, "noise": "quantise"}, ["two or more dimensions"]),
    ({"o": one_dimensional, "noise": "prune"}, ["two or more dimensions"]),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[", ".join(words) for _, words in REFUSED])
def test_an_impossible_perturbation_is_refused_with_the_remedy(options: dict[str, Any], words: list[str]):
    given = dict(options)
    o = given.pop("o", lambda: mlp()[1])()
    assert_refused(InputError, lambda: noisy(o, **given), *words)
