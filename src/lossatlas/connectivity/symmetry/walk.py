"""One walk over the graph of a network: every axis is an unknown, and each function says which are the same units."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, fx

from lossatlas.connectivity.symmetry import calls
from lossatlas.connectivity.symmetry.calls import Axes, Call
from lossatlas.connectivity.symmetry.extents import Extent
from lossatlas.connectivity.symmetry.groups import layer_of
from lossatlas.connectivity.symmetry.pinned import Pinned
from lossatlas.connectivity.symmetry.rules import CELLS, LAYERS, LOSSES, MAKERS, RULES
from lossatlas.evaluation.forward import Forward


def _base(name: str) -> str:
    """The name of a function without the marks of its variants: ``__radd__`` and ``add_`` are ``add``."""
    bare = name.strip("_") if name.startswith("__") else name
    if name.startswith("__") and bare[:1] in "ri" and bare[1:] in RULES and bare not in RULES:
        bare = bare[1:]
    return bare.removesuffix("_") if bare not in RULES else bare


class Walk:
    """One walk over the graph with the values of a batch."""

    def __init__(self, graph: Forward, movable: Iterable[str]) -> None:
        self._graph = graph
        self._movable = set(movable)
        self._extents: dict[fx.Node, Any] = {}
        self._values: dict[fx.Node, Any] = {}
        self._reason: str | None = None
        self.pinned = Pinned()
        self.of: dict[str, Axes] = {}
        self.layers: dict[str, Axes] = {}

    def see(self, node: fx.Node, value: Any) -> None:
        """Take in one node and its value."""
        self._values[node] = value
        self._reason = None
        self._extents[node] = self._found(node, value)
        for axes in _tensors(self._extents[node], value):
            _settle(axes)
        first_of = node.args[0] if node.target is operator.getitem and node.args[1] == 0 else node
        if isinstance(value, Tensor) and isinstance(first_of, fx.Node) and base_name(first_of) in LAYERS:
            self.layers[node.name] = self._extents[node]
        self.pinned.look(self._reason)
        self._watch(node)

    def _found(self, node: fx.Node, value: Any) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node, value)
        if node.op == "get_attr":
            return calls.constant(value)
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
            self._unknown(call)
            return _pinned(value)
        fixed = [tensor for tensor, _ in self._tensors_of(node, fixed=True)]
        meeting = f"they meet {fixed[0]}, which does not vary, in" if fixed else "their order matters to"
        if base_name(node) not in LOSSES:
            self._reason = f"{meeting} {base_name(node)} {self._graph.place(node)}"
        return found

    def _placeholder(self, node: fx.Node, value: Any) -> Any:
        name = self._graph.tensors.get(str(node.target))
        if name is None:
            return calls.fresh(value.shape)
        fixed = name not in self._movable or not node.users
        self.of[name] = [Extent(size, pinned=size == 1 or fixed) for size in value.shape]
        return self.of[name]

    def _unknown(self, call: Call) -> None:
        self._reason = f"no rule for such a call of {base_name(call.node)} {self._graph.place(call.node)}"
        for tensor, axes in self._tensors_of(call.node):
            if axes:
                self.pinned.watch(layer_of(tensor), axes[0])
        for axes in call.tensors():
            _pin(axes)

    def _watch(self, node: fx.Node) -> None:
        """Look after the units that a layer makes."""
        if node.op not in ("call_function", "call_method") or base_name(node) not in MAKERS:
            return
        fixed = "not among the parameters that vary" if self._tensors_of(node, fixed=True) else None
        for layer, units in self._made(node):
            self.pinned.watch(layer, units, fixed)

    def _made(self, node: fx.Node) -> Iterator[tuple[str, Extent]]:
        found, weights = self._extents[node], self._tensors_of(node)
        if base_name(node) in CELLS:
            states = found[1] if isinstance(found[0], list) else found
            cells = states[-1].root.slots or [states[-1]]
            inward = [tensor for tensor, _ in weights if "weight_ih" in tensor]
            for tensor, units in zip(inward, cells, strict=False):
                yield tensor if len(cells) > 1 else layer_of(tensor), units
            return
        for tensor, axes in weights:
            roots = [axis.root for axis in axes]
            yield from ((layer_of(tensor), e) for e in found if e.root in roots)

    def _tensors_of(self, node: fx.Node, fixed: bool = False) -> list[tuple[str, Axes]]:
        """The parameters and buffers that a function is given, or views of them; ``fixed``: that do not vary."""
        found = []
        for source in node.all_input_nodes:
            behind = source
            while behind.op.startswith("call") and len(behind.all_input_nodes) == 1:
                behind = behind.all_input_nodes[0]
            name = self._graph.name_of(behind)
            if name is None or not self._values[behind].is_floating_point():
                continue
            if not fixed or not (name in self._movable or self._values[behind].numel() == 1):
                found.append((name, self._extents[source]))
        return found


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
        return calls.fresh(value.shape)
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
    """An inner extent that stands without an outer one, or with several, is in one order in all of that one's units."""
    for extent in axes:
        own = extent.leaves()
        for leaf in own:
            for outer in leaf.outer:
                if outer not in own and sum(outer in other.leaves() for other in axes) != 1:
                    leaf.collapse(outer)
