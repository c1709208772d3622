"""What is known of each function of PyTorch, by its bare name."""

from __future__ import annotations

from lossatlas.connectivity.symmetry import attention, elementwise, indexing, layers, recurrent, shapes
from lossatlas.connectivity.symmetry.calls import Rule


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
to type type_as float double half bfloat16 long int bool contiguous clone detach cpu cuda data real positive
alias"""
_MADE = """
zeros ones full arange eye linspace"""
_LOSSES = """
mse_loss l1_loss smooth_l1_loss huber_loss kl_div gaussian_nll_loss poisson_nll_loss binary_cross_entropy
binary_cross_entropy_with_logits"""
_POOLS = ("max", "avg", "lp", "adaptive_avg", "adaptive_max")

LOSSES = ("cross_entropy", "nll_loss", "ctc_loss")  # whose targets are places in the order of the outputs

RULES: dict[str, Rule] = {
    **_named(elementwise.elementwise, _ELEMENTWISE),
    **_named(elementwise.same, _SAME),
    **_named(elementwise.factory, _MADE),
    **_named(elementwise.made_like, "zeros_like ones_like full_like new_zeros new_ones new_full"),
    **_named(elementwise.pointwise_loss, _LOSSES),
    **dict.fromkeys(LOSSES, elementwise.by_place),
    **_named(elementwise.converted, "tensor as_tensor"),
    **_named(elementwise.dropped(2), "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"),
    "rrelu": elementwise.dropped(3),
    "glu": elementwise.gated,
    **_named(elementwise.normalised(1), "softmax log_softmax softmin"),
    "normalize": elementwise.normalised(2, default=1),
    "linear": layers.linear,
    **{f"conv{d}d": layers.convolution(d) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": layers.convolution(d, transposed=True) for d in (1, 2, 3)},
    **_named(layers.batch_norm, "batch_norm instance_norm"),
    "group_norm": layers.group_norm,
    **_named(layers.layer_norm, "layer_norm rms_norm"),
    "prelu": layers.prelu,
    **{f"{kind}_pool{d}d": layers.spatial(d) for d in (1, 2, 3) for kind in _POOLS},
    **_named(layers.resize, "interpolate upsample"),
    **_named(elementwise.reduction(), "mean sum nansum nanmean amax amin prod logsumexp std var all any"),
    **_named(elementwise.reduction(2), "norm vector_norm linalg_norm linalg_vector_norm"),
    **_named(elementwise.ordered(), "cumsum cumprod argmax argmin max min median"),
    **_named(elementwise.ordered(1, -1), "sort argsort"),
    "topk": elementwise.ordered(2, -1),
    "flip": elementwise.turned(1),
    "roll": elementwise.turned(2),
    **_named(shapes.reshape, "reshape view flatten unflatten squeeze unsqueeze view_as reshape_as ravel"),
    **_named(shapes.rearrange, "permute transpose t T mT H mH movedim moveaxis swapaxes swapdims adjoint"),
    **_named(shapes.expand, "expand expand_as broadcast_to"),
    **_named(shapes.concatenate, "cat concat concatenate"),
    "stack": shapes.stack,
    **_named(shapes.pieces, "chunk split split_with_sizes tensor_split"),
    **_named(shapes.unbind, "unbind iter"),
    "select": shapes.select,
    "narrow": shapes.narrow,
    "getitem": shapes.item,
    "pad": shapes.pad,
    "index_select": indexing.index_select,
    "gather": indexing.gather,
    **_named(indexing.scatter(sums=True), "scatter_add scatter_reduce"),
    "scatter": indexing.scatter(sums=False),
    **_named(indexing.index_add, "index_add index_reduce"),
    **_named(layers.matmul, "matmul mm bmm mv dot"),
    **_named(layers.added_product, "addmm baddbmm"),
    "einsum": layers.einsum,
    "scaled_dot_product_attention": attention.attention,
    "embedding": layers.embedding,
    "embedding_bag": layers.embedding_bag,
    "multi_head_attention_forward": attention.packed_attention,
    **{name: recurrent.recurrent(gates) for name, gates in recurrent.GATES.items()},
    **{f"{name}_cell": recurrent.cell(gates) for name, gates in recurrent.GATES.items()},
    "_pack_padded_sequence": recurrent.packed,
    "_pad_packed_sequence": recurrent.padded,
}

CELLS = {*recurrent.GATES, *(f"{name}_cell" for name in recurrent.GATES)}
# Which hold weights, and make the units that are named after them.
MAKERS = {"linear", "embedding", "embedding_bag", "einsum", "matmul", "mm", "bmm", "addmm", "baddbmm", *CELLS}
MAKERS |= {name for name in RULES if name.startswith("conv")}
# Whose outputs activation matching compares: these, norms, heads, and the sums of residual streams.
LAYERS = MAKERS | {"batch_norm", "layer_norm", "group_norm", "instance_norm", "add", "scaled_dot_product_attention"}
