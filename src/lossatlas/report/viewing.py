"""A view as JSON for the page's script: arrays in single precision, encoded as plotly does."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lossatlas.results.views import Change, Choice, Move, Slider, View

# What plotly's labels may hold as markup; any other "<" is a character, such as one of a network's name.
_NO_MARKUP = re.compile(r"<(?!/?(?:br|b|i|sub|sup|extra)\s*/?>)")


def view_json(view: View) -> str:
    """Everything that the page's script needs in order to draw the view and to move it.

    Panels are plotly figures without their template, since the page gives them its own colours. Labels keep the tags
    ``<br>``, ``<b>``, ``<i>``, ``<sub>``, ``<sup>`` and ``<extra>``; in all others the ``<`` is text.
    """
    content = {
        "panels": [_panel(panel) for panel in view.panels],
        "widths": list(view.widths) or [1] * len(view.panels),
        "slider": _slider(view.slider),
        "choices": [_choice(choice) for choice in view.choices],
        "changes": {
            ",".join(map(str, key)): [_change(change) for change in changes]
            for key, changes in (view.changes or {}).items()
        },
        "linked": view.linked,
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _panel(panel: Any) -> dict[str, Any]:
    figure = panel if isinstance(panel, dict) else panel.to_plotly_json()
    layout = {key: value for key, value in figure.get("layout", {}).items() if key != "template"}
    return {"data": _compact(list(figure["data"])), "layout": _compact(layout)}


def _slider(slider: Slider | None) -> dict[str, Any] | None:
    if slider is None:
        return None
    return {
        "name": slider.name,
        "labels": list(slider.labels),
        "readouts": list(slider.readouts),
        "start": slider.start,
        "moves": [_move(move) for move in slider.moves],
    }


def _move(move: Move) -> dict[str, Any]:
    return {"panel": move.panel, "trace": move.trace, "values": _compact(dict(move.values))}


def _choice(choice: Choice) -> dict[str, Any]:
    return {"name": choice.name, "options": list(choice.options)}


def _change(change: Change) -> dict[str, Any]:
    return {"panel": change.panel, "trace": change.trace, "values": _compact(dict(change.values))}


def _compact(value: Any) -> Any:
    """The same for JSON: numeric arrays as base64 in single precision, other numbers to seven digits."""
    if isinstance(value, dict):
        return _compact(_array(value)) if "bdata" in value else {k: _compact(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _encoded(value) if value.dtype.kind in "fiu" and value.ndim else _compact(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_compact(item) for item in value]
    if isinstance(value, str):
        return _NO_MARKUP.sub("&lt;", value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _array(encoded: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The array that plotly encoded."""
    flat = np.frombuffer(base64.b64decode(encoded["bdata"]), dtype=np.dtype(encoded["dtype"]).newbyteorder("<"))
    shape = [int(n) for n in str(encoded.get("shape", len(flat))).split(",")]
    return flat.reshape(shape)


def _encoded(values: np.ndarray[Any, Any]) -> dict[str, str]:
    flat = np.ascontiguousarray(values, dtype="<f4")
    return {"bdata": base64.b64encode(flat.tobytes()).decode(), "shape": ",".join(map(str, values.shape))}
