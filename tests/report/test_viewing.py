from __future__ import annotations

import base64
import json
import math

import measured
import numpy as np
import plotly.graph_objects as go

from lossatlas.report.viewing import view_json
from lossatlas.results.views import Change, Choice, Move, Slider, View


def numbers(encoded: dict[str, str]) -> np.ndarray:
    shape = [int(n) for n in encoded["shape"].split(",")]
    return np.frombuffer(base64.b64decode(encoded["bdata"]), "<f4").reshape(shape)


def test_a_view_holds_its_numbers_in_single_precision_and_its_labels_as_text() -> None:
    loss = measured.results()["plane"]["loss"]
    name = "<script>alert(1)</script><br>loss %{z}"
    figure = go.Figure(go.Surface(z=loss.to_numpy(), name=name), {"template": "plotly_white"})
    moves = (Move(0, 0, {"x": loss["alpha"].to_numpy(), "y": [[1.0], [1.0, math.nan]]}),)
    view = View(
        (figure,),
        slider=Slider("t", ("0", "1", "2"), ("a", "b", "c"), moves),
        choices=(Choice("scale", ("linear", "log")),),
        changes={(1,): (Change(0, 0, {"z": np.log(loss.to_numpy())}), Change(0, None, {"yaxis.type": "log"}))},
    )
    found = json.loads(view_json(view))
    (panel,) = found["panels"]
    np.testing.assert_allclose(numbers(panel["data"][0]["z"]), loss, rtol=1e-7)
    assert panel["data"][0]["name"] == "&lt;script>alert(1)&lt;/script><br>loss %{z}"
    assert "template" not in panel["layout"]
    assert found["widths"] == [1]
    assert numbers(found["slider"]["moves"][0]["values"]["x"]).tolist() == loss["alpha"].to_numpy().tolist()
    assert found["slider"]["moves"][0]["values"]["y"] == [[1.0], [1.0, None]]
    changed, titled = found["changes"]["1"]
    np.testing.assert_allclose(numbers(changed["values"]["z"]), np.log(loss), rtol=1e-6)
    assert (titled["trace"], titled["values"]) == (None, {"yaxis.type": "log"})
