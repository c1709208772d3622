"""Rules for attention: heads, and the dimensions of each head."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F

from lossatlas.connectivity.symmetry.calls import Axes, Call, Found, agree, broadcast, factors, fresh
from lossatlas.connectivity.symmetry.extents import Extent, unify


def attention(call: Call) -> Found:
    """softmax(Q K' / sqrt(d)) V for each head (Vaswani et al. 2017, eq. 1)."""
    query, key, value = (call.tensor(i, name) for i, name in enumerate(("query", "key", "value")))
    if call.get(4, "dropout_p", 0.0):
        return None
    if call.get(5, "is_causal", False):
        for extent in (query[-2], key[-2]):
            extent.pin()
    outer = [*broadcast(query[:-3], key[:-3], value[:-3]), *_shared(query[-3:-2], key[-3:-2], value[-3:-2])]
    unify(query[-1], key[-1])
    unify(key[-2], value[-2])
    mask = call.axes(call.get(3, "attn_mask"))
    if mask is not None:
        broadcast([*outer, query[-2], key[-2]], mask)
    found = [*outer, query[-2], value[-1]]
    agree([_labelled(query, "le"), _labelled(key, "se"), _labelled(value, "sd"), _labelled(found, "ld")])
    return found


def _shared(query: Axes, key: Axes, value: Axes) -> Axes:
    """The heads of queries; where several of them share a key and a value, they are blocks."""
    if not query or query[0].size == key[0].size:
        return broadcast(query, key, value)
    unify(key[0], value[0])
    blocks = query[0].split(factors(key[0].size, query[0].size // key[0].size))
    if key[0].size > 1:
        unify(blocks[0], key[0])
    return [query[0].root]


def _labelled(axes: Axes, last: str) -> dict[Any, Extent]:
    """The last two axes by letters, those before by their place from the end."""
    return dict(zip([*range(2 - len(axes), 0), *last], axes, strict=True))


_ATTENTION = tuple(inspect.signature(F.multi_head_attention_forward).parameters)


def packed_attention(call: Call) -> Found:
    """nn.MultiheadAttention: projections of query, key and value, heads, and the projection of their outputs."""
    given = {name: call.get(i, name) for i, name in enumerate(_ATTENTION)}
    unknown = ("bias_k", "bias_v", "static_k", "static_v")
    dropout = given["training"] is not False and given["dropout_p"]
    if dropout or given["add_zero_attn"] or any(given[name] is not None for name in unknown):
        return None
    query, key, value = several = [call.tensor(i, name) for i, name in enumerate(("query", "key", "value"))]
    out = call.tensor(_ATTENTION.index("out_proj_weight"), "out_proj_weight")
    mask = call.axes(given["attn_mask"]) or []
    seen = len(mask) == 3 or given["average_attn_weights"] is False  # what happens in each head, one after the other
    _heads([*_projections(call, given, several), out[1]], given["num_heads"], seen)
    padding = call.axes(given["key_padding_mask"]) or []
    for axis in (*query[:-1], *key[:-1], *value[:-1], *mask, *padding):
        axis.pin()
    if (bias := call.axes(given["out_proj_bias"])) is not None:
        unify(bias[0], out[0])
    return [[*query[:-1], out[0]], None if call.result[1] is None else fresh(call.result[1].shape)]


def _projections(call: Call, given: dict[str, Any], several: Sequence[Axes]) -> list[Extent]:
    """The units that query, key and value are projected to."""
    packed, bias = call.axes(given["in_proj_weight"]), call.axes(given["in_proj_bias"])
    if packed is not None and not given["use_separate_proj_weight"]:
        found = packed[0].cut([packed[0].size // 3] * 3)
        entering = [packed[1]] * 3
    else:
        weights = [call.tensor(_ATTENTION.index(n), n) for n in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
        found, entering = [weight[0] for weight in weights], [weight[1] for weight in weights]
    for x, units in zip(several, entering, strict=True):
        unify(x[-1], units)
    for part, own in zip(bias[0].cut([p.size for p in found]) if bias is not None else [], found, strict=False):
        unify(part, own)
    return found


def _heads(units: Sequence[Extent], heads: int, seen: bool) -> None:
    """Units of query, key, value and output as heads of dimensions; ``seen``: the order of the heads matters."""
    query, key, value, output = split = [e.split(factors(heads, e.size // heads)) for e in units]
    for own in split[1:] if heads > 1 else []:
        unify(query[0], own[0])
    if query[-1].size > 1:
        unify(query[-1], key[-1])
        unify(value[-1], output[-1])
    if seen and heads > 1:
        query[0].pin()
