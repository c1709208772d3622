"""Whether networks are connected, as kinds of results: alignments, curves, barriers, instability, REPAIR."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lossatlas.connectivity.show import schemas
from lossatlas.results import chapters
from lossatlas.results.kind import OBJECTIVE, Input, Kind, Options, function_at

_SHOW = "lossatlas.connectivity.show"
Count = Annotated[int, Field(ge=0)]
Definition = Literal["entezari", "frankle", "draxler"]


class ConnectivityOptions(Options):
    """The keywords of ``connectivity``."""

    align: Literal["weights", "activations", "none"] = Field(
        "weights", description="permute b's hidden units so that it is near to a"
    )
    symmetries: Path | None = Field(
        None,
        description="a YAML file: tensor -> the group of units along each axis, for a model that cannot be traced",
    )
    curve: Literal["bezier", "chain", "none"] = Field("none", description="train a path of low loss")
    bends: int = Field(1, ge=1, description="of the curve")
    epochs: int | None = Field(None, ge=1, description="of the curve's training; by default 3,000 steps in all")
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False, description="of the curve's training")
    batch_size: int = Field(128, ge=1, description="of the curve's training")
    definition: Definition = Field("entezari", description="of the barrier")
    steps: int = Field(25, ge=3, description="points on each path, before refinement")
    plane_steps: int = Field(0, ge=0, description="points on each axis of the planes with the paths; 0 for none")
    batch_norm: Literal["frozen", "recompute", "batch"] | None = Field(
        None, description="statistics along the paths; recomputed by default"
    )
    seed: int = Field(0, ge=0, description="of alignment, curve and bootstrap")


class InstabilityOptions(Options):
    """The keywords of ``instability``."""

    ks: tuple[Count, ...] = Field(description="numbers of steps that two runs share")
    pairs: int = Field(1, ge=1, description="pairs of runs for each of them")
    steps: int = Field(25, ge=3, description="points on each line, before refinement")
    draws: int = Field(1000, ge=0, description="of the bootstrap of each barrier")
    seed: int = Field(0, ge=0, description="of the bootstrap")

    @field_validator("draws")
    @classmethod
    def _enough(cls, draws: int) -> int:
        if 0 < draws < 100:
            raise ValueError(f"{draws}: give at least 100, or 0 for no intervals")
        return draws

    @field_validator("ks")
    @classmethod
    def _possible(cls, ks: tuple[int, ...], given: ValidationInfo) -> tuple[int, ...]:
        total = (given.context or {}).get("total_steps")
        if not ks or len(set(ks)) < len(ks):
            raise ValueError(f"{list(ks)}: give numbers of shared steps, none twice")
        if total is not None and max(ks) > total:
            raise ValueError(f"{list(ks)}, but a training has {total:,} steps: give numbers up to that")
        return ks


ALIGNMENT = Kind(
    name="alignment",
    title="Alignment of the two networks",
    chapter=chapters.CONNECTIVITY,
    schema=schemas.ALIGNMENT,
    figures=function_at(f"{_SHOW}.alignments:figures"),
    numbers=function_at(f"{_SHOW}.alignments:numbers"),
    answers=function_at(f"{_SHOW}.alignments:answers"),
    theory=function_at(f"{_SHOW}.theory:of_alignment"),
)
CONNECTION = Kind(
    name="connection",
    title="A curve between the two networks",
    chapter=chapters.CONNECTIVITY,
    schema=schemas.CONNECTION,
    figures=function_at(f"{_SHOW}.connections:figures"),
    numbers=function_at(f"{_SHOW}.connections:numbers"),
    answers=function_at(f"{_SHOW}.connections:answers"),
    theory=function_at(f"{_SHOW}.theory:of_connection"),
)
BARRIER = Kind(
    name="barrier",
    title="The path between two networks",
    chapter=chapters.CONNECTIVITY,
    verb=function_at("lossatlas.connectivity.connectivity:connectivity"),
    command="connect",
    help="Are two trained models connected? Barriers on the line, the line after alignment, and a curve.",
    options=ConnectivityOptions,
    inputs=(
        OBJECTIVE,
        Input(
            "a",
            "weights",
            "weights of the one model: .safetensors, .pt, .ckpt, a folder; FILE:KEY picks one of several",
        ),
        Input("b", "weights", "weights of the other"),
        Input("test", "objective", "an Objective on other data, where barriers are measured too", optional=True),
        Input("fit", "objective", "an Objective on the data that the curve is trained on", optional=True),
        Input("picture", "objective", "an Objective on the data of the planes", optional=True),
        Input("folder", "folder"),
        Input("keep", "keep"),
    ),
    schema=schemas.BARRIER,
    figures=function_at(f"{_SHOW}.barriers:figures"),
    numbers=function_at(f"{_SHOW}.barriers:numbers"),
    answers=function_at(f"{_SHOW}.answers:answers"),
    panels=function_at(f"{_SHOW}.panels:panels"),
    claims=function_at(f"{_SHOW}.claims:claims"),
    theory=function_at(f"{_SHOW}.theory:of_barrier"),
)
CONNECTIVITY_PLANE = Kind(
    name="connectivity_plane",
    title="The plane of the paths",
    chapter=chapters.CONNECTIVITY,
    schema=schemas.PLANE,
    figures=function_at(f"{_SHOW}.planes:figures"),
    numbers=function_at(f"{_SHOW}.planes:numbers"),
    answers=function_at(f"{_SHOW}.planes:answers"),
)
INSTABILITY = Kind(
    name="instability",
    title="Instability to the order of the data",
    chapter=chapters.CONNECTIVITY,
    verb=function_at("lossatlas.connectivity.instability:instability"),
    help="How early in training the minimum is decided: barriers between runs that share their first steps.",
    options=InstabilityOptions,
    inputs=(OBJECTIVE, Input("spawn", "training")),
    schema=schemas.INSTABILITY,
    figures=function_at(f"{_SHOW}.instabilities:figures"),
    numbers=function_at(f"{_SHOW}.instabilities:numbers"),
    answers=function_at(f"{_SHOW}.instabilities:answers"),
    claims=function_at(f"{_SHOW}.instability_claims:claims"),
    theory=function_at(f"{_SHOW}.theory:of_instability"),
)
REPAIR = Kind(
    name="repair",
    title="REPAIR",
    chapter=chapters.CONNECTIVITY,
    schema=schemas.REPAIR,
    figures=function_at(f"{_SHOW}.repairs:figures"),
    numbers=function_at(f"{_SHOW}.repairs:numbers"),
    answers=function_at(f"{_SHOW}.repairs:answers"),
    theory=function_at(f"{_SHOW}.theory:of_repair"),
)
KINDS = (BARRIER, CONNECTIVITY_PLANE, INSTABILITY, ALIGNMENT, CONNECTION, REPAIR)
