"""A graph cut in three: what the batch alone decides is computed once, what the point alone decides once a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from lossatlas.evaluation.points.tracing import POINT_PREFIX, Trace

POINT, BATCH = 1, 2


class Program:
    """``graph`` as three functions: of the batch alone, of the point alone, and of what both of them left.

    Nodes that depend on neither are part of whichever function needs them. ``polish`` rewrites the last of the three.
    """

    def __init__(self, traced: Trace, polish: Callable[[fx.Graph], None] = lambda _: None) -> None:
        kinds = _kinds(traced.graph)
        handed = {kind: _handed_on(kinds, kind) for kind in (POINT, BATCH)}
        self.fixed = _part(traced, kinds, BATCH, [], handed[BATCH])
        self.pointwise = _part(traced, kinds, POINT, [], handed[POINT])
        self.rest = _part(traced, kinds, POINT | BATCH, handed[BATCH] + handed[POINT], None, polish)


def _kinds(graph: fx.Graph) -> dict[fx.Node, int]:
    kinds: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            kinds[node] = POINT if str(node.target).startswith(POINT_PREFIX) else BATCH
        elif node.op == "output":
            kinds[node] = POINT | BATCH
        else:
            kinds[node] = 0
            for source in node.all_input_nodes:
                kinds[node] |= kinds[source]
    return kinds


def _handed_on(kinds: dict[fx.Node, int], kind: int) -> list[fx.Node]:
    """The nodes of one kind whose value is used where both are known."""
    return [node for node, own in kinds.items() if own == kind and any(kinds[user] != kind for user in node.users)]


def _part(
    traced: Trace,
    kinds: dict[fx.Node, int],
    kind: int,
    given: list[fx.Node],
    results: list[fx.Node] | None,
    polish: Callable[[fx.Graph], None] = lambda _: None,
) -> Any:
    """A function of all placeholders of this kind (of ``given`` too) in the graph's order, to the ``results``."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in given:
        copies[node] = graph.placeholder(f"given_{len(copies)}")
        copies[node].meta = dict(node.meta)
    for node in traced.graph.nodes:
        if node.op == "placeholder" and node not in copies and kinds[node] == kind:
            copies[node] = graph.placeholder(node.target)

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.node_copy(node, copied)
        return copies[node]

    # In the recorded order, which is also an order of their dependence; what is not needed is not copied.
    needed = _needed(traced.graph, results, given)
    for node in traced.graph.nodes:
        if kinds[node] in (0, kind) and node in needed and node.op != "output":
            copied(node)
    if results is None:
        graph.output(fx.map_arg(_output(traced.graph), copied))
    else:
        graph.output(tuple(copied(node) for node in results))
    polish(graph)
    root: dict[str, Any] = dict(traced.constants)
    return fx.GraphModule(root, graph).forward


def _needed(graph: fx.Graph, results: list[fx.Node] | None, given: list[fx.Node]) -> set[fx.Node]:
    """The nodes that lead to the results, from what is given on."""
    stack = list(results) if results is not None else [next(n for n in graph.nodes if n.op == "output")]
    seen = set(given)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.all_input_nodes)
    return seen


def _output(graph: fx.Graph) -> Any:
    return next(node for node in graph.nodes if node.op == "output").args[0]
