"""The comparison with published numbers, as a kind of result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lossatlas.results import chapters
from lossatlas.results.kind import Input, Kind, Options, function_at
from lossatlas.results.provenance import COMMON
from lossatlas.results.schema import Schema


class ComparisonOptions(Options):
    """The keywords of ``comparison``."""

    study: Literal["fashion", "mnist"] = Field(description="whose numbers")


COMPARISON = Kind(
    name="comparison",
    title="Comparison with published numbers",
    chapter=chapters.COMPARISON,
    verb=function_at("lossatlas.published.comparison:comparison"),
    help="Published numbers and the same quantities as measured here.",
    options=ComparisonOptions,
    inputs=(Input("catalogue", "catalogue"),),
    schema=Schema(
        variables=dict.fromkeys(("quantity", "published", "ours", "ours_stderr", "reason"), ("quantity",)),
        attrs=("title", "study"),
        optional_attrs=COMMON,
    ),
    figures=function_at("lossatlas.published.show.figures:figures"),
    numbers=function_at("lossatlas.published.show.figures:numbers"),
    answers=function_at("lossatlas.published.show.figures:answers"),
)
KINDS = (COMPARISON,)
