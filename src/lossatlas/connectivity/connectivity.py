"""Two networks: barriers on the line, on the line after alignment and on a curve, and the planes of these paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import xarray as xr
import yaml
from torch import Tensor

from lossatlas.connectivity import alignment
from lossatlas.connectivity.alignment import Given
from lossatlas.connectivity.barrier import PATH_NAMES, barrier, check
from lossatlas.connectivity.connect import check_fit, connect
from lossatlas.connectivity.heights import Definition
from lossatlas.connectivity.plane import connectivity_plane
from lossatlas.connectivity.refinement import first_places
from lossatlas.errors import ConfigError, InputError
from lossatlas.geometry.curves import Bezier, Curve, ParametricCurve, PolygonalChain, Segment
from lossatlas.geometry.draws import random_directions
from lossatlas.model.checkpoints import read_state, write_state
from lossatlas.model.functional import BatchNormPolicy
from lossatlas.objective import Objective, Source
from lossatlas.results.files import make_folder

LINE, ALIGNED = "line", "line after alignment"
ALIGNED_FILE, CURVE_FILE, TRAINING_FOLDER = "aligned.safetensors", "curve.safetensors", "connection"
PLANES = ("connectivity_plane", "connectivity_plane_aligned")
CURVES: dict[str, type[ParametricCurve]] = {"bezier": Bezier, "chain": PolygonalChain}

Align = Literal["weights", "activations", "none"]
CurveName = Literal["bezier", "chain", "none"]
State = Mapping[str, Tensor]
Keep = Callable[[str, Callable[[], xr.Dataset]], xr.Dataset]


def connectivity(
    objective: Objective,
    a: Source,
    b: Source,
    *,
    test: Objective | None = None,
    fit: Objective | None = None,
    picture: Objective | None = None,
    align: Align = "weights",
    symmetries: Given | str | Path | None = None,
    curve: CurveName = "none",
    bends: int = 1,
    epochs: int | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    definition: Definition = "entezari",
    steps: int = 25,
    plane_steps: int = 0,
    batch_norm: BatchNormPolicy | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    keep: Keep | None = None,
    progress: bool = True,
) -> dict[str, xr.Dataset]:
    """max over t of L(theta(t)) - base(t) on every path asked for between a and b: the straight line, the line to b
    with its hidden units in a's order, and a curve of low loss. ``barrier``, ``align``, ``connect`` and
    ``connectivity_plane`` in this order, with the same numbers.

    Parameters
    ----------
    a, b : points ``(n,)``, modules, state dicts or files of the objective's architecture.
    test : an objective on other data, on which the barriers are measured too.
    fit : the objective whose loss the curve is trained on; by default ``objective``.
    picture : the objective of the planes; by default ``objective``.
    align, symmetries : as ``align`` takes them (``align`` is its ``method``); ``"none"`` leaves the alignment out. The
        symmetries may stand in a YAML file, named here by its path.
    curve, bends, epochs, learning_rate, batch_size : as ``connect`` takes them; ``"none"`` leaves the curve out.
    definition, steps, batch_norm : as ``barrier`` takes them.
    plane_steps : grid points on each axis of the planes through both networks and the middle bend of the curve, and
        through both and b after alignment; 0 for no plane. Without alignment and curve there is none.
    seed : of alignment, curve and bootstrap.
    folder : keeps b after alignment (``aligned.safetensors``), the points of the curve (``curve.safetensors``) and the
        state of its training (``connection/``).
    keep : ``keep(name, compute)`` returns ``compute()``, or the result of that name from an earlier call, so that a
        call that was interrupted goes on; the weights that belong to a kept result are read from ``folder``.

    Returns
    -------
    Datasets by name: ``"barrier"``, ``"barrier_test"``, ``"alignment"``, ``"barrier_aligned"``,
    ``"barrier_aligned_test"``, ``"connection"``, ``"barrier_curve"``, ``"barrier_curve_test"``,
    ``"connectivity_plane"``, ``"connectivity_plane_aligned"``; those that were asked for, in this order. The first
    plane is that of the curve or, without one, of b after alignment. ``attrs["split"]`` of a barrier is ``"train"`` on
    the data of ``objective`` and ``"test"`` on those of ``test``; ``attrs["weights"]`` tells what was taken of files.

    Raises
    ------
    InputError : a and b are the same point; an impossible setting; ``keep`` without a ``folder`` for the weights.
    ConfigError : a file of symmetries that is no YAML.
    CheckpointError : weights of another network; a file of ``folder`` that is absent or damaged.
    NonFiniteLoss : the loss of an end is not finite, or the training of the curve diverges.
    OutputError : ``folder`` cannot be written, or holds the training of another curve.

    Source: Frankle et al. (2020), section 2; Ainsworth et al. (2023), "Git Re-Basin", Algorithm 1; Garipov et al.
    (2018), equation 2 and figure 1.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, (torch.randn(10, 2), torch.randn(10, 1)))
    >>> b = objective.point + 0.1 * torch.randn(objective.n_parameters)
    >>> found = connectivity(objective, model, b, steps=3, progress=False)
    >>> list(found)
    ['barrier', 'alignment', 'barrier_aligned']
    """
    kind, given = _kind(align, curve, bends), _symmetries(symmetries)
    check(definition, None, 1.0, 0, seed)
    first_places(steps)
    trained_on = objective if fit is None else fit
    training: dict[str, Any] = {"batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    if kind is not None:
        check_fit(trained_on, None, kind, "expected_loss", **training)
    line = _line(objective, a, b)
    options = {"definition": definition, "steps": steps, "batch_norm": batch_norm, "seed": seed, "progress": progress}
    sets = {"train": objective} if test is None else {"train": objective, "test": test}
    attrs = _choices(objective, a, b)
    run = _Parts(sets, options, keep or _compute, None if folder is None else make_folder(Path(folder)), attrs)
    run.add_barriers("barrier", LINE, line)
    if align != "none":
        state = run.add_with_weights(
            "alignment",
            ALIGNED_FILE,
            partial(_aligned, objective, a, b, method=align, symmetries=given, seed=seed),
        )
        run.add_barriers("barrier_aligned", ALIGNED, Segment(line.a, objective.end_of(state)))
    if kind is not None:
        training |= {"epochs": epochs, "folder": None if run.folder is None else run.folder / TRAINING_FOLDER}
        fitted = partial(_fitted, trained_on, a, b, curve=kind, progress=progress, **training)
        state = run.add_with_weights("connection", CURVE_FILE, fitted)
        run.add_barriers("barrier_curve", PATH_NAMES[type(kind).__name__], kind.through(state["points"].to(line.a)))
    if plane_steps:
        shown_on = objective if picture is None else picture
        for name, plane in zip(PLANES, planes(shown_on, run.paths), strict=False):
            run.add(name, partial(plane, steps=plane_steps, progress=progress))
    return run.results


@dataclass(frozen=True)
class _Parts:
    """What the parts of one call share, and its results and paths so far."""

    sets: Mapping[str, Objective]
    options: Mapping[str, Any]
    keep: Keep
    folder: Path | None
    attrs: Mapping[str, str]
    results: dict[str, xr.Dataset] = field(default_factory=dict)
    paths: dict[str, Curve] = field(default_factory=dict)

    def add(self, name: str, compute: Callable[[], xr.Dataset]) -> None:
        self.results[name] = self.keep(name, lambda: compute().assign_attrs(self.attrs))

    def add_barriers(self, name: str, path: str, curve: Curve) -> None:
        """On every data set; ``path`` is what the curve is called."""
        self.paths[path] = curve
        for split, objective in self.sets.items():
            suffix = "_test" if split == "test" else ""
            self.add(name + suffix, partial(_barrier, objective, curve, split, path=path, **self.options))

    def add_with_weights(self, name: str, file: str, compute: Callable[[], tuple[xr.Dataset, State]]) -> State:
        """The weights that belong to the result: as they are computed now, or as an earlier call wrote them."""
        computed: list[State] = []

        def written() -> xr.Dataset:
            dataset, state = compute()
            if self.folder is not None:
                write_state(state, self.folder / file)
            computed.append(state)
            return dataset

        self.add(name, written)
        if computed:
            return computed[0]
        if self.folder is None:
            raise InputError(f"keep has an earlier result {name!r}, and no folder its weights: give folder= too.")
        return read_state(self.folder / file)


def planes(objective: Objective, paths: Mapping[str, Curve]) -> list[Callable[..., xr.Dataset]]:
    """What measures the plane of the curve, and that of the alignment, of those that are among the paths.

    Neither holds the other's path, which is far from it.
    """
    line = paths[LINE]
    ends = {"first network": line.point(0.0), "second network": line.point(1.0)}
    found: list[Callable[..., xr.Dataset]] = []
    for name, path in paths.items():
        if isinstance(path, ParametricCurve):
            found.insert(0, _of_curve(objective, {LINE: line, name: path}, ends, points_of(path)[1:-1]))
        elif name == ALIGNED:
            found.append(_of_alignment(objective, {LINE: line, name: path}, ends, path.point(1.0)))
    return found


def _of_curve(
    objective: Objective, paths: Mapping[str, Curve], ends: Mapping[str, Tensor], bends: Tensor
) -> Callable[..., xr.Dataset]:
    """The plane through both networks and the middle bend."""
    marks = {"bend" if len(bends) == 1 else f"bend {i}": bend for i, bend in enumerate(bends, start=1)}
    return partial(connectivity_plane, objective, paths, {**ends, **marks}, bends[len(bends) // 2])


def _of_alignment(
    objective: Objective, paths: Mapping[str, Curve], ends: Mapping[str, Tensor], aligned: Tensor
) -> Callable[..., xr.Dataset]:
    """The plane through both networks and the second one aligned.

    Where the alignment leaves it as it is, these are two points, and the plane's second axis is a random direction.
    """
    marks, third = {**ends, "second network, aligned": aligned}, aligned
    if torch.equal(third, ends["second network"]):
        third = third + random_directions(objective, 1, seed=0)[0]
    return partial(connectivity_plane, objective, paths, marks, third)


def points_of(curve: ParametricCurve) -> Tensor:
    """``(bends + 2, n)``, of a curve that is fitted."""
    assert curve.points is not None
    return curve.points


def _line(objective: Objective, a: Source, b: Source) -> Segment:
    line = Segment(objective.end_of(a), objective.end_of(b))
    if torch.equal(line.a, line.b):
        first, second = (end if isinstance(end, str | Path) else name for name, end in (("a", a), ("b", b)))
        raise InputError(f"{first} and {second} are the same point: give the weights of two different models.")
    return line


def _choices(objective: Objective, *sources: Source) -> dict[str, str]:
    """What was taken of the files that were given, where there was a choice."""
    choices, files = objective.function.choices, [str(source) for source in sources if isinstance(source, str | Path)]
    told = [f"{file}: {choices[file]}" for file in files if file in choices]
    return {"weights": "; ".join(told)} if told else {}


def _kind(align: str, curve: str, bends: int) -> ParametricCurve | None:
    """The kind of curve asked for, after a check of both choices."""
    for name, value, choices in (("align", align, get_args(Align)), ("curve", curve, get_args(CurveName))):
        if value not in choices:
            raise InputError(f"{name}={value!r}: choose one of {', '.join(choices)}.")
    return None if curve == "none" else CURVES[curve](bends=bends)


def _symmetries(given: Given | str | Path | None) -> Given | None:
    """What was given, read from a file where it is the path of one."""
    if not isinstance(given, str | Path):
        return given
    try:
        found: Given = yaml.safe_load(Path(given).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{given} cannot be read as YAML ({' '.join(str(error).split())}).") from None
    return found


def _barrier(objective: Objective, curve: Curve, split: str, **options: Any) -> xr.Dataset:
    return barrier(objective, curve, **options).assign_attrs(split=split)


def _aligned(objective: Objective, a: Source, b: Source, **options: Any) -> tuple[xr.Dataset, State]:
    found = alignment.align(objective, a, b, **options)
    return found.summary, found.state_dict


def _fitted(objective: Objective, a: Source, b: Source, **options: Any) -> tuple[xr.Dataset, State]:
    found = connect(objective, a, b, profile_steps=0, **options)  # the barriers may be on other data
    return found.training, {"points": points_of(found.curve)}


def _compute(_: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
    return compute()
