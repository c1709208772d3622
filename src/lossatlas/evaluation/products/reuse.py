"""Memory of intermediate results used again: an ATen operation writes into an argument that nothing else needs."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

_aten = torch.ops.aten
_IN_PLACE = {
    _aten.add.Tensor: _aten.add_.Tensor,
    _aten.sub.Tensor: _aten.sub_.Tensor,
    _aten.mul.Tensor: _aten.mul_.Tensor,
    _aten.div.Tensor: _aten.div_.Tensor,
}
_COMMUTES = {_aten.add.Tensor, _aten.mul.Tensor}


def reuse_memory(graph: fx.Graph) -> None:
    """Drop sums with zeros, and let sums, products and ReLU's backward write into what they are given.

    An argument is written to if it was made by this graph, is no view, has the result's shape and type, and no other
    use. On a CPU a fresh result costs its memory's pages again and again.
    """
    for node in list(graph.nodes):
        if node.target is _aten.add.Tensor and len(node.args) == 2 and not node.kwargs:
            for zeros, other in (node.args, node.args[::-1]):
                if isinstance(zeros, fx.Node) and zeros.target is _aten.zeros_like.default and _alike(other, node):
                    node.replace_all_uses_with(other)
                    break
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if node.target in _IN_PLACE and not node.kwargs:
            first, second = node.args
            if _spare(first, node) and first is not second:
                node.target = _IN_PLACE[node.target]
            elif node.target in _COMMUTES and _spare(second, node) and first is not second:
                node.args = (second, first)
                node.target = _IN_PLACE[node.target]
        elif node.target is _aten.threshold_backward.default and _spare(node.args[0], node):
            node.target = _aten.threshold_backward.grad_input
            node.kwargs = {"grad_input": node.args[0]}


def _spare(given: Any, node: fx.Node) -> bool:
    return isinstance(given, fx.Node) and len(given.users) == 1 and _fresh(given) and _alike(given, node)


def _fresh(node: fx.Node) -> bool:
    """A tensor of its own memory, made here."""
    if node.target is operator.getitem:
        source = node.args[0]
        return isinstance(source, fx.Node) and _fresh(source)
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if target in _IN_PLACE.values() or target is _aten.threshold_backward.grad_input:
        return True  # its argument was spare
    return all(result.alias_info is None for result in target._schema.returns) and target.namespace == "aten"


def _alike(given: Any, node: fx.Node) -> bool:
    """The same shape and type, as they were when the graph was traced."""
    if not isinstance(given, fx.Node):
        return False
    a, b = given.meta.get("tensor_meta"), node.meta.get("tensor_meta")
    return a is not None and b is not None and a.shape == b.shape and a.dtype == b.dtype and 0 not in a.stride
