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

from lossatlas.connectivity.symmetry import calls
from lossatlas.connectivity.symmetry.calls import Axes, Call
from lossatlas.connectivity.symmetry.extents import Extent
from lossatlas.connectivity.symmetry.groups import moves, symmetries_of
from lossatlas.connectivity.symmetry.notation import Axis
from lossatlas.connectivity.symmetry.rules import LAYERS, RULES
from lossatlas.connectivity.symmetry.states import (
    graph_batches,
    movable_tensors,
    network_outputs,
    network_state,
    output_graph,
)
from lossatlas.connectivity.symmetry.symmetries import Symmetries
from lossatlas.connectivity.symmetry.verification import deviation, difference, failing_groups
from lossatlas.errors import InputError, NumericalError
from lossatlas.evaluation.forward import Forward
from lossatlas.evaluation.points.tracing import Untraceable
from lossatlas.objective import Objective

AGREES = 1e-3  # of outputs, relative: above any rounding, below what a wrong order does


def symmetries(objective: Objective) -> Symmetries:
    """The permutations of hidden units under which f stays as it is, found in the traced graph of the model.

    Linear and convolution layers (grouped and depthwise ones by blocks), norms, embeddings, residual additions (one
    permutation for all that is added), concatenation and splitting, flattening (a channel is a block of pixels), and
    attention (heads, and the dimensions of each head) are understood; what else is met keeps its order, and
    ``pinned`` says so. Parameters that are not part of theta stay as they are. Print it to see the groups.

    Raises
    ------
    InputError : a model that cannot be traced; ``Symmetries.parse`` takes groups written by hand.
    NumericalError : symmetries that were found do not hold on the data.

    Source: Hecht-Nielsen 1990, "On the algebraic structure of feedforward network weight spaces"; Ainsworth et al.
    2023, "Git Re-Basin", Appendix A.1 (the groups of several architectures, written by hand).

    Examples
    --------
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
        graph = output_graph(objective)
    except Untraceable as reason:
        raise InputError(
            f"The model cannot be traced {reason}: write its groups by hand, symmetries={{'fc1.weight': ('fc1', None), "
            "'fc1.bias': ('fc1',), 'fc2.weight': (None, 'fc1')}, one entry an axis (see Symmetries.parse)."
        ) from None
    walk = _Discovery(graph, movable_tensors(objective))
    graph.run(network_state(objective), next(graph_batches(objective)), walk.see)
    found, written = symmetries_of(walk.of, tuple(walk.reasons))
    _check(objective, graph, found)
    named = {name: written(extents) for name, extents in walk.layers.items()}
    return Discovered(found, graph, {name: axes for name, axes in named.items() if moves(axes)})


def _check(objective: Objective, graph: Forward, found: Symmetries) -> None:
    """The graph is the model's at other weights too, and units may change places as it says: seen on a batch."""
    state, batch = network_state(objective), next(graph_batches(objective))
    movable = movable_tensors(objective)
    numbers = {name for name, t in state.items() if name in movable and (t.is_floating_point() or t.is_complex())}
    other = {name: 1.1 * t if name in numbers else t for name, t in state.items()}
    if not difference([(next(network_outputs(objective, other)), graph.run(other, batch))], 1) <= AGREES:
        raise InputError(
            "The model cannot be traced: it does something with its weights that no function of PyTorch shows (a "
            "script, NumPy). Write its groups by hand, symmetries={...} (see Symmetries.parse)."
        )
    # Several orders: one that changes nothing comes by luck where groups are of two.
    if not all(
        deviation(objective, state, found.permuted(state, found.random(seed)), 1) <= AGREES for seed in range(3)
    ):
        failing = failing_groups(objective, found, state, AGREES, 1)
        raise NumericalError(
            f"The symmetries found do not hold: the outputs change when {failing} change places. Write the groups by "
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
            self._unknown(name, call)
            return _pinned(value)
        return found

    def _placeholder(self, node: fx.Node, value: Any) -> Any:
        name = self._graph.tensors.get(str(node.target))
        if name is None:
            return calls.fresh(value.shape)
        fixed = name not in self._movable or not node.users
        self.of[name] = [Extent(size, pinned=size == 1 or fixed) for size in value.shape]
        return self.of[name]

    def _unknown(self, name: str, call: Call) -> None:
        free = [leaf for axes in call.tensors() for e in axes for leaf in e.leaves() if not leaf.root.pinned]
        if free:
            self.reasons[f"{name} has no rule for such a call, so the units that meet there stay in order"] += 1
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
