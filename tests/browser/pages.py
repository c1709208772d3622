"""A small page with everything that a page can have, of measured results; its views are made here, for its script."""

from __future__ import annotations

from typing import Any

import measured
import numpy as np
import plotly.graph_objects as go
import xarray as xr
from matplotlib.figure import Figure

from lossatlas.report.document import Chapter, ClaimTable, Document, References, Row, Section
from lossatlas.report.downloads import file_stem
from lossatlas.results.blocks import Answer, Formula, Picture, Reference, Table, paragraph
from lossatlas.results.claim import Claim
from lossatlas.results.views import Change, Choice, Move, Slider, View

HOSTILE = r"<script>alert(1)</script>\input{/etc/passwd}_%&#"
CHAPTER = "How does the loss look around the minimum?"


def _result(name: str) -> xr.Dataset:
    return measured.results()[name].assign_attrs(network=HOSTILE)


stem = file_stem  # of the files of a Dataset


def _drawn(dataset: xr.Dataset) -> Figure:
    figure = Figure(figsize=(4, 2.5), layout="constrained")
    figure.subplots().contourf(dataset["loss"].transpose("beta", "alpha"))
    return figure


def surfaces() -> View:
    """Two surfaces in space whose cameras are linked; a choice of scale changes both and their axes."""
    loss = _result("plane")["loss"].transpose("beta", "alpha")
    x, y, z = loss["alpha"].to_numpy(), loss["beta"].to_numpy(), loss.to_numpy()
    look: dict[str, Any] = {"showscale": False, "hovertemplate": HOSTILE + "<br>loss %{z:.4f}<extra></extra>"}
    panels = tuple(go.Figure(go.Surface(x=x, y=y, z=z, **look), {"title": {"text": HOSTILE}}) for _ in range(2))
    seen = {
        (k,): tuple(
            change
            for panel in range(2)
            for change in (
                Change(panel, 0, {"z": np.log10(z) if k else z}),
                Change(panel, None, {"scene.zaxis.title.text": "log loss" if k else "loss"}),
            )
        )
        for k in range(2)
    }
    return View(panels, choices=(Choice("scale", ("linear", "logarithmic")),), changes=seen, linked=True)


def along() -> View:
    """A map with a marker and a path that grows, and a profile with a marker, moved by one slider."""
    dataset, path = _result("plane"), _result("barrier")
    loss = dataset["loss"].transpose("beta", "alpha")
    t, profile = path["t"].to_numpy(), path["loss"].to_numpy()
    alpha, beta = np.linspace(-1, 1, len(t)), np.linspace(0, 0.5, len(t))
    plane = go.Figure(go.Heatmap(x=loss["alpha"], y=loss["beta"], z=loss, hovertemplate="loss %{z:.4f}<extra></extra>"))
    plane.add_scatter(x=[alpha[0]], y=[beta[0]], mode="markers", marker={"color": "black", "size": 12})
    plane.add_scatter(x=[alpha[0]], y=[beta[0]], mode="lines", line={"color": "black"})
    curve = go.Figure(go.Scatter(x=t, y=profile, line={"color": "black"}))
    curve.add_scatter(x=[t[0]], y=[profile[0]], mode="markers")
    rows = {"x": [alpha[: k + 1] for k in range(len(t))], "y": [beta[: k + 1] for k in range(len(t))]}
    moves = (Move(0, 1, {"x": alpha, "y": beta}), Move(0, 2, rows), Move(1, 1, {"x": t, "y": profile}))
    labels = tuple(f"t = {each:.2f}" for each in t)
    readouts = tuple(f"loss {each:.4f} of {HOSTILE}" for each in profile)
    return View((plane, curve), widths=(2, 1), slider=Slider("place", labels, readouts, moves))


def claim() -> Claim:
    return Claim(f"The loss of {HOSTILE} rises", "rise", 0.3, (0.2, 0.4), datasets=(_result("plane").attrs["id"],))


def _picture(name: str, result: str, **options: Any) -> Picture:
    dataset = _result(result)
    return Picture(name, lambda: _drawn(dataset), f"Loss of {HOSTILE}.", datasets=(dataset,), alt=name, **options)


def document() -> Document:
    """A chapter, its details and those of the whole, a lead and further pictures, each with its downloads."""
    lead = _picture(
        "lead", "plane", view=surfaces, lead=True, vector=False, how="On a grid.", pitfall="Two directions."
    )
    moving = _picture("moving", "plane", view=along)
    hidden = _picture("hidden", "interpolated plane", view=surfaces, width=0.6)
    numbers = Table("Key numbers.", ("quantity", HOSTILE), (("trace", "1.4 ± 0.1"),))
    details = Section("Further figures", "more-landscape", (hidden, paragraph("As before [@li2018].")))
    theory = Section("Theory", "theory", (Section("Loss", "theory-1", (Formula(r"L(\theta) = \frac{1}{N}"),)),))
    claims = Section("Claims", "claims", (ClaimTable((claim(),)),))
    answer = Answer(f"The loss of {HOSTILE} rises.", "It rises.", claim(), "rises", "rise", "Two directions of many.")
    chapters = (
        Chapter(CHAPTER, "landscape", (answer,), lead, numbers, details),
        Chapter("Are the minima connected?", "connected", (Answer("Nothing decides it.", "No."),), moving, None, None),
    )
    rows = tuple(
        Row(c.question, c.anchor, "it rises", "rise", claim() if k == 0 else None) for k, c in enumerate(chapters)
    )
    return Document(
        f"Report on {HOSTILE}",
        (f"The network is {HOSTILE}.", "Its loss rises."),
        _picture("glance", "Hessian axes"),
        rows,
        chapters,
        (claims, theory, Section("References", "references", (References(("li2018",)),))),
        lead,
        {
            "li2018": Reference(
                "H. Li", 2018, "Visualizing the loss landscape", "NeurIPS", "https://arxiv.org/abs/1712.09913"
            )
        },
    )
