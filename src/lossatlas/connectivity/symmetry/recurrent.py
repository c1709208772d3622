"""Rules for recurrent layers: one order of the hidden units in every gate's block of rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from lossatlas.connectivity.symmetry.calls import Axes, Call, Found, Rule, factors, fresh
from lossatlas.connectivity.symmetry.extents import Extent, joined, unify

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent(gates: int) -> Rule:
    """nn.LSTM, nn.GRU, nn.RNN: layers and directions of cells, over padded or packed sequences."""

    def rule(call: Call) -> Found:
        arguments: Any = call.node.args
        packed = isinstance(arguments[3], list | tuple)
        states, flat, biased, layers, dropout, training, both = arguments[1 + packed : 8 + packed]
        if training and dropout:
            return None
        x, weights = call.first(), [call.axes(weight) or [] for weight in flat]
        per = len(weights) // (layers * (1 + both))
        own = [weights[i : i + per] for i in range(0, len(weights), per)]
        entering: Extent = x[-1]
        cells: list[tuple[Extent, Extent]] = []
        for layer in range(0, len(own), 1 + both):
            found = [_cell(of_cell, entering, biased, gates) for of_cell in own[layer : layer + 1 + both]]
            entering, cells = joined([out for _, out in found]), cells + found
        units, outs = [c for c, _ in cells], [out for _, out in cells]
        held = zip(states if isinstance(states, list | tuple) else [states], (outs, units), strict=False)
        last = [_states(call.axes(state) or [], own) for state, own in held]
        for axis in x[:-1]:
            axis.pin()
        return [[*x[:-1], entering], *last]

    return rule


def cell(gates: int) -> Rule:
    """nn.LSTMCell, nn.GRUCell, nn.RNNCell: one step."""

    def rule(call: Call) -> Found:
        arguments: Any = call.node.args
        x, states = call.first(), arguments[1] if isinstance(arguments[1], list | tuple) else [arguments[1]]
        weights = [axes for axes in map(call.axes, arguments[2:]) if axes is not None]
        units, _ = _cell(weights, x[-1], len(weights) == 4, gates)
        for axes in map(call.axes, states):
            unify((axes or [])[-1], units)
        found = [*x[:-1], units]
        return [found] * len(call.result) if isinstance(call.result, tuple) else found

    return rule


def _cell(weights: Sequence[Axes], entering: Extent, biased: bool, gates: int) -> tuple[Extent, Extent]:
    """The units of a cell, and what it gives out: these, or what they are projected to."""
    inward, again, rest = weights[0], weights[1], weights[2:]
    unify(inward[-1], entering)
    units = _units(inward[0], gates)
    for rows in (again[0], *(bias[0] for bias in rest[: 2 * biased])):
        unify(_units(rows, gates), units)
    out = units
    for projection in rest[2 * biased :]:
        unify(projection[1], units)
        out = projection[0]
    unify(again[1], out)
    return units, out


def _units(rows: Extent, gates: int) -> Extent:
    """Rows are a block for each gate, in each of which the units are in the same order."""
    blocks = rows.split(factors(gates, rows.size // gates))
    for gate, own in itertools.pairwise(blocks):
        gate.pin()
        own.collapse(gate)
    return blocks[-1] if blocks[-1].size == rows.size // gates else Extent(1, pinned=True)


def _states(given: Axes, cells: Sequence[Extent]) -> Axes:
    """The states of cells, (cell, example, unit): those given are in their order, and those after the last step too."""
    which, example, units = given
    example.pin()
    if which.size > 1 and not (units.root.outer or units.root.factors or units.root.parts or units.root.pinned):
        units.root.vary_within(which)
    for index, own in enumerate(cells):
        unify(units.at(which, index) if which.size > 1 else units, own)
    which.pin()
    return [*fresh([len(cells)]), example, cells[0]] if len(cells) == 1 else _told_apart(cells, example)


def _told_apart(cells: Sequence[Extent], example: Extent) -> Axes:
    which = Extent(len(cells), pinned=True)
    units = Extent(cells[0].size, outer=[which])
    units.slots, units.over = list(cells), which
    return [which, example, units]


def packed(call: Call) -> Found:
    """pack_padded_sequence: steps one after the other, of all sequences that reach them."""
    x, (data, sizes) = call.first(), call.result
    for axis in x[:2]:
        axis.pin()
    return [[*fresh(data.shape[:1]), *x[2:]], fresh(sizes.shape)]


def padded(call: Call) -> Found:
    """pad_packed_sequence."""
    x, (sequences, lengths) = call.first(), call.result
    x[0].pin()
    return [[*fresh(sequences.shape[:2]), *x[1:]], fresh(lengths.shape)]
