"""The permutation symmetries of a network, read off the graph of its functions.

Every axis of every tensor is an unknown ``Extent``. Each function says which of them are the same units (Ainsworth et
al. 2023 write these groups by hand for each architecture); what no rule knows keeps its order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from lossatlas.connectivity import rules
from lossatlas.connectivity.extents import Extent
from lossatlas.connectivity.groups import moves, symmetries_of
from lossatlas.connectivity.rules import Axes, Call, Rule
from lossatlas.connectivity.symmetries import Axis, Symmetries
from lossatlas.connectivity.verification import deviation, difference, guilty_groups
from lossatlas.errors import InputError, NumericalError
from lossatlas.evaluation.forward import Forward
from lossatlas.evaluation.tracing import Untraceable
from lossatlas.objective import Objective


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_ELEMENTWISE = """
add sub rsub mul div true_divide truediv floor_divide pow relu relu6 gelu tanh sigmoid silu mish elu selu celu
leaky_relu hardswish hardsigmoid hardtanh softplus softsign logsigmoid tanhshrink softshrink hardshrink threshold
exp expm1 log log1p log2 sqrt rsqrt reciprocal neg abs sign square sin cos tan atan erf erfc clamp clamp_min clamp_max
clip where maximum minimum fmin fmax lerp masked_fill addcmul addcdiv eq ne lt le gt ge logical_and logical_or
logical_not and or bitwise_and bitwise_not invert nan_to_num floor ceil round isnan isinf _weight_norm log_sigmoid
_threshold remainder fmod mod cosh sinh xor atan2 hypot logaddexp"""
_SAME = """
to type type_as float double half bfloat16 long int bool contiguous clone detach cpu cuda data real positive softmax
log_softmax softmin normalize alias"""
_MADE = """
zeros ones full arange eye linspace"""
_POOLS = ("max", "avg", "lp", "adaptive_avg", "adaptive_max")

RULES: dict[str, Rule] = {
    **_named(rules.elementwise, _ELEMENTWISE),
    **_named(rules.same, _SAME),
    **_named(rules.factory, _MADE),
    **_named(rules.made_like, "zeros_like ones_like full_like new_zeros new_ones new_full"),
    **_named(rules.converted, "tensor as_tensor"),
    **_named(rules.dropped(2), "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"),
    "rrelu": rules.dropped(3),
    "glu": rules.gated,
    "linear": rules.linear,
    **{f"conv{d}d": rules.convolution(d) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": rules.convolution(d, transposed=True) for d in (1, 2, 3)},
    **_named(rules.batch_norm, "batch_norm instance_norm"),
    "group_norm": rules.group_norm,
    **_named(rules.layer_norm, "layer_norm rms_norm"),
    "prelu": rules.prelu,
    **{f"{kind}_pool{d}d": rules.spatial(d) for d in (1, 2, 3) for kind in _POOLS},
    **_named(rules.resize, "interpolate upsample"),
    **_named(rules.reduction(), "mean sum nansum nanmean amax amin prod logsumexp std var all any"),
    **_named(rules.reduction(2), "norm vector_norm linalg_norm linalg_vector_norm"),
    **_named(rules.ordered(), "cumsum cumprod argmax argmin max min median"),
    **_named(rules.ordered(1, -1), "sort argsort"),
    "topk": rules.ordered(2, -1),
    **_named(rules.reshape, "reshape view flatten unflatten squeeze unsqueeze view_as reshape_as ravel"),
    **_named(rules.rearrange, "permute transpose t T mT H mH movedim moveaxis swapaxes swapdims adjoint"),
    **_named(rules.expand, "expand expand_as broadcast_to"),
    **_named(rules.concatenate, "cat concat concatenate"),
    "stack": rules.stack,
    **_named(rules.pieces, "chunk split split_with_sizes tensor_split"),
    **_named(rules.unbind, "unbind iter"),
    "select": rules.select,
    "narrow": rules.narrow,
    "getitem": rules.item,
    "pad": rules.pad,
    **_named(rules.matmul, "matmul mm bmm mv dot"),
    **_named(rules.added_product, "addmm baddbmm"),
    "einsum": rules.einsum,
    "scaled_dot_product_attention": rules.attention,
    "embedding": rules.embedding,
    "multi_head_attention_forward": rules.packed_attention,
}
"""What is known of each function, by its bare name."""

AGREES = 1e-3  # of outputs, relative: above any rounding, below what a wrong order does
# Whose outputs activation matching compares: what holds weights, and the sums of residual streams.
LAYERS = {"linear", "embedding", "batch_norm", "layer_norm", "group_norm", "instance_norm", "add", "einsum", "matmul"}
LAYERS |= {name for name in RULES if name.startswith("conv")} | {"scaled_dot_product_attention"}


def symmetries(objective: Objective) -> Symmetries:
    """The permutations of hidden units under which f stays as it is, found in the traced graph of the model.

    Linear and convolution layers (grouped and depthwise ones by blocks), norms, embeddings, residual additions (one
    permutation for all that is added), concatenation and splitting, flattening (a channel is a block of pixels), and
    attention (heads, and the dimensions of each head) are understood; what else is met keeps its order, and
    ``pinned`` says so. Parameters that are not part of theta stay as they are. Print it to see the groups.

    Raises ``InputError`` for a model that cannot be traced; ``Symmetries.parse`` takes groups written by hand.

    >>> import torch
    >>> from lossatlas import zoo
    >>> data = zoo.load("digits").test
    >>> print(symmetries(Objective(zoo.mlp(64, (12, 8)), torch.nn.functional.cross_entropy, data)))
    fc1.weight  fc1, .
    fc1.bias    fc1
    fc2.weight  fc2, fc1
    fc2.bias    fc2
    fc3.weight  ., fc2
    """
    return discover(objective).symmetries


@dataclass(frozen=True)
class Discovered:
    """The symmetries, the graph that they were read from, and the groups along the axes of what layers give out."""

    symmetries: Symmetries
    graph: Forward
    layers: dict[str, tuple[Axis, ...]]


def discover(objective: Objective) -> Discovered:
    """``symmetries``, with the graph."""
    try:
        graph = objective.forward()
    except Untraceable as reason:
        raise InputError(
            f"The model cannot be traced {reason}: write its groups by hand, symmetries={{'fc1.weight': ('fc1', None), "
            "'fc1.bias': ('fc1',), 'fc2.weight': (None, 'fc1')}, one entry an axis (see Symmetries.parse)."
        ) from None
    walk = _Discovery(graph, objective.movable())
    graph.run(objective.state(), next(objective.like_the_first()), walk.see)
    found, written = symmetries_of(walk.of, tuple(walk.reasons))
    _check(objective, graph, found)
    layers = {name: written(extents) for name, extents in walk.layers.items()}
    return Discovered(found, graph, {name: axes for name, axes in layers.items() if moves(axes)})


def _check(objective: Objective, graph: Forward, found: Symmetries) -> None:
    """The graph is the model's at other weights too, and units may change places as it says: seen on a batch."""
    state, batch = objective.state(), next(objective.like_the_first())
    movable = objective.movable()
    other = {name: 1.1 * t if name in movable and t.is_floating_point() else t for name, t in state.items()}
    if not difference([(next(objective.outputs(other)), graph.run(other, batch))], 1) <= AGREES:
        raise InputError(
            "The model cannot be traced: it does something with its weights that no function of PyTorch shows (a "
            "script, NumPy). Write its groups by hand, symmetries={...} (see Symmetries.parse)."
        )
    moved = found.permuted(state, found.random(0))
    if not deviation(objective, state, moved, 1) <= AGREES:
        guilty = guilty_groups(objective, found, state, AGREES, 1)
        raise NumericalError(
            f"The symmetries found do not hold: the outputs change when {guilty} change places. Write the groups by "
            "hand, symmetries={...} (see Symmetries.parse), and please report the model."
        )


def _base(name: str) -> str:
    """The name of a function without the marks of its variants: ``__radd__`` and ``add_`` are ``add``."""
    bare = name.strip("_") if name.startswith("__") else name
    if name.startswith("__") and bare[:1] in "ri" and bare[1:] in RULES and bare not in RULES:
        bare = bare[1:]
    return bare.removesuffix("_") if bare not in RULES else bare


class _Discovery:
    """One walk over the graph with the values of a batch."""

    def __init__(self, graph: Forward, movable: Iterable[str]) -> None:
        self._graph = graph
        self._movable = set(movable)
        self._extents: dict[fx.Node, Any] = {}
        self._values: dict[fx.Node, Any] = {}
        self.reasons: Counter[str] = Counter()
        self.of: dict[str, Axes] = {}
        self.layers: dict[str, Axes] = {}

    def see(self, node: fx.Node, value: Any) -> None:
        """Take in one node and its value."""
        self._values[node] = value
        self._extents[node] = self._found(node, value)
        for axes in _tensors(self._extents[node], value):
            _settle(axes)
        if isinstance(value, Tensor) and base_name(node) in LAYERS:
            self.layers[node.name] = self._extents[node]

    def _found(self, node: fx.Node, value: Any) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node, value)
        if node.op == "get_attr":
            return rules.constant(value)
        if node.op == "output":
            for source in node.all_input_nodes:
                _pin(self._extents[source])
            return None
        name = _name(node)
        call = Call(node, name, self._extents, self._values)
        rule = RULES.get(base_name(node))
        try:
            found = rule(call) if rule is not None else None
        except (TypeError, ValueError, LookupError):  # a call in a form that the rule was not written for
            found = None
        if found is None or not _fits(found, value):
            self._unknown(name, call)
            return _pinned(value)
        return found

    def _placeholder(self, node: fx.Node, value: Any) -> Any:
        name = self._graph.tensors.get(str(node.target))
        if name is None:
            return rules.fresh(value.shape)
        still = name not in self._movable or not node.users
        self.of[name] = [Extent(size, pinned=size == 1 or still) for size in value.shape]
        return self.of[name]

    def _unknown(self, name: str, call: Call) -> None:
        free = [leaf for axes in call.tensors() for e in axes for leaf in e.leaves() if not leaf.root.pinned]
        if free:
            self.reasons[f"{name} has no rule, so the units that meet there stay in order"] += 1
        for axes in call.tensors():
            _pin(axes)


def base_name(node: fx.Node) -> str:
    """The name of the function that a node applies, without the marks of its variants."""
    return _base(_name(node))


def _name(node: fx.Node) -> str:
    if node.target is getattr:
        return str(node.args[1])
    return str(getattr(node.target, "__name__", node.target))


def _fits(found: Any, value: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(found, list) and [e.size for e in found] == list(value.shape)
    return len(found) == len(value) and all(
        not isinstance(v, Tensor) or (f is not None and _fits(f, v)) for f, v in zip(found, value, strict=True)
    )


def _pinned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return rules.fresh(value.shape)
    return [_pinned(v) for v in value] if isinstance(value, tuple | list) else None


def _tensors(found: Any, value: Any) -> list[Axes]:
    if isinstance(value, Tensor):
        return [found]
    return [axes for f, v in zip(found, value, strict=True) for axes in _tensors(f, v)] if found else []


def _pin(axes: Any) -> None:
    for entry in axes or ():
        if isinstance(entry, Extent):
            entry.pin()
        else:
            _pin(entry)


def _settle(axes: Axes) -> None:
    """An inner extent that stands without an outer one is in the same order in all of that one's units."""
    leaves = [leaf for extent in axes for leaf in extent.leaves()]
    for leaf in leaves:
        for outer in leaf.outer:
            if outer not in leaves:
                leaf.collapse(outer)
