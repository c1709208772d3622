"""Sharpness, as a kind of result."""

from __future__ import annotations

from pydantic import Field

from lossatlas.results import chapters
from lossatlas.results.kind import Kind, Options, function_at
from lossatlas.results.provenance import COMMON, OBJECTIVE
from lossatlas.results.schema import Schema
from lossatlas.sharpness.show.references import REFERENCES

_SHOW = "lossatlas.sharpness.show"
ESTIMATE = ("value", "stderr", "low", "high", "products", "passes", "seconds")
TOLD = ("errors", "bound", "note", "title", "formula", "source", "sharper", "rho")


class SharpnessOptions(Options):
    """The keywords of ``sharpness``."""

    measures: tuple[str, ...] | None = Field(None, description="by name; the cheap ones by default, 'all' for all")
    rho: float | dict[str, float] | None = Field(
        None, description="size of perturbations, for all measures that have one or by name; each one's own by default"
    )
    tol: float = Field(0.01, gt=0, allow_inf_nan=False, description="relative error of what is solved or drawn")
    batch_size: int = Field(64, ge=1, description="of the measures that are means over batches")
    seed: int = Field(0, ge=0, description="of the noise and of random products")


SHARPNESS = Kind(
    name="sharpness",
    title="Measures of sharpness",
    chapter=chapters.CURVATURE,
    verb=function_at("lossatlas.sharpness.sharpness:sharpness"),
    help="Every measure of sharpness of the field, with its error, its cost and its invariances.",
    options=SharpnessOptions,
    schema=Schema(
        variables=dict.fromkeys((*ESTIMATE, *TOLD), ("measure",))
        | {"measure": ("measure",), "reparametrisation": ("reparametrisation",)}
        | {"invariant": ("measure", "reparametrisation")},
        attrs=(*OBJECTIVE, "products", "passes", "tol", "batch_size", "seed", "loss", "loss_stderr"),
        optional_attrs=COMMON,
    ),
    figures=function_at(f"{_SHOW}.figures:figures"),
    numbers=function_at(f"{_SHOW}.figures:numbers"),
    claims=function_at(f"{_SHOW}.claims:claims"),
    answers=function_at(f"{_SHOW}.answers:answers"),
    theory=function_at(f"{_SHOW}.theory:theory"),
    references=REFERENCES,
    opens=True,
)


class InvarianceOptions(Options):
    """The keywords of ``invariance``."""

    measures: tuple[str, ...] | None = Field(None, description="by name; the cheap ones by default, 'all' for all")
    reparametrisations: tuple[str, ...] | None = Field(
        None, description="by name, such as layer_rescaling; all by default"
    )
    draws: int = Field(1, ge=1, description="of each reparametrisation; the one that moves a measure furthest is kept")
    rho: float | dict[str, float] | None = Field(
        None, description="size of perturbations, for all measures that have one or by name; each one's own by default"
    )
    tol: float = Field(0.01, gt=0, allow_inf_nan=False, description="relative error of what is solved or drawn")
    batch_size: int = Field(64, ge=1, description="of the measures that are means over batches")
    seed: int = Field(0, ge=0, description="of the reparametrisations and the noise")


_BOTH = ("measure", "reparametrisation")

INVARIANCE = Kind(
    name="invariance",
    title="Sharpness and other weights of the same function",
    chapter=chapters.CURVATURE,
    verb=function_at("lossatlas.sharpness.invariance:invariance"),
    help="How far each measure of sharpness moves under weights of the same function.",
    options=InvarianceOptions,
    schema=Schema(
        variables=dict.fromkeys(("measure", "before", "title", "rho"), ("measure",))
        | dict.fromkeys(("after", "ratio", "ratio_low", "ratio_high", "expected", "moved", "note"), _BOTH)
        | dict.fromkeys(
            ("reparametrisation", "keeps", "available", "deviation", "groups", "left_out"), ("reparametrisation",)
        ),
        attrs=(*OBJECTIVE, "draws", "passes", "tol", "batch_size", "seed"),
        optional_attrs=COMMON,
    ),
    figures=function_at(f"{_SHOW}.invariance:figures"),
    numbers=function_at(f"{_SHOW}.invariance:numbers"),
    claims=function_at(f"{_SHOW}.invariance_claims:claims"),
    answers=function_at(f"{_SHOW}.invariance_claims:answers"),
    theory=function_at(f"{_SHOW}.invariance_claims:theory"),
    references=REFERENCES,
)
KINDS = (SHARPNESS, INVARIANCE)
