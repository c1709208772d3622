"""Robustness to weight noise, as a kind of result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lossatlas.results import chapters
from lossatlas.results.kind import Kind, Options, function_at
from lossatlas.results.provenance import COMMON, OBJECTIVE
from lossatlas.results.schema import Schema

Sigma = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RobustnessOptions(Options):
    """The keywords of ``robustness``."""

    sigmas: tuple[Sigma, ...] = Field((0.0, 0.01, 0.02, 0.05, 0.1), description="standard deviations of the noise")
    relative: Literal["none", "filter"] = Field("none", description="absolute noise, or relative to filter norms")
    draws: int = Field(10, ge=2, description="draws of the noise")
    seed: int = Field(0, ge=0, description="of the draws")


ROBUSTNESS = Kind(
    name="robustness",
    title="Robustness to weight noise",
    chapter=chapters.ROBUSTNESS,
    verb=function_at("lossatlas.robustness.robustness:robustness"),
    help="Loss and accuracy under Gaussian weight noise, with standard errors.",
    options=RobustnessOptions,
    schema=Schema(
        variables={"sigma": ("sigma",), "loss": ("sigma",), "loss_stderr": ("sigma",)},
        optional={"draw": ("draw",), "*_draws": ("sigma", "draw"), "*": ("sigma",)},
        attrs=(*OBJECTIVE, "relative", "draws", "seed", "stderr_over"),
        optional_attrs=(*COMMON, "filters", "filters_assumed"),
    ),
    figures=function_at("lossatlas.robustness.show.figures:figures"),
    numbers=function_at("lossatlas.robustness.show.figures:numbers"),
    claims=function_at("lossatlas.robustness.show.claims:claims"),
    answers=function_at("lossatlas.robustness.show.answers:answers"),
    panels=function_at("lossatlas.robustness.show.figures:panels"),
    theory=function_at("lossatlas.robustness.show.theory:theory"),
)
KINDS = (ROBUSTNESS,)
