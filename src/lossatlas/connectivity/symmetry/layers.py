"""Rules for layers: linear and convolution, norms, pooling, products, embeddings."""

from __future__ import annotations

from lossatlas.connectivity.symmetry.calls import Axes, Call, Found, Rule, agree, broadcast, factors, fresh, together
from lossatlas.connectivity.symmetry.extents import Extent, merged, unify


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
    blocks = whole.split(factors(groups, whole.size // groups))
    entering = x.split(factors(groups, x.size // groups))
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


def batch_norm(call: Call) -> Found:
    x = together(call.first(), [d for d in range(len(call.first())) if d != 1])
    for place, keyword in enumerate(("running_mean", "running_var", "weight", "bias"), start=1):
        _match_channels(call, x, call.axes(call.get(place, keyword)))
    return x


def group_norm(call: Call) -> Found:
    x, groups = together(call.first(), range(2, len(call.first()))), call.get(1, "num_groups")
    if 1 < groups < x[1].size:
        together(x[1].split([groups, x[1].size // groups]), [1])
    for place, keyword in ((2, "weight"), (3, "bias")):
        _match_channels(call, x, call.axes(call.get(place, keyword)))
    return x


def _match_channels(call: Call, x: Axes, scale: Axes | None) -> None:
    if scale is not None and scale[0].size > 1:
        unify(scale[0], x[1])


def layer_norm(call: Call) -> Found:
    k = len(call.get(1, "normalized_shape"))
    x = together(call.first(), range(-k, 0))
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


def matmul(call: Call) -> Found:
    return _product(call.tensor(0, "input"), call.tensor(1, "other", "mat2", "vec", "tensor"))


def _product(x: Axes, y: Axes) -> Axes:
    outer = broadcast(x[:-2], y[:-2]) if len(x) > 2 or len(y) > 2 else []
    unify(x[-1], y[-2] if len(y) > 1 else y[0])
    # Labels count from the end; 0 is the axis that is summed over: the last of x, of y the one before it.
    left = {0 if at == -1 else at: e for at, e in zip(range(-len(x), 0), x, strict=True)}
    right = {0 if at == max(-2, -len(y)) else at: e for at, e in zip(range(-len(y), 0), y, strict=True)}
    agree([left, right, {at: e for at, e in (left | right).items() if at}])
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
    terms = [dict(zip(term, call.axes(operand) or [], strict=True))
             for term, operand in zip(left.split(","), operands, strict=True)]  # fmt: skip
    agree([*terms, {letter: letters[letter] for letter in right}])
    return [letters[letter].root for letter in right]


def embedding_bag(call: Call) -> Found:
    """Sums, means or maxima of rows of a table."""
    table = call.tensor(1, "weight")
    for axis in (table[0], *call.first()):
        axis.pin()
    return [*fresh(call.result.shape[:1]), table[1]]


def embedding(call: Call) -> Found:
    numbers, table = call.first(), call.tensor(1, "weight")
    table[0].pin()
    return [*numbers, table[1]]
