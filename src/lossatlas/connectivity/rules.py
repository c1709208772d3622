"""What each function of PyTorch means for the units along the axes of its inputs and of its result."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from lossatlas.connectivity.extents import Extent, joined, merged, unify

Axes = list[Extent]
Found = Axes | list[Any] | None  # of one result, of each of several, or no rule


class Call:
    """One function as it was called: its arguments, with the extents of those that are tensors."""

    def __init__(self, node: fx.Node, name: str, extents: dict[fx.Node, Any], values: dict[fx.Node, Any]) -> None:
        self.node, self.name = node, name
        self._extents, self._values = extents, values

    @property
    def result(self) -> Any:
        return self._values[self.node]

    def get(self, place: int, keyword: str, default: Any = None) -> Any:
        """An argument as it stands in the graph."""
        if place < len(self.node.args):
            return self.node.args[place]
        return self.node.kwargs.get(keyword, default)

    def axes(self, argument: Any) -> Axes | None:
        """The extents of an argument that is a tensor."""
        if not isinstance(argument, fx.Node):
            return None
        found = self._extents[argument]
        return found if isinstance(self._values[argument], Tensor) else None

    def tensor(self, place: int, *keywords: str) -> Axes:
        """The extents of an argument that must be a tensor, under one of these names."""
        given = (self.get(place, keyword) for keyword in keywords)
        found = self.axes(next((argument for argument in given if argument is not None), None))
        if found is None:
            raise TypeError(f"{self.name} was called without a tensor {keywords[0]}")
        return found

    def first(self) -> Axes:
        """The extents of the first argument; of a function without one, of none."""
        return self.axes(self.get(0, "input")) or []

    def tensors(self) -> list[Axes]:
        """The extents of all arguments that are tensors."""
        return [self._extents[n] for n in self.node.all_input_nodes if isinstance(self._values[n], Tensor)]

    def several(self, argument: fx.Node) -> list[Any]:
        """The extents of each of several results of one function."""
        found: list[Any] = self._extents[argument]
        return found

    def value(self, argument: fx.Node) -> Any:
        return self._values[argument]


Rule = Callable[[Call], Found]


def fresh(shape: Sequence[int]) -> Axes:
    """Extents of something whose order matters."""
    return [Extent(size, pinned=True) for size in shape]


def broadcast(*several: Axes) -> Axes:
    """Axes aligned from the last; those longer than 1 are the same."""
    length = max(map(len, several))
    padded = [[None] * (length - len(axes)) + list(axes) for axes in several]
    found: Axes = []
    for column in zip(*padded, strict=True):
        there = [e for e in column if e is not None]
        found.append(next((e for e in there if e.size > 1), there[0]))
    # What depends on nothing comes first: an inner axis is compared when the outer ones are known to agree.
    pairs = [(e, one) for column, one in zip(zip(*padded, strict=True), found, strict=True) for e in column if e]
    for extent, one in sorted(pairs, key=lambda pair: len(pair[0].outer)):
        if extent.size > 1:
            unify(extent, one)
    return [e.root for e in found]


def elementwise(call: Call) -> Found:
    return broadcast(*call.tensors())


def same(call: Call) -> Found:
    """Each axis as it was: along the others, or equally in all of it."""
    return call.first()


def linear(call: Call) -> Found:
    x, weight, bias = call.first(), call.tensor(1, "weight"), call.axes(call.get(2, "bias"))
    unify(x[-1], weight[-1])
    if len(weight) == 1:
        return x[:-1]
    if bias is not None:
        unify(bias[0], weight[0])
    return [*x[:-1], weight[0]]


def convolution(dims: int, transposed: bool = False) -> Rule:
    def rule(call: Call) -> Found:
        x, weight, bias = call.first(), call.tensor(1, "weight"), call.axes(call.get(2, "bias"))
        groups = call.get(6, "groups", 1)
        channel = len(x) - dims - 1
        for spatial in (*x[channel + 1 :], *weight[2:]):
            spatial.pin()
        inward, outward = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
        out = _grouped(x[channel], inward, outward, groups, transposed) if groups > 1 else outward
        if groups == 1:
            unify(x[channel], inward)
        if bias is not None:
            unify(bias[0], out)
        return [*x[:channel], out, *fresh(call.result.shape[channel + 1 :])]

    return rule


def _grouped(x: Extent, inward: Extent, outward: Extent, groups: int, transposed: bool) -> Extent:
    """The channels of a grouped convolution: both sides are blocks, a group of channels each."""
    whole, other = (inward, outward) if transposed else (outward, inward)
    blocks = whole.split(_sizes(groups, whole.size // groups))
    entering = x.split(_sizes(groups, x.size // groups))
    unify(entering[0], blocks[0])
    if other.size > 1 and not other.root.outer and not (other.root.factors or other.root.parts or other.root.pinned):
        other.root.vary_within(blocks[0])
    if transposed:
        if len(entering) > 1:
            unify(entering[1], blocks[1])
        return merged([blocks[0], other])
    if other.size > 1:
        unify(entering[1], other)
    return whole


def _sizes(*sizes: int) -> list[int]:
    return [size for size in sizes if size > 1] or [1]


def batch_norm(call: Call) -> Found:
    x = call.first()
    for place, keyword in enumerate(("running_mean", "running_var", "weight", "bias"), start=1):
        _match_channels(call, x, call.axes(call.get(place, keyword)))
    return x


def group_norm(call: Call) -> Found:
    x, groups = call.first(), call.get(1, "num_groups")
    if 1 < groups < x[1].size:
        x[1].split([groups, x[1].size // groups])
    for place, keyword in ((2, "weight"), (3, "bias")):
        _match_channels(call, x, call.axes(call.get(place, keyword)))
    return x


def _match_channels(call: Call, x: Axes, scale: Axes | None) -> None:
    if scale is not None and scale[0].size > 1:
        unify(scale[0], x[1])


def layer_norm(call: Call) -> Found:
    x, k = call.first(), len(call.get(1, "normalized_shape"))
    for place, keyword in ((2, "weight"), (3, "bias")):
        scale = call.axes(call.get(place, keyword))
        if scale is not None:
            broadcast(x[-k:], scale)
    return x


def prelu(call: Call) -> Found:
    x, slope = call.first(), call.axes(call.get(1, "weight"))
    if slope and slope[0].size > 1:
        unify(slope[0], x[1])
    return x


def spatial(dims: int) -> Rule:
    """Pooling and resizing: every channel alone, by the places of its pixels."""

    def rule(call: Call) -> Found:
        x = call.first()
        for extent in x[len(x) - dims :]:
            extent.pin()
        return [*x[: len(x) - dims], *fresh(call.result.shape[len(x) - dims :])]

    return rule


def resize(call: Call) -> Found:
    return spatial(len(call.first()) - 2)(call)


def reduction(place: int = 1) -> Rule:
    """Sums, means and the like over the axes that the argument at ``place`` names, or over all."""

    def rule(call: Call) -> Found:
        x, dims = call.first(), call.get(place, "dim", call.node.kwargs.get("axis"))
        if isinstance(dims, int) and not isinstance(dims, bool):
            dims = [dims]
        if not isinstance(dims, list | tuple) or not dims:
            dims = range(len(x))
        gone = {d % len(x) for d in dims}
        keep = call.result.ndim == len(x)
        return [Extent(1, pinned=True) if d in gone else e for d, e in enumerate(x) if keep or d not in gone]

    return rule


def ordered(place: int = 1, default: int | None = None) -> Rule:
    """Functions that look at the order along one axis (cumulative sums, ranks): the others are as they were."""

    def rule(call: Call) -> Found:
        x, dim = call.first(), call.get(place, "dim", default)
        if not isinstance(dim, int) or isinstance(dim, bool):
            return None
        dim %= len(x)
        x[dim].pin()

        def axes(result: Tensor) -> Axes:
            instead = fresh(result.shape[dim : dim + 1]) if result.ndim == len(x) else []
            return [*x[:dim], *instead, *x[dim + 1 :]]

        return axes(call.result) if isinstance(call.result, Tensor) else [axes(result) for result in call.result]

    return rule


def dropped(place: int) -> Rule:
    """Dropout and its kin: nothing in evaluation, else a mask by place. ``place``: of the argument ``training``."""
    return lambda call: None if call.get(place, "training", True) else call.first()


def gated(call: Call) -> Found:
    """glu: the first half times the sigmoid of the other."""
    x = call.first()
    dim = call.get(1, "dim", -1) % len(x)
    halves = x[dim].cut([x[dim].size // 2] * 2)
    unify(*halves)
    return [*x[:dim], halves[0], *x[dim + 1 :]]


def reshape(call: Call) -> Found:
    x = [e for e in call.first() if e.size != 1]
    found: Axes = []
    pool: list[Extent] = []  # of the axes read, not yet given to one of the result's
    for size in call.result.shape:
        if size == 1:
            found += fresh([1])
            continue
        while math.prod(e.size for e in pool) % size and x:
            pool.append(x.pop(0))
        total = math.prod(e.size for e in pool)
        if total % size:
            return None
        whole = merged(pool)
        first, *rest = whole.split(_sizes(size, total // size))
        found.append(first)
        pool = rest
    return found


def rearrange(call: Call) -> Found:
    """Any function that only puts axes into another order: strides tell which went where."""
    shape = [extent.size for extent in call.first()]
    labels = [7 ** (i + 1) for i in range(len(shape))]
    dummy = torch.empty_strided(tuple(2 for _ in shape), labels, device="meta")
    arguments = [dummy, *call.node.args[1:]]
    keywords = {name: value for name, value in call.node.kwargs.items() if name != "input"}
    if call.node.target is getattr:
        moved = getattr(dummy, str(arguments[1]))
    elif call.node.op == "call_method":
        moved = getattr(dummy, str(call.node.target))(*arguments[1:], **keywords)
    else:
        moved = call.node.target(*arguments, **keywords)  # type: ignore[operator]
    return [call.first()[labels.index(stride)] for stride in moved.stride()]


def expand(call: Call) -> Found:
    x, shape = call.first(), call.result.shape
    padded: list[Extent | None] = [None] * (len(shape) - len(x)) + list(x)
    return [e if e is not None and e.size == n else Extent(n, n == 1) for e, n in zip(padded, shape, strict=True)]


def concatenate(call: Call) -> Found:
    parts = [call.axes(part) for part in call.get(0, "tensors")]
    several = [p for p in parts if p is not None and all(e.size for e in p)]
    dim = call.get(1, "dim", call.node.kwargs.get("axis", 0)) % len(several[0])
    rest = broadcast(*[[e for i, e in enumerate(p) if i != dim] for p in several])
    return [*rest[:dim], joined([p[dim] for p in several]), *rest[dim:]]


def stack(call: Call) -> Found:
    several = [axes for axes in map(call.axes, call.get(0, "tensors")) if axes is not None]
    dim = call.get(1, "dim", 0) % (len(several[0]) + 1)
    common = broadcast(*several)
    return [*common[:dim], *fresh([len(several)]), *common[dim:]]


def pieces(call: Call) -> Found:
    """chunk, split: the axis is a sum."""
    x = call.first()
    dim = call.get(2, "dim", 0) % len(x)
    parts = x[dim].cut([piece.shape[dim] for piece in call.result])
    return [[*x[:dim], part, *x[dim + 1 :]] for part in parts]


def unbind(call: Call) -> Found:
    x, dim = call.first(), call.get(1, "dim", 0)
    return [selected(x, dim % len(x), i) for i in range(len(call.result))]


def select(call: Call) -> Found:
    x = call.first()
    dim, index = call.get(1, "dim") % len(x), call.get(2, "index")
    return selected(x, dim, index % x[dim].size)


def narrow(call: Call) -> Found:
    x = call.first()
    dim, start = call.get(1, "dim") % len(x), call.get(2, "start")
    return [*x[:dim], _part(x[dim], start % x[dim].size, call.result.shape[dim]), *x[dim + 1 :]]


def selected(x: Axes, dim: int, index: int) -> Axes:
    """One unit of an axis, whose order then matters; what depends on it is what it is there."""
    chosen = x[dim].root
    rest = [e.at(chosen, index) for i, e in enumerate(x) if i != dim]
    chosen.pin()
    return rest


def _part(extent: Extent, start: int, length: int) -> Extent:
    if length == extent.size:
        return extent
    sizes = [size for size in (start, length, extent.size - start - length) if size]
    return extent.cut(sizes)[1 if start else 0]


def item(call: Call) -> Found:
    """x[...], or one of several results."""
    source, index = call.node.args[0], call.node.args[1]
    if isinstance(source, fx.Node) and not isinstance(call.value(source), Tensor):
        return cast(Axes, call.several(source)[cast(int, index)])
    x, entries = list(call.first()), list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(e, fx.Node | list) for e in entries):
        return _looked_up(call, x, entries)
    named = sum(e is not None and e is not Ellipsis for e in entries)
    if Ellipsis not in entries:
        entries.append(Ellipsis)
    place = entries.index(Ellipsis)
    entries[place : place + 1] = [slice(None)] * (len(x) - named)
    for entry in entries:
        if isinstance(entry, slice) and any(isinstance(e, fx.Node) for e in (entry.start, entry.stop, entry.step)):
            return None
        if isinstance(entry, slice) and entry.step not in (None, 1):
            return _strided(call, x, entries)
    return _indexed(x, entries)


def _indexed(x: Axes, entries: list[Any]) -> Axes:
    dim = 0
    for entry in entries:
        if entry is None:
            x = [*x[:dim], *fresh([1]), *x[dim:]]
            dim += 1
        elif isinstance(entry, int):
            x = selected(x, dim, entry % x[dim].size)
        else:
            start, stop, _ = entry.indices(x[dim].size)
            x = [*x[:dim], _part(x[dim], start, max(stop - start, 0)), *x[dim + 1 :]]
            dim += 1
    return x


def _strided(call: Call, x: Axes, entries: list[Any]) -> Found:
    """Every second pixel: the axis keeps its order, the others are as they were."""
    if not all(isinstance(entry, slice) for entry in entries):
        return None
    found = []
    for extent, entry, size in zip(x, entries, call.result.shape, strict=True):
        if entry == slice(None):
            found.append(extent)
        else:
            extent.pin()
            found += fresh([size])
    return found


def _looked_up(call: Call, x: Axes, entries: list[Any]) -> Found:
    """Rows of a table by number: the order of its rows matters."""
    indices = call.axes(entries[0]) if len(entries) == 1 else None
    if indices is None:
        return None
    x[0].pin()
    return [*indices, *x[1:]]


def pad(call: Call) -> Found:
    x, widths = list(call.first()), list(call.get(1, "pad"))
    constant = call.get(2, "mode", "constant") == "constant"
    for position, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        dim = len(x) - 1 - position
        if not before and not after:
            continue
        if not constant or before < 0 or after < 0:
            x[dim].pin()
        if x[dim].root.pinned:
            x[dim] = fresh([call.result.shape[dim]])[0]
            continue
        # Added entries are all the same number, so they may change places among themselves.
        around = [Extent(n, n == 1) for n in (before, after)]
        x[dim] = joined([e for e in (around[0], x[dim], around[1]) if e.size])
    return x


def matmul(call: Call) -> Found:
    return _product(call.tensor(0, "input"), call.tensor(1, "other", "mat2", "vec", "tensor"))


def _product(x: Axes, y: Axes) -> Axes:
    outer = broadcast(x[:-2], y[:-2]) if len(x) > 2 or len(y) > 2 else []
    unify(x[-1], y[-2] if len(y) > 1 else y[0])
    return [*outer, *([x[-2]] if len(x) > 1 else []), *([y[-1]] if len(y) > 1 else [])]


def added_product(call: Call) -> Found:
    """addmm, baddbmm: a matrix product and what is added to it."""
    added, x, y = (call.axes(call.get(i, name)) for i, name in enumerate(("input", "mat1", "mat2")))
    return None if added is None or x is None or y is None else broadcast(added, _product(x, y))


def einsum(call: Call) -> Found:
    equation, *operands = call.node.args
    if isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    if not isinstance(equation, str) or "." in equation:
        return None
    left, arrow, right = equation.replace(" ", "").partition("->")
    letters: dict[str, Extent] = {}
    pairs = [pair for term, operand in zip(left.split(","), operands, strict=True)
             for pair in zip(term, call.axes(operand) or [], strict=True)]  # fmt: skip
    for letter, extent in sorted(pairs, key=lambda pair: len(pair[1].outer)):
        unify(letters.setdefault(letter, extent), extent)
    if not arrow:
        right = "".join(sorted(x for x in letters if left.count(x) == 1))
    return [letters[letter].root for letter in right]


def attention(call: Call) -> Found:
    """softmax(Q K' / sqrt(d)) V for each head (Vaswani et al. 2017, eq. 1)."""
    query, key, value = (call.tensor(i, name) for i, name in enumerate(("query", "key", "value")))
    if call.get(4, "dropout_p", 0.0):
        return None
    if call.get(5, "is_causal", False):
        for extent in (query[-2], key[-2]):
            extent.pin()
    if query[-3:-2] and key[-3].size != query[-3].size:  # grouped queries share keys
        return None
    outer = broadcast(query[:-2], key[:-2], value[:-2])
    unify(query[-1], key[-1])
    unify(key[-2], value[-2])
    mask = call.axes(call.get(3, "attn_mask"))
    if mask is not None:
        broadcast([*outer, query[-2], key[-2]], mask)
    return [*outer, query[-2], value[-1]]


def embedding(call: Call) -> Found:
    numbers, table = call.first(), call.tensor(1, "weight")
    table[0].pin()
    return [*numbers, table[1]]


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
    query, key, value, output = split = [e.split(_sizes(heads, e.size // heads)) for e in units]
    for own in split[1:] if heads > 1 else []:
        unify(query[0], own[0])
    if query[-1].size > 1:
        unify(query[-1], key[-1])
        unify(value[-1], output[-1])
    if seen and heads > 1:
        query[0].pin()


def factory(call: Call) -> Found:
    """A tensor made of nothing: along an axis where all is the same number, entries may change places."""
    return None if call.tensors() else constant(call.result)


def made_like(call: Call) -> Found:
    """One that takes no more than the form of another."""
    return constant(call.result) if len(call.tensors()) == 1 else None


def converted(call: Call) -> Found:
    """torch.as_tensor, torch.tensor."""
    return call.first() if call.tensors() else constant(call.result)


def constant(value: Tensor) -> Axes:
    """The extents of a tensor that is always the same."""
    found = []
    for dim, size in enumerate(value.shape):
        alike = size > 1 and bool((value == value.narrow(dim, 0, 1)).all())
        found.append(Extent(size, not alike))
    return found
