"""The permutation symmetries of a network, read off the graph of its functions.

Every axis of every tensor is an unknown ``Extent``. Each function says which of them are the same units (Ainsworth et
al. 2023 write these groups by hand for each architecture); what no rule knows keeps its order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lossatlas.connectivity.symmetry.groups import layer_of, moves, symmetries_of
from lossatlas.connectivity.symmetry.notation import Axis
from lossatlas.connectivity.symmetry.states import (
    graph_batches,
    movable_tensors,
    network_outputs,
    network_state,
    output_graph,
)
from lossatlas.connectivity.symmetry.symmetries import Symmetries
from lossatlas.connectivity.symmetry.verification import deviation, difference, failing_groups
from lossatlas.connectivity.symmetry.walk import Walk
from lossatlas.errors import InputError, NumericalError
from lossatlas.evaluation.forward import Forward
from lossatlas.evaluation.points.tracing import Untraceable
from lossatlas.objective import Objective

AGREES = 1e-3  # of outputs, relative: above any rounding, below what a wrong order does


def symmetries(objective: Objective) -> Symmetries:
    """The permutations of hidden units under which f stays as it is, found in the traced graph of the model.

    Linear and convolution layers (grouped and depthwise ones by blocks), norms, embeddings, residual additions (one
    permutation for all that is added), concatenation and splitting, flattening (a channel is a block of pixels),
    attention (heads, and the dimensions of each head), recurrent layers (one order in all gates; padded and packed
    sequences) and message passing are understood; what else is met keeps its order, and ``pinned`` names the layers and
    the reasons. Parameters and buffers that are not part of theta stay as they are. Print it to see the groups.

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
        graph = output_graph(objective, next(graph_batches(objective)))
    except Untraceable as reason:
        raise InputError(f"The model cannot be traced {reason}. {_by_hand(objective)}") from None
    walk = Walk(graph, movable_tensors(objective))
    graph.run(network_state(objective), next(graph_batches(objective)), walk.see)
    found, written = symmetries_of(walk.of)
    walk.pinned.look("their order cannot be written as products and sums of groups")
    found = replace(found, pinned=walk.pinned.reasons)
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
            f"script, NumPy). {_by_hand(objective)}"
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


def _by_hand(objective: Objective) -> str:
    """How groups are written by hand, for two of the model's own tensors."""
    shapes = {entry.name: entry.shape for entry in objective.space}
    weights = [name for name, shape in shapes.items() if len(shape) > 1]
    after = {name: weights[i + 1 :] for i, name in enumerate(weights)}
    pairs = ((one, two) for one in weights for two in after[one] if shapes[one][0] == shapes[two][1] > 1)
    text = "Write its groups by hand, symmetries={tensor: axes} with one entry an axis (see Symmetries.parse)"
    if (pair := next(pairs, None)) is None:
        return f"{text}."
    (one, two), units = pair, layer_of(pair[0])
    made = [name for name in shapes if name == one or (layer_of(name) == units and shapes[name] == shapes[one][:1])]
    axes = {name: (units, *[None] * (len(shapes[name]) - 1)) for name in made}
    axes |= {two: (None, units, *[None] * (len(shapes[two]) - 2))}
    return f"{text}: if {two} takes in the units of {one}, symmetries={axes}."
