"""How training went and which trajectory it took, as kinds of results."""

from __future__ import annotations

from pydantic import Field

from lossatlas.results import chapters
from lossatlas.results.kind import Input, Kind, Options, function_at
from lossatlas.results.provenance import COMMON, OBJECTIVE
from lossatlas.results.schema import Schema


class TrajectoryOptions(Options):
    """The keywords of ``trajectory_measurement``."""

    steps: int = Field(51, ge=3, description="points on each axis of the principal plane")
    components: int = Field(10, ge=2, description="principal components listed")
    sharpness: int = Field(0, ge=0, description="snapshots at which lambda_max of the Hessian is measured")
    seed: int = Field(0, ge=0, description="of the random signs of the null model")


_SETTINGS = (  # of ``zoo.fit``, which a history records
    *("optimizer", "learning_rate", "momentum", "weight_decay", "rho", "batch_size", "schedule", "loss", "epochs"),
    *("fork", "channels_last", "initial weights", "examples"),
)
_PER_COMPONENT = ("component", "explained_variance_ratio", "random_walk_ratio")
_PER_SNAPSHOT = ("step", "alpha", "beta", "off_plane_distance", "distance")

HISTORY = Kind(
    name="history",
    title="Training",
    chapter=chapters.TRAJECTORY,
    schema=Schema(
        variables={"step": ("step",)},
        optional={
            "epoch": ("epoch",),
            **dict.fromkeys(("loss", "gradient_norm", "learning_rate"), ("step",)),
            "*": None,  # what a training loop told its Recorder at each step, what was measured after each epoch
        },
        optional_attrs=(*OBJECTIVE, *COMMON, *_SETTINGS, "trajectory_fingerprint"),
    ),
    figures=function_at("lossatlas.trajectory.show.histories:figures"),
    numbers=function_at("lossatlas.trajectory.show.numbers:of_history"),
    claims=function_at("lossatlas.trajectory.show.ranks:claims"),
    answers=function_at("lossatlas.trajectory.show.answers:of_histories"),
    panels=function_at("lossatlas.trajectory.show.panels:of_histories"),
    setup=function_at("lossatlas.trajectory.show.histories:setup"),
)
TRAJECTORY = Kind(
    name="trajectory",
    title="The trajectory of training",
    chapter=chapters.TRAJECTORY,
    verb=function_at("lossatlas.trajectory.measurement:trajectory_measurement"),
    help="Principal components of a training run's snapshots next to random-walk nulls, and the loss on their plane.",
    options=TrajectoryOptions,
    inputs=(
        Input("snapshots", "snapshots", "the folder of a Recorder"),
        Input(
            "objective", "objective", "an Objective, for the loss along and around the trajectory", True, ("target",)
        ),
        Input("keep", "keep"),
    ),
    schema=Schema(
        variables={
            **dict.fromkeys(_PER_COMPONENT, ("component",)),
            **dict.fromkeys(_PER_SNAPSHOT, ("snapshot",)),
            "sign_flip_two": ("draw",),
        },
        optional=dict.fromkeys(
            ("loss", "loss_stderr", "plane_loss", "lambda_max", "lambda_max_residual"), ("snapshot",)
        ),
        attrs=("trajectory_fingerprint", "n_snapshots", "center", "seed"),
        optional_attrs=(*OBJECTIVE, *COMMON, "sharpness_products", "sharpness_tol"),
    ),
    figures=function_at("lossatlas.trajectory.show.trajectories:figures"),
    numbers=function_at("lossatlas.trajectory.show.numbers:of_trajectory"),
    claims=function_at("lossatlas.trajectory.show.claims:claims"),
    answers=function_at("lossatlas.trajectory.show.answers:of_trajectories"),
    panels=function_at("lossatlas.trajectory.show.panels:of_trajectories"),
    theory=function_at("lossatlas.trajectory.show.theory:theory"),
    shows_instead=function_at("lossatlas.trajectory.show.trajectories:planes"),
)
KINDS = (TRAJECTORY, HISTORY)  # the one that answers the chapter's question best comes first
