"""Fewer passes over memory: sums are fused with what they add, and an operation writes where nothing else is needed."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

_aten = torch.ops.aten
_IN_PLACE: dict[Any, Any] = {
    _aten.add.Tensor: _aten.add_.Tensor,
    _aten.sub.Tensor: _aten.sub_.Tensor,
    _aten.mul.Tensor: _aten.mul_.Tensor,
    _aten.div.Tensor: _aten.div_.Tensor,
    _aten.mul.Scalar: _aten.mul_.Scalar,
    _aten.div.Scalar: _aten.div_.Scalar,
    _aten.addmm.default: _aten.addmm_.default,
    _aten.baddbmm.default: _aten.baddbmm_.default,
    _aten.addcmul.default: _aten.addcmul_.default,
}
_ZEROS = {_aten.zeros_like.default, _aten._efficientzerotensor.default}
_LINEAR = {_aten.mul.Tensor, _aten.mul.Scalar, _aten.div.Scalar, _aten.neg.default, _aten.mm.default, _aten.bmm.default}
_COMMUTES = {_aten.add.Tensor, _aten.mul.Tensor}
# x + p(a, b) as one operation, and the name that it has for a factor of p.
_FUSED: dict[Any, tuple[Any, str]] = {
    _aten.mm.default: (_aten.addmm.default, "alpha"),
    _aten.bmm.default: (_aten.baddbmm.default, "alpha"),
    _aten.mul.Tensor: (_aten.addcmul.default, "value"),
}


def reuse_memory(graph: fx.Graph) -> None:
    """Drop sums with zeros and copies, add products to what they are added to, and write into what is given.

    An argument is written to if it was made by this graph, is no view, has the result's shape and type, and is not
    used later. On a CPU a fresh result costs its memory's pages again and again.
    """
    zeros = _drop_zeros(graph)
    _drop_copies(graph)
    _fuse_sums(graph)
    graph.eliminate_dead_code()
    places = {node: place for place, node in enumerate(graph.nodes)}

    def spare(given: Any, node: fx.Node) -> bool:
        if given in zeros or not _fresh(given) or zeros.intersection(given.all_input_nodes):
            return False
        return _alike(given, node) and all(_done(user, node, places) for user in given.users)

    for node in graph.nodes:
        if node.target in _IN_PLACE and "out" not in node.kwargs:
            first, second = node.args[:2]
            if spare(first, node) and all(first is not other for other in node.args[1:]):
                node.target = _IN_PLACE[node.target]
            elif node.target in _COMMUTES and not node.kwargs and first is not second and spare(second, node):
                node.args = (second, first)
                node.target = _IN_PLACE[node.target]
        elif node.target is _aten.threshold_backward.default and spare(node.args[0], node):
            node.target = _aten.threshold_backward.grad_input
            node.kwargs = {"grad_input": node.args[0]}


def _drop_zeros(graph: fx.Graph) -> set[fx.Node]:
    """Sums with zeros are what else they add; the zeros that are left, which PyTorch may hold without memory."""
    zeros = set[fx.Node]()
    for node in list(graph.nodes):
        if node.target in _ZEROS or (node.target in _LINEAR and zeros.intersection(node.all_input_nodes)):
            zeros.add(node)
        elif node.target in (_aten.add.Tensor, _aten.sub.Tensor) and len(node.args) == 2 and not node.kwargs:
            one, other = node.args
            if other in zeros and _alike(one, node):
                node.replace_all_uses_with(one)
            elif one in zeros and node.target is _aten.add.Tensor and _alike(other, node):
                node.replace_all_uses_with(other)
    return zeros


def _drop_copies(graph: fx.Graph) -> None:
    """Forward mode copies a tangent into zeros of its value's layout, which it mostly has."""
    written: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            written.setdefault(_base(node.args[0]), []).append(node)
    for node in list(graph.nodes):
        if node.target is not _aten.copy_.default or len(node.args) != 2:
            continue
        zeros, source = node.args
        new = zeros.target is _aten._new_zeros_with_same_feature_meta.default and len(zeros.users) == 1
        if new and _alike(source, zeros, strides=True) and written[zeros] == [node] and _base(source) not in written:
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def _fuse_sums(graph: fx.Graph) -> None:
    """x + a b as ``addmm``, ``baddbmm`` or ``addcmul``: one pass over x less, and no memory for a b."""
    for node in list(graph.nodes):
        if node.target not in (_aten.add.Tensor, _aten.sub.Tensor) or node.kwargs or len(node.args) != 2:
            continue
        pairs = (node.args, node.args[::-1])[: 1 + (node.target is _aten.add.Tensor)]
        for one, product in sorted(pairs, key=lambda pair: not _fresh(pair[0])):
            if _alike(one, node) and _alike(product, node) and _fusible(product):
                target, factor = _FUSED[product.target]
                node.kwargs = {factor: -1} if node.target is _aten.sub.Tensor else {}
                node.target, node.args = target, (one, *product.args)
                break


def _fusible(product: fx.Node) -> bool:
    """A product that only the sum needs, of tensors of its own type."""
    if product.target not in _FUSED or len(product.users) != 1 or product.kwargs:
        return False
    metas = [_meta(factor) for factor in product.args]
    return all(meta is not None and meta.dtype == _meta(product).dtype for meta in metas)


def _done(user: fx.Node, node: fx.Node, places: dict[fx.Node, int]) -> bool:
    """Whether a use is over when ``node`` begins, or is ``node`` itself: what it made has memory of its own."""
    return user is node or (places[user] < places[node] and _fresh(user))


def _base(node: Any) -> Any:
    """What a view is a view of."""
    while isinstance(node, fx.Node) and node.op == "call_function" and not _fresh(node):
        node = node.args[0]
    return node


def _fresh(node: Any) -> bool:
    """A tensor of its own memory, made here."""
    if not isinstance(node, fx.Node):
        return False
    if node.target is operator.getitem:
        return _fresh(node.args[0])
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if target in _IN_PLACE.values() or target is _aten.threshold_backward.grad_input:
        return True  # its argument was spare
    return all(result.alias_info is None for result in target._schema.returns) and target.namespace == "aten"


def _alike(given: Any, node: fx.Node, *, strides: bool = False) -> bool:
    """The same shape and type, as they were when the graph was traced; ``strides``: the same layout too."""
    a, b = _meta(given), _meta(node)
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return 0 not in a.stride and (a.stride == b.stride or not strides)


def _meta(node: Any) -> Any:
    return node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
