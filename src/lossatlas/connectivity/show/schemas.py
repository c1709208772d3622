"""What the Datasets of each kind of connectivity hold."""

from __future__ import annotations

from lossatlas.results.provenance import COMMON, OBJECTIVE
from lossatlas.results.schema import Dims, Schema
from lossatlas.surfaces.show import SURFACE_ATTRS, SURFACE_OPTIONAL, SURFACE_OPTIONAL_ATTRS, SURFACE_VARIABLES


def _over(dims: Dims, *names: str, ends: tuple[str, ...] = ("",)) -> dict[str, Dims]:
    """Each name with each ending, over these dimensions."""
    return {f"{name}{end}": dims for name in names for end in ends}


_INTERVAL = ("", "_low", "_high")
_ESTIMATE = ("", "_stderr", "_low", "_high")

ALIGNMENT = Schema(
    variables=_over(("group",), "group", "size", "moved", "cosine_before", "cosine_after")
    | _over((), "similarity", "distance", ends=("_before", "_after"))
    | _over((), "deviation"),
    attrs=(*OBJECTIVE, "method", "start", "starts", "half_way", "sweeps", "assignments", "pinned", "seed"),
    optional_attrs=(*COMMON, "seconds_assignment", "examples_verified"),
)
CONNECTION = Schema(
    variables=_over(("step",), "step", "loss", "t_drawn", "learning_rate") | _over(("epoch",), "epoch", "epoch_loss"),
    attrs=(
        *(*OBJECTIVE, "path", "curve", "bends", "engine", "epochs", "batch_size", "learning_rate"),
        *("optimizer", "schedule", "seed", "length_ratio"),
    ),
    optional_attrs=(*COMMON, "ends_note"),
)
BARRIER = Schema(
    variables=_over(("t",), "t", "loss", "loss_stderr")
    | _over((), "barrier", ends=_ESTIMATE)
    | _over((), "t_max", ends=_INTERVAL)
    | _over(("definition",), "definition")
    | _over(("definition",), "height", ends=_INTERVAL)
    | _over((), "highest_loss", "highest_loss_stderr", "length_ratio"),
    optional=_over((), "barrier_error", ends=_ESTIMATE)
    | _over((), "t_max_error", "relative_height", ends=_INTERVAL)
    | _over(("definition",), "height_error", ends=_INTERVAL)
    | _over(("t",), "*"),  # the error, and metrics with names of the user's own
    attrs=(
        *(*OBJECTIVE, "path", "curve", "definition", "draws", "seed", "tol", "t_tol", "stderr_over", "bootstrap"),
        *("refined", "refinement_note", "height_resolution", "t_resolution"),
    ),
    optional_attrs=(*COMMON, "height_resolution_error", "t_resolution_error", "ends_note", "carried_buffers"),
)
PLANE = Schema(
    variables=SURFACE_VARIABLES
    | _over(("path",), "path")
    | _over(("t_path",), "t_path")
    | _over(("path", "t_path"), "path_alpha", "path_beta", "path_off_plane")
    | _over(("mark",), "mark", "mark_alpha", "mark_beta", "mark_off_plane"),
    optional=SURFACE_OPTIONAL,
    attrs=SURFACE_ATTRS,
    optional_attrs=(*SURFACE_OPTIONAL_ATTRS, "ends_note"),
)
INSTABILITY = Schema(
    variables=_over(("k",), "k") | _over(("pair",), "pair") | _over(("k", "pair"), "barrier", ends=_INTERVAL),
    optional=_over(("k", "pair"), "barrier_error", ends=_INTERVAL) | _over(("k", "pair"), "end_error"),
    attrs=(*OBJECTIVE, "definition", "draws", "seed"),
    optional_attrs=(*COMMON, "total_steps"),
)
REPAIR = Schema(
    variables=_over(("layer",), "layer", "units", "sd_ratio_before", "sd_ratio_after"),
    attrs=(*OBJECTIVE, "weights", "skipped"),
    optional_attrs=COMMON,
)
