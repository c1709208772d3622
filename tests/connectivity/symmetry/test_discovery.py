"""The symmetries that are found: true for every network, and all that a person would write down."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles.architectures import ARCHITECTURES, BATCH, Architecture, Written, canonical, drawn, objective_of, parameter
from oracles.architectures import squares as loss
from oracles.refusals import refused
from torch import Tensor, nn

import lossatlas as la
from lossatlas.connectivity.symmetry.states import network_outputs, network_state
from lossatlas.connectivity.symmetry.symmetries import Symmetries
from lossatlas.errors import InputError

EXACT = 1e-12  # relative, in float64


def deviations(objective: la.Objective, of: Symmetries, orders: int) -> list[float]:
    """max |f - f'| / max(1, max |f|) with every group in a random order, for so many orders."""
    state = network_state(objective)
    expected = list(network_outputs(objective, state))

    def deviation(order: int) -> float:
        pairs = zip(expected, network_outputs(objective, of.permuted(state, of.random(order))), strict=True)
        return max(float((one - other).abs().max() / one.abs().max().clamp_min(1.0)) for one, other in pairs)

    return [deviation(order) for order in range(orders)]


def require_symmetric(objective: la.Objective, of: Symmetries) -> None:
    orders = 6  # groups of two are in the same order by luck
    assert all(deviation < EXACT for deviation in deviations(objective, of, orders)), str(of)


def sizes(of: Symmetries) -> list[int]:
    return sorted(group.size for group in of.groups.values())


architectures = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.name)


@architectures
def test_the_function_is_the_same_in_every_order_of_the_units(architecture: Architecture) -> None:
    require_symmetric(architecture.objective(), architecture.symmetries())


@architectures
def test_what_is_found_is_what_a_person_writes_down(architecture: Architecture) -> None:
    found = architecture.symmetries()
    assert canonical(found.spec) == canonical(architecture.spec), str(found)


@architectures
def test_parameters_are_permuted_and_nothing_else_happens_to_them(architecture: Architecture) -> None:
    of, state = architecture.symmetries(), network_state(architecture.objective())
    permuted = of.permuted(state, of.random(1))
    assert permuted.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(permuted[name].flatten().sort().values, tensor.flatten().sort().values)
        if name not in of.axes:
            assert torch.equal(permuted[name], tensor)


@architectures
def test_what_is_printed_is_read_again_as_the_same_groups(architecture: Architecture) -> None:
    found, state = architecture.symmetries(), network_state(architecture.objective())
    again = Symmetries.parse(found.spec, {name: tensor.shape for name, tensor in state.items()})
    assert again.groups == found.groups
    assert again.spec == found.spec


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a.batch_norm], ids=lambda one: one.name)
def test_running_statistics_move_with_their_units(architecture: Architecture) -> None:
    of, state = architecture.symmetries(), network_state(architecture.objective())
    permuted = of.permuted(state, of.random(2))
    statistics = [name for name in state if name.endswith("running_var") and len(state[name]) > 1]
    assert statistics
    for name in statistics:
        weight = name.replace("running_var", "weight")
        pairs = set(zip(state[name].tolist(), state[weight].tolist(), strict=True))
        assert pairs == set(zip(permuted[name].tolist(), permuted[weight].tolist(), strict=True))
        assert not torch.equal(permuted[name], state[name])


# Functions between two layers. What is claimed must hold, whatever the function does with the order of the units.

RAMP = torch.arange(4, dtype=torch.float64)

FREE: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda h: h.softmax(-1),
    "softmax over the batch": lambda h: F.softmax(h, 0),
    "mean taken off": lambda h: h - h.mean(1, keepdim=True),
    "mean by axis=": lambda h: h - h.sum(axis=-1, keepdim=True),
    "largest taken off": lambda h: h - h.amax(1, keepdim=True),
    "standard deviation": lambda h: h / h.std(1, keepdim=True),
    "standard deviation, biased": lambda h: h / h.std(1, False, True),
    "variance": lambda h: h / torch.var(h, dim=-1, keepdim=True),
    "norm": lambda h: h / h.norm(dim=1, keepdim=True),
    "norm p": lambda h: h / torch.norm(h, 1, 1, True),
    "normalize": F.normalize,
    "product of all": lambda h: h * h.prod(1, True),
    "sum of everything": lambda h: h / h.sum(),
    "log-sum-exp": lambda h: h - h.logsumexp(1, True),
    "layer norm": lambda h: F.layer_norm(h, (4,)),
    "group norm of one group": lambda h: F.group_norm(h, 1),
    "batch norm by the batch": lambda h: F.batch_norm(h, None, None, training=True),
    "dropout that is off": lambda h: F.dropout(h, 0.5, training=False),
    "gram matrix": lambda h: h @ (h.T @ h),
    "outer product": lambda h: torch.einsum("bi,bj->bij", h, h).mean(2),
    "diagonal by einsum": lambda h: torch.einsum("bii->bi", h[:, :, None] * h[:, None]),
    "matrix of ones": lambda h: h + h @ torch.ones(4, 4, dtype=h.dtype),
    "named arguments": lambda h: torch.matmul(input=h, other=torch.ones(4, 4, dtype=h.dtype)),
    "in place": lambda h: torch.zeros_like(h).add_(h).mul_(2).relu_(),
    "reflected operators": lambda h: 2 ** (1 - h) + 1 / (h + 3),
    "an axis more": lambda h: h[:, None, :][:, 0][None].squeeze(0).T.T,
    "units as tokens": lambda h: F.scaled_dot_product_attention(*[h[:, :, None]] * 3)[:, :, 0],
    "an example alone": lambda h: h - h[0],
    "examples turned": lambda h: h.roll(1, 0) + h.flip(0) + h.flip([0]) + torch.roll(h, (1,), dims=(0,)),
    "bits": lambda h: h.view(torch.int64).view(torch.float64),
    "as_tensor": torch.as_tensor,
    "where by value": lambda h: torch.where(h > 0, h, torch.zeros(())),
}

ORDERED: dict[str, Callable[[Tensor], Tensor]] = {
    "a ramp": lambda h: h * RAMP,
    "arange": lambda h: h + torch.arange(4),
    "linspace": lambda h: h * torch.linspace(0, 1, 4),
    "identity matrix": lambda h: h @ torch.eye(4, dtype=h.dtype),
    "triangle": lambda h: h @ torch.ones(4, 4, dtype=h.dtype).tril(),
    "where by place": lambda h: torch.where(torch.arange(4) < 2, h, -h),
    "mask by place": lambda h: h.masked_fill(torch.tensor([True, False, False, True]), 0.0),
    "clamp by place": lambda h: h.clamp(min=RAMP / 10),
    "lerp": lambda h: h.lerp(RAMP, 0.5),
    "scale of layer norm": lambda h: F.layer_norm(h, (4,), weight=RAMP),
    "slopes of prelu": lambda h: F.prelu(h, RAMP),
    "sort": lambda h: h.sort(1).values,
    "sort, default axis": lambda h: h.sort().values,
    "sort by name": lambda h: torch.sort(h, dim=-1, descending=True)[0],
    "argsort": lambda h: h.argsort(1).to(h.dtype),
    "topk of all": lambda h: h.topk(4, dim=1).values,
    "topk, default axis": lambda h: h.topk(4).values,
    "topk by name": lambda h: torch.topk(h, k=4, dim=1)[0],
    "topk over units, k an axis": lambda h: h.topk(1, 0).values.expand(len(h), -1).topk(4, 1)[0],
    "argmax": lambda h: F.one_hot(h.argmax(1), 4).to(h.dtype),
    "place of the largest": lambda h: h + h.max(1, keepdim=True)[1] * RAMP,
    "kthvalue and ramp": lambda h: h - h.kthvalue(2, 1, True)[0] * RAMP,
    "cumsum": lambda h: h.cumsum(1),
    "cumsum by axis=": lambda h: h.cumsum(axis=1),
    "cumprod": lambda h: torch.cumprod(h, dim=-1),
    "cummax": lambda h: h.cummax(1)[0],
    "flip": lambda h: h.flip(1),
    "flip of a list": lambda h: torch.flip(h, [1]),
    "flip of two axes": lambda h: h.flip(0, 1),
    "flip of two axes, turned": lambda h: h.flip(1, 0),
    "flip by name": lambda h: h.flip(dims=(0, 1)),
    "fliplr": lambda h: h.fliplr(),
    "roll": lambda h: h.roll(1, 1),
    "roll of two axes": lambda h: torch.roll(h, shifts=(1, 1), dims=(0, 1)),
    "roll of all": lambda h: h.roll(1),
    "indices": lambda h: h[:, [1, 0, 3, 2]],
    "a tensor of indices": lambda h: h[:, torch.tensor([3, 2, 1, 0])],
    "index_select": lambda h: h.index_select(1, torch.tensor([3, 2, 1, 0])),
    "gather": lambda h: h.gather(1, torch.zeros(len(h), 4).long()),
    "scatter": lambda h: torch.zeros_like(h).scatter(1, torch.tensor([[1, 0, 3, 2]]).expand(len(h), -1), h),
    "every second": lambda h: torch.cat([h[:, ::2], h[:, 1::2]], 1),
    "the last one": lambda h: h - h[:, -1:],
    "one of them": lambda h: h - h[:, 2][:, None],
    "one by select": lambda h: h - h.select(1, 3).unsqueeze(1),
    "one by narrow": lambda h: h - h.narrow(1, -1, 1),
    "a slice from a tensor": lambda h: h - h[:, torch.tensor(3) :].mean(1, True),
    "an index that is a tensor": lambda h: h - h[:, torch.tensor(1)][:, None],
    "nothing and all": lambda h: torch.cat([h[:, :0], h], 1),
    "softmax, then a slice": lambda h: torch.cat([h.softmax(1)[:, :1], h[:, 1:]], 1),
    "the same twice": lambda h: torch.cat([h, h], 1)[:, 2:6],
    "parts turned": lambda h: torch.cat([h[:, 2:], h[:, :2]], 1),
    "chunks turned": lambda h: torch.cat(h.chunk(2, 1)[::-1], 1),
    "chunks that do not divide": lambda h: torch.cat(h.chunk(3, 1), 1),
    "uneven parts turned": lambda h: torch.cat(h.split([3, 1], 1)[::-1], 1),
    "three parts of four": lambda h: torch.cat(h.tensor_split(3, 1), 1),
    "five parts of four": lambda h: torch.cat(h.tensor_split(5, 1), 1),
    "parts by place": lambda h: torch.cat(torch.tensor_split(h, (1, 3), dim=1), 1),
    "unbound": lambda h: torch.stack(h.unbind(1)[::-1], 1),
    "iterated": lambda h: torch.stack(list(h.T), 1),
    "chunks compared": lambda h: torch.cat([h.chunk(2, 1)[0] - h.chunk(2, 1)[1]] * 2, 1),
    "2 x 2 turned": lambda h: h.view(-1, 2, 2).transpose(1, 2).reshape(-1, 4),
    "2 x 2, mean of rows, repeated": lambda h: h.view(-1, 2, 2).mean(1).repeat(1, 2),
    "2 x 2, mean of rows, joined": lambda h: torch.cat([h.view(-1, 2, 2).mean(1)] * 2, 1),
    "2 x 2, mean of columns, expanded": lambda h: (
        h.view(-1, 2, 2).mean(2, True).expand(-1, 2, 2).transpose(1, 2).flatten(1)
    ),
    "2 x 2 softmax": lambda h: h.view(-1, 2, 2).softmax(2).flatten(1),
    "2 x 2 squared": lambda h: (h.view(-1, 2, 2) @ h.view(-1, 2, 2)).flatten(1),
    "2 x 2 times its transpose": lambda h: (h.view(-1, 2, 2) @ h.view(-1, 2, 2).mT).flatten(1),
    "2 x 2 scaled by rows": lambda h: (h.view(-1, 2, 2) * RAMP[1:3, None]).view(-1, 4),
    "interleaved": lambda h: torch.stack([h[:, :2], h[:, 2:]], 2).flatten(1),
    "group norm": lambda h: F.group_norm(h, num_groups=2, weight=RAMP),
    "glu": lambda h: torch.cat([F.glu(h), F.glu(h)], 1),
    "repeat": lambda h: h.repeat(1, 2)[:, 1:5],
    "tile": lambda h: h.tile(2)[:, 1:5],
    "zeros in front": lambda h: F.pad(h, (1, 0))[:, :4],
    "threes in front": lambda h: F.pad(h, (2, 0), value=3.0)[:, :4],
    "reflected": lambda h: F.pad(h, (1, 1), mode="reflect")[:, :4],
    "circular": lambda h: F.pad(h[:, None], (1, 0), mode="circular")[:, 0, :4],
    "cut by padding": lambda h: F.pad(h, (-1, 1)),
    "convolution over units": lambda h: F.conv1d(h[:, None], torch.ones(1, 1, 3, dtype=h.dtype), padding=1)[:, 0],
    "pooling over units": lambda h: F.max_pool1d(h, 3, 1, 1),
    "interpolated units": lambda h: F.interpolate(h[:, None], size=8)[:, 0, :4],
    "unfold": lambda h: h.unfold(1, 4, 1)[:, 0],
    "fourier": lambda h: torch.fft.fft(h).real,
    "as_strided": lambda h: h.contiguous().as_strided((len(h), 4), (4, 1)),
    "complex": lambda h: torch.view_as_complex(h.view(-1, 2, 2)).abs().repeat(1, 2),
    "neighbours": lambda h: F.local_response_norm(h[:, :, None], 2)[:, :, 0],
    "diagonal above": lambda h: torch.diag_embed(h, 1).sum(1)[:, :4],
    "causal tokens": lambda h: F.scaled_dot_product_attention(*[h[:, :, None]] * 3, is_causal=True)[:, :, 0],
    "new_tensor": lambda h: h.detach().new_zeros(4) + RAMP * h,
    "mm by name": lambda h: torch.mm(h, mat2=torch.eye(4, dtype=h.dtype)),
    "transpose by name": lambda h: torch.transpose(input=h[:, :, None], dim0=1, dim1=2)[:, 0] * RAMP,
}


RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "numbers like the units": lambda h: h + torch.rand_like(h),
    "random numbers": lambda h: h + torch.randn(4, dtype=h.dtype),
    "dropout that is on": lambda h: F.dropout(h, 0.5),
    "dropout of channels that is on": lambda h: F.dropout1d(h[:, :, None], 0.5, training=True)[:, :, 0],
    "alpha dropout that is on": lambda h: F.alpha_dropout(h, 0.5, True),
    "leaks drawn at random": lambda h: F.rrelu(h, training=True),
    "dropout inside of attention": lambda h: F.scaled_dot_product_attention(*[h[:, :, None]] * 3, None, 0.5)[:, :, 0],
    "gumbel": F.gumbel_softmax,
}


def between(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """Four units, the function, a layer that reads four."""
    return Written(lambda m, x: m.fc2(function(torch.tanh(m.fc1(x)))), fc1=nn.Linear(6, 4), fc2=nn.Linear(4, 3))


@pytest.mark.parametrize("name", FREE)
def test_functions_that_treat_units_alike_leave_them_free(name: str) -> None:
    objective = objective_of(between(FREE[name]), 6)
    found = la.symmetries(objective)
    assert found.axes["fc1.bias"] == ((("fc1",),),)
    assert found.groups["fc1"].size == 4
    require_symmetric(objective, found)


@pytest.mark.parametrize("name", ORDERED)
def test_nothing_is_claimed_of_functions_that_look_at_the_order(name: str) -> None:
    objective = objective_of(between(ORDERED[name]), 6)
    found = la.symmetries(objective)
    assert 4 not in [found.groups[g].size for g in found.groups if "fc1.bias" in found.holders(g)]
    require_symmetric(objective, found)


@pytest.mark.parametrize("name", RANDOM)
def test_numbers_drawn_by_place_hold_the_units_in_order(name: str) -> None:
    objective = objective_of(between(RANDOM[name]), 6)
    found = la.symmetries(objective)
    assert "fc1.bias" not in found.axes
    require_symmetric(objective, found)


# The same between two convolutions, and between two layers over tokens; sizes are all 4, so that axes can be confused.


def _heads(h: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    x = h.view(len(h), 4, heads, 4 // heads).transpose(1, 2)
    return F.scaled_dot_product_attention(x, x, x, attn_mask=mask).transpose(1, 2).reshape(len(h), 4, 4)


def _folded_heads(h: Tensor) -> Tensor:
    """Heads folded into the batch, and without a transpose back."""
    x = h.view(-1, 4, 2, 2).transpose(1, 2).reshape(-1, 4, 2)
    return torch.bmm(torch.bmm(x, x.mT).softmax(-1), x).reshape(-1, 4, 4)


def _rotary(h: Tensor) -> Tensor:
    a, b = h.chunk(2, -1)
    angle = torch.arange(4, dtype=h.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=h.dtype)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


IMAGES: dict[str, tuple[Callable[[Tensor], Tensor], list[int]]] = {
    "as they are": (lambda h: h, [4]),
    "channels and rows turned": (lambda h: h.permute(0, 2, 1, 3), []),
    "channels and columns turned": (lambda h: h.transpose(1, 3), []),
    "pooled over channels": (lambda h: F.max_pool2d(h.transpose(1, 3), 3, 1, 1).transpose(1, 3), []),
    "pooled in three dimensions": (lambda h: F.avg_pool3d(h[:, None], 3, 1, 1)[:, 0], []),
    "pooled": (lambda h: F.lp_pool2d(h, 2.0, 2), [4]),
    "bilinear": (lambda h: F.interpolate(h, size=(3, 5), mode="bilinear"), [4]),
    "trilinear": (lambda h: F.interpolate(h[:, None], (4, 4, 4), mode="trilinear")[:, 0], []),
    "channels shuffled": (lambda h: h.view(-1, 2, 2, 4, 4).transpose(1, 2).reshape(-1, 4, 4, 4), [2, 2]),
    "norm of all": (lambda h: F.layer_norm(h, (4, 4, 4)), [4]),
    "channels last": (lambda h: F.layer_norm(h.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2), [4]),
    "channels last in memory": (lambda h: h.contiguous(memory_format=torch.channels_last), [4]),
    "a zero channel in front": (lambda h: F.pad(h, (0, 0, 0, 0, 1, 0))[:, :4], [3]),
    "circular": (lambda h: F.pad(h, (1, 1, 1, 1), mode="circular"), [4]),
    "replicated channels": (lambda h: F.pad(h[:, None], (0, 0, 0, 0, 1, 1), mode="replicate")[:, 0, :4], []),
    "every second channel": (lambda h: torch.cat([h[:, ::2], h[:, 1::2]], 1), []),
    "flattened and back": (lambda h: h.flatten(1).view(-1, 4, 4, 4), [4]),
    "flattened in another order": (lambda h: h.transpose(1, 2).flatten(1).view(-1, 4, 4, 4), []),
    "flattened, mixed": (lambda h: h.flatten(1).view(-1, 2, 8, 4).transpose(1, 2).reshape(-1, 4, 4, 4), [2]),
    "gram matrix of channels": (lambda h: torch.einsum("bihw,bjhw->bij", h, h)[..., None], []),
    "flipped channels": (lambda h: h.flip(2, 1), []),
    "flipped pixels": (lambda h: h.flip(2, 3), [4]),
    "coordinates": (lambda h: h + torch.linspace(-1, 1, 4, dtype=h.dtype)[None, None, :, None], [4]),
    "a channel of coordinates": (lambda h: torch.cat([h, RAMP.expand(len(h), 1, 4, 4)], 1)[:, 1:], [3]),
    "neighbouring channels": (
        lambda h: (
            h * F.conv1d(h.mean((2, 3))[:, None], torch.ones(1, 1, 3, dtype=h.dtype), padding=1)[:, 0, :, None, None]
        ),
        [],
    ),
    "a constant of each channel": (
        lambda h: F.conv2d(h, torch.arange(4, dtype=h.dtype).view(4, 1, 1, 1), groups=4),
        [],
    ),
    "a kernel made of the data": (lambda h: F.conv2d(h, h.mean(0)[:, :, :1, None].expand(4, 4, 1, 1)), []),
    "stacked and summed, one flipped": (lambda h: torch.stack([h, h.flip(1)]).sum(0), []),
    "channels dropped": (lambda h: F.dropout2d(h, 0.5, True), []),
    "halves crossed": (
        lambda h: (h.unflatten(1, (2, 2)) * h.unflatten(1, (2, 2)).transpose(1, 2)).flatten(1, 2),
        [2],
    ),
    "one half chosen": (lambda h: (h.unflatten(1, (2, 2)) * h.unflatten(1, (2, 2))[:, :1]).flatten(1, 2), [2]),
    "one of each half": (lambda h: (h.unflatten(1, (2, 2)) * h.unflatten(1, (2, 2))[:, :, 1:]).flatten(1, 2), [2]),
    "halves added up": (lambda h: h.unflatten(1, (2, 2)).cumsum(1).flatten(1, 2), [2]),
    "halves unbound": (
        lambda h: torch.cat(
            [a * b for a, b in zip(h.unflatten(1, (2, 2)).unbind(1), h.unflatten(1, (2, 2)).unbind(2), strict=True)], 1
        ),
        [],
    ),
}

TOKENS: dict[str, tuple[Callable[[Tensor], Tensor], list[int]]] = {
    "as they are": (lambda h: h, [4]),
    "turned": (lambda h: h.mT, []),
    "times themselves": (lambda h: h @ h, []),
    "added to their transpose": (lambda h: h + h.mT, []),
    "gram matrix of features": (lambda h: h.mT @ h, []),
    "attention by features": (lambda h: h @ (h.mT @ h).softmax(-1), [4]),
    "attention by tokens": (lambda h: (h @ h.mT).softmax(-1) @ h, [4]),
    "diagonal": (lambda h: torch.einsum("bii->bi", h)[:, None], []),
    "means crossed": (lambda h: h * h.mean(2)[:, None], []),
    "heads": (lambda h: _heads(h, 2), [2, 2]),
    "heads of 1": (lambda h: _heads(h, 4), [4]),
    "a mask for each head": (
        lambda h: _heads(h, 2, torch.tensor([1.0, -1.0], dtype=h.dtype)[:, None, None] * torch.arange(4)),
        [2, 2],  # the dimensions of either head, told apart
    ),
    "heads that are not turned back": (_folded_heads, [2]),
    "rotary positions": (_rotary, []),
    "alibi": (lambda h: h + (torch.arange(4)[:, None] - torch.arange(4)), []),
    "positions": (lambda h: h + torch.arange(4)[:, None], [4]),
    "positions of sines": (lambda h: h + torch.sin(torch.arange(4)[:, None] * (1 + RAMP)), []),
    "the last token": (lambda h: h - h[:, -1:], [4]),
    "running means": (lambda h: torch.stack([h[:, : t + 1].mean(1) for t in range(4)], 1), [4]),
    "convolution over tokens": (
        lambda h: F.conv1d(h.mT, torch.ones(4, 1, 3, dtype=h.dtype), padding=1, groups=4).mT,
        [4],
    ),
    "convolution over features": (lambda h: F.conv1d(h, torch.ones(4, 1, 3, dtype=h.dtype), padding=1, groups=4), []),
    "a vector from the left": (lambda h: h * (RAMP @ h)[:, None], [4]),
    "a vector from the right": (lambda h: h - (h @ RAMP)[..., None], []),
    "a matrix from the left": (lambda h: h[0] @ h, []),
    "scale of a transposed norm": (lambda h: F.layer_norm(h, (4, 4), RAMP.expand(4, 4).mT.contiguous()), [4]),
    "joined with their transpose": (lambda h: torch.cat([h, h.mT], 2)[..., 2:6], []),
    "windows of tokens": (
        lambda h: h.view(-1, 2, 2, 4).mean(1, True).expand(-1, 2, 2, 4).reshape(-1, 4, 4),
        [4],
    ),
    "folded tokens": (lambda h: h.reshape(-1, 16)[:, 2:14].reshape(-1, 3, 4), []),
    "softmax over rows of pairs": (lambda h: h.view(-1, 4, 2, 2).softmax(2).reshape(-1, 4, 4), [2, 2]),
    "rows of pairs times themselves": (
        lambda h: (h.view(-1, 4, 2, 2) @ h.view(-1, 4, 2, 2).mT @ h.view(-1, 4, 2, 2)).reshape(-1, 4, 4),
        [2, 2],
    ),
    "norm over rows of pairs": (
        lambda h: F.layer_norm(h.view(-1, 4, 2, 2).mT, (2,)).mT.reshape(-1, 4, 4),
        [2, 2],
    ),
    "pairs as tokens of attention": (
        lambda h: F.scaled_dot_product_attention(*[h.view(-1, 4, 2, 2)] * 3).reshape(-1, 4, 4),
        [2, 2],
    ),
    "axes permuted in pairs": (lambda h: h.view(-1, 2, 2, 2, 2).permute(0, 3, 1, 4, 2).reshape(-1, 4, 4), [2]),
    "softmax of pairs": (lambda h: h.reshape(-1, 8, 2).softmax(2).reshape(-1, 4, 4), [2, 2]),
    "mixed over tokens": (lambda h: h.mT @ torch.arange(16, dtype=h.dtype).view(4, 4), []),
}


@pytest.mark.parametrize("name", IMAGES)
def test_channels_are_free_as_far_as_the_function_lets_them(name: str) -> None:
    function, expected = IMAGES[name]
    model = Written(
        lambda m, x: m.conv2(function(torch.tanh(m.conv1(x)))), conv1=nn.Conv2d(2, 4, 1), conv2=nn.Conv2d(4, 3, 1)
    )
    objective = objective_of(model, 2, 4, 4)
    found = la.symmetries(objective)
    require_symmetric(objective, found)
    assert sizes(found) == expected, str(found)


@pytest.mark.parametrize("name", TOKENS)
def test_features_are_free_as_far_as_the_function_lets_them(name: str) -> None:
    function, expected = TOKENS[name]
    model = Written(lambda m, x: m.fc2(function(torch.tanh(m.fc1(x)))), fc1=nn.Linear(3, 4), fc2=nn.Linear(4, 3))
    objective = objective_of(model, 4, 3)
    found = la.symmetries(objective)
    require_symmetric(objective, found)
    assert sizes(found) == expected, str(found)


# What parameters themselves are part of.


def _attention(**options: Any) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(4, 2, batch_first=True, **options)


def _masked(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    return m.head(m.attention(x, x, x, attn_mask=mask)[0])


def _scalars(m: Any, x: Tensor) -> Tensor:
    return m.fc2(torch.tanh(m.fc1(x)) * m.scale + m.shift)


WITH_PARAMETERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[int]]] = {
    "weights of each head are given out": (
        lambda: Written(
            lambda m, x: m.attention(x, x, x, average_attn_weights=False)[1] * RAMP[1:3, None, None],
            attention=_attention(),
        ),
        (3, 4),
        [],
    ),
    "a mask for each head": (
        lambda: Written(
            lambda m, x: _masked(m, x, (RAMP[1:3, None, None] * torch.arange(3)).expand(2, 3, 3).repeat(len(x), 1, 1)),
            attention=_attention(),
            head=nn.Linear(4, 2),
        ),
        (3, 4),
        [],
    ),
    "a learned mask": (
        lambda: Written(
            lambda m, x: _masked(m, x, m.mask), attention=_attention(), mask=parameter(3, 3), head=nn.Linear(4, 2)
        ),
        (3, 4),
        [],
    ),
    "a learned mask for each head": (
        lambda: Written(
            lambda m, x: _masked(m, x, m.mask.expand(len(x), 2, 3, 3).flatten(0, 1)),
            attention=_attention(),
            mask=parameter(2, 3, 3),
            head=nn.Linear(4, 2),
        ),
        (3, 4),
        [],
    ),
    "a key and a value more": (
        lambda: Written(
            lambda m, x: m.head(m.attention(x, x, x)[0]), attention=_attention(add_bias_kv=True), head=nn.Linear(4, 2)
        ),
        (3, 4),
        [],
    ),
    "learned queries": (
        lambda: Written(
            lambda m, x: m.head(F.scaled_dot_product_attention(m.queries.expand(len(x), -1, -1), x, x)).mean(1),
            queries=parameter(5, 4),
            head=nn.Linear(4, 2),
        ),
        (3, 4),
        [5],
    ),
    "learned queries under a causal mask": (
        lambda: Written(
            lambda m, x: m.head(
                F.scaled_dot_product_attention(m.queries.expand(len(x), -1, -1), x, x, is_causal=True)
            ).mean(1),
            queries=parameter(3, 4),
            head=nn.Linear(4, 2),
        ),
        (3, 4),
        [],
    ),
    "queries share keys": (
        lambda: Written(
            lambda m, x: (
                F.scaled_dot_product_attention(
                    m.q(x).unflatten(-1, (4, 2)).transpose(1, 2),
                    m.k(x)[:, None].expand(-1, 4, -1, -1),
                    m.v(x)[:, None].expand(-1, 4, -1, -1),
                )
                .transpose(1, 2)
                .flatten(2)
                @ m.out
            ),
            q=nn.Linear(4, 8),
            k=nn.Linear(4, 2),
            v=nn.Linear(4, 2),
            out=parameter(8, 2),
        ),
        (3, 4),
        [2, 2, 4],
    ),
    "queries share keys inside of attention": (
        lambda: Written(
            lambda m, x: (
                F.scaled_dot_product_attention(
                    *(layer(x).unflatten(-1, (n, 2)).transpose(1, 2) for layer, n in ((m.q, 6), (m.k, 2), (m.v, 2))),
                    enable_gqa=True,
                )
                .transpose(1, 2)
                .flatten(2)
                @ m.out
            ),
            q=nn.Linear(4, 12),
            k=nn.Linear(4, 4),
            v=nn.Linear(4, 4),
            out=parameter(12, 2),
        ),
        (3, 4),
        [2, 2, 2, 3],
    ),
    "scalars": (
        lambda: Written(_scalars, fc1=nn.Linear(3, 4), scale=parameter(), shift=parameter(1), fc2=nn.Linear(4, 2)),
        (3,),
        [4],
    ),
    "one unit for four": (
        lambda: Written(
            lambda m, x: m.fc2(torch.tanh(m.fc1(x)) * m.scale),
            fc1=nn.Linear(3, 1),
            scale=parameter(4),
            fc2=nn.Linear(4, 2),
        ),
        (3,),
        [4],
    ),
    "a bag of rows": (
        lambda: Written(
            lambda m, x: m.out(m.bag((4 + 2 * x).long().clamp(0, 7))), bag=nn.EmbeddingBag(8, 5), out=nn.Linear(5, 2)
        ),
        (3,),
        [5],
    ),
    "experts": (
        lambda: Written(
            lambda m, x: (m.gate(x).softmax(-1)[..., None] * torch.einsum("bd,edk->bek", x, m.weight)).sum(1) @ m.out,
            gate=nn.Linear(4, 3),
            weight=parameter(3, 4, 5),
            out=parameter(5, 2),
        ),
        (4,),
        [3, 5],
    ),
    "weights made by a network": (
        lambda: Written(
            lambda m, x: torch.einsum("bij,bj->bi", m.made(x).view(-1, 3, 4), torch.tanh(m.fc1(x))) @ m.out,
            made=nn.Linear(4, 12),
            fc1=nn.Linear(4, 4),
            out=parameter(3, 2),
        ),
        (4,),
        [3, 4],
    ),
    "the larger of two": (
        lambda: Written(lambda m, x: m.fc2(m.fc1(x).view(-1, 3, 2).amax(2)), fc1=nn.Linear(4, 6), fc2=nn.Linear(3, 2)),
        (4,),
        [2, 3],
    ),
    "both signs": (
        lambda: Written(
            lambda m, x: m.fc2(torch.cat([m.fc1(x).relu(), (-m.fc1(x)).relu()], 1)),
            fc1=nn.Linear(4, 3),
            fc2=nn.Linear(6, 2),
        ),
        (4,),
        [3],
    ),
    "a symmetric matrix": (
        lambda: Written(
            lambda m, x: m.fc1(x) @ (m.square + m.square.T) @ m.out,
            fc1=nn.Linear(4, 4),
            square=parameter(4, 4),
            out=parameter(4, 2),
        ),
        (4,),
        [4],
    ),
    "low rank": (
        lambda: Written(
            lambda m, x: m.fc1(x) @ (m.whole + m.left @ m.right) @ m.out,
            fc1=nn.Linear(4, 4),
            whole=parameter(4, 5),
            left=parameter(4, 3),
            right=parameter(3, 5),
            out=parameter(5, 2),
        ),
        (4,),
        [3, 4, 5],
    ),
    "weights with their mean taken off": (
        lambda: Written(
            lambda m, x: m.out(F.conv1d(m.conv(x), m.kernel - m.kernel.mean((1, 2), True))),
            conv=nn.Conv1d(2, 4, 1),
            kernel=parameter(5, 4, 2),
            out=nn.Conv1d(5, 2, 1),
        ),
        (2, 3),
        [4, 5],
    ),
    "groups of two in groups of four": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 8, 1), nn.Conv1d(8, 8, 1, groups=4), nn.Conv1d(8, 8, 1, groups=2), nn.Conv1d(8, 2, 1)
        ),
        (2, 3),
        [2, 2, 2, 2, 4],
    ),
    "groups that do not nest": (
        lambda: nn.Sequential(nn.Conv1d(2, 6, 1), nn.Conv1d(6, 6, 1, groups=2), nn.GroupNorm(3, 6), nn.Conv1d(6, 2, 1)),
        (2, 3),
        [3],
    ),
    "a norm of groups over what was joined": (
        lambda: Written(
            lambda m, x: m.out(m.norm(torch.cat([m.one(x), m.two(x)], 1))),
            one=nn.Conv1d(2, 2, 1),
            two=nn.Conv1d(2, 4, 1),
            norm=nn.GroupNorm(2, 6),
            out=nn.Conv1d(6, 2, 1),
        ),
        (2, 3),
        [],
    ),
    "the same grouped convolution twice": (
        lambda: Written(
            lambda m, x: m.out(m.again(m.again(m.conv(x)))),
            conv=nn.Conv1d(2, 6, 1),
            again=nn.Conv1d(6, 6, 1, groups=2),
            out=nn.Conv1d(6, 2, 1),
        ),
        (2, 3),
        [2, 3],
    ),
    "a grouped convolution of the inputs": (
        lambda: nn.Sequential(nn.Conv1d(4, 6, 1, groups=2), nn.Conv1d(6, 2, 1)),
        (4, 3),
        [3, 3],
    ),
    "outer sum": (
        lambda: Written(
            lambda m, x: m.out((m.one(x)[:, :, None] + m.two(x)[:, None]).tanh().flatten(1)),
            one=nn.Linear(3, 2),
            two=nn.Linear(3, 3),
            out=nn.Linear(6, 2),
        ),
        (3,),
        [2, 3],
    ),
    "outer sum cut elsewhere": (
        lambda: Written(
            lambda m, x: m.out((m.one(x)[:, :, None] + m.two(x)[:, None]).tanh().view(-1, 3, 4)),
            one=nn.Linear(3, 4),
            two=nn.Linear(3, 3),
            out=nn.Linear(4, 2),
        ),
        (3,),
        [],
    ),
    "spectral norm": (
        lambda: Written(
            lambda m, x: m.fc2(torch.tanh(m.fc1(x))),
            fc1=nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
            fc2=nn.Linear(4, 2),
        ),
        (4,),
        [],
    ),
    "a buffer": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.InstanceNorm1d(3, track_running_stats=True), nn.Linear(4, 2)),
        (3, 4),
        [4],
    ),
}


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_parameters_are_free_as_far_as_the_network_lets_them(name: str) -> None:
    build, shape, expected = WITH_PARAMETERS[name]
    objective = objective_of(build(), *shape)
    found = la.symmetries(objective)
    require_symmetric(objective, found)
    inner = [g for g in found.groups if any(t.startswith("attention") for t in found.holders(g))]
    assert sorted(found.groups[g].size for g in found.groups.keys() - set(inner)) == expected, str(found)


# Objectives of all kinds.


def fixed(n: int = 5, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_frozen_parameters_and_the_units_that_they_meet_stay_in_order() -> None:
    model = la.zoo.mlp(6, (5, 4), 3)
    model.fc1.requires_grad_(False)
    objective = objective_of(model, 6)
    found = la.symmetries(objective)
    assert canonical(found.spec) == canonical(
        {"fc2.weight": ("b", None), "fc2.bias": ("b",), "fc3.weight": (None, "b")}
    )
    require_symmetric(objective, found)


def test_of_selected_parameters_only_their_own_units_move() -> None:
    data = (fixed(5, 6), torch.zeros(5, dtype=torch.float64))
    objective = la.Objective(drawn(la.zoo.mlp(6, (5, 4), 3)), loss, data, parameters="fc[23].*", metrics=None)
    assert set(la.symmetries(objective).axes) == {"fc2.weight", "fc2.bias", "fc3.weight"}


def test_a_model_of_several_inputs_and_a_ragged_last_batch() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, shift: Tensor) -> Tensor:
            return self.fc2(torch.tanh(self.fc1(x) + shift))

    x, zeros = fixed(5, 6), torch.zeros(5, dtype=torch.float64)
    by_name = [({"x": x[i:j], "shift": x[i:j, :1]}, zeros[i:j]) for i, j in ((0, BATCH), (BATCH, 5))]
    by_place = [((given["x"], given["shift"]), targets) for given, targets in by_name]
    expected = {"fc1.weight": ("a", None), "fc1.bias": ("a",), "fc2.weight": (None, "a")}
    for data in (by_name, by_place):
        objective = la.Objective(drawn(Several()), loss, data, metrics=None)
        found = la.symmetries(objective)
        assert canonical(found.spec) == canonical(expected)
        require_symmetric(objective, found)


def test_of_a_step_the_loss_is_what_stays_the_same() -> None:
    batches = [(fixed(5, 6), torch.tensor([0, 1, 2, 0, 1])), (fixed(2, 6), torch.tensor([2, 2]))]
    model = drawn(la.zoo.mlp(6, (5,), 3))
    objective = la.Objective.from_step(model, lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]), batches)
    found = la.symmetries(objective)
    assert canonical(found.spec) == canonical(
        {"fc1.weight": ("a", None), "fc1.bias": ("a",), "fc2.weight": (None, "a")}
    )
    require_symmetric(objective, found)


def test_units_of_a_layer_that_is_not_used_stay() -> None:
    model = Written(lambda m, x: m.fc2(torch.tanh(m.fc1(x))), fc1=nn.Linear(6, 4), fc2=nn.Linear(4, 2))
    model.spare = nn.Linear(3, 3)
    assert not any(name.startswith("spare") for name in la.symmetries(objective_of(model, 6)).axes)


def test_an_unknown_function_is_named_as_the_reason_for_units_that_stay() -> None:
    found = la.symmetries(objective_of(between(lambda h: torch.fft.fft(h).real), 6))
    assert not found.groups
    assert found.pinned == ("fc1 (4 units): no rule for such a call of fft_fft outside of its modules",)


class Halved(nn.Module):
    """The first half of what it is given is counted up."""

    def forward(self, h: Tensor) -> Tensor:
        first, second = h.chunk(2, -1)
        return torch.cat([first.cumsum(-1), second], -1)


class Scaled(nn.Module):
    """A scale for each unit, which is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.arange(1.0, 5.0))

    def forward(self, h: Tensor) -> Tensor:
        return h * self.scale


def _halves(h: Tensor) -> Tensor:
    first, second = h.chunk(2, -1)
    return torch.cat([first.cumsum(-1), second.roll(1, -1)], -1)


def _halves_meet(h: Tensor) -> Tensor:
    first, second = h.chunk(2, -1)
    return first.cumsum(-1) + second.roll(1, -1) + first * second


def _dropping(m: Any, x: Tensor) -> Tensor:
    weights = [getattr(m.cells, name) for names in m.cells._all_weights for name in names]
    start = torch.zeros(2, len(x), 4, dtype=x.dtype)
    return m.head(torch.rnn_tanh(x, start, weights, True, 2, 0.5, True, False, True)[0][:, -1])


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    return model


STAY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "half of the units are counted up": (
        lambda: nn.Sequential(nn.Linear(6, 4), Halved(), nn.Linear(4, 2)),
        (6,),
        ("layer0 (2 of 4 units): their order matters to cumsum in '1' (Halved)",),
    ),
    "halves that stay for two reasons and then meet": (
        lambda: Written(
            lambda m, x: m.fc2(_halves_meet(torch.tanh(m.fc1(x)))), fc1=nn.Linear(6, 4), fc2=nn.Linear(2, 2)
        ),
        (6,),
        ("fc1 (4 units): their order matters to cumsum outside of its modules",),
    ),
    "halves that stay for two reasons": (
        lambda: Written(
            lambda m, x: m.fc2(_halves(torch.tanh(m.fc1(x)))), fc1=nn.Linear(6, 4), fc2=nn.Linear(4, 2)
        ),
        (6,),
        (
            "fc1 (2 of 4 units): their order matters to cumsum outside of its modules",
            "fc1 (2 of 4 units): their order matters to roll outside of its modules",
        ),
    ),
    "a buffer by unit": (
        lambda: nn.Sequential(nn.Linear(6, 4), Scaled(), nn.Linear(4, 2)),
        (6,),
        ("layer0 (4 units): they meet 1.scale, which does not vary, in mul in '1' (Scaled)",),
    ),
    "frozen": (_frozen, (6,), ("layer0 (4 units): not among the parameters that vary",)),
    "added to the inputs": (
        lambda: Written(lambda m, x: m.fc2(x + torch.tanh(m.fc1(x))), fc1=nn.Linear(4, 4), fc2=nn.Linear(4, 2)),
        (4,),
        ("fc1 (4 units): their order matters to add outside of its modules",),
    ),
    "two inputs of a bilinear layer": (
        lambda: Written(lambda m, x: m.mix(m.one(x), m.two(x)), one=nn.Linear(4, 3), two=nn.Linear(4, 5),
                        mix=nn.Bilinear(3, 5, 2)),
        (4,),
        ("one (3 units), two (5 units), mix (2 units): no rule for such a call of bilinear in 'mix' (Bilinear)",),
    ),
    "rotary positions hold the dimensions of queries and keys": (
        lambda: Written(
            lambda m, x: m.o((_rotary(m.q(x)) @ _rotary(m.k(x)).mT).softmax(-1) @ m.v(x)),
            q=nn.Linear(3, 4), k=nn.Linear(3, 4), v=nn.Linear(3, 5), o=nn.Linear(5, 2),
        ),
        (4, 3),
        ("q (4 units), k (4 units): their order matters to mul outside of its modules",),
    ),
    "states that are dropped at random between two layers": (
        lambda: Written(_dropping, cells=nn.RNN(3, 4, num_layers=2), head=nn.Linear(4, 2)),
        (4, 3),
        ("cells (4 units): no rule for such a call of rnn_tanh outside of its modules",),
    ),
    "all move": (lambda: la.zoo.lenet5(), (1, 28, 28), ()),
    "query, key and value keep their places": (lambda: la.zoo.vit(1, 4, 3, patch=2, width=6, depth=1, heads=2),
                                               (1, 4, 4), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", STAY)
def test_what_stays_is_named_by_its_layer_with_the_reason(name: str) -> None:
    build, shape, expected = STAY[name]
    assert la.symmetries(objective_of(build(), *shape)).pinned == expected


def test_a_linear_model_has_no_symmetries() -> None:
    assert la.symmetries(objective_of(nn.Linear(4, 2), 4)).groups == {}


def test_finding_symmetries_draws_no_random_numbers_and_leaves_the_model_alone() -> None:
    objective = objective_of(la.zoo.mlp(6, (5,), 3), 6)
    before, generator = network_state(objective), torch.get_rng_state()
    la.symmetries(objective)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network_state(objective).items())


def test_the_answer_is_the_same_for_other_weights_and_other_data() -> None:
    texts = set()
    for seed in range(3):
        data = (torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)), torch.zeros(4))
        texts.add(str(la.symmetries(la.Objective(la.zoo.mlp(6, (5, 4), 3, seed=seed), loss, data, metrics=None))))
    assert len(texts) == 1


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > math.inf else -x


def test_a_model_that_cannot_be_traced_is_refused_and_the_module_named() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Sequential(nn.Tanh(), Deciding()), nn.Linear(4, 2))
    with refused(InputError, match=r"in '1\.1' \(Deciding\)") as caught:
        la.symmetries(objective_of(model, 6))
    assert "symmetries=" in str(caught.value)


def test_the_message_for_a_model_that_cannot_be_traced_is_written_with_its_own_tensors() -> None:
    two = nn.Sequential(nn.Conv2d(1, 4, 1), Deciding(), nn.Conv2d(4, 2, 1))
    axes = "{'0.weight': ('layer0', None, None, None), '0.bias': ('layer0',), '2.weight': (None, 'layer0', None, None)}"
    with refused(InputError) as caught:
        la.symmetries(objective_of(two, 1, 3, 3))
    assert str(caught.value).endswith(f"if 2.weight takes in the units of 0.weight, symmetries={axes}.")
    with refused(InputError) as caught:
        la.symmetries(objective_of(nn.Sequential(nn.Linear(4, 2), Deciding()), 4))
    assert str(caught.value).endswith("one entry an axis (see Symmetries.parse).")


class Hidden(torch.autograd.Function):
    """A function whose inside is recorded as any other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * torch.arange(x.shape[1])


def test_what_a_function_of_autograd_does_is_seen() -> None:
    objective = objective_of(between(Hidden.apply), 6)
    found = la.symmetries(objective)
    assert not found.groups
    require_symmetric(objective, found)


def test_a_compiled_script_in_the_middle_hides_no_order() -> None:
    """TorchScript runs unseen, so that the graph is not the model's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(lambda h: h * RAMP, torch.ones(3, 4, dtype=torch.float64))
    objective = objective_of(between(script), 6)
    with pytest.raises(InputError, match="trace"):
        la.symmetries(objective)
