"""Tracing: what is written down replays as the function itself, and what cannot be written down is refused."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.refusals import refused
from torch import Tensor, fx

from lossatlas.evaluation.points.tracing import Trace, Untraceable, trace


def tensors(seed: int) -> tuple[Tensor, Tensor]:
    """A batch ``(6, 4)`` and a weight ``(5, 4)``."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(6, 4, generator=draw), torch.randn(5, 4, generator=draw)


def written(function, x: Tensor, w: Tensor) -> Trace:
    with torch.no_grad():
        return trace(lambda: {"loss": function(x, w)}, {"batch_0": x, "point_0": w})


def replayed(traced: Trace, x: Tensor, w: Tensor) -> Tensor:
    with torch.no_grad():
        return fx.GraphModule(dict(traced.constants), traced.graph)(x, w)["loss"]


def residual(x, w):
    out = torch.tanh(x @ w.T)
    out += out.mean(1, keepdim=True)
    return out


def arithmetic_in_place(x, w):
    h = F.linear(x, w)
    h -= 1
    h *= x[:, :1]
    h /= 3.0
    h.add_(x[:, 1:2], alpha=2).clamp_(-1, 1)
    return h.exp_()


def relu_in_place(x, w):
    return torch.relu_(F.relu(F.linear(x, w), inplace=True) - 0.5)


def several_results(x, w):
    values, indices = torch.max(F.linear(x, w), 1, keepdim=True)
    first, second = x.chunk(2, dim=1)
    return values + indices + torch.cat([second, first], 1).sum(1, keepdim=True)


def indices_of_all_kinds(x, w):
    h = F.linear(x, w)[..., None]
    return h[1:, ::2, 0] + h[:-1, [0, 2, 4], 0] + w[None, 0, :3]


def constants(x, w):
    table = torch.tensor([1.0, -2.0, 3.0, 0.5, 4.0])
    return F.linear(x, w) * table + torch.arange(5) + torch.ones_like(w).sum()


def infinities(x, w):
    h = F.linear(x, w)
    return h.masked_fill(h < 0, float("-inf")).logsumexp(1).nan_to_num(neginf=0.0)


def properties(x, w):
    return (w @ x.T).mT.view(x.shape[0], -1).to(x.dtype) * x.dim()


def reversed_operators(x, w):
    return 1 - 2 / (3 + F.linear(x, w).abs()) + 2.0 ** -w.abs().sum()


def keywords(x, w):
    return torch.nn.functional.linear(input=x, weight=w, bias=torch.zeros(5)).softmax(dim=-1)


def decided_by_shape(x, w):
    return x.sum() if len(x) > 100 or x.shape[1] != w.size(1) else F.linear(x, w)


def pooled(x, w):
    return F.max_pool1d(F.linear(x, w)[None], 2) + F.dropout(x[:, :2], 0.5, training=False)


def without_gradients(x, w):
    with torch.no_grad():
        scale = w.norm()
    with torch.enable_grad():
        return F.linear(x, w) / scale


def converted_to_integers(x, w):
    torch._assert(x.ndim == 2, "rows")
    torch._assert(torch.isfinite(x).all(), "finite")
    numbers = F.linear(x, w).argmax(1)
    return w[numbers] + x[:, : int(x.shape[1])].long()


WRITTEN = [
    without_gradients, converted_to_integers,
    residual, arithmetic_in_place, relu_in_place, several_results, indices_of_all_kinds, constants, infinities,
    properties, reversed_operators, keywords, decided_by_shape, pooled,
]  # fmt: skip


@pytest.mark.parametrize("function", WRITTEN, ids=lambda f: f.__name__)
def test_a_trace_replays_as_the_function_at_other_inputs(function):
    traced = written(function, *tensors(0))
    for seed in (0, 1, 2):
        expected = function(*tensors(seed))
        torch.testing.assert_close(replayed(traced, *tensors(seed)), expected, rtol=0, atol=0)
    assert not torch.equal(expected, function(*tensors(0))), "the function must depend on its inputs"


def scaled_by_numpy(x, w):
    return F.linear(x, w) / np.sqrt(4.0) + np.float32(0.5) * x.sum()


def a_generator_of_its_own(x, w):
    return F.linear(x, w) + torch.randn(5, generator=torch.Generator().manual_seed(0))


def a_view_that_follows_its_base(x, w):
    h = F.linear(x, w)
    view = h.view(-1)
    h.mul_(2)
    return view


def a_base_that_follows_its_view(x, w):
    h = F.linear(x, w)
    h[0].mul_(2)
    return h


def the_number_of_active_units(x, w):
    h = F.linear(x, w)
    return h.relu().sum() / h[h > 0].numel()


def the_positions_of_active_units(x, w):
    h = F.linear(x, w)
    return h.sum() * len(torch.nonzero(h > 0))


def an_example_at_a_time(x, w):
    return torch.vmap(lambda row: (w @ row).logsumexp(0))(x)


@pytest.mark.parametrize(
    "function",
    [
        scaled_by_numpy, a_generator_of_its_own, a_view_that_follows_its_base,
        a_base_that_follows_its_view, the_number_of_active_units, the_positions_of_active_units, an_example_at_a_time,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_a_hard_function_is_replayed_rightly_or_refused(function):
    try:
        traced = written(function, *tensors(0))
    except Untraceable:
        return
    for seed in (0, 1, 2):
        torch.testing.assert_close(replayed(traced, *tensors(seed)), function(*tensors(seed)), rtol=0, atol=0)


def set_by_index(x, w):
    h = F.linear(x, w)
    h[:, 0] = 0
    return h


def copied_into_a_table(x, w):
    return torch.zeros(6, 5).copy_(F.linear(x, w))


def written_to_a_given_place(x, w):
    out = torch.empty(6, 5)
    torch.mm(x, w.T, out=out)
    return out


def packed(x, w):
    lengths = 1 + (x > 0).sum(1).clamp(max=2)
    steps = torch.nn.utils.rnn.pack_padded_sequence(F.linear(x, w)[..., None], lengths, True, False)
    return torch.nn.utils.rnn.pad_packed_sequence(steps, batch_first=True)[0]


REFUSED = {
    "_pack_padded_sequence": packed,
    "__bool__": lambda x, w: x * 2 if w.sum() > 0 else x,
    "item": lambda x, w: x * w.sum().item(),
    "__float__": lambda x, w: x * float(w.sum()),
    "tolist": lambda x, w: x * max(w[0].tolist()),
    "numpy": lambda x, w: x + torch.from_numpy(np.tanh(x.numpy())),
    "equal": lambda x, w: x if torch.equal(w, w + 1) else x * 2,
    "__setitem__": set_by_index,
    "copy_": copied_into_a_table,
    "mm": written_to_a_given_place,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_decision_by_values_and_a_write_into_a_tensor_are_refused_by_name(name):
    with refused(Untraceable) as caught:
        written(REFUSED[name], *tensors(0))
    assert f"({name})" in str(caught.value)


@pytest.mark.parametrize(
    "write", [lambda t: t.add_(1), lambda t: operator.iadd(t, 1), lambda t: t.mul_(3)], ids=["add_", "+=", "mul_"]
)
def test_a_tensor_of_the_model_is_taken_as_it_was_before_the_model_wrote_to_it(write):
    def counting(counter, x, w):
        write(counter)
        return F.linear(x, w) * counter

    counter = torch.ones(5)
    try:
        traced = written(lambda x, w: counting(counter, x, w), *tensors(0))
    except Untraceable:
        return
    for seed in (0, 1):
        expected = counting(torch.ones(5), *tensors(seed))
        torch.testing.assert_close(replayed(traced, *tensors(seed)), expected, rtol=0, atol=0)


def test_a_tensor_that_is_no_input_becomes_a_constant_once():
    table = torch.arange(5.0)
    traced = written(lambda x, w: F.linear(x, w) * table + table, *tensors(0))
    assert [torch.equal(constant, table) for constant in traced.constants.values()] == [True]


def test_every_result_has_its_name_and_numbers_are_inputs_that_nobody_uses():
    x, w = tensors(0)
    measured = {"loss": lambda: F.linear(x, w).sum(1), "accuracy": lambda: (x.argmax(1) == 0).float()}
    traced = trace(lambda: {k: f() for k, f in measured.items()}, {"batch_0": x, "point_0": w}, ["point_weight_0"])
    found = fx.GraphModule(dict(traced.constants), traced.graph)(x, w, 0.5)
    assert found.keys() == measured.keys()
    assert all(torch.equal(found[name], function()) for name, function in measured.items())
    assert [n.target for n in traced.graph.nodes if n.op == "placeholder"] == ["batch_0", "point_0", "point_weight_0"]


HELD = {
    "__int__": lambda x, w: F.linear(x, w)[: 1 + int((x[:, 0] > 0).sum())],
    "nonzero": lambda x, w: F.linear(x[(x[:, 0] > 0).nonzero()[:, 0]], w),
    "__getitem__": lambda x, w: F.linear(x, w)[x[:, 0] > 0],
    "tolist": lambda x, w: F.linear(x, w) * max(x[0].tolist()),
    "__bool__": lambda x, w: F.linear(x, w) if x.sum() > 0 else F.linear(x, -w),
}


@pytest.mark.parametrize("name", HELD)
def test_values_of_inputs_that_are_held_may_decide_and_the_trace_says_that_it_is_theirs(name):
    (x, w), (_, other) = tensors(0), tensors(1)
    with torch.no_grad():
        traced = trace(lambda: {"loss": HELD[name](x, w)}, {"batch_0": x, "point_0": w}, held=["batch_0"])
    assert traced.by_values
    torch.testing.assert_close(replayed(traced, x, other), HELD[name](x, other), rtol=0, atol=0)
    with refused(Untraceable, match=rf"depends on values \({name}\)"):
        written(HELD[name], x, w)


@pytest.mark.parametrize("name", ["__bool__", "item", "__float__", "tolist", "equal"])
def test_values_that_depend_on_other_inputs_may_not(name):
    x, w = tensors(0)
    with refused(Untraceable, match=name), torch.no_grad():
        trace(lambda: {"loss": REFUSED[name](x, w)}, {"batch_0": x, "point_0": w}, held=["batch_0"])


def test_an_error_of_the_measure_passes_through():
    def fails(x, w):
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError, match="no"):
        written(fails, *tensors(0))
    assert not torch.overrides._get_current_function_mode_stack(), "the recorder must be off again"
