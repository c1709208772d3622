"""The loss on lines, planes and volumes, as a kind of result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lossatlas.results import chapters, provenance
from lossatlas.results.kind import OBJECTIVE, Input, Kind, Options, function_at
from lossatlas.results.provenance import COMMON
from lossatlas.results.schema import Dims, Schema

Width = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Tolerance = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class SliceOptions(Options):
    """The keywords of ``slices``."""

    dims: Literal[1, 2, 3] = Field(2, description="a line, a plane or a volume")
    steps: int = Field(51, ge=2, description="points on each axis; an odd number has the model on the grid")
    span: Width | None = Field(
        None, description="half-width of each axis, in lengths of the direction; 1 for random axes"
    )
    axes: Literal["random", "hessian"] = Field(
        "random", description="random directions, or the Hessian's extreme eigenvectors"
    )
    norm: Literal["filter", "layer", "model"] = Field("filter", description="how random axes are scaled")
    one_d: Literal["zero", "scale"] | None = Field(None, description="biases and norms: held fixed, or varied")
    spacing: Literal["linear", "log"] = Field("linear", description="of the points on random axes")
    seed: int = Field(0, ge=0, description="of the random axes")
    planes: int = Field(1, ge=1, description="so many random draws of the axes, with their mean and spread")
    tol: Tolerance | None = Field(
        None, description="relative error that 95 % of the pixels are to keep; without it all are evaluated"
    )
    subset: Count | None = Field(None, description="evaluate on about so many examples, drawn class by class")
    by_class: bool = Field(False, description="the loss of each class too")
    store: Path | None = Field(None, description="a folder of evaluated points, from which it goes on")


# Over ("alpha",), ("alpha", "beta"), .. or ("radius", "angle"); several regions add "plane".
SURFACE_VARIABLES: dict[str, Dims] = {"loss": None, "loss_stderr": None, "loss_rise_stderr": None, "evaluated": None}
SURFACE_OPTIONAL: dict[str, Dims] = {
    **{axis: (axis,) for axis in ("alpha", "beta", "gamma", "radius", "angle", "plane", "class")},
    "evaluation_*": ("evaluation",),
    "*": None,  # metrics and their standard errors, also on further data: their names are the user's
}
SURFACE_ATTRS = (
    *provenance.OBJECTIVE,
    "region",
    "region_fingerprint",
    "directions",
    "normalisation",
    "one_d",
    "direction_norms",
    "relative_norms",
    "center_is_model",
    "center_loss",
    "stderr_over",
    "n_evaluations",
    "n_nonfinite",
)
_ORIGIN = ("directions_normalisation", "trajectory_fingerprint", "center", "spectrum_id", "cosine", "n_planes")
_FILTERS = ("filters", "filters_assumed", "at_rest")
_MAKING = ("evaluation", "evaluation_fallback", "preparation_seconds", "subset", "n_examples_all")
_ACCURACY = (
    "method",
    "tolerance",
    "coverage",
    "coverage_bound",
    "confidence",
    "held_out",
    "held_out_beyond",
    "held_out_seed",
    "error_estimate",
    "data_error",
)
SURFACE_OPTIONAL_ATTRS = (*COMMON, *_ORIGIN, *_FILTERS, *_MAKING, *_ACCURACY)
SURFACE_SCHEMA = Schema(SURFACE_VARIABLES, SURFACE_OPTIONAL, SURFACE_ATTRS, SURFACE_OPTIONAL_ATTRS)

SURFACE = Kind(
    name="surface",
    title="Loss on a plane",  # of most; the figures name lines and volumes
    chapter=chapters.LANDSCAPE,
    verb=function_at("lossatlas.surfaces.slices:slices"),
    help="The loss on a line, plane or volume through the model: in full, or to a stated accuracy.",
    options=SliceOptions,
    inputs=(
        OBJECTIVE,
        Input("train", "objective", "an Objective on training data, measured at the same points", optional=True),
        Input("test", "objective", "an Objective on test data, measured at the same points", optional=True),
    ),
    schema=SURFACE_SCHEMA,
    figures=function_at("lossatlas.surfaces.show.figures:figures"),
    numbers=function_at("lossatlas.surfaces.show.numbers:numbers"),
    claims=function_at("lossatlas.surfaces.show.claims:claims"),
    answers=function_at("lossatlas.surfaces.show.answers:answers"),
    panels=function_at("lossatlas.surfaces.show.panels:panels"),
    theory=function_at("lossatlas.surfaces.show.theory:theory"),
)
KINDS = (SURFACE,)
