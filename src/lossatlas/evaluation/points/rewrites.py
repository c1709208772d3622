"""Rewrites of a traced graph, each the same function at less cost. Whether it is so is measured, not believed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from lossatlas.evaluation.points.tracing import POINT_PREFIX, Trace

_RELU = (F.relu, torch.relu, "relu")
_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_NDIM: dict[Any, int] = {F.linear: 2, torch.conv1d: 3, torch.conv2d: 4, torch.conv3d: 5}  # with the channels on axis 1
_ONEDNN_LINEAR = torch.ops.mkldnn._linear_pointwise.default


@dataclass(frozen=True)
class Frame:
    """theta = center + sum_j w_j d_j, tensor by tensor: a placeholder's center and directions.

    ``weights`` names the placeholders of the numbers w_j.
    """

    moving: dict[str, list[Tensor]]
    weights: tuple[str, ...]


def max_pooling(traced: Trace, frame: Frame) -> bool:
    """Pooling over windows that do not overlap as ``torch.maximum`` of slices, and before the ReLU that it follows.

    max(relu(x)) = relu(max(x)), on a fraction of the numbers.
    """
    graph, found = traced.graph, False
    for node in _calls(graph, F.max_pool2d):
        window, source = _window(node), _argument(node, 0, "input")
        if window is None:
            continue
        relu = source if _is(source, *_RELU) and len(source.users) == 1 else None
        with graph.inserting_before(node):
            pooled = graph.call_function(window_maximum, (_argument(relu, 0, "input") if relu else source, window))
            _replace(graph, node, graph.call_function(F.relu, (pooled,)) if relu else pooled)
        if relu:
            graph.erase_node(relu)
        found = True
    return found


def channels_last(traced: Trace, frame: Frame) -> bool:
    """Two-dimensional convolutions on tensors whose channels lie side by side in memory."""
    graph = traced.graph
    convolutions = list(_calls(graph, torch.conv2d))
    for node in convolutions:
        with graph.inserting_before(node):
            given = (_argument(node, 0, "input"), _argument(node, 1, "weight"))
            node.args = (*(graph.call_function(with_channels_last, (tensor,)) for tensor in given), *node.args[2:])
            node.kwargs = _without(node.kwargs, "input", "weight")
    for node in graph.nodes:
        if convolutions and node.op == "call_method" and node.target == "view":
            node.target = "reshape"  # a view of the old order of numbers need not exist in the new one
    return bool(convolutions)


def batch_norm(traced: Trace, frame: Frame) -> bool:
    """BatchNorm with running statistics inside the convolution or linear map before it.

    gamma (W x + b - mu) / sqrt(var + eps) + beta has the weight s W and the bias s (b - mu) + beta with
    s = gamma / sqrt(var + eps): a few numbers a point in place of a pass over all activations.
    """
    graph, found = traced.graph, False
    for node in _calls(graph, F.batch_norm):
        inner = _argument(node, 0, "input")
        if not _is(inner, *_CONVOLUTIONS, F.linear) or len(inner.users) > 1 or _argument(node, 5, "training", False):
            continue
        if inner.meta.get("ndim") != _NDIM[inner.target]:  # the norm's channels are another axis than the map's
            continue
        weight, bias = _argument(inner, 1, "weight"), _argument(inner, 2, "bias")
        mean, variance = _argument(node, 1, "running_mean"), _argument(node, 2, "running_var")
        gamma, beta, eps = _argument(node, 3, "weight"), _argument(node, 4, "bias"), _argument(node, 7, "eps", 1e-5)
        rest = _without(inner.kwargs, "input", "weight", "bias")
        with graph.inserting_before(node):
            scale = graph.call_function(norm_scale, (gamma, variance, eps))
            scaled = graph.call_function(scaled_rows, (weight, scale))
            shift = graph.call_function(norm_shift, (bias, mean, scale, beta))
            arguments = (_argument(inner, 0, "input"), scaled, shift, *inner.args[3:])
            _replace(graph, node, graph.call_function(inner.target, arguments, rest))
        graph.erase_node(inner)
        found = True
    return found


def onednn_linear(traced: Trace, frame: Frame) -> bool:
    """Linear maps by oneDNN: on some processors twice as fast as PyTorch's BLAS.

    Without its ReLU, which makes 0 of NaN. oneDNN is for the CPU.
    """
    graph = traced.graph
    if any(row.device.type != "cpu" for rows in frame.moving.values() for row in rows):
        return False
    linears = list(_calls(graph, F.linear))
    for node in linears:
        inputs, weight, bias = _argument(node, 0, "input"), _argument(node, 1, "weight"), _argument(node, 2, "bias")
        with graph.inserting_before(node):
            packed = graph.call_function(torch.ops.mkldnn._reorder_linear_weight.default, (weight,))  # once a point
            options: tuple[Any, ...] = (inputs, packed, bias, "none", [], "")
            _replace(graph, node, graph.call_function(_ONEDNN_LINEAR, options))
    return bool(linears)


def shared_layer(traced: Trace, frame: Frame) -> bool:
    """A linear map or convolution of what does not move, as z_0 + sum_j w_j z_j with each z computed once a batch.

    Its weight and bias are affine in the region's coordinates, so its result is.
    """
    graph, found = traced.graph, False
    for node in _calls(graph, F.linear, *_CONVOLUTIONS):
        inputs, weight, bias = _argument(node, 0, "input"), _argument(node, 1, "weight"), _argument(node, 2, "bias")
        if _moves(inputs) or not (_affine(weight, frame) and _affine(bias, frame)):
            continue
        if not (_moves(weight) or _moves(bias)):
            continue
        rest = _without(node.kwargs, "input", "weight", "bias")
        with graph.inserting_before(node):
            parts = [
                graph.call_function(
                    node.target, (inputs, *(_part(traced, frame, t, j) for t in (weight, bias)), *node.args[3:]), rest
                )
                for j in range(len(frame.weights) + 1)
            ]
            weights = [next(n for n in graph.nodes if n.target == name) for name in frame.weights]
            _replace(graph, node, graph.call_function(combination, (parts, weights)))
        found = True
    return found


def in_place(traced: Trace, frame: Frame) -> bool:
    """A ReLU that overwrites what nobody else reads: the output of a layer, made for it alone."""
    graph, found = traced.graph, False
    for node in _calls(graph, *_RELU):
        source = _argument(node, 0, "input")
        if _is(source, *_MAKERS) and len(source.users) == 1:
            with graph.inserting_before(node):
                _replace(graph, node, graph.call_function(torch.relu_, (source,)))
            found = True
    return found


# What the rewritten graphs call


def window_maximum(x: Tensor, window: tuple[int, int]) -> Tensor:
    """The maximum over windows (height, width) side by side; what does not fill a window is left out."""
    height, width = (size // step * step for size, step in zip(x.shape[-2:], window, strict=True))
    rows = functools.reduce(torch.maximum, (x[..., i : height : window[0], :width] for i in range(window[0])))
    return functools.reduce(torch.maximum, (rows[..., j :: window[1]] for j in range(window[1])))


def with_channels_last(x: Tensor) -> Tensor:
    """The same numbers with strides (h w c, 1, w c, c), also where c = 1, which ``memory_format`` leaves alone."""
    if x.ndim != 4:
        return x
    n, c, h, w = x.shape
    if c > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous().as_strided((n, c, h, w), (h * w * c, 1, w * c, c))


def norm_scale(gamma: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    scale = torch.rsqrt(variance + eps)
    return scale if gamma is None else gamma * scale


def norm_shift(bias: Tensor | None, mean: Tensor, scale: Tensor, beta: Tensor | None) -> Tensor:
    shift = (-mean if bias is None else bias - mean) * scale
    return shift if beta is None else shift + beta


def scaled_rows(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale.view(-1, *[1] * (weight.ndim - 1))


def combination(parts: list[Tensor], weights: list[float]) -> Tensor:
    """z_0 + sum_j w_j z_j, in a new tensor."""
    total = torch.add(parts[0], parts[1], alpha=weights[0])
    for part, weight in zip(parts[2:], weights[1:], strict=True):
        total.add_(part, alpha=weight)
    return total


_MAKERS = (*_CONVOLUTIONS, F.linear, F.batch_norm, "add", "__add__", _ONEDNN_LINEAR, window_maximum, combination)


# Looking at graphs


def _calls(graph: fx.Graph, *functions: object) -> Iterator[Any]:
    return iter([node for node in graph.nodes if _is(node, *functions)])


def _is(node: Any, *functions: object) -> bool:
    called = isinstance(node, fx.Node) and node.op in ("call_function", "call_method")
    return called and any(node.target == f for f in functions)


def _argument(node: Any, position: int, name: str, default: Any = None) -> Any:
    return node.args[position] if position < len(node.args) else node.kwargs.get(name, default)


def _without(kwargs: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in names}


def _replace(graph: fx.Graph, old: fx.Node, new: fx.Node) -> None:
    old.replace_all_uses_with(new)
    graph.erase_node(old)


def _window(node: Any) -> tuple[int, int] | None:
    """The window of a pooling whose windows lie side by side; None for any other pooling."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    kernel, stride, padding, dilation, ceil, indices = (_argument(node, i, n) for i, n in enumerate(names, start=1))
    window = _pair(kernel)
    if window == (1, 1):
        return None
    plain = _pair(padding or 0) == (0, 0) and _pair(dilation or 1) == (1, 1) and not ceil and not indices
    return window if plain and (not stride or _pair(stride) == window) else None


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _moves(value: object) -> bool:
    """Whether a value depends on the point."""
    stack, seen = [value], set[Any]()
    while stack:
        node = stack.pop()
        if isinstance(node, fx.Node) and node not in seen:
            seen.add(node)
            if node.op == "placeholder" and str(node.target).startswith(POINT_PREFIX):
                return True
            stack.extend(node.all_input_nodes)
    return False


def _affine(value: object, frame: Frame) -> bool:
    """Whether a weight is a parameter itself, moving or not, and no function of one."""
    return value is None or (isinstance(value, fx.Node) and (value.target in frame.moving or not _moves(value)))


def _part(traced: Trace, frame: Frame, value: fx.Node | None, part: int) -> fx.Node | None:
    """The center (part 0) or the ``part``-th direction of a weight."""
    if value is None:
        return None
    if value.target in frame.moving:
        return constant(traced, frame.moving[str(value.target)][part])
    return value if part == 0 else traced.graph.call_function(torch.zeros_like, (value,))


def constant(traced: Trace, tensor: Tensor) -> fx.Node:
    name = f"constant_{len(traced.constants)}"
    traced.constants[name] = tensor
    return traced.graph.get_attr(name)
