"""Interactive pictures as data: plotly figures side by side, what moves along in them, and what can be chosen.

A page draws them when they come into view; a kind only says what belongs where, and writes no script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Move:
    """What a slider does to one trace: at position k, ``values["x"][k]`` is its x, and so on; a number or a row each.

    ``values`` are arrays ``(positions,)`` for a marker, or lists of rows for a trace that grows.
    """

    panel: int
    trace: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Slider:
    """Positions along a path or a training: ``labels`` name them, ``readouts`` tell in words what is seen there."""

    name: str
    labels: tuple[str, ...]
    readouts: tuple[str, ...]
    moves: tuple[Move, ...]
    start: int = 0


@dataclass(frozen=True)
class Change:
    """New values of a trace's attributes ("z", "surfacecolor", "visible", "colorbar.title.text"), or, where ``trace``
    is None, of the panel's layout ("yaxis.type", "scene.zaxis.title.text").
    """

    panel: int
    trace: int | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """One of several ways to see the same, such as a linear or a logarithmic scale; the first is shown first."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """Panels side by side (plotly figures), of relative ``widths``.

    ``changes`` has an entry for every combination of the choices, by the indices of their options: what is to be done
    to come from any other combination to this one. ``linked``: the cameras of the panels in space turn together.
    """

    panels: tuple[Any, ...]
    widths: tuple[float, ...] = ()
    slider: Slider | None = None
    choices: tuple[Choice, ...] = ()
    changes: Mapping[tuple[int, ...], tuple[Change, ...]] | None = None
    linked: bool = False
